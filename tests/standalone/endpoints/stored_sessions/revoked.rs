//! Sessions that a revocation ends, in a store and in cookies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::http::Method;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::clock::Clock;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::{BoxError, InvalidToken};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::revocation::{
    LogCursor, LogEntry, LogPage, MemoryRevocationLog, Revocation, RevocationLog, Revocations,
};
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Fault, ProviderEndpoint, TokenBuilder};
use scaikey_auth::{Identity, TenantId};
use serde_json::json;

use super::super::env::{MINUTE, Setup, TestEnv, Visitor};
use super::{LOGOUT, SAME, Service, seconds};
use crate::support::eventually;

/// Where the tokens of sessions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    InStore,
    InCookies,
}

pub(super) const KINDS: [Kind; 2] = [Kind::InStore, Kind::InCookies];

/// The identities that were admitted, in this order. Refuses all, as revoked, on demand.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<Identity>>>, Arc<AtomicBool>);

#[async_trait]
impl AdmissionCheck for Seen {
    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        self.0.lock().unwrap().push(request.identity.clone());
        let denied = Admission::Deny(InvalidToken::Revoked.into());
        Ok(if self.1.load(Ordering::SeqCst) { denied } else { Admission::Allow })
    }
}

/// A service that hears of sign-outs at the provider.
pub(super) struct Site {
    pub(super) env: TestEnv,
    pub(super) service: Service,
    seen: Seen,
}

pub(super) async fn site(kind: Kind) -> Site {
    site_with(kind, None, |setup| setup).await
}

pub(super) async fn site_with(
    kind: Kind,
    revocations: Option<Revocations>,
    change: impl FnOnce(Setup) -> Setup,
) -> Site {
    let (service, seen) = (Service::new(), Seen::default());
    let setup = match kind {
        Kind::InStore => service.setup(),
        Kind::InCookies => Setup { sessions: Some(service.keys.clone()), ..Setup::default() },
    };
    let check = seen.clone();
    let setup = setup.endpoints(|endpoints| endpoints.backchannel_logout()).auth(|auth| {
        let auth = auth.admission(check);
        revocations.into_iter().fold(auth, |auth, revocations| auth.revocations(revocations))
    });
    let env = change(setup).build().await;
    Site { env, service, seen }
}

impl Site {
    /// Signs a user in with a new browser. Returns it, and the identity of its session.
    pub(super) async fn sign_in(&self, user: &str) -> (Visitor, Identity) {
        let browser = self.env.visitor();
        let identity = self.sign_in_with(user, &browser).await;
        (browser, identity)
    }

    pub(super) async fn sign_in_with(&self, user: &str, browser: &Visitor) -> Identity {
        let arrived = self.env.sign_in_as(user, browser).await;
        assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
        assert_eq!(browser.get("/me").await.status, 200);
        self.seen.0.lock().unwrap().last().unwrap().clone()
    }

    pub(super) fn is_revoked(&self, identity: &Identity) -> bool {
        self.env.auth.revocations().is_revoked(identity)
    }

    pub(super) async fn revoke(&self, revocation: Revocation) {
        self.env.auth.revocations().revoke(revocation).await.unwrap();
    }

    pub(super) fn issuer(&self) -> String {
        self.env.provider.issuer()
    }

    /// A logout token of the user with this identity.
    pub(super) fn logout_token(&self, of: &Identity) -> TokenBuilder {
        self.logout_token_for(of.subject(), of.session_id().unwrap())
    }

    pub(super) fn logout_token_for(&self, subject: &str, sid: &str) -> TokenBuilder {
        let token = self.env.provider.token().without("tenant_id").without("preferred_username");
        let token = token.without("email").typ(Some("logout+jwt")).audience("wave");
        let token = token.subject(subject).claim("sid", sid);
        let event = "http://schemas.openid.net/event/backchannel-logout";
        token.claim("events", json!({ event: {} })).expires_in(seconds(120))
    }

