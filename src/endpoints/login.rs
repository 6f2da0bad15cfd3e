//! `login`: the only place where codes are redeemed.

use bytes::Bytes;
use http::{Method, Response, header};

use super::answer::{Failure, invalid_request, see_other};
use super::parameters::{Parameters, Reads};
use super::sign_in::is_own_path;
use super::transaction::Transaction;
use super::{Asked, Endpoint, Inner};
use crate::clock::Clock;
use crate::exchange::{
    AccessToken, AuthorizationRequest, CodeRequest, ExchangeError, OAuthError, PkceVerifier,
};
use crate::session::SessionKeys;
use crate::telemetry;
use crate::validator::{IdTokenRules, verify_id_token};

/// So much of a stranger's error code goes into the log.
const LONGEST_ERROR: usize = 64;

/// What a browser brings: from a page of the service, or from the provider (RFC 6749 §4.1.2,
/// RFC 9207 §2).
const IN_QUERY: [&str; 7] =
    ["return_to", "code", "state", "iss", "error", "error_description", "error_uri"];

/// What a client brings that began by itself.
const IN_BODY: [&str; 4] = ["code", "code_verifier", "redirect_uri", "nonce"];

impl Inner {
    pub(super) async fn login(&self, asked: &Asked) -> Result<Response<Bytes>, Failure> {
        if asked.head.method == Method::POST {
            return self.redeem(asked).await;
        }
        self.admit(Endpoint::Login, &asked.head, None)?;
        let parameters = Parameters::of_query(asked, &IN_QUERY)?;
        match ["code", "error", "state"].iter().any(|name| parameters.get(name).is_some()) {
            true => self.come_back(asked, &parameters).await,
            false => self.leave(asked, &parameters).await,
        }
    }

    /// Sends a browser to the provider.
    async fn leave(
        &self,
        asked: &Asked,
        parameters: &Parameters,
    ) -> Result<Response<Bytes>, Failure> {
        let sign_in = self.sign_in()?;
        let return_to = parameters.get("return_to").unwrap_or(&sign_in.landing);
        if !is_own_path(return_to) {
            return Err(invalid_request("The parameter return_to must be a path of this host."));
        }
        let verifier = PkceVerifier::generate()?;
        let begun = Transaction::new(verifier.secret().expose(), return_to)?;
        let request = AuthorizationRequest::new(sign_in.redirect_uri(), &verifier, &begun.state)
            .scopes(sign_in.scopes.clone())
            .nonce(&begun.nonce);
        let request =
            sign_in.extra.iter().fold(request, |request, (name, value)| request.with(name, value));
        let url = self.client()?.authorization_url(&request).await?;
        let cookie = begun.cookie(self.sign_in_keys()?, self.clock());
        let cookie = cookie.ok_or(Failure::NotConfigured("the sign-in could not be sealed"))?;
        let response = see_other(url.as_str());
        let mut response = response.ok_or(Failure::NotConfigured("the provider's URL is odd"))?;
        let old = Transaction::clear_many(&asked.head.headers);
        for cookie in old.into_iter().chain([cookie]) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// A browser is back from the provider, or somebody says so. Its cookie of this sign-in is
    /// taken away whatever comes of it.
    async fn come_back(
        &self,
        asked: &Asked,
        parameters: &Parameters,
    ) -> Result<Response<Bytes>, Failure> {
        let (sign_in, keys) = (self.sign_in()?, self.sign_in_keys()?);
        let state = parameters.get("state").unwrap_or_default();
        let begun = Transaction::find(state, &asked.head.headers, keys, self.clock());
        // Without it, whatever else is said is somebody else's: not even an error is shown.
        let begun = begun.ok_or(invalid_request(
            "This sign-in was not begun in this browser, or more than ten minutes ago.",
        ))?;
        let outcome = match self.code_of(parameters).await {
            Ok(code) => self.arrive(code, &begun).await,
            Err(failure) => Err(failure),
        };
        let failed = |failure| self.sign_in_failed(sign_in.failure_page.as_deref(), failure);
        let mut response = outcome.unwrap_or_else(failed);
        if let Some(cookie) = Transaction::clear(state) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// The code, if it is the provider's that was asked (RFC 9207 §2.4), or why there is none.
    async fn code_of<'p>(&self, parameters: &'p Parameters) -> Result<&'p str, Failure> {
        let client = self.client()?;
        match parameters.get("iss") {
            Some(issuer) if issuer != client.issuer() => {
                return Err(invalid_request("The answer came from another provider."));
            }
            None if client.provider_names_itself().await => {
                return Err(invalid_request("The answer does not say which provider it is from."));
            }
            _ => {}
        }
        if let Some(error) = parameters.get("error") {
            telemetry::sign_in_refused(&printable(error));
            let described = "The sign-in was not completed.";
            return Err(Failure::OAuth(known(error), described));
        }
        parameters.required("code", "The parameter code is missing.")
    }

