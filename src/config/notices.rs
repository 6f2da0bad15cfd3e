//! Notices about settings that are valid but look like mistakes.

use super::{
    AuthConfig, ClientAuthMethod, ClientConfig, ConfigError, Fault, IdentitySource, IssuerConfig,
};
use crate::identity::ClaimPath;

impl AuthConfig {
    /// Returns whether this build has `feature`.
    pub(super) fn is_built_with(feature: &str) -> bool {
        [
            ("exchange", cfg!(feature = "exchange")),
            ("endpoints", cfg!(feature = "endpoints")),
            ("redis", cfg!(feature = "redis")),
            ("trust", cfg!(feature = "trust")),
        ]
        .contains(&(feature, true))
    }

    /// Adds notices about settings whose cargo feature is not enabled.
    pub(crate) fn add_notices_of_unused_settings(&mut self) {
        for notice in self.unused_settings(Self::is_built_with) {
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        }
    }

    /// Returns notices about settings whose cargo feature is not enabled.
    pub(super) fn unused_settings(&self, is_built_with: impl Fn(&str) -> bool) -> Vec<String> {
        let (client, endpoints) = (&self.client, &self.endpoints);
        // Introspection uses the credentials of the client, too.
        let only_exchanges = self.issuers.iter().all(|issuer| issuer.introspection.is_none());
        let has_auth = client.auth != ClientConfig::default().auth;
        let settings = [
            ("exchange", "client.id", only_exchanges && client.id.is_some()),
            ("exchange", "client.secret", only_exchanges && client.secret.is_some()),
            ("exchange", "client.secret_file", only_exchanges && client.secret_file.is_some()),
            ("exchange", "client.auth", only_exchanges && has_auth),
            ("exchange", "client.key_file", only_exchanges && client.key_file.is_some()),
            ("exchange", "client.key_id", only_exchanges && client.key_id.is_some()),
            ("exchange", "client.token_url", client.token_url.is_some()),
            ("exchange", "client.authorization_url", client.authorization_url.is_some()),
            ("exchange", "client.revocation_url", client.revocation_url.is_some()),
            ("exchange", "client.end_session_url", client.end_session_url.is_some()),
            ("exchange", "client.tenant_parameter", client.tenant_parameter.is_some()),
            (
                "exchange",
                "client.exchange_grant",
                client.exchange_grant != ClientConfig::default().exchange_grant,
            ),
            ("exchange", "client.requested_token_type", client.requested_token_type.is_some()),
            ("exchange", "client.default_lifetime_seconds", client.default_lifetime.is_some()),
            ("endpoints", "client.trusted_audiences", !client.trusted_audiences.is_empty()),
            ("exchange", "client.accept_extra_scopes", !client.accept_extra_scopes.is_empty()),
            ("exchange", "client.accept_untyped_tokens", client.accept_untyped_tokens),
            ("exchange", "client.accept_non_bearer_tokens", client.accept_non_bearer_tokens),
            ("exchange", "client.insecure_any_audience", client.insecure_any_audience),
            ("exchange", "client.insecure_any_subject", client.insecure_any_subject),
            ("exchange", "client.insecure_any_service_tenant", client.insecure_any_service_tenant),
            ("exchange", "client.insecure_unreadable_claims", client.insecure_unreadable_claims),
            ("exchange", "client.insecure_outlive_subject", client.insecure_outlive_subject),
            ("exchange", "client.ca_file", client.ca_file.is_some()),
            ("exchange", "client.cache_keys", client.cache_keys.is_some()),
            ("exchange", "client.cache_keys_file", client.cache_keys_file.is_some()),
            ("redis", "client.redis_url", client.redis_url.is_some()),
            ("redis", "client.redis_url_file", client.redis_url_file.is_some()),
            ("redis", "client.insecure_spend_without_lock", client.insecure_spend_without_lock),
            ("endpoints", "endpoints.redirect_uri", endpoints.redirect_uri.is_some()),
            ("endpoints", "endpoints.prefix", endpoints.prefix.is_some()),
            ("endpoints", "endpoints.landing", endpoints.landing.is_some()),
            ("endpoints", "endpoints.failure_page", endpoints.failure_page.is_some()),
            ("endpoints", "endpoints.redirect_navigation", endpoints.redirect_navigation),
            ("endpoints", "endpoints.cookie_name", endpoints.cookie_name.is_some()),
            ("endpoints", "endpoints.scopes", endpoints.scopes.is_some()),
            ("endpoints", "endpoints.sign_in_parameters", !endpoints.sign_in_parameters.is_empty()),
            ("endpoints", "endpoints.form_post", endpoints.form_post),
            (
                "endpoints",
                "endpoints.session_identity",
                endpoints.session_identity != IdentitySource::default(),
            ),
            ("endpoints", "endpoints.session_store", endpoints.session_store.is_some()),
            ("endpoints", "endpoints.session_idle_seconds", endpoints.session_idle.is_some()),
            ("endpoints", "endpoints.session_keys", endpoints.session_keys.is_some()),
            ("endpoints", "endpoints.session_keys_file", endpoints.session_keys_file.is_some()),
            (
                "endpoints",
                "endpoints.post_logout_redirect_uri",
                endpoints.post_logout_redirect_uri.is_some(),
            ),
            ("endpoints", "endpoints.register_at_sign_in", endpoints.register_at_sign_in),
            ("endpoints", "endpoints.backchannel_logout", endpoints.backchannel_logout),
            ("endpoints", "endpoints.password_grant", endpoints.password_grant),
            ("trust", "endpoints.trust_file", endpoints.trust_file.is_some()),
            ("trust", "endpoints.trust_store", endpoints.trust_store.is_some()),
            ("trust", "endpoints.trust_admin_scope", endpoints.trust_admin_scope.is_some()),
            (
                "trust",
                "endpoints.trust_tenant_admin_scope",
                endpoints.trust_tenant_admin_scope.is_some(),
            ),
            ("endpoints", "endpoints.trusted_proxies", !endpoints.trusted_proxies.is_empty()),
        ];
        let unused =
            settings.into_iter().filter(|(feature, _, set)| *set && !is_built_with(feature));
        let notice = |(feature, field, _)| {
            let name = self.origin.variable(field).unwrap_or_else(|| String::from(field));
            format!("{name} has no effect: enable the cargo feature `{feature}` of scaikey-auth")
        };
        unused.map(notice).collect()
    }

