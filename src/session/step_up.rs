//! Step-up (RFC 9470): leads a browser whose session a guard refused to another sign-in, and back to the page.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::layer::On401;
use super::sign_in_redirect::{Page, Redirect, SignInRedirect};
use super::{Session, Sessions, cookies_named, set_cookie};
use crate::error::StepUp;
use crate::gate::ResponseBody;
use crate::layer::{HadQueryToken, RequestHead};
use crate::support::seal::Purpose;
use crate::support::telemetry;

/// The time in which the browser must follow the redirect to `login`.
const LIFETIME: Duration = Duration::from_secs(600);

/// The time after a sign-in in which the same refusal does not lead to another one. Longer than a redirect, or a
/// browser would sign in without end if the access token does not say what the ID token says.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Maximum number of different sign-ins within [`MIN_AGE`]: pages may need different ones.
const MAX_RECENT: usize = 3;

/// Maximum `max_age` of a request, in seconds: 68 years. Providers may refuse a greater number.
const MAX_MAX_AGE: u64 = i32::MAX as u64;

/// How the user must sign in, as in a sealed text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignInNeeds {
    acr_values: Option<String>,
    /// In seconds.
    max_age: Option<u64>,
}

impl SignInNeeds {
    fn of(step_up: &StepUp) -> Self {
        let acr_values = step_up.acr_values.as_deref().map(str::to_owned);
        Self { acr_values, max_age: step_up.max_age.map(|it| it.as_secs()) }
    }

    /// Returns the parameters of the authorization request (OpenID Connect Core §3.1.2.1).
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&'static str, String)> {
        let acr_values = self.acr_values.clone().map(|it| ("acr_values", it));
        let max_age = self.max_age.map(|it| ("max_age", it.min(MAX_MAX_AGE).to_string()));
        let prompt = ("prompt", "login".to_owned());
        acr_values.into_iter().chain(max_age).chain([prompt])
    }

    pub(crate) fn step_up(&self) -> StepUp {
        let acr_values = self.acr_values.as_deref().map(Into::into);
        StepUp { acr_values, max_age: self.max_age.map(Duration::from_secs), scope: None }
    }
}

/// The content of the parameter `step_up` of `login`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StepUpRequest {
    /// The page that was refused. `None`: the landing page.
    pub(crate) page: Option<String>,
    pub(crate) needs: SignInNeeds,
}

/// The redirect that replaces a refusal which asks for another sign-in. Public because a public layer type names it,
/// but not exported.
pub struct StepUpRedirect {
    sessions: Sessions,
    /// The name of the session's marker.
    session: String,
    page: Option<String>,
    /// The sign-ins that this browser made in the last minute.
    recent: Vec<SignInNeeds>,
}

impl Sessions {
    /// Returns the redirect for a request with this session, if a browser loads a page with it.
    pub(super) fn step_up_redirect<Q>(
        &self,
        request: &Request<Q>,
        session: &Session,
    ) -> Option<On401> {
        let sign_in = self.0.sign_in.get()?;
        let page = sign_in.page_of(RequestHead::of(request))?;
        let recent = self.recent_step_ups(sign_in.step_up_cookie(), request.headers());
        let session = self.0.cookies.marker(&session.id);
        let redirect = StepUpRedirect { sessions: self.clone(), session, page: page.0, recent };
        Some(On401::StepUp(Box::new(redirect)))
    }

    /// Opens the parameter `step_up` of a request with this session. It must be of this session, so neither another
    /// browser can use it, nor this one after the sign-in, which starts another session.
    pub(crate) fn open_step_up(&self, session: &Session, sealed: &str) -> Option<StepUpRequest> {
        let (name, clock) = (self.0.cookies.marker(&session.id), &**self.0.auth.clock());
        let plain = self.0.keys.open_unexpired(Purpose::StepUp, &name, sealed, clock)?;
        serde_json::from_slice(&plain).ok()
    }

    /// Returns the sign-ins that a browser made in the last minute because a guard asked for them.
    pub(crate) fn recent_step_ups(&self, cookie: &str, headers: &HeaderMap) -> Vec<SignInNeeds> {
        let clock = &**self.0.auth.clock();
        let found = cookies_named(headers, cookie).find(|(rest, _)| rest.is_empty());
        let plain = found.and_then(|(_, sealed)| {
            self.0.keys.open_unexpired(Purpose::StepUp, cookie, sealed, clock)
        });
        plain.and_then(|plain| serde_json::from_slice(&plain).ok()).unwrap_or_default()
    }

    /// Returns the cookie that records these sign-ins for a minute.
    pub(crate) fn step_up_cookie(
        &self,
        cookie: &str,
        recent: &[&SignInNeeds],
    ) -> Option<HeaderValue> {
        let clock = &**self.0.auth.clock();
        let (plain, expires) = (serde_json::to_vec(recent).ok()?, clock.now() + MIN_AGE);
        let sealed = self.0.keys.seal(Purpose::StepUp, cookie, &plain, expires, clock)?;
        set_cookie(cookie, &sealed, MIN_AGE)
    }
}

impl StepUpRedirect {
    /// Replaces a 401 that asks for another sign-in.
    pub(super) fn replace<B>(self, response: &mut Response<ResponseBody<B>>) {
        let had_token = response.extensions().get::<HadQueryToken>().is_some();
        if response.status() != StatusCode::UNAUTHORIZED || had_token {
            return;
        }
        let Some(step_up) = response.extensions().get::<StepUp>() else { return };
        let needs = SignInNeeds::of(step_up);
        if self.recent.contains(&needs) || self.recent.len() >= MAX_RECENT {
            telemetry::step_up_without_effect(step_up);
            return;
        }
        let Self { sessions, session, page, .. } = self;
        if let Some(redirect) = sessions.step_up_url(&session, StepUpRequest { page, needs }) {
            redirect.send(response);
        }
    }
}

impl StepUpRedirect {
    /// Leads to the sign-in, because the session ended. `started_at`: when it began.
    pub(super) fn sign_in_again<B>(
        self,
        started_at: SystemTime,
        response: &mut Response<ResponseBody<B>>,
    ) {
        let Self { sessions, page, .. } = self;
        let sign_in =
            sessions.0.sign_in.get().filter(|_| !sessions.is_too_young_for_sign_in(started_at));
        if let Some(redirect) = sign_in.and_then(|sign_in| sign_in.to(Page(page))) {
            redirect.send(response);
        }
    }
}

impl Sessions {
    fn step_up_url(&self, session: &str, request: StepUpRequest) -> Option<Redirect> {
        let clock = &**self.0.auth.clock();
        let (plain, expires) = (serde_json::to_vec(&request).ok()?, clock.now() + LIFETIME);
        let sealed = self.0.keys.seal(Purpose::StepUp, session, &plain, expires, clock)?;
        self.0.sign_in.get().and_then(|sign_in: &SignInRedirect| sign_in.step_up(&sealed))
    }
}
