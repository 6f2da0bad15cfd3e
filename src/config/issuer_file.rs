//! The form of [`IssuerConfig`] in files: its fields, laid over those of the preset that `provider` names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

#[cfg(feature = "jwe")]
use super::DecryptionKeys;
use super::issuer::{default_algorithms, default_audience_claims, default_leeway};
use super::jwks::{optional_seconds, seconds};
use super::providers::Provider;
use super::{
    Algorithm, Fault, IntrospectionSettings, IssuerConfig, JwksSettings, KeyAccess, KeySetForm,
    Origin, TokenProfile,
};
use crate::identity::{ClaimPath, ClaimTest, ClaimsMapping, TenantId};
use crate::support::secret::Secret;

/// The fields of an issuer, without `provider`. `serde` reads and writes an [`IssuerConfig`] as this type says.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, remote = "IssuerConfig")]
struct Fields {
    issuer: String,
    #[serde(default)]
    expected_issuer: Option<String>,
    #[serde(default)]
    discovery_url: Option<String>,
    #[serde(default)]
    jwks_uri: Option<String>,
    #[serde(default)]
    audience: Vec<String>,
    #[serde(default = "default_audience_claims")]
    audience_claims: Vec<ClaimPath>,
    #[serde(default)]
    insecure_accept_id_tokens: bool,
    #[serde(default)]
    access_token: Vec<ClaimTest>,
    #[serde(default = "default_algorithms")]
    algorithms: Vec<Algorithm>,
    #[serde(default)]
    profile: TokenProfile,
    #[serde(default = "default_leeway", rename = "leeway_seconds", with = "seconds")]
    leeway: Duration,
    #[serde(default, rename = "max_token_lifetime_seconds", with = "optional_seconds")]
    max_token_lifetime: Option<Duration>,
    #[serde(default)]
    allow_loopback_http: bool,
    #[serde(default)]
    insecure_http_hosts: Vec<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    keys_file: Option<PathBuf>,
    #[serde(default, skip_serializing)] // a preset has none
    decryption_keys: Option<Secret>,
    #[serde(default)]
    decryption_keys_file: Option<PathBuf>,
    #[serde(default)]
    also_unencrypted: bool,
    #[serde(default)]
    jwks: JwksSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    introspection: Option<IntrospectionSettings>,
    #[serde(default)]
    claims: ClaimsMapping,
    #[serde(default)]
    tenants: Vec<TenantId>,
    #[serde(default)]
    legacy_service_tokens: bool,
    #[serde(skip)]
    invalid_audience_claim: Option<usize>,
    #[serde(skip)]
    provider: Option<Provider>,
    #[serde(skip)]
    issuer_has_wrong_form: bool,
    #[serde(skip)]
    inline_keys: Option<Arc<str>>,
    #[serde(skip)]
    key_access: KeyAccess,
    #[serde(skip)]
    key_set_form: KeySetForm,
    #[serde(skip)]
    is_trust_domain: bool,
    #[serde(skip)]
    has_resolver: bool,
    #[serde(skip)]
    origin: Origin,
    #[serde(skip)]
    unreadable: Vec<Fault>,
    #[cfg(feature = "jwe")]
    #[serde(skip)]
    decryption: Vec<DecryptionKeys>,
}

/// Reads a configuration with `provider` as the preset with the other members laid over it.
impl<'de> Deserialize<'de> for IssuerConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Members(mut given) = Members::deserialize(from)?;
        let Some(provider) = given.remove("provider") else {
            return read(given).map_err(de::Error::custom);
        };
        let name = |error| de::Error::custom(format!("provider: {error}"));
        let provider: Provider = serde_json::from_value(provider).map_err(name)?;
        let mut issuer = String::new();
        if let Some(text) = given.remove("issuer") {
            let name = |error| de::Error::custom(format!("issuer: {error}"));
            issuer = serde_json::from_value(text).map_err(name)?;
        }
        let preset = Self::of_provider(provider, &issuer);
        let mut all = match serde_json::to_value(&preset).map_err(de::Error::custom)? {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        lay_over(&mut all, given);
        let config: Self = read(all).map_err(de::Error::custom)?;
        let issuer_has_wrong_form = preset.issuer_has_wrong_form;
        let mut config = Self { provider: preset.provider, issuer_has_wrong_form, ..config };
        config.lay_over_preset();
        Ok(config)
    }
}

impl Serialize for IssuerConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Fields::serialize(self, to)
    }
}

/// The members of a table in a file.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = match &*name {
                name if TABLES.contains(&name) => Value::Object(map.next_value::<Members>()?.0),
                name if LISTS_OF_TESTS.contains(&name) => read_tests(name, &mut map)?,
                _ => map.next_value()?,
            };
            if members.insert(name.clone(), value).is_some() {
                return Err(de::Error::custom(format!("duplicate field `{name}`")));
            }
        }
        Ok(Members(members))
    }
}

