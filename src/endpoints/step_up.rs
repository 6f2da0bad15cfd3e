//! Sign-ins that a guard asked for (RFC 9470): what `login` requests, and what the ID token must say.

use bytes::Bytes;
use http::{Response, header};

use super::parameters::Parameters;
use super::pending_sign_in::{PendingSignIn, PendingStepUp};
use super::response::{Failure, invalid_request};
use super::{EndpointRequest, Inner};
use crate::error::{AuthError, InvalidToken, StepUp};
use crate::identity::{Identity, TenantId};
use crate::session::StepUpRequest;
use crate::support::base64url;
use crate::support::crypto;
use crate::validator::Authentication;

/// The error code for a sign-in that is too weak or too old (OpenID Connect Core Error Code
/// `unmet_authentication_requirements` 1.0).
pub(super) const UNMET: &str = "unmet_authentication_requirements";

/// The parameters of the authorization request that a guard decides about.
const DECIDED: [&str; 3] = ["acr_values", "max_age", "prompt"];

impl Inner {
    /// Returns the page to return to, and what a guard asked for. Only the session layer can write the latter:
    /// it seals it for this session.
    pub(super) async fn requested_page(
        &self,
        incoming: &EndpointRequest,
        parameters: &Parameters,
    ) -> Result<(Option<String>, Option<PendingStepUp>), Failure> {
        let page = parameters.get("return_to");
        let Some(sealed) = parameters.get("step_up") else {
            return Ok((page.map(str::to_owned), None));
        };
        if page.is_some() {
            return Err(invalid_request(
                "The parameters return_to and step_up exclude each other.",
            ));
        }
        let current = self.current_session(incoming)?;
        let opened = current.and_then(|(sessions, session)| {
            let StepUpRequest { page, needs } = sessions.open_step_up(session, sealed)?;
            let cookie = self.sign_in().ok()?.step_up_cookie();
            let recent = sessions.recent_step_ups(&cookie, &incoming.head.headers);
            Some((page, PendingStepUp { needs, recent, user: None }))
        });
        let opened = match opened {
            None => None,
            Some((page, step_up)) => {
                let caller = self.caller(incoming).await.ok();
                let user = caller.map(|caller| digest_of(caller.identity()));
                Some((page, Some(PendingStepUp { user, ..step_up })))
            }
        };
        // Not redirected to a page, which could refuse the session again, without end.
        opened.ok_or(invalid_request(
            "This link is of another session, was used already, or is older than ten minutes. Please open the page again.",
        ))
    }

    /// Checks that the user signed in as a guard asked (OpenID Connect Core §3.1.3.7, steps 12 and 13). Providers may
    /// ignore `acr_values`, and some ignore `max_age`.
    pub(super) fn check_step_up(
        &self,
        step_up: Option<&PendingStepUp>,
        authentication: &Authentication,
    ) -> Result<(), Failure> {
        let Some(PendingStepUp { needs, .. }) = step_up else { return Ok(()) };
        let (step_up, now) = (needs.step_up(), self.clock().now());
        let Authentication { acr, at } = authentication;
        if step_up.is_met_by(acr.as_deref(), *at, now) {
            return Ok(());
        }
        let class = StepUp { max_age: None, ..step_up };
        let claim = if class.is_met_by(acr.as_deref(), None, now) { "auth_time" } else { "acr" };
        let error = AuthError::from(InvalidToken::MalformedClaim(claim));
        self.sign_in()?.token_warnings.warn("ID token", Some(&error), self.clock().elapsed());
        Err(Failure::OAuth(
            UNMET,
            "The identity provider did not sign the user in as this page requires.",
        ))
    }

    /// Returns the page after a sign-in of this user. Another user than the one whom a guard refused, on a shared
    /// computer for example, gets the landing page: the page of the user before may be in its address.
    pub(super) fn page_after_sign_in(
        &self,
        pending: &PendingSignIn,
        user: &Identity,
    ) -> Result<String, Failure> {
        let before = pending.step_up.as_ref().and_then(|step_up| step_up.user.as_ref());
        match before.is_some_and(|before| *before != digest_of(user)) {
            true => Ok(self.sign_in()?.landing_page()),
            false => Ok(pending.return_to.clone()),
        }
    }

    /// Records for a minute that the browser signed in as a guard asked. If the guard then refuses it again, the
    /// session layer does not lead it to another sign-in.
    pub(super) fn record_step_up(
        &self,
        mut response: Response<Bytes>,
        pending: &PendingSignIn,
    ) -> Response<Bytes> {
        let cookie =
            pending.step_up.as_ref().and_then(|PendingStepUp { needs, recent, .. }| {
                let recent: Vec<_> = recent.iter().chain([needs]).collect();
                self.sessions
                    .as_ref()?
                    .step_up_cookie(&self.sign_in().ok()?.step_up_cookie(), &recent)
            });
        if let Some(cookie) = cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// Returns a digest of issuer, subject and tenant.
fn digest_of(user: &Identity) -> String {
    let tenant = user.tenant_id().map(TenantId::as_str);
    let parts = [user.issuer(), user.subject()].into_iter().chain(tenant);
    base64url::encode(crypto::sha256_of_parts(parts))
}

/// Returns the further parameters of the authorization request: those of the settings, except for those that a guard
/// decides about.
pub(super) fn authorization_parameters(
    settings: &[(String, String)],
    step_up: Option<&PendingStepUp>,
) -> Vec<(String, String)> {
    let is_decided = |name: &String| step_up.is_some() && DECIDED.contains(&name.as_str());
    let configured = settings.iter().filter(|(name, _)| !is_decided(name)).cloned();
    let needed = step_up.into_iter().flat_map(|step_up| step_up.needs.parameters());
    configured.chain(needed.map(|(name, value)| (name.to_owned(), value))).collect()
}
