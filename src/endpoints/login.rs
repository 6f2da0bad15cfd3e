//! `login`: starts and completes sign-ins, and redeems authorization codes.

use bytes::Bytes;
use http::{Method, Response, header};
use url::form_urlencoded;

use super::parameters::{BodyFormat, Parameters};
use super::pending_sign_in::{PendingSignIn, PendingStepUp};
use super::response::{Failure, invalid_request, see_other};
use super::sign_in::RETURN_TO_ELSEWHERE;
use super::step_up::{UNMET, authorization_parameters};
use super::{Endpoint, EndpointRequest, Inner};
use crate::clock::Clock;
use crate::error::{AuthError, InvalidToken};
use crate::exchange::{AccessToken, AuthorizationRequest, CodeRequest, PkceVerifier, subject_of};
use crate::identity::{Identity, Provenance};
use crate::layer::RequestHead;
use crate::session::{SessionId, Sessions, revoke, with_signed_id_token};
use crate::support::media_type::is_form;
use crate::support::seal::SealingKeys;
use crate::support::telemetry;
use crate::validator::{ExpectedIdToken, SessionIdTokens, TokenResponse, verify_id_token};

/// Maximum number of characters of an unverified error code in the log.
const MAX_ERROR_CHARS: usize = 64;

/// Query parameters from a page of the service or from the provider.
const QUERY_PARAMETERS: [&str; 6] = ["return_to", "step_up", "code", "state", "iss", "error"];

/// Parameters of the provider's answer (RFC 6749 §4.1.2, RFC 9207 §2). `error_description` and
/// `error_uri` are ignored, because some providers do not encode them in UTF-8.
const ANSWER_PARAMETERS: [&str; 4] = ["code", "state", "iss", "error"];

/// Body parameters from a client that ran the authorization code flow itself.
const BODY_PARAMETERS: [&str; 4] = ["code", "code_verifier", "redirect_uri", "nonce"];

const DIFFERENT_USERS: Failure =
    Failure::OAuth("invalid_grant", "The access token and the ID token belong to different users.");

impl Inner {
    pub(super) async fn login(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        if incoming.head.method == Method::POST && !self.is_form_post(incoming) {
            return self.redeem_for_client(incoming).await;
        }
        // Every failure leads a browser to the failure page, if there is one.
        let outcome = self.handle_browser(incoming).await;
        Ok(outcome.unwrap_or_else(|failure| self.sign_in_failure_response(incoming, failure)))
    }

    /// Returns whether a POST is the provider's answer to a sign-in of this browser, and not the code of
    /// a client that ran the flow itself.
    fn is_form_post(&self, incoming: &EndpointRequest) -> bool {
        let has = |names: &[&str]| {
            form_urlencoded::parse(&incoming.body).any(|(name, _)| names.contains(&&*name))
        };
        self.sign_in.as_ref().is_some_and(|sign_in| sign_in.form_post)
            && is_form(&incoming.head.headers)
            && has(&["state", "error"])
            && !has(&["code_verifier"])
    }

    async fn handle_browser(&self, incoming: &EndpointRequest) -> Result<Response<Bytes>, Failure> {
        if incoming.head.method == Method::POST {
            // Admitted before its body was read.
            let query = Parameters::from_query(incoming, &ANSWER_PARAMETERS)?;
            if !query.is_empty() {
                return Err(invalid_request("The answer must be in the body, not in the query."));
            }
            let answer = Parameters::from_body(incoming, BodyFormat::Form, &ANSWER_PARAMETERS)?;
            return self.handle_callback(incoming, &answer).await;
        }
        self.admit(Endpoint::Login, &incoming.head, None).await?;
        let parameters = Parameters::from_query(incoming, &QUERY_PARAMETERS)?;
        match ["code", "error", "state"].iter().any(|name| parameters.get(name).is_some()) {
            true => self.handle_callback(incoming, &parameters).await,
            false => self.start_sign_in(incoming, &parameters).await,
        }
    }

