//! Cookies (RFC 6265): set so that no script, no other host and no plain connection gets at them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

/// Browsers hold 4096 octets per cookie, name and attributes included.
const PART: usize = 3800;

/// More than this, and servers on the way refuse the request.
const MAX_PARTS: usize = 4;

/// The name of a cookie that may have several parts.
#[derive(Debug, Clone)]
pub(super) struct CookieName(String);

impl CookieName {
    /// With `__Host-` in front: such a cookie is bound to one host, over TLS, for all its paths.
    pub(super) fn new(name: &str) -> Option<Self> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let fits = (1..=64).contains(&name.len()) && name.bytes().all(token);
        fits.then(|| Self(format!("__Host-{name}")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, nth: usize) -> String {
        if nth == 0 { self.0.clone() } else { format!("{}.{nth}", self.0) }
    }

    /// The value, put together from its parts, and how many there are.
    pub(super) fn read(&self, headers: &HeaderMap) -> Option<(String, usize)> {
        let mut value = read_cookie(headers, &self.0)?.to_owned();
        let mut parts = 1;
        while let Some(more) = read_cookie(headers, &self.part(parts)).filter(|_| parts < MAX_PARTS)
        {
            value.push_str(more);
            parts += 1;
        }
        Some((value, parts))
    }

    /// The value in as many parts as it needs, in place of one that had `before`. `None` when it is
    /// too large.
    pub(super) fn set(
        &self,
        value: &str,
        life: Duration,
        before: usize,
    ) -> Option<Vec<HeaderValue>> {
        let parts = value.len().div_ceil(PART);
        if parts > MAX_PARTS {
            return None;
        }
        let part = |nth: usize| value.get(nth * PART..((nth + 1) * PART).min(value.len()));
        let mut cookies = Vec::with_capacity(parts);
        for nth in 0..parts {
            cookies.push(set_cookie(&self.part(nth), part(nth)?, life)?);
        }
        cookies.extend((parts..before).filter_map(|nth| clear_cookie(&self.part(nth))));
        Some(cookies)
    }

    /// Takes all parts from `from` on away from the browser.
    pub(super) fn clear(&self, from: usize) -> Vec<HeaderValue> {
        (from..MAX_PARTS).filter_map(|nth| clear_cookie(&self.part(nth))).collect()
    }

    /// Takes the parts out of a request, so that what is behind sees no session.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let ours = |name: &str| (0..MAX_PARTS).any(|nth| self.part(nth) == name);
        let values = headers.get_all(header::COOKIE).iter();
        let pairs = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
        let pairs = pairs.map(str::trim).filter(|pair| !pair.is_empty());
        let kept: Vec<_> = pairs.filter(|pair| !ours(name_of(pair))).collect();
        match HeaderValue::try_from(kept.join("; ")) {
            Ok(rest) if !rest.is_empty() => headers.insert(header::COOKIE, rest),
            _ => headers.remove(header::COOKIE),
        };
    }
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// The value of a cookie of a request.
pub(crate) fn read_cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(header::COOKIE).iter();
    let pairs = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// A `Set-Cookie` for so long. `Lax`: sent when a link of another site leads here, which is how a
/// browser comes back from its sign-in, and with nothing else that other sites cause.
pub(crate) fn set_cookie(name: &str, value: &str, life: Duration) -> Option<HeaderValue> {
    let seconds = life.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A `Set-Cookie` that ends a cookie.
pub(crate) fn clear_cookie(name: &str) -> Option<HeaderValue> {
    set_cookie(name, "", Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&str]) -> HeaderMap {
        let values = cookies.iter().map(|text| HeaderValue::from_str(text).unwrap());
        values.map(|value| (header::COOKIE, value)).collect()
    }

    #[test]
    fn a_long_value_travels_in_parts_and_comes_back_whole() {
        let name = CookieName::new("session").unwrap();
        for length in [1, PART, PART + 1, 2 * PART, MAX_PARTS * PART] {
            let value = "x".repeat(length);
            let set = name.set(&value, Duration::from_secs(9), 0).unwrap();
            let sent: Vec<_> = set
                .iter()
                .map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap())
                .collect();
            assert!(sent.iter().all(|cookie| cookie.len() < 4000));
            assert_eq!(name.read(&headers(&sent)), Some((value.clone(), set.len())), "{length}");
            assert_eq!(name.read(&headers(&[&sent.join("; ")])).unwrap().0, value);
        }
        assert!(name.set(&"x".repeat(MAX_PARTS * PART + 1), Duration::ZERO, 0).is_none());
    }

    #[test]
    fn parts_that_are_no_longer_needed_are_taken_away() {
        let name = CookieName::new("s").unwrap();
        let set = name.set("short", Duration::from_secs(9), 3).unwrap();
        let told: Vec<_> = set.iter().map(|cookie| cookie.to_str().unwrap()).collect();
        assert_eq!(
            told,
            [
                "__Host-s=short; Path=/; Max-Age=9; Secure; HttpOnly; SameSite=Lax",
                "__Host-s.1=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax",
                "__Host-s.2=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax",
            ]
        );
    }

    #[test]
    fn only_our_cookies_are_taken_out_of_a_request() {
        let name = CookieName::new("s").unwrap();
        let strip = |cookies: &[&str]| {
            let mut headers = headers(cookies);
            name.strip(&mut headers);
            headers.get(header::COOKIE).map(|value| value.to_str().unwrap().to_owned())
        };
        let kept = Some("a=1; __Host-sx=2; b".to_owned());
        assert_eq!(strip(&["a=1; __Host-s=x", "__Host-s.1=y; __Host-sx=2; b"]), kept);
        assert_eq!(strip(&["__Host-s=x"]), None);
        assert_eq!(strip(&[]), None);
    }

    #[test]
    fn names_are_those_a_cookie_may_have() {
        for bad in ["", "a b", "a=b", "a;b", "ä", &"a".repeat(65)] {
            assert!(CookieName::new(bad).is_none(), "{bad:?}");
        }
        assert_eq!(CookieName::new("a-b_c.9").unwrap().as_str(), "__Host-a-b_c.9");
    }
}
