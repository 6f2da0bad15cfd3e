//! Malformed tokens: not a compact JWS whose header and payload are JSON objects.

use super::super::keys::{SigningKey, base64url};
use super::ForgeryList;

pub(super) fn add(list: &mut ForgeryList<'_>) {
    segments(list);
    encoding(list);
    characters(list);
    add_json(list);
    sizes(list);
}

/// Adds validly signed tokens with malformed JSON.
pub(super) fn add_json(list: &mut ForgeryList<'_>) {
    json(list);
    duplicates(list);
    depths(list);
}

fn segments(list: &mut ForgeryList<'_>) {
    let why = "a compact JWS has three non-empty parts, separated by two dots (RFC 7515 §7.1)";
    let good = list.valid().sign();
    let (signed, _) = good.rsplit_once('.').unwrap_or_default();
    let payload = signed.split('.').nth(1).unwrap_or_default();
    let jwe = |header: &str| format!("{}.AAAA.AAAA.AAAA.AAAA", base64url(header));
    for (name, token) in [
        ("one segment", payload.to_owned()),
        ("two segments", signed.to_owned()),
        ("four segments", format!("{good}.AAAA")),
        ("five segments", format!("{good}.AAAA.AAAA")),
        ("trailing dot", format!("{good}.")),
        ("leading dot", format!(".{good}")),
        ("dots only", "..".to_owned()),
        ("JWE", jwe(r#"{"alg":"dir","enc":"A256GCM"}"#)),
        (
            "JWE with 2^31 rounds of PBKDF2",
            jwe(r#"{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2c":2147483648,"p2s":"AAAA"}"#),
        ),
        ("JWE compressed", jwe(r#"{"alg":"dir","enc":"A256GCM","zip":"DEF"}"#)),
    ] {
        list.add(name, why, token);
    }
}

fn encoding(list: &mut ForgeryList<'_>) {
    let why = "only one base64url encoding of a token is valid (RFC 7515 §2)";
    let (key, header, payload) = list.valid().parts();
    let good = key.token(&header, &payload);
    list.add("signature padded", why, format!("{good}=="));
    list.add("signature with non-zero pad bits", why, with_nonzero_pad_bits(&good));
    list.add("signature with an extra character", why, format!("{good}A"));
    // A signature of 256 bytes almost always contains `-` or `_`; otherwise a `+` is appended.
    let mut standard = good.clone();
    while !standard.contains(['+', '/']) {
        let (signed, signature) = good.rsplit_once('.').unwrap_or_default();
        standard = match signature.contains(['-', '_']) {
            true => format!("{signed}.{}", signature.replace('-', "+").replace('_', "/")),
            false => format!("{signed}.{signature}+"),
        };
    }
    list.add("signature in standard base64", why, standard);
    // These tokens are signed over the malformed text, so that only the encoding is wrong.
    let header = base64url(&header);
    let mut payload = payload;
    while payload.len() % 3 != 1 {
        payload.push(' ');
    }
    let payload = base64url(&payload);
    for (name, signed) in [
        ("payload padded", format!("{header}.{payload}==")),
        ("payload with non-zero pad bits", format!("{header}.{}", with_nonzero_pad_bits(&payload))),
        ("payload of impossible length", format!("{header}.{payload}AAA")),
        ("header padded", format!("{header}=.{payload}")),
    ] {
        let token = format!("{signed}.{}", base64url(key.sign(signed.as_bytes())));
        // A bearer token may contain `=` only at its end.
        match name.ends_with("padded") {
            true => list.add_malformed(name, why, token),
            false => list.add(name, why, token),
        }
    }
}

/// Changes the pad bits of the last character, which decode to nothing (RFC 4648 §3.5).
fn with_nonzero_pad_bits(text: &str) -> String {
    let mut changed = text.to_owned();
    // A length of 3n + 1 bytes leaves four pad bits, which are zero: the last character is A, Q, g
    // or w.
    let replacement = match changed.pop() {
        Some('A') => 'B',
        Some('Q') => 'R',
        Some('g') => 'h',
        Some('w') => 'x',
        other => other.unwrap_or_default(),
    };
    changed.push(replacement);
    changed
}

fn characters(list: &mut ForgeryList<'_>) {
    let why = "a bearer token consists of one or more of the characters of RFC 6750 §2.1";
    let good = list.valid().sign();
    let (head, tail) = good.split_at(good.len() / 2);
    for (name, token) in [
        ("empty token", String::new()),
        ("space inside", format!("{head} {tail}")),
        ("tab inside", format!("{head}\t{tail}")),
        ("newline inside", format!("{head}\n{tail}")),
        ("trailing newline", format!("{good}\n")),
        ("trailing NUL", format!("{good}\0")),
        ("trailing comma", format!("{good},")),
        ("two tokens", format!("{good},{good}")),
        ("in quotes", format!("\"{good}\"")),
        ("the scheme twice", format!("Bearer {good}")),
        ("percent-encoded", good.replacen('.', "%2E", 2)),
        ("not ASCII", format!("{head}é{tail}")),
    ] {
        list.add_malformed(name, why, token);
    }
    let mut parts = good.split('.');
    let mut next = || parts.next().unwrap_or_default();
    let (header, payload, signature) = (next(), next(), next());
    let flattened =
        format!(r#"{{"protected":"{header}","payload":"{payload}","signature":"{signature}"}}"#);
    list.add_malformed("JSON serialisation", why, flattened);
}

fn json(list: &mut ForgeryList<'_>) {
    let why = "header and payload are one JSON object each, in UTF-8 (RFC 7519 §7.2)";
    let (key, header, payload) = list.valid().parts();
    let bytes = payload.as_bytes();
    let utf16: Vec<u8> = payload.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let rows: [(&'static str, Vec<u8>); 17] = [
        ("payload empty", Vec::new()),
        ("payload a list", [b"[", bytes, b"]"].concat()),
        ("payload a string", b"\"alice\"".to_vec()),
        ("payload a number", b"1".to_vec()),
        ("payload null", b"null".to_vec()),
        ("payload true", b"true".to_vec()),
        ("payload with a BOM", [b"\xef\xbb\xbf", bytes].concat()),
        ("payload in UTF-16", utf16),
        ("payload with invalid UTF-8", payload.replacen("alice", "al\u{7f}ce", 1).into_bytes()),
        ("payload with trailing data", [bytes, b"x"].concat()),
        ("payload twice", [bytes, bytes].concat()),
        ("payload with a trailing NUL", [bytes, b"\0"].concat()),
        ("payload with a comment", [b"/**/", bytes].concat()),
        ("payload with a trailing comma", payload.replacen('}', ",}", 1).into_bytes()),
        (
            "payload truncated",
            bytes.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default(),
        ),
        (
            "payload with a lone surrogate",
            with_first_member(&payload, r#""x":"\ud800""#).into_bytes(),
        ),
        (
            "payload with a raw newline in text",
            with_first_member(&payload, "\"x\":\"\n\"").into_bytes(),
        ),
    ];
    for (name, mut text) in rows {
        if name == "payload with invalid UTF-8" {
            text.iter_mut().filter(|byte| **byte == 0x7f).for_each(|byte| *byte = 0xff);
        }
        list.add(name, why, key.token(&header, text));
    }
    for (name, text) in [
        ("header empty", Vec::new()),
        ("header a list", format!("[{header}]").into_bytes()),
        ("header null", b"null".to_vec()),
        ("header with a BOM", format!("\u{feff}{header}").into_bytes()),
        ("header with trailing data", format!("{header}{{}}").into_bytes()),
        (
            "header with invalid UTF-8",
            [b"{\"\xff\":1,", header.get(1..).unwrap_or_default().as_bytes()].concat(),
        ),
    ] {
        list.add(name, why, key.token(text, &payload));
    }
    let why = "required members are missing";
    list.add("header an empty object", why, key.token("{}", &payload));
    list.add("payload an empty object", why, key.token(&header, "{}"));
}

fn duplicates(list: &mut ForgeryList<'_>) {
    let why = "two parsers may read different values (RFC 7519 §4)";
    let (key, header, payload) = list.valid().parts();
    let me = list.issuer.audience();
    for (name, member) in [
        ("sub twice", r#""sub":"mallory""#.to_owned()),
        ("sub twice, once escaped", r#""s\u0075b":"mallory""#.to_owned()),
        ("aud twice", format!(r#""aud":"{me}""#)),
        ("exp twice", r#""exp":9007199254740991"#.to_owned()),
        ("an unknown claim twice", r#""x":1,"x":1"#.to_owned()),
        ("a nested claim twice", r#""x":{"y":1,"y":1}"#.to_owned()),
    ] {
        list.add(name, why, key.token(&header, with_first_member(&payload, &member)));
    }
    for (name, member) in [
        ("alg twice", r#""alg":"none""#),
        ("alg twice, the same", r#""alg":"RS256""#),
        ("kid twice", r#""kid":"x""#),
        ("an unknown parameter twice", r#""x":1,"x":1"#),
    ] {
        list.add(name, why, key.token(with_first_member(&header, member), &payload));
    }
}

fn sizes(list: &mut ForgeryList<'_>) {
    let why = "the length of a token is limited (draft-ietf-oauth-rfc8725bis §3.15)";
    list.add("header above 4 KiB", why, list.valid().header("x", "x".repeat(4096)).sign());
    list.add("token above 16 KiB", why, list.valid().claim("x", "x".repeat(16 * 1024)).sign());
}

fn depths(list: &mut ForgeryList<'_>) {
    let why = "unlimited nesting exhausts the stack of a parser";
    let (key, header, payload) = list.valid().parts();
    let mut deep = |name, levels, within_header| {
        let nested = format!(r#""x":{}{}"#, "[".repeat(levels), "]".repeat(levels));
        list.add(name, why, deep_token(&key, &header, &payload, &nested, within_header));
    };
    // The enclosing object is the first level.
    deep("claims 17 levels deep", 16, false);
    deep("claims 1000 levels deep", 999, false);
    deep("header 17 levels deep", 16, true);
}

fn deep_token(
    key: &SigningKey,
    header: &str,
    payload: &str,
    nested: &str,
    in_header: bool,
) -> String {
    match in_header {
        true => key.token(with_first_member(header, nested), payload),
        false => key.token(header, with_first_member(payload, nested)),
    }
}

/// Inserts a member before the others.
pub(super) fn with_first_member(object: &str, member: &str) -> String {
    object.replacen('{', &format!("{{{member},"), 1)
}
