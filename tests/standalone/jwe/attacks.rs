//! Tokens that an attacker makes. Everyone who has the public key can encrypt to it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwe::JweContentEncryption as _;
use josekit::jwe::enc::A128GCM;

use super::{Service, error};
use crate::support::jwe::{ENCRYPTIONS, KeyPair};

/// Returns the five parts of a token.
fn parts(token: &str) -> Vec<Vec<u8>> {
    token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect()
}

fn join(parts: &[Vec<u8>]) -> String {
    let encoded = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part));
    encoded.collect::<Vec<_>>().join(".")
}

/// Returns the token with another part.
fn change(token: &str, nth: usize, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut parts = parts(token);
    change(&mut parts[nth]);
    join(&parts)
}

/// Returns the header of a token with a change to its text.
fn with_header(token: &str, from: &str, to: &str) -> String {
    change(token, 0, |header| {
        let text = String::from_utf8(header.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *header = text.replacen(from, to, 1).into_bytes();
    })
}

#[tokio::test]
async fn every_alteration_has_the_same_error() {
    for (alg, curve) in [("RSA-OAEP-256", ""), ("ECDH-ES", "P-256"), ("ECDH-ES+A256KW", "X25519")] {
        let pair = KeyPair::new("a", alg, curve);
        let service = Service::new([&pair]).await;
        let mut errors = BTreeSet::new();
        for enc in ENCRYPTIONS {
            let token = pair.encrypt(enc, &service.signed());
            assert_eq!(service.outcome(&token).await, "accepted");
            let mut altered = Vec::new();
            for (nth, part) in parts(&token).iter().enumerate().skip(1) {
                // The first, a middle and the last byte, and each block of the ciphertext.
                let places = (0..part.len()).step_by(if nth == 3 { 16 } else { part.len().max(1) });
                let last = part.len().checked_sub(1);
                for at in places.chain(last).chain(last.map(|last| last / 2)) {
                    altered.push(change(&token, nth, |part| part[at] ^= 1));
                }
                for length in [0, 1, 4, 8, 11, 12, 15, 16, 31, 32, 40] {
                    if length != part.len() {
                        altered.push(change(&token, nth, |part| part.resize(length, 0)));
                    }
                }
                altered.push(change(&token, nth, |part| part.push(0)));
            }
            // The header is authenticated as it was sent.
            altered.push(with_header(&token, "{", "{ "));
            for token in altered {
                assert_eq!(service.outcome(&token).await, "token_decryption", "{alg} {enc}");
                errors.insert(error(&service.auth, &token).await);
            }
        }
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}

#[tokio::test]
async fn content_under_a_guessed_key_is_refused() {
    let pair = KeyPair::new("a", "RSA-OAEP-256", "");
    let service = Service::new([&pair]).await;
    let header = r#"{"alg":"RSA-OAEP-256","enc":"A128GCM","cty":"JWT","kid":"a"}"#;
    let (iv, signed) = ([0; 12], service.signed());
    let authenticated = URL_SAFE_NO_PAD.encode(header);
    let sealed =
        A128GCM.encrypt(&[0; 16], Some(&iv), signed.as_bytes(), authenticated.as_bytes()).unwrap();
    let (text, tag) = (sealed.0, sealed.1.unwrap());
    for (encrypted_key, expected) in [
        (pair.encrypt_key(&[0; 16]), "accepted"),
        (pair.encrypt_key(&[0; 32]), "token_decryption"),
        (pair.encrypt_key(&[0; 15]), "token_decryption"),
        (pair.encrypt_key(&[]), "token_decryption"),
        (vec![0; 256], "token_decryption"),
        (vec![1; 256], "token_decryption"),
        (vec![0xff; 256], "token_decryption"),
        (vec![1; 255], "token_decryption"),
        (Vec::new(), "token_decryption"),
    ] {
        let length = encrypted_key.len();
        let parts = [header.into(), encrypted_key, iv.to_vec(), text.clone(), tag.clone()];
        assert_eq!(service.outcome(&join(&parts)).await, expected, "{length}");
    }
}

#[tokio::test]
async fn shortened_tags_are_refused() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    for enc in ENCRYPTIONS {
        let token = pair.encrypt(enc, &service.signed());
        for length in [15, 12, 4, 1, 0] {
            let cut = change(&token, 4, |tag| tag.truncate(length));
            assert_eq!(service.outcome(&cut).await, "token_decryption", "{enc} {length}");
        }
    }
}

#[tokio::test]
async fn other_algorithms_are_refused() {
    let rsa = KeyPair::new("a", "RSA-OAEP-256", "");
    let service = Service::new([&rsa]).await;
    let signed = service.signed();
    let old = rsa.with("alg", "RSA1_5").encrypt("A256GCM", &signed);
    assert_eq!(service.outcome(&old).await, "token_algorithm");
    let token = rsa.encrypt("A256GCM", &signed);
    for alg in
        ["dir", "A128KW", "A256KW", "A128GCMKW", "A256GCMKW", "RSA-OAEP-512", "none", "HS256"]
    {
        let token = with_header(&token, "RSA-OAEP-256", alg);
        assert_eq!(service.outcome(&token).await, "token_algorithm", "{alg}");
    }
    let rounds = r#"PBES2-HS256+A128KW","p2s":"AAAA","p2c":2147483648,"x":""#;
    let token = with_header(&token, "RSA-OAEP-256", rounds);
    assert_eq!(service.outcome(&token).await, "token_algorithm");
    let ec = KeyPair::p256("a");
    let service = Service::new([&ec]).await;
    for enc in ["A192GCM", "A192CBC-HS384"] {
        let token = ec.encrypt(enc, &service.signed());
        assert_eq!(service.outcome(&token).await, "token_algorithm", "{enc}");
    }
    let token = ec.with("alg", "ECDH-ES+A192KW").encrypt("A256GCM", &service.signed());
    assert_eq!(service.outcome(&token).await, "token_algorithm");
}

#[tokio::test]
async fn compression_and_critical_members_are_refused() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let bomb = "A".repeat(1 << 20);
    for content in [&service.signed(), &bomb] {
        let token = pair.encrypt_with("A256GCM", content, |header| header.set_compression("DEF"));
        assert!(token.len() < 16 * 1024, "it is compressed");
        assert_eq!(service.outcome(&token).await, "token_malformed");
    }
    for (name, value) in [
        ("crit", serde_json::json!(["exp"])),
        ("crit", serde_json::json!([])),
        ("b64", serde_json::json!(true)),
    ] {
        let token = pair.encrypt_with("A256GCM", &service.signed(), |header| {
            header.set_claim(name, Some(value.clone())).unwrap();
        });
        assert_eq!(service.outcome(&token).await, "token_malformed", "{name}");
    }
    let token = pair.encrypt("A256GCM", &service.signed());
    for members in [r#"{"zip":null,"#, r#"{"zip":"","#, r#"{"enc":"A256GCM","#, r#"{"kid":"a","#] {
        let token = with_header(&token, "{", members);
        assert_eq!(service.outcome(&token).await, "token_malformed", "{members}");
    }
}