    /// Redirects a browser to the provider.
    async fn start_sign_in(
        &self,
        incoming: &EndpointRequest,
        parameters: &Parameters,
    ) -> Result<Response<Bytes>, Failure> {
        let sign_in = self.sign_in()?;
        // Each sign-in may clear the cookie of an older one. Browsers take the new cookie from an image of a
        // page of the same site, and with `form_post` of any site.
        if RequestHead::of_parts(&incoming.head).is_loaded_by_foreign_page() {
            return Err(invalid_request(
                "Pages of other origins must start a sign-in with a link or a redirect.",
            ));
        }
        let (page, step_up) = self.requested_page(incoming, parameters).await?;
        let return_to = match page {
            Some(page) => sign_in.page(&page).ok_or(RETURN_TO_ELSEWHERE)?.to_owned(),
            None => sign_in.landing_page(),
        };
        let verifier = PkceVerifier::generate()?;
        let (prefix, now) = (sign_in.full_cookie_prefix(), self.clock().now());
        let pending = PendingSignIn::new(verifier.secret().expose(), &return_to, now)?;
        let replaced = if sign_in.form_post { self.stored_session(incoming) } else { None };
        let pending = pending.replacing(replaced).stepping_up(step_up);
        let request = AuthorizationRequest::new(sign_in.redirect_uri(), &verifier, &pending.state)
            .scopes(sign_in.scopes.clone())
            .nonce(&pending.nonce);
        let extra = authorization_parameters(&sign_in.extra, pending.step_up.as_ref());
        let request = extra
            .into_iter()
            .fold(request, |request, (name, value)| request.parameter(name, value));
        let request = match sign_in.form_post {
            true => request.parameter("response_mode", "form_post"),
            false => request,
        };
        let url = self.client()?.authorization_url(&request).await?;
        let keys = self.sign_in_keys()?;
        let cookie = pending.cookie(&prefix, sign_in.same_site(), keys, self.clock());
        let cookie = cookie
            .ok_or(Failure::NotConfigured("the cookie of the sign-in could not be created"))?;
        let response = see_other(url.as_str());
        let mut response = response
            .ok_or(Failure::NotConfigured("the authorization URL is not a valid header value"))?;
        let old = PendingSignIn::clear_oldest(&prefix, &incoming.head.headers);
        for cookie in old.into_iter().chain([cookie]) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Handles a browser that returns from the provider. If it started this sign-in, clears the
    /// cookie, whether or not the sign-in succeeds. After an outage the cookie stays, so that the
    /// browser can send the callback again: the tokens are not revoked either.
    async fn handle_callback(
        &self,
        incoming: &EndpointRequest,
        parameters: &Parameters,
    ) -> Result<Response<Bytes>, Failure> {
        let (sign_in, keys) = (self.sign_in()?, self.sign_in_keys()?);
        let (prefix, state) =
            (sign_in.full_cookie_prefix(), parameters.get("state").unwrap_or_default());
        let headers = &incoming.head.headers;
        let Some(pending) = PendingSignIn::find(&prefix, state, headers, keys, self.clock()) else {
            // Most likely the user pressed the back button, or the browser sent the callback twice.
            if self.has_session(incoming).await {
                let landing = see_other(&sign_in.landing_page());
                return landing
                    .ok_or(Failure::NotConfigured("the landing path is not a valid header value"));
            }
            // An attacker may have written the URL, so not even its error is shown.
            return Err(invalid_request(
                "This sign-in is already completed, was started in another browser, or is older \
                 than ten minutes. Please sign in again.",
            ));
        };
        let replaced = self.stored_session(incoming).or_else(|| pending.replaced());
        let outcome = match self.authorization_code(parameters).await {
            Ok(code) => self.complete_sign_in(code, &pending, replaced).await,
            Err(failure) => Err(failure),
        };
        let outcome = outcome.map(|response| self.record_step_up(response, &pending));
        let is_over = !matches!(&outcome, Err(failure) if failure.is_unavailable());
        let mut response =
            outcome.unwrap_or_else(|failure| self.sign_in_failure_response(incoming, failure));
        if is_over && let Some(cookie) = PendingSignIn::clear(&prefix, state) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Returns the session of the browser in the store.
    fn stored_session(&self, incoming: &EndpointRequest) -> Option<SessionId> {
        let (_, session) = self.current_session(incoming).ok().flatten()?;
        Sessions::stored_id(session)
    }

    /// Returns whether the browser has a session whose token is valid.
    async fn has_session(&self, incoming: &EndpointRequest) -> bool {
        matches!(self.current_session(incoming), Ok(Some(_))) && self.caller(incoming).await.is_ok()
    }

    /// Returns the code if the expected provider issued it (RFC 9207 §2.4), or the provider's
    /// error.
    async fn authorization_code<'p>(&self, parameters: &'p Parameters) -> Result<&'p str, Failure> {
        let client = self.client()?;
        match parameters.get("iss") {
            Some(issuer) if issuer != client.issuer() => {
                return Err(invalid_request("The response came from another identity provider."));
            }
            None if client.supports_iss_parameter().await? => {
                return Err(invalid_request(
                    "The response of the identity provider has no parameter iss.",
                ));
            }
            _ => {}
        }
        if let Some(error) = parameters.get("error") {
            telemetry::sign_in_refused(&printable(error));
            let description = "The sign-in was not completed.";
            return Err(Failure::OAuth(known_error_code(error), description));
        }
        parameters.required("code", "The parameter code is missing.")
    }