    /// From the code to where the browser wanted to go, or to the tokens.
    async fn arrive(&self, code: &str, begun: &Transaction) -> Result<Response<Bytes>, Failure> {
        let verifier = PkceVerifier::kept(&begun.verifier);
        let verifier = verifier.ok_or(Failure::NotConfigured("the verifier was lost"))?;
        let request = CodeRequest::new(code, self.sign_in()?.redirect_uri(), verifier);
        let token = self.client()?.authorization_code(&request).await?;
        self.check_id_token(&token, Some(&begun.nonce)).await?;
        let Some(sessions) = &self.sessions else { return Ok(self.granted(&token)) };
        let cookies = sessions.begin(token);
        let cookies =
            cookies.ok_or(Failure::NotConfigured("the tokens do not fit into cookies"))?;
        let response = see_other(&begun.return_to);
        let mut response = response.ok_or(Failure::NotConfigured("the way back was lost"))?;
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// A client that began by itself brings its code.
    async fn redeem(&self, asked: &Asked) -> Result<Response<Bytes>, Failure> {
        let sign_in = self.sign_in()?;
        let parameters = Parameters::of_body(asked, Reads::FormsAndJson, &IN_BODY)?;
        let code = parameters.required("code", "The parameter code is missing.")?;
        let redirect_uri = parameters.get("redirect_uri").unwrap_or(sign_in.redirect_uri());
        if !sign_in.redirect_uris.iter().any(|known| known == redirect_uri) {
            return Err(invalid_request("The redirect_uri is none of this service's."));
        }
        let request = match parameters.get("code_verifier").map(PkceVerifier::kept) {
            Some(Some(verifier)) => CodeRequest::new(code, redirect_uri, verifier),
            Some(None) => return Err(invalid_request("The code_verifier is malformed.")),
            None if sign_in.unbound_codes => CodeRequest::unbound(code, redirect_uri),
            None => return Err(invalid_request("The parameter code_verifier is missing.")),
        };
        let token = self.client()?.authorization_code(&request).await?;
        self.check_id_token(&token, parameters.get("nonce")).await?;
        Ok(self.granted(&token))
    }

    /// Where `openid` was asked for, an ID token must be there, and tell of this sign-in.
    async fn check_id_token(
        &self,
        token: &AccessToken,
        nonce: Option<&str>,
    ) -> Result<(), Failure> {
        let client = self.client()?;
        let Some(id_token) = token.id_token() else {
            let wanted = self.sign_in()?.scopes.contains("openid");
            let missing = Failure::OAuth("invalid_grant", "The provider gave no ID token.");
            return if wanted { Err(missing) } else { Ok(()) };
        };
        let rules = IdTokenRules {
            issuer: client.issuer(),
            client_id: client.client_id(),
            nonce,
            access_token: token.secret().expose(),
        };
        let (issuers, clock) = (self.auth.issuers(), self.clock());
        let subject = verify_id_token(issuers, clock, id_token.expose(), &rules).await?;
        match token.claim("sub") {
            Some(other) if other != subject => Err(Failure::OAuth(
                "invalid_grant",
                "The access token and the ID token are of different users.",
            )),
            _ => Ok(()),
        }
    }

    fn sign_in_failed(&self, page: Option<&str>, failure: Failure) -> Response<Bytes> {
        let code = match &failure {
            Failure::OAuth(code, _) => code,
            Failure::Exchange(ExchangeError::Unavailable { .. }) => "temporarily_unavailable",
            Failure::Exchange(error) if error.oauth() == Some(&OAuthError::InvalidGrant) => {
                "invalid_grant"
            }
            // Not what the provider thinks of this service.
            _ => "server_error",
        };
        let to = page.map(|page| {
            let separator = if page.contains('?') { '&' } else { '?' };
            format!("{page}{separator}error={code}")
        });
        let answer = self.failed(Endpoint::Login, failure);
        to.and_then(|to| see_other(&to)).unwrap_or(answer)
    }

    fn sign_in_keys(&self) -> Result<&SessionKeys, Failure> {
        let keys = self.sign_in()?.keys.as_ref();
        keys.ok_or(Failure::NotConfigured("sign-ins have no keys"))
    }

    fn clock(&self) -> &dyn Clock {
        &**self.auth.clock()
    }
}

/// The codes an authorization endpoint answers with (RFC 6749 §4.1.2.1, OpenID Connect Core
/// §3.1.2.6). What else somebody writes there is not handed on.
fn known(error: &str) -> &'static str {
    const CODES: [&str; 9] = [
        "access_denied",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "consent_required",
        "interaction_required",
        "account_selection_required",
        "temporarily_unavailable",
        "unauthorized_client",
    ];
    CODES.into_iter().find(|code| *code == error).unwrap_or("server_error")
}

fn printable(error: &str) -> String {
    error.chars().filter(char::is_ascii_graphic).take(LONGEST_ERROR).collect()
}