#[tokio::test]
async fn keys_inside_a_token_are_ignored() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let own = KeyPair::p256("a");
    let with_key = |header: &mut josekit::jwe::JweHeader| {
        header.set_claim("jwk", Some(own.private())).unwrap();
        header.set_jwk_set_url("https://attacker.example/keys");
    };
    let token = own.encrypt_with("A256GCM", &service.signed(), with_key);
    assert_eq!(service.outcome(&token).await, "token_decryption");
    let token = pair.encrypt_with("A256GCM", &service.signed(), with_key);
    assert_eq!(service.outcome(&token).await, "accepted");
}

#[tokio::test]
async fn ephemeral_keys_off_the_curve_are_refused() {
    for (curve, alg) in [("P-256", "ECDH-ES"), ("P-384", "ECDH-ES+A128KW"), ("X25519", "ECDH-ES")] {
        let pair = KeyPair::new("a", alg, curve);
        let service = Service::new([&pair]).await;
        let token = pair.encrypt("A256GCM", &service.signed());
        let header: serde_json::Value = serde_json::from_slice(&parts(&token)[0]).unwrap();
        let mut headers = Vec::new();
        let x = header["epk"]["x"].as_str().unwrap();
        for (member, value, expected) in [
            ("x", "A".repeat(x.len()).into(), "token_decryption"),
            ("x", x[..x.len() - 2].into(), "token_malformed"),
            ("x", format!("{x}AA").into(), "token_malformed"),
            ("x", serde_json::json!(7), "token_malformed"),
            ("crv", "P-521".into(), "token_malformed"),
            ("crv", "Ed25519".into(), "token_malformed"),
            ("kty", "RSA".into(), "token_malformed"),
        ] {
            let mut header = header.clone();
            header["epk"][member] = value;
            headers.push((header, expected));
        }
        let mut without = header.clone();
        without.as_object_mut().unwrap().remove("epk");
        headers.push((without, "token_malformed"));
        // The key of another curve is not tried.
        let other = if curve == "P-256" { "P-384" } else { "P-256" };
        let other = KeyPair::new("a", alg, other).encrypt("A256GCM", &service.signed());
        headers.push((serde_json::from_slice(&parts(&other)[0]).unwrap(), "token_decryption"));
        for (header, expected) in headers {
            let token = change(&token, 0, |text| *text = header.to_string().into_bytes());
            assert_eq!(service.outcome(&token).await, expected, "{curve}: {header}");
        }
    }
}