/// The members of an issuer that are tables themselves. Their members are laid over those of the preset one by
/// one.
const TABLES: [&str; 3] = ["claims", "jwks", "introspection"];

/// The lists of tests, whose members are tables.
const LISTS_OF_TESTS: [&str; 3] = ["access_token", "service_account", "mfa"];

/// Reads and checks a list of tests. A table of the general type would keep the last of two members with the same
/// name.
fn read_tests<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Value, A::Error> {
    let tests: Result<Vec<ClaimTest>, _> = map.next_value();
    let tests = tests.map_err(|error| de::Error::custom(format!("{name}: {error}")))?;
    serde_json::to_value(tests).map_err(de::Error::custom)
}

fn lay_over(preset: &mut Map<String, Value>, given: Map<String, Value>) {
    for (name, value) in given {
        match (preset.get_mut(&name), value) {
            (Some(Value::Object(table)), Value::Object(members)) if TABLES.contains(&&*name) => {
                table.extend(members);
            }
            (_, value) => {
                preset.insert(name, value);
            }
        }
    }
}

/// Reads an issuer without preset. The error names the member, because its place in the file is lost.
fn read(members: Map<String, Value>) -> Result<IssuerConfig, String> {
    let read = |members: Map<String, Value>| Fields::deserialize(Value::Object(members));
    let fits = |name: &str, value: &Value| {
        let issuer = ("issuer".to_owned(), Value::from(""));
        read(Map::from_iter([issuer, (name.to_owned(), value.clone())])).is_ok()
    };
    let wrong = |members: &Map<String, Value>| {
        let (name, value) = members.iter().find(|(name, value)| !fits(name, value))?;
        let is_wrong = |(member, value): &(&String, &Value)| {
            !fits(name, &Value::Object(Map::from_iter([((*member).clone(), (*value).clone())])))
        };
        match value.as_object().and_then(|table| table.iter().find(is_wrong)) {
            Some((member, _)) => Some(format!("{name}.{member}: ")),
            None => Some(format!("{name}: ")),
        }
    };
    read(members.clone()).map_err(|error| wrong(&members).unwrap_or_default() + &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthConfig;

    #[test]
    fn every_field_survives_a_preset() {
        for preset in [IssuerConfig::supabase("a.supabase.co"), IssuerConfig::new("https://a")] {
            let mut all = serde_json::to_value(&preset).unwrap();
            assert_eq!(
                read(all.as_object().unwrap().clone()),
                Ok(IssuerConfig { provider: None, ..preset.clone() })
            );
            all["provider"] = "supabase".into();
            all["issuer"] = "a.supabase.co".into();
            all["audience"] = "x".into();
            let error = serde_json::from_value::<IssuerConfig>(all).unwrap_err().to_string();
            assert!(error.starts_with("audience: "), "{error}");
        }
    }

    #[test]
    fn wrong_member_in_a_file_is_named() {
        for (member, expected) in [
            (r#""audiance": []"#, "audiance: unknown field `audiance`, expected one of"),
            (r#""claims": {"rolez": []}"#, "claims.rolez: unknown field `rolez`, expected one of"),
            (r#""claims": {"roles": [7]}"#, "claims.roles: invalid type: integer `7`"),
            (r#""claims": {"roles": ["/~"]}"#, "claims.roles: write a claim's name"),
            (r#""claims": []"#, "a table of settings"),
            (r#""claims": {"roles": [], "roles": []}"#, "duplicate field `roles`"),
            (
                r#""claims": {"mfa": [{"claim": "a", "equals": "b", "equals": "c"}]}"#,
                "mfa: expected a table",
            ),
            (
                r#""claims": {"service_account": [[{"claim": "a", "claim": "b"}]]}"#,
                "service_account: expected a",
            ),
            (r#""issuer": """#, "duplicate field `issuer`"),
            (r#""jwks": {"ttl": 1}"#, "jwks.ttl: unknown field `ttl`"),
            (r#""leeway_seconds": "a""#, "leeway_seconds: invalid type"),
            (r#""introspection": {"prefix": 1}"#, "introspection.prefix: unknown field `prefix`"),
        ] {
            for provider in ["", r#", "provider": "okta""#] {
                let text = format!(
                    r#"{{"issuers": [{{"issuer": "https://a.okta.com/oauth2/a"{provider}, {member}}}]}}"#
                );
                let error = serde_json::from_str::<AuthConfig>(&text).unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
        let text = r#"{"issuers": [{"provider": "keyclock"}]}"#;
        let error = serde_json::from_str::<AuthConfig>(text).unwrap_err().to_string();
        assert!(error.contains("provider: unknown variant `keyclock`, expected one of `keycloak`"));
        let error = serde_json::from_str::<AuthConfig>(r#"{"issuers": [{}]}"#).unwrap_err();
        assert!(error.to_string().contains("missing field `issuer`"), "{error}");
    }
}
