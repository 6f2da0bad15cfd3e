//! The questions of administrators to a [`TrustEvaluator`]: explanations, decisions of late, and use.

use super::decisions::{Decision, DecisionFilter, TrustUsage};
use super::dry_run::DryRun;
use super::evaluator::TrustEvaluator;
use super::explain::Explanation;
use super::fault::{PolicyError, Position};
use super::policy::TrustPolicy;
use super::verification::Verification;
use crate::support::off_thread::off_thread;

impl TrustEvaluator {
    /// Explains which rule matches a token, or why none does. Show the text to administrators only,
    /// and do not log it, because it quotes the policy and claims of the token. It contains neither
    /// the token nor its signature.
    ///
    /// Requested scopes and earlier use are not checked, and the token does not count as used.
    pub async fn explain(&self, token: &str, trust_id: Option<&str>) -> Explanation {
        let loaded = self.follow().await;
        Explanation::of(self.verify(&loaded, trust_id, token).await)
    }

    /// Explains a token as [`explain`](Self::explain) does, under a policy that is not in force. The keys of unchanged
    /// trusts are not fetched again. Files with keys that other trusts name are read on a thread that may block.
    ///
    /// # Errors
    /// All faults of the files that the policy names; or if it lists an issuer of this service.
    pub async fn explain_with(
        &self,
        policy: &TrustPolicy,
        token: &str,
        trust_id: Option<&str>,
    ) -> Result<Explanation, PolicyError> {
        let (inner, policy) = (self.0.clone(), policy.clone());
        let compiled = off_thread(move || inner.compile(policy, &inner.loaded.load())).await;
        let not_compiled = |error: tokio::task::JoinError| {
            PolicyError::one(Position::default(), "the policy", format!("was not read: {error}"))
        };
        let loaded = compiled.map_err(not_compiled)??;
        Ok(Explanation::of(self.verify(&loaded, trust_id, token).await))
    }

    /// Explains which rule matches a token with these claims, a JSON object of at most 64 KiB.
    ///
    /// *Not* checked: signature, times and lifetime, requested scopes and earlier use. So the explanation is never
    /// [verified](Explanation::is_verified), and the claims may be those of an expired token. As those of a token, they
    /// need `iss` (or a SPIFFE ID), `aud` and `sub`.
    ///
    /// ```
    /// use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), scaikey_auth::trust::PolicyError> {
    /// let policy = TrustPolicy::from_toml(
    ///     r#"
    ///     [[trust]]
    ///     id = "ci"
    ///     issuer = "https://ci.example"
    ///     audiences = ["scaivault"]
    ///     [[trust.grant]]
    ///     name = "deploy"
    ///     subject = "project:7:deploy"
    ///     map = { identity = "sa:deploy", tenant = "acme", scopes = ["secrets:read"] }
    ///     "#,
    /// )?;
    /// let trusts = TrustEvaluator::builder().policy(policy).build()?;
    /// let claims = r#"{ "iss": "https://ci.example", "aud": "scaivault", "sub": "project:8:deploy" }"#;
    /// let explanation = trusts.explain_claims(claims, None).await;
    /// assert_eq!(explanation.denial().map(|reason| reason.as_str()), Some("grant_none"));
    /// println!("{}", explanation.rules()[0].problem.as_deref().unwrap_or("matches"));
    /// # Ok(()) }
    /// ```
    pub async fn explain_claims(&self, claims: &str, trust_id: Option<&str>) -> Explanation {
        let loaded = self.follow().await;
        match loaded.is_missing {
            true => Explanation::of(self.verify(&loaded, trust_id, "").await),
            false => self.explain_claims_with(&loaded.policy, claims, trust_id),
        }
    }

    /// Explains claims as [`explain_claims`](Self::explain_claims) does, under a policy that is not in force. Does no
    /// I/O.
    pub fn explain_claims_with(
        &self,
        policy: &TrustPolicy,
        claims: &str,
        trust_id: Option<&str>,
    ) -> Explanation {
        let now = self.0.clock.now();
        Explanation::of(Verification::of_claims(policy, trust_id, claims, now))
    }

    /// Returns the decisions of late that `filter` selects, the latest first: of the last 1,000 about tokens whose
    /// signature was verified, and of the last 200 others. Only those of this process.
    pub fn decisions(&self, filter: &DecisionFilter) -> Vec<Decision> {
        self.0.decisions.selected(filter).iter().map(|record| record.decision.clone()).collect()
    }

    /// Judges the decisions of late that `filter` selects once more, by a policy that is not in force: each as of its
    /// own time, with the trust that its caller named, the requested scopes, and the answer of the log of used tokens.
    /// Changes nothing.
    ///
    /// An outcome that depends on something that was not recorded counts as [unknown](DryRun::unknown): if the policy
    /// has another issuer, other keys or fewer algorithms for the token; if it asks for the first use
    /// (`single_use_jti`) of a token for which the log was not asked; if claims, requested scopes and trust id together
    /// exceed 8 KiB. A token that was denied before its signature was verified is never reported as a change; it is
    /// unknown if the policy has other settings for it, or a trust that has not ended yet. *Not* compared: names of
    /// trusts and rules, and the expiry.
    ///
    /// It makes at most 500,000 comparisons of a token with a rule, and [skips](DryRun::skipped) the earliest decisions
    /// then. That may take a good part of a second, so call it on a thread that may block (`spawn_blocking`).
    pub fn dry_run(&self, policy: &TrustPolicy, filter: &DecisionFilter) -> DryRun {
        let records = self.0.decisions.selected(filter);
        DryRun::of(policy, records.iter().map(|record| &**record))
    }

    /// Returns how often each trust of the policy was used, in the order of the policy. Only the use in this process.
    pub fn usage(&self) -> Vec<TrustUsage> {
        let loaded = self.0.loaded.load();
        loaded.trusts.iter().map(|it| it.usage.of_trust(&it.trust.id)).collect()
    }
}