#[tokio::test]
async fn other_forms_are_refused() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let token = pair.encrypt("A256GCM", &service.signed());
    for (form, expected) in [
        (format!("{token}."), "token_unrecognised"),
        (format!("{token}.AAAA"), "token_unrecognised"),
        (token.rsplit_once('.').unwrap().0.to_owned(), "token_unrecognised"),
        ("....".to_owned(), "token_malformed"),
        (format!("{token}="), "token_malformed"),
        (format!("A{token}"), "token_malformed"),
        (token.replacen('.', ".A.", 1), "token_unrecognised"),
    ] {
        assert_eq!(service.outcome(&form).await, expected, "{form}");
    }
    // The JSON serialisation is no bearer token.
    let names = ["protected", "encrypted_key", "iv", "ciphertext", "tag"];
    let members = names.iter().zip(token.split('.'));
    let json = members.map(|(name, part)| format!(r#""{name}":"{part}""#)).collect::<Vec<_>>();
    let json = format!("{{{}}}", json.join(","));
    let status = service.server.get_as("/", &json).await.status;
    assert!([400, 401].contains(&status), "{status}");
}

#[tokio::test]
async fn sizes_are_limited_outside_and_inside() {
    let pair = KeyPair::p256("a");
    let service = Service::new([&pair]).await;
    let token = |padding: usize| {
        let provider = &service.world.provider;
        let signed = provider.token().claim("padding", "A".repeat(padding)).sign();
        (signed.len(), pair.encrypt("A256GCM", &signed))
    };
    let limit = 16 * 1024;
    let (inside, short) = token(11_800);
    assert!(inside <= limit && short.len() > limit, "{inside} {}", short.len());
    assert_eq!(service.outcome(&short).await, "accepted");
    let (inside, long) = token(12_300);
    assert!(inside > limit && long.len() < 2 * limit, "{inside} {}", long.len());
    assert_eq!(service.outcome(&long).await, "token_malformed");
    assert!(error(&service.auth, &long).await.contains("too long"));
    let padded = change(&short, 3, |text| text.resize(25_000, 0));
    assert!(padded.len() > 2 * limit);
    assert_eq!(error(&service.auth, &padded).await, "malformed: the token is too long");
    let header = pair.encrypt_with("A256GCM", &service.signed(), |header| {
        header.set_claim("padding", Some("A".repeat(3200).into())).unwrap();
    });
    assert_eq!(error(&service.auth, &header).await, "malformed: the header is too long");
    // A signed token has half the limit.
    let signed = format!("{}.AAAA.AAAA", "A".repeat(limit));
    assert_eq!(error(&service.auth, &signed).await, "malformed: the token is too long");
}