    /// Redeems the code. Then starts a session and redirects to `return_to`, or returns the tokens. `replaced` is
    /// the session in the store that the browser has.
    async fn complete_sign_in(
        &self,
        code: &str,
        pending: &PendingSignIn,
        replaced: Option<SessionId>,
    ) -> Result<Response<Bytes>, Failure> {
        let verifier = PkceVerifier::parse(&pending.verifier);
        let verifier = verifier.ok_or(Failure::NotConfigured("the PKCE verifier is invalid"))?;
        let request = CodeRequest::new(code, self.sign_in()?.redirect_uri(), verifier);
        // A browser may send one callback twice. Both requests succeed, and the code is redeemed
        // once.
        let request = request.allow_repeats().by_anonymous_caller();
        let token = self.client()?.authorization_code(&request).await?;
        let (nonce, step_up) = (Some(pending.nonce.as_str()), pending.step_up.as_ref());
        let outcome = match self.check_id_token(&token, nonce, step_up).await {
            Ok(token) => self.start_session(&token, pending, replaced).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            // A repeated callback may still start a session with these tokens, so they are not
            // revoked.
            Err(failure) if failure.is_unavailable() => Err(failure),
            outcome => self.revoke_on_failure(outcome, &token).await,
        }
    }

    /// Starts a session and redirects to `return_to`, or fails if this service does not accept the
    /// access token. Without sessions, returns the tokens.
    async fn start_session(
        &self,
        token: &AccessToken,
        pending: &PendingSignIn,
        replaced: Option<SessionId>,
    ) -> Result<Response<Bytes>, Failure> {
        let Some(sessions) = &self.sessions else { return self.tokens_if_admitted(token).await };
        let (identity, session) = match sessions.id_tokens() {
            None => {
                let identity = self.check_access_token(token).await?;
                (identity, sessions.until_own_expiry(token.clone()))
            }
            Some(id_tokens) => {
                let identity = self.check_identity(token, id_tokens).await?;
                let session = sessions.until_expiry_of(&identity, token.clone());
                (identity, session)
            }
        };
        let response = see_other(&self.page_after_sign_in(pending, &identity)?);
        let mut response =
            response.ok_or(Failure::NotConfigured("return_to is not a valid header value"))?;
        let started = sessions.start(session, &identity).await?;
        let started =
            started.ok_or(Failure::NotConfigured("the tokens do not fit into a session"))?;
        for cookie in &started.cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie.clone());
        }
        // Last, so that only a sign-in that succeeds registers a user and ends the session before.
        let finish = async {
            self.register_at_sign_in(&identity, token).await?;
            if let Some(replaced) = replaced {
                sessions.end_replaced(&replaced).await?;
            }
            sessions.end_surplus(&identity);
            Ok(())
        };
        if let Err(failure) = finish.await {
            sessions.discard(&started).await;
            return Err(failure);
        }
        Ok(response)
    }

    /// Checks that this service accepts the access token, which is the session's credential, and
    /// that the admission checks pass. Returns the identity in the token.
    async fn check_access_token(&self, token: &AccessToken) -> Result<Identity, Failure> {
        let identity = self.auth.validate(token.secret().expose()).await;
        let identity = self.accepted("access token", identity)?;
        self.check_unreadable(&identity, token)?;
        self.auth.admit(&identity).await?;
        Ok(identity)
    }

    /// Checks that the ID token names a user, and that the admission checks pass. Returns the identity in it.
    async fn check_identity(
        &self,
        token: &AccessToken,
        id_tokens: &SessionIdTokens,
    ) -> Result<Identity, Failure> {
        let missing = Failure::OAuth("invalid_grant", "The identity provider sent no ID token.");
        let id_token = token.id_token().ok_or(missing)?;
        let identity = self.accepted("ID token", id_tokens.identity(id_token.expose()).await)?;
        self.auth.admit(&identity).await?;
        Ok(identity)
    }

    /// Returns the identity of a token of a sign-in, or logs why the token is refused.
    fn accepted(
        &self,
        token: &'static str,
        identity: Result<Identity, AuthError>,
    ) -> Result<Identity, Failure> {
        identity.or_else(|error| {
            if error.is_unavailable() {
                return Err(error.into());
            }
            let now = self.clock().elapsed();
            self.sign_in()?.token_warnings.warn(token, Some(&error), now);
            Err(Failure::NotConfigured("this service does not accept the provider's access token"))
        })
    }

    /// Checks that an access token which the client cannot read, because it is opaque or encrypted, is that of the
    /// user of the ID token.
    fn check_unreadable(&self, identity: &Identity, token: &AccessToken) -> Result<(), Failure> {
        let client = self.client()?;
        let id_token = token.id_token().and_then(|it| subject_of(it, client.claims_mapping()));
        let is_other = id_token.is_some_and(|subject| subject != identity.subject());
        let is_encrypted = token.secret().expose().split('.').count() == 5;
        let is_unreadable = is_encrypted || identity.provenance() == Provenance::Introspected;
        if is_unreadable && is_other && !client.accepts_any_subject() {
            let error = InvalidToken::MalformedClaim("sub").into();
            let now = self.clock().elapsed();
            self.sign_in()?.token_warnings.warn("ID token", Some(&error), now);
            return Err(DIFFERENT_USERS);
        }
        Ok(())
    }

    /// Returns the tokens if the admission checks pass. An access token that this service does not
    /// accept yields no identity to check, so its tokens are returned, unless each user must be
    /// registered.
    async fn tokens_if_admitted(&self, token: &AccessToken) -> Result<Response<Bytes>, Failure> {
        if self.registers_at_sign_in {
            let identity = self.check_access_token(token).await?;
            self.register_at_sign_in(&identity, token).await?;
        } else if self.auth.has_admission_checks() {
            match self.auth.validate(token.secret().expose()).await {
                Ok(identity) => self.auth.admit(&identity).await?,
                Err(error) if error.is_unavailable() => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(self.token_response(token))
    }

    /// Revokes the tokens of a failed sign-in, because no user receives them.
    async fn revoke_on_failure<T>(
        &self,
        outcome: Result<T, Failure>,
        token: &AccessToken,
    ) -> Result<T, Failure> {
        if let (Err(_), Some(token)) = (&outcome, token.refresh_token()) {
            // `revoke` logs its own failure. The response reports why the sign-in failed.
            let _ = revoke(self.client()?, token).await;
        }
        outcome
    }

    /// Redeems the code of a client that ran the authorization code flow itself.
    async fn redeem_for_client(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let sign_in = self.sign_in()?;
        let parameters = Parameters::from_body(incoming, BodyFormat::FormOrJson, &BODY_PARAMETERS)?;
        let code = parameters.required("code", "The parameter code is missing.")?;
        let redirect_uri = parameters.get("redirect_uri").unwrap_or(sign_in.redirect_uri());
        if !sign_in.redirect_uris.iter().any(|known| known == redirect_uri) {
            return Err(invalid_request(
                "The redirect_uri is not one of this service's redirect URIs.",
            ));
        }
        let request = match parameters.get("code_verifier").map(PkceVerifier::parse) {
            Some(Some(verifier)) => CodeRequest::new(code, redirect_uri, verifier),
            Some(None) => return Err(invalid_request("The code_verifier is malformed.")),
            None if sign_in.codes_without_pkce => CodeRequest::without_pkce(code, redirect_uri),
            None => return Err(invalid_request("The parameter code_verifier is missing.")),
        };
        let token = self.client()?.authorization_code(&request.by_anonymous_caller()).await?;
        let outcome = match self.check_id_token(&token, parameters.get("nonce"), None).await {
            Ok(token) => self.tokens_if_admitted(&token).await,
            Err(failure) => Err(failure),
        };
        self.revoke_on_failure(outcome, &token).await
    }

    /// Verifies that the ID token belongs to this sign-in, and is as a guard asked. With the scope `openid`, or if a
    /// guard asked for the sign-in, a missing ID token is an error. Returns the tokens; an encrypted ID token is
    /// replaced by the signed one inside.
    async fn check_id_token(
        &self,
        token: &AccessToken,
        nonce: Option<&str>,
        step_up: Option<&PendingStepUp>,
    ) -> Result<AccessToken, Failure> {
        let (client, sign_in, now) = (self.client()?, self.sign_in()?, self.clock().elapsed());
        let token = with_signed_id_token(&self.auth, client, token).map_err(|error| {
            let error = AuthError::from(error);
            sign_in.token_warnings.warn("ID token", Some(&error), now);
            error
        })?;
        let Some(id_token) = token.id_token() else {
            if !sign_in.scopes.contains("openid") && step_up.is_none() {
                return Ok(token);
            }
            sign_in.token_warnings.warn("ID token", None, now);
            return Err(Failure::OAuth("invalid_grant", "The identity provider sent no ID token."));
        };
        let rules = ExpectedIdToken {
            issuer: client.issuer(),
            client_id: client.client_id(),
            trusted_audiences: client.trusted_audiences(),
            response: Some(TokenResponse { nonce, access_token: token.secret().expose() }),
        };
        let (issuers, clock) = (self.auth.issuers(), self.clock());
        let verified = verify_id_token(issuers, clock, id_token.expose(), &rules).await;
        let authentication = verified.inspect_err(|error| {
            if !error.is_unavailable() {
                sign_in.token_warnings.warn("ID token", Some(error), now);
            }
        })?;
        self.check_step_up(step_up, &authentication)?;
        // A session that ended at the provider meanwhile starts none here. The time of issue counts, not `auth_time`:
        // whether a user may sign in again without a password is the provider's decision.
        self.refuse_revoked(id_token, client.claims_mapping()).await?;
        let subject = |token| subject_of(token, client.claims_mapping());
        match (subject(token.secret()), subject(id_token)) {
            (Some(one), Some(other)) if one != other && !client.accepts_any_subject() => {
                let error = InvalidToken::MalformedClaim("sub").into();
                sign_in.token_warnings.warn("ID token", Some(&error), now);
                Err(DIFFERENT_USERS)
            }
            _ => Ok(token),
        }
    }

    fn sign_in_failure_response(
        &self,
        incoming: &EndpointRequest,
        failure: Failure,
    ) -> Response<Bytes> {
        self.browser_failure_response(Endpoint::Login, &incoming.head, failure)
    }

    pub(super) fn sign_in_keys(&self) -> Result<&SealingKeys, Failure> {
        let keys = self.sign_in()?.keys.as_ref();
        keys.ok_or(Failure::NotConfigured("sign-ins have no keys"))
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &**self.auth.clock()
    }
}

/// Returns the error code if it is one that a user or page can act on (RFC 6749 §4.1.2.1, OpenID
/// Connect Core §3.1.2.6, Unmet Authentication Requirements 1.0), or `server_error`: other texts may come from an
/// attacker.
fn known_error_code(error: &str) -> &'static str {
    const CODES: [&str; 10] = [
        "access_denied",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "consent_required",
        "interaction_required",
        "account_selection_required",
        "temporarily_unavailable",
        "unauthorized_client",
        UNMET,
    ];
    // Apple has its own code for a user who cancels.
    let error = if error == "user_cancelled_authorize" { "access_denied" } else { error };
    CODES.into_iter().find(|code| *code == error).unwrap_or("server_error")
}

fn printable(error: &str) -> String {
    error.chars().filter(char::is_ascii_graphic).take(MAX_ERROR_CHARS).collect()
}
