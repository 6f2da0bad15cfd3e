//! [`AccessToken`]: what the token endpoint gave, and how long it is good (RFC 6749 §5.1).

use std::time::{Duration, SystemTime};

use super::ExchangeError;
use crate::base64url;
use crate::clock::{Clock, unix_time};
use crate::identity::Scopes;
use crate::json::{Document, Value};
use crate::secret::Secret;

/// A token with less than this left is not worth sending: it may expire on its way.
const SAFETY: Duration = Duration::from_secs(30);

/// No token is relied upon for longer, whatever the provider says.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// An access token and what the provider said about it.
///
/// Its age is measured on the monotonic clock from when it arrived, so a clock that is set does
/// not make it older or younger.
#[derive(Debug, Clone)]
pub struct AccessToken {
    token: Secret,
    bearer: bool,
    issued_type: Option<String>,
    scopes: Option<Scopes>,
    refresh_token: Option<Secret>,
    arrived: Duration,
    lifetime: Option<Duration>,
}

/// Where a token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Less than 80 % of its life has passed.
    Fresh,
    /// It is good, and time to get the next one.
    Due,
    /// Less than 30 seconds are left, or it is not known how many.
    Expired,
}

impl AccessToken {
    /// The token.
    pub fn secret(&self) -> &Secret {
        &self.token
    }

    /// Whether it is sent as `Authorization: Bearer`. A `token_type` of `N_A` means that what was
    /// issued is no access token (RFC 8693 §2.2.1).
    pub fn is_bearer(&self) -> bool {
        self.bearer
    }

    /// `issued_token_type`, if the provider said.
    pub fn issued_token_type(&self) -> Option<&str> {
        self.issued_type.as_deref()
    }

    /// What was granted, if the provider said; otherwise what was asked for.
    pub fn scopes(&self) -> Option<&Scopes> {
        self.scopes.as_ref()
    }

    /// The refresh token, if one came along. After a refresh, its absence means that the one used
    /// stays good (RFC 6749 §6).
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// How long it lives from when it arrived: `expires_in`, else the `exp` of a JWT, else unknown.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// How long it may be kept from when it arrived: 30 seconds less than it lives, and a day at
    /// most. `None`: not at all.
    pub fn keep_for(&self) -> Option<Duration> {
        let kept = self.lifetime?.saturating_sub(SAFETY).min(MAX_LIFETIME);
        (!kept.is_zero()).then_some(kept)
    }

    /// Where it is in its life. Tokens that live for less than four minutes are due a little
    /// earlier than at 80 %, at nine tenths of what may be kept.
    pub fn freshness(&self, clock: &dyn Clock) -> Freshness {
        let age = clock.elapsed().saturating_sub(self.arrived);
        match (self.lifetime, self.keep_for()) {
            (Some(lifetime), Some(kept)) if age < kept => {
                let due = lifetime.min(MAX_LIFETIME).mul_f64(0.8).min(kept.mul_f64(0.9));
                if age < due { Freshness::Fresh } else { Freshness::Due }
            }
            _ => Freshness::Expired,
        }
    }

    /// Reads a successful answer. Members that are `null` count as absent.
    pub(super) fn parse(body: &[u8], clock: &dyn Clock) -> Result<Self, ExchangeError> {
        let refused = ExchangeError::Answer;
        let document = Document::parse(body).map_err(|_| refused("is not a JSON object"))?;
        let member = |name| document.root().get(name).filter(|value| !value.is_null());
        let text = |name| match member(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(refused("has a member of a wrong type")),
        };
        let token = text("access_token")?.filter(|token| !token.is_empty());
        let token = token.ok_or(refused("has no access_token"))?;
        let kind = text("token_type")?.ok_or(refused("has no token_type"))?;
        let bearer = kind.eq_ignore_ascii_case("bearer");
        if !bearer && !kind.eq_ignore_ascii_case("n_a") {
            return Err(refused("has a token_type that is not Bearer"));
        }
        let scopes = text("scope")?.map(str::parse).transpose();
        let told =
            member("expires_in").map(|value| seconds(value).ok_or(refused("has a bad expires_in")));
        Ok(Self {
            token: token.into(),
            bearer,
            issued_type: text("issued_token_type")?.map(str::to_owned),
            scopes: scopes.map_err(|_| refused("has a bad scope"))?,
            refresh_token: text("refresh_token")?
                .filter(|token| !token.is_empty())
                .map(Secret::from),
            arrived: clock.elapsed(),
            lifetime: told.transpose()?.or_else(|| until_exp(token, clock.now())),
        })
    }

