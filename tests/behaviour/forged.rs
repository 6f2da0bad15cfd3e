//! Tokens that must be refused, and their honest twins that must not.

use scaikey_auth::testing::{ManualClock, Provider, forge};
use scaikey_auth::{Algorithm, Auth, IssuerConfig, TokenProfile};

async fn provider() -> (Provider, ManualClock) {
    let clock = ManualClock::new();
    let provider =
        Provider::builder().algorithms(Algorithm::ALL).clock(clock.clone()).start().await;
    (provider, clock)
}

fn auth(provider: &Provider, clock: &ManualClock, profile: TokenProfile) -> Auth {
    let issuer = IssuerConfig::new(provider.issuer())
        .algorithms(Algorithm::ALL)
        .profile(profile)
        .allow_loopback_http(true);
    Auth::builder().issuer(issuer).audience("scaiwave").clock(clock.clone()).build().unwrap()
}

#[tokio::test]
async fn every_honest_token_is_accepted() {
    let (provider, clock) = provider().await;
    for (profile, honest) in [
        (TokenProfile::Lenient, forge::accepted(&provider)),
        (TokenProfile::Rfc9068, forge::rfc9068_accepted(&provider)),
    ] {
        let auth = auth(&provider, &clock, profile);
        for honest in honest {
            let verdict = auth.authenticate(&honest.token).await;
            assert!(verdict.is_ok(), "{}: {verdict:?}", honest.name);
        }
    }
}

#[tokio::test]
async fn every_forged_token_is_refused() {
    let (provider, clock) = provider().await;
    let mut bad = Vec::new();
    for (profile, forged) in [
        (TokenProfile::Lenient, forge::all(&provider)),
        (TokenProfile::Rfc9068, forge::rfc9068(&provider)),
    ] {
        let auth = auth(&provider, &clock, profile);
        for forged in forged {
            match auth.authenticate(&forged.token).await {
                Ok(_) => bad.push(format!("{}: accepted, although {}", forged.name, forged.why)),
                Err(error) if error.status().as_u16() == 503 => {
                    bad.push(format!("{}: {error}", forged.name))
                }
                Err(_) => {}
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