    pub(super) async fn report(&self, token: TokenBuilder) {
        let form = format!("logout_token={}", token.sign());
        let answer = self.env.visitor().post_form("/v1/auth/backchannel_logout", &form).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Makes the next request renew the token of a session.
    pub(super) async fn age(&self, minutes: u32) {
        for id in self.service.store.all().await.iter().map(|session| session.id) {
            // Requests of other tabs prevented the idle limit.
            let now = self.env.clock.now() + MINUTE * minutes;
            self.service
                .store
                .change(&id, |session| {
                    session.used_at = now;
                    session.expires_at = session.ends_at;
                })
                .await;
        }
        self.env.clock.advance(MINUTE * minutes);
    }
}

/// Returns the status of a request, and whether the browser still has cookies of a session.
pub(super) async fn status(browser: &Visitor) -> (u16, bool) {
    let status = browser.get("/me").await.status;
    (status, !browser.session_cookies().is_empty())
}

pub(super) const SIGNED_IN: (u16, bool) = (200, true);
pub(super) const SIGNED_OUT: (u16, bool) = (401, false);

const NAVIGATE: [(&str, &str); 2] =
    [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

async fn load(browser: &Visitor) -> (u16, bool) {
    let answer = browser.send(Method::GET, "/me", &NAVIGATE, "").await;
    if answer.status == 303 {
        assert!(answer.header("location").contains("/v1/auth/login?return_to="), "{answer:?}");
    }
    (answer.status, !browser.session_cookies().is_empty())
}

#[tokio::test]
async fn reports_end_sessions_due_for_renewal() {
    type Change = fn(TokenBuilder) -> TokenBuilder;
    let reports: [(&str, Change); 3] = [
        ("sub", |token| token.without("sid")),
        ("sid", |token| token.without("sub")),
        ("both", |token| token),
    ];
    for (kind, (name, change)) in KINDS.into_iter().flat_map(|kind| reports.map(|it| (kind, it))) {
        let site = site(kind).await;
        let (alice, _) = site.sign_in("alice").await;
        let (browser, bob) = site.sign_in("bob").await;
        site.env.clock.advance(MINUTE);
        site.report(change(site.logout_token(&bob))).await;
        // The session would get a new token, which was issued after the report.
        site.age(58).await;
        assert_eq!(status(&browser).await, SIGNED_OUT, "{kind:?} {name}");
        assert_eq!(site.env.provider.granted("refresh_token"), 0, "{kind:?} {name}");
        assert_eq!(status(&alice).await, SIGNED_IN, "{kind:?} {name}");
        site.sign_in_with("bob", &browser).await;
        assert_eq!(status(&browser).await, SIGNED_IN, "{kind:?} {name}");
        let stored = site.service.store.all().await.len();
        assert_eq!(stored, if kind == Kind::InStore { 2 } else { 0 }, "{kind:?} {name}");
    }
}

#[tokio::test]
async fn revocations_end_the_sessions_they_mean() {
    let tenant = |name: &str| name.parse::<TenantId>().unwrap();
    type Make = Box<dyn Fn(&str, &Identity) -> Revocation>;
    let own = |bob: &Identity| bob.tenant_id().unwrap().clone();
    let table: Vec<(&str, Make, (u16, bool))> = vec![
        ("subject", Box::new(|iss, _| Revocation::subject(iss, "bob-id")), SIGNED_OUT),
        (
            "subject in tenant",
            Box::new(move |iss, bob| Revocation::subject(iss, "bob-id").in_tenant(own(bob))),
            SIGNED_OUT,
        ),
        ("tenant", Box::new(move |iss, bob| Revocation::tenant(iss, own(bob))), SIGNED_OUT),
        ("issuer", Box::new(|iss, _| Revocation::issuer(iss)), SIGNED_OUT),
        ("client", Box::new(|iss, _| Revocation::client(iss, "wave")), SIGNED_OUT),
        (
            "client in tenant",
            Box::new(move |iss, bob| Revocation::client(iss, "wave").in_tenant(own(bob))),
            SIGNED_OUT,
        ),
        (
            "session",
            Box::new(|iss, bob| Revocation::session(iss, bob.session_id().unwrap())),
            SIGNED_OUT,
        ),
        ("another subject", Box::new(|iss, _| Revocation::subject(iss, "alice-id")), SIGNED_IN),
        (
            "another tenant",
            Box::new(move |iss, _| Revocation::subject(iss, "bob-id").in_tenant(tenant("other"))),
            SIGNED_IN,
        ),
        (
            "another issuer",
            Box::new(|_, _| Revocation::subject("https://other.example", "bob-id")),
            SIGNED_IN,
        ),
        ("another client", Box::new(|iss, _| Revocation::client(iss, "drive")), SIGNED_IN),
        ("another session", Box::new(|iss, _| Revocation::session(iss, "17")), SIGNED_IN),
        (
            "another session of the subject",
            Box::new(|iss, _| Revocation::session(iss, "17").of_subject("bob-id")),
            SIGNED_IN,
        ),
    ];
    for (kind, (name, make, expected)) in
        KINDS.into_iter().flat_map(|kind| table.iter().map(move |it| (kind, it)))
    {
        let site = site(kind).await;
        let (browser, bob) = site.sign_in("bob").await;
        site.revoke(make(&site.issuer(), &bob)).await;
        site.age(58).await;
        assert_eq!(status(&browser).await, *expected, "{kind:?} {name}");
        // A sign-in after the revocation works.
        let again = site.env.visitor();
        site.sign_in_with("bob", &again).await;
    }
}

#[tokio::test]
async fn session_ends_although_its_removal_fails() {
    let site = site(Kind::InStore).await;
    let (browser, _) = site.sign_in("bob").await;
    let copy = browser.copy_at(&site.env.api);
    site.service.store.set(super::FAILS);
    site.revoke(Revocation::subject(site.issuer(), "bob-id")).await;
    site.service.store.fail_removals(1);
    site.service.store.set(super::WORKS);
    site.age(58).await;
    assert_eq!(status(&browser).await, SIGNED_OUT);
    assert_eq!(status(&copy).await, SIGNED_OUT);
    assert!(site.service.store.all().await.is_empty());
    assert_eq!(site.env.provider.granted("refresh_token"), 0);
}

#[tokio::test]
async fn revoked_session_leads_to_sign_in() {
    for kind in KINDS {
        let change = |setup: Setup| setup.sign_in(SignIn::redirect_navigation);
        let site = site_with(kind, None, change).await;
        let (young, _) = site.sign_in("alice").await;
        site.revoke(Revocation::subject(site.issuer(), "alice-id")).await;
        // Or a browser might be redirected without end.
        assert_eq!(load(&young).await, (401, false), "{kind:?}");
        let (browser, _) = site.sign_in("bob").await;
        site.env.clock.advance(seconds(61));
        site.revoke(Revocation::subject(site.issuer(), "bob-id")).await;
        assert_eq!(load(&browser).await, (303, false), "{kind:?}");
    }
}

#[tokio::test]
async fn revocation_during_renewal_ends_the_session() {
    for kind in KINDS {
        let site = site(kind).await;
        let (browser, _) = site.sign_in("bob").await;
        site.age(59).await;
        site.env.clock.advance(seconds(58));
        site.env.provider.fail(ProviderEndpoint::Token, Fault::Stall);
        let tab = browser.copy_at(&site.env.api);
        let revoke = async {
            eventually(async || site.env.provider.granted("refresh_token") == 1).await;
            site.revoke(Revocation::subject(site.issuer(), "bob-id")).await;
            site.env.provider.heal(ProviderEndpoint::Token);
        };
        let (after, ()) = tokio::join!(status(&tab), revoke);
        assert_eq!(after, SIGNED_OUT, "{kind:?}");
        assert_eq!(status(&browser).await, SIGNED_OUT, "{kind:?}");
        eventually(async || site.env.provider.requests(ProviderEndpoint::Revocation) == 1).await;
        eventually(async || site.service.store.all().await.is_empty()).await;
    }
}

/// A log that can be unreadable.
#[derive(Debug, Clone, Default)]
pub(super) struct Unreliable {
    log: MemoryRevocationLog,
    pub(super) is_away: Arc<AtomicBool>,
}

impl Unreliable {
    fn check(&self) -> Result<(), BoxError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err("the log is away".into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl RevocationLog for Unreliable {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        self.check()?;
        self.log.append(entry).await
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        self.check()?;
        self.log.read(after, limit).await
    }
}

#[tokio::test]
async fn unread_log_makes_sessions_unavailable() {
    for kind in KINDS {
        let log = Unreliable::default();
        let clock = scaikey_auth::testing::ManualClock::new();
        let revocations = Revocations::builder().log(log.clone()).clock(clock.clone());
        let revocations = revocations.refuse_after(MINUTE).build();
        let change = move |setup: Setup| Setup { clock, ..setup };
        let site = site_with(kind, Some(revocations), change).await;
        let (browser, _) = site.sign_in("bob").await;
        log.is_away.store(true, Ordering::SeqCst);
        site.env.clock.advance(MINUTE * 2);
        assert_eq!(status(&browser).await, (503, true), "{kind:?}");
        assert_eq!(browser.get("/public").await.body, "false", "{kind:?}");
        log.is_away.store(false, Ordering::SeqCst);
        eventually(async || status(&browser).await == SIGNED_IN).await;
        // A sign-out needs no log.
        log.is_away.store(true, Ordering::SeqCst);
        site.env.clock.advance(MINUTE * 2);
        assert_eq!(browser.send(Method::POST, LOGOUT, &[SAME], "").await.status, 204, "{kind:?}");
        assert!(browser.session_cookies().is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn first_request_waits_for_the_log() {
    for kind in KINDS {
        let site = site(kind).await;
        let (browser, _) = site.sign_in("bob").await;
        site.env.clock.advance(MINUTE);
        // Another process, which has read nothing yet.
        let log = MemoryRevocationLog::default();
        let clock = site.env.clock.clone();
        let at_one = Revocations::builder().log(log.clone()).clock(clock.clone()).build();
        at_one.revoke(Revocation::subject(site.issuer(), "bob-id")).await.unwrap();
        let other = Revocations::builder().log(log).clock(clock).build();
        let (keys, store) = (site.service.keys.clone(), site.service.store.clone());
        let auth = crate::support::local(site.issuer()).leeway(MINUTE);
        let auth = scaikey_auth::Auth::builder().issuer(auth).audience("scaiwave");
        let auth = auth.clock(site.env.clock.clone()).revocations(other).build().unwrap();
        let setup = Setup { sessions: Some(keys), ..Setup::default() };
        let setup = match kind {
            Kind::InStore => {
                Setup { session_settings: Box::new(move |sessions| sessions.store(store)), ..setup }
            }
            Kind::InCookies => setup,
        };
        let env = TestEnv { auth, ..site.env }.start_process(setup).await;
        assert_eq!(status(&browser.at(&env)).await, SIGNED_OUT, "{kind:?}");
    }
}

#[tokio::test]
async fn session_with_a_revoked_token_ends() {
    for (kind, by_check) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let change = |setup: Setup| setup.sign_in(SignIn::redirect_navigation);
        let site = site_with(kind, None, change).await;
        for (age, is_page, expected) in
            [(30, false, (401, false)), (30, true, (401, false)), (61, true, (303, false))]
        {
            site.seen.1.store(false, Ordering::SeqCst);
            let (browser, bob) = site.sign_in("bob").await;
            let (other, _) = site.sign_in("bob").await;
            site.env.clock.advance(seconds(age));
            if by_check {
                site.seen.1.store(true, Ordering::SeqCst);
            } else {
                site.revoke(Revocation::token(site.issuer(), bob.token_id().unwrap())).await;
            }
            let copy = browser.copy_at(&site.env.api);
            let answer = if is_page { load(&browser).await } else { status(&browser).await };
            assert_eq!(answer, expected, "{kind:?} {by_check} {age} {is_page}");
            site.seen.1.store(false, Ordering::SeqCst);
            assert_eq!(status(&other).await, SIGNED_IN, "{kind:?}");
            if kind == Kind::InStore {
                assert_eq!(status(&copy).await, SIGNED_OUT);
            }
        }
        assert_eq!(site.env.provider.granted("refresh_token"), 0);
    }
}

#[tokio::test]
async fn refusals_of_other_tokens_end_nothing() {
    for kind in KINDS {
        let site = site(kind).await;
        let (browser, _) = site.sign_in("bob").await;
        let other = site.env.provider.token().subject("alice-id").claim("jti", "of-alice").sign();
        site.revoke(Revocation::token(site.issuer(), "of-alice")).await;
        let form = format!("token={other}");
        let headers = [SAME, ("content-type", "application/x-www-form-urlencoded")];
        let asked = browser.send(Method::POST, "/v1/auth/introspect", &headers, &form).await;
        assert!(asked.status < 500, "{asked:?}");
        assert_eq!(status(&browser).await, SIGNED_IN, "{kind:?}");
    }
}

#[tokio::test]
async fn revoked_sessions_leave_the_store() {
    let site = site(Kind::InStore).await;
    let stored = async || site.service.store.all().await.len();
    let (_, bob) = site.sign_in("bob").await;
    site.report(site.logout_token(&bob).without("sub")).await;
    eventually(async || stored().await == 0).await;
    site.sign_in("bob").await;
    site.revoke(Revocation::subject(site.issuer(), "bob-id")).await;
    eventually(async || stored().await == 0).await;
    site.env.clock.advance(MINUTE);
    let (_, bob) = site.sign_in("bob").await;
    let tenant = bob.tenant_id().unwrap().clone();
    site.revoke(Revocation::subject(site.issuer(), "bob-id").in_tenant(tenant)).await;
    eventually(async || stored().await == 0).await;
}

#[tokio::test]
async fn late_report_spares_later_sessions() {
    let site = site(Kind::InStore).await;
    site.sign_in("bob").await;
    site.env.clock.advance(MINUTE);
    let before = site.env.clock.now();
    site.env.clock.advance(MINUTE);
    let (later, _) = site.sign_in("bob").await;
    site.revoke(Revocation::subject(site.issuer(), "bob-id").issued_before(before)).await;
    eventually(async || site.service.store.all().await.len() == 1).await;
    assert_eq!(status(&later).await, SIGNED_IN);
}

#[tokio::test]
async fn sessions_are_built_without_a_runtime() {
    let site = site(Kind::InStore).await;
    let (auth, client) = (site.env.auth.clone(), site.env.client.clone());
    let (keys, store) = (SealingKeys::random().unwrap(), site.service.store.clone());
    let build = move || {
        let sessions = Sessions::builder(&auth, client, keys).store(store).build().unwrap();
        drop(sessions);
        // The listener outlives the sessions.
        let revoke = auth.revocations().revoke(Revocation::subject("https://a", "alice"));
        futures_util::FutureExt::now_or_never(revoke).unwrap().unwrap();
    };
    std::thread::spawn(build).join().unwrap();
}

#[tokio::test]
async fn many_revocations_hinder_no_session() {
    let site = site(Kind::InStore).await;
    let (browser, _) = site.sign_in("bob").await;
    for nth in 0..10_000 {
        site.revoke(Revocation::session(site.issuer(), nth.to_string())).await;
    }
    assert_eq!(status(&browser).await, SIGNED_IN);
    site.revoke(Revocation::subject(site.issuer(), "bob-id")).await;
    assert_eq!(status(&browser).await, SIGNED_OUT);
    assert!(site.service.store.all().await.is_empty());
}