    /// A claim of the token if it is a JWT, unverified: the provider gave it to us directly.
    pub(super) fn claim(&self, name: &str) -> Option<String> {
        let payload = base64url::decode(self.token.expose().split('.').nth(1)?)?;
        let document = Document::parse(&payload).ok()?;
        document.root().get(name).and_then(Value::as_str).map(str::to_owned)
    }
}

/// A number of seconds, also as a text (some servers write it so).
fn seconds(value: Value<'_>) -> Option<Duration> {
    let number: f64 = match value.as_str() {
        Some(text) => text.trim().parse().ok()?,
        None => value.as_f64()?,
    };
    number.is_finite().then(|| Duration::from_secs_f64(number.clamp(0.0, 1e9)))
}

fn until_exp(token: &str, now: SystemTime) -> Option<Duration> {
    let payload = base64url::decode(token.split('.').nth(1)?)?;
    let document = Document::parse(&payload).ok()?;
    let left = document.root().get("exp")?.as_f64()? - unix_time(now);
    left.is_finite().then(|| Duration::from_secs_f64(left.clamp(0.0, 1e9)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn parse(body: &str) -> Result<AccessToken, ExchangeError> {
        AccessToken::parse(body.as_bytes(), &SystemClock::default())
    }

    #[test]
    fn answers_of_real_servers_are_read() {
        let cases = [
            (r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#, Some(3600), true),
            (r#"{"access_token":"a","token_type":"BEARER","expires_in":"60"}"#, Some(60), true),
            (r#"{"access_token":"a","token_type":"N_A","x":[1],"scope":null}"#, None, false),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":null}"#, None, true),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":-5}"#, Some(0), true),
        ];
        for (body, lifetime, bearer) in cases {
            let token = parse(body).unwrap();
            assert_eq!(token.lifetime().map(|life| life.as_secs()), lifetime, "{body}");
            assert_eq!(token.is_bearer(), bearer, "{body}");
        }
        for body in [
            "",
            "<html>",
            r#"{"token_type":"Bearer"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"abc"}"#,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"NaN x"}"#,
            r#"{"access_token":7,"token_type":"Bearer"}"#,
        ] {
            parse(body).expect_err(body);
        }
    }

    #[derive(Debug)]
    struct At(u64);

    impl Clock for At {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0)
        }
    }

    #[test]
    fn a_token_is_due_at_four_fifths_and_gone_half_a_minute_early() {
        use Freshness::{Due, Expired, Fresh};
        let cases = [
            ("3600", 2879, Fresh),
            ("3600", 2880, Due),
            ("3600", 3569, Due),
            ("3600", 3570, Expired),
            ("60", 26, Fresh),
            ("60", 27, Due),
            ("60", 30, Expired),
            ("30", 0, Expired),
            ("1e300", 0, Fresh),
            ("null", 0, Expired),
        ];
        for (told, age, state) in cases {
            let body =
                format!(r#"{{"access_token":"a","token_type":"Bearer","expires_in":{told}}}"#);
            let token = AccessToken::parse(body.as_bytes(), &At(0)).unwrap();
            assert_eq!(token.freshness(&At(age)), state, "{told} {age}");
        }
        let token =
            parse(r#"{"access_token":"a","token_type":"Bearer","expires_in":1e9}"#).unwrap();
        assert_eq!(token.keep_for(), Some(MAX_LIFETIME));
    }
}