    /// Returns notices about settings that are valid but probably have another effect than was meant, or none.
    pub(crate) fn doubtful_settings(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let mut doubt = |field: String, problem: &str| doubts.push(Fault::new(field, problem));
        for (nth, issuer) in self.issuers.iter().enumerate() {
            let mut doubt = |field: &str, problem: &str| {
                doubt(format!("issuers[{nth}].{field}"), problem);
            };
            doubt_dotted_names(issuer, &mut doubt);
            self.doubt_overridden(issuer, &mut doubt);
        }
        self.doubt_audiences(&mut doubt);
        self.doubt_client(&mut |field, problem| doubt(field.to_owned(), problem));
        self.doubt_local_revocations(&mut |field, problem| doubt(field.to_owned(), problem));
        let Err(named) = ConfigError::from_faults(doubts) else { return Vec::new() };
        let named = named.named_by(&self.origin);
        named.faults().iter().map(|fault| format!("{} {}", fault.field, fault.problem)).collect()
    }

    /// Reports settings of an issuer that other settings override.
    fn doubt_overridden(&self, issuer: &IssuerConfig, doubt: &mut dyn FnMut(&str, &str)) {
        if issuer.has_lost_claims() {
            doubt(
                "claims",
                "replaces all claims of the preset: to change some of them, use `map_claims`",
            );
        }
        // The token client finds its endpoints by discovery.
        let has_effect = self.client.id.is_some() || !issuer.has_key_source();
        if issuer.gives_discovery_url() && !has_effect {
            doubt(
                "discovery_url",
                "has no effect, because the keys or their URL are set: there is no discovery",
            );
        }
    }

    fn doubt_audiences(&self, doubt: &mut dyn FnMut(String, &str)) {
        for (nth, realm) in self.issuers.iter().enumerate().filter(|(_, it)| it.is_keycloak()) {
            let compares_aud = realm.audience_claims.contains(&ClaimPath::claim("aud"));
            if compares_aud && self.audience_of(realm).iter().any(|name| name == "account") {
                let has_own = !realm.audience.is_empty();
                doubt(
                    if has_own {
                        format!("issuers[{nth}].audience")
                    } else {
                        "audience".to_owned()
                    },
                    "has `account`, which is in nearly every token of a realm of Keycloak, also of those for other services: let an audience mapper add a name of this service to `aud`, and use that",
                );
            }
        }
        let has_own = |issuer: &IssuerConfig| !issuer.audience.is_empty();
        if !self.audience.is_empty() && !self.issuers.is_empty() && self.issuers.iter().all(has_own)
        {
            doubt("audience".to_owned(), "has no effect: every issuer has its own audience");
        }
    }

    /// Reports settings of the token client and of sign-ins that have no effect.
    fn doubt_client(&self, doubt: &mut dyn FnMut(&str, &str)) {
        let (client, endpoints) = (&self.client, &self.endpoints);
        let takes_secret = matches!(client.auth, ClientAuthMethod::Basic | ClientAuthMethod::Post);
        let takes_audience = client.has_workload_token()
            || matches!(client.auth, ClientAuthMethod::PrivateKeyJwt | ClientAuthMethod::Assertion);
        const NO_ASSERTION: &str = "has no effect: only a workload token (`P_WORKLOAD_TOKEN`) and auth = private_key_jwt have an audience";
        let has_key = client.key_file.is_some();
        let has_idle_redis = client.id.is_none() && self.revocation_log.is_none();
        const NO_SECRET: &str =
            "has no effect, because auth (`P_CLIENT_AUTH`) is neither `basic` nor `post`";
        const NO_KEY: &str =
            "has no effect: set auth = private_key_jwt (`P_CLIENT_AUTH=private_key_jwt`)";
        const NO_CLIENT: &str = "has no effect without client.id (`P_CLIENT_ID`), because only the token client stores tokens, and without revocation_log (`P_REVOCATION_LOG`)";
        const NO_SIGN_IN: &str = "has no effect without endpoints.redirect_uri (`P_REDIRECT_URI`): only sign-ins request scopes";
        let without_effect = [
            ("client.secret", client.secret.is_some() && !takes_secret, NO_SECRET),
            ("client.secret_file", client.secret_file.is_some() && !takes_secret, NO_SECRET),
            ("client.key_file", has_key && client.auth != ClientAuthMethod::PrivateKeyJwt, NO_KEY),
            (
                "client.assertion_audience",
                client.assertion_audience.is_some() && !takes_audience,
                NO_ASSERTION,
            ),
            ("client.redis_url", client.redis_url.is_some() && has_idle_redis, NO_CLIENT),
            ("client.redis_url_file", client.redis_url_file.is_some() && has_idle_redis, NO_CLIENT),
            (
                "endpoints.scopes",
                endpoints.scopes.is_some() && endpoints.redirect_uri.is_none(),
                NO_SIGN_IN,
            ),
        ];
        for (field, _, problem) in without_effect.into_iter().filter(|(_, is_idle, _)| *is_idle) {
            doubt(field, problem);
        }
    }
}

/// Reports names of claims that probably are paths.
fn doubt_dotted_names(issuer: &IssuerConfig, doubt: &mut dyn FnMut(&str, &str)) {
    let dotted = issuer.claims.dotted_paths().into_iter();
    let dotted = dotted.map(|(field, pointer)| (format!("claims.{field}"), pointer));
    let audience = issuer.audience_claims.iter().filter_map(ClaimPath::probable_pointer);
    let audience = audience.map(|pointer| ("audience_claims".to_owned(), pointer));
    for (field, pointer) in dotted.chain(audience) {
        let problem = format!(
            "has a dot, so it is the name of one claim: for a member of a claim, write a JSON pointer, {pointer}"
        );
        doubt(&field, &problem);
    }
}
