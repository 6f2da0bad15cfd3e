//! The normal form of a policy: TOML that an administrator can read and change.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Key, Table, Value};

use super::parse::TRUST;
use super::policy::{SVID_ALGORITHMS, TrustPolicy};
use crate::config::Algorithm;

/// The values of fields that may be left out.
const DEFAULTS: [(&str, &str); 7] = [
    ("max_lifetime", "\"1d\""),
    ("leeway", "\"1m\""),
    ("single_use_jti", "false"),
    ("mode", "\"enforce\""),
    ("named_only", "false"),
    ("insecure_shared_audience", "false"),
    ("allow_loopback_http", "false"),
];

/// The limit of the conditions of a rule in one line.
const MAX_IN_LINE: usize = 2;

impl TrustPolicy {
    /// Returns the policy as TOML, without comments, and without fields that have their default.
    /// [`from_toml`](Self::from_toml) reads it back to an equal policy.
    ///
    /// ```
    /// use scaikey_auth::trust::TrustPolicy;
    ///
    /// let json = r#"{ "trust": [{ "id": "k8s", "issuer": "https://k8s.example", "audiences": ["scaivault"] }] }"#;
    /// let policy = TrustPolicy::from_json(json)?;
    /// let toml = "[[trust]]\nid = \"k8s\"\nissuer = \"https://k8s.example\"\naudiences = [\"scaivault\"]\n";
    /// assert_eq!(policy.to_toml(), toml);
    /// # Ok::<_, scaikey_auth::trust::PolicyError>(())
    /// ```
    pub fn to_toml(&self) -> String {
        if self.trusts.is_empty() {
            return String::new();
        }
        let text = toml::to_string(self).map_err(|error| error.to_string());
        let document = text.and_then(|text| text.parse().map_err(|error| format!("{error}")));
        match document {
            Ok(document) => normalise(document),
            // Cannot happen. This text is no policy, so that it can never replace one.
            Err(error) => format!("the policy cannot be written as TOML: {error}"),
        }
    }
}

fn normalise(mut document: DocumentMut) -> String {
    for trust in tables(document.get_mut("trust")) {
        remove_defaults(trust);
        let rank = |key: &Key| TRUST.split(", ").position(|field| field == key.get());
        trust.sort_values_by(|a, _, b, _| rank(a).cmp(&rank(b)));
        for (mut key, member) in trust.iter_mut() {
            key.fmt();
            match member {
                Item::ArrayOfTables(rules) => rules.iter_mut().for_each(normalise_rule),
                other => write_in_line(other),
            }
        }
    }
    document.to_string()
}

fn tables(list: Option<&mut Item>) -> impl Iterator<Item = &mut Table> {
    list.and_then(Item::as_array_of_tables_mut).into_iter().flat_map(ArrayOfTables::iter_mut)
}

fn remove_defaults(trust: &mut Table) {
    let defaults = match trust.contains_key("trust_domain") {
        true => &SVID_ALGORITHMS[..],
        false => &[Algorithm::RS256, Algorithm::ES256],
    };
    let defaults: Vec<_> = defaults.iter().map(|algorithm| format!("\"{algorithm}\"")).collect();
    let algorithms = format!("[{}]", defaults.join(", "));
    for (field, default) in DEFAULTS.into_iter().chain([("algorithms", algorithms.as_str())]) {
        if trust.get(field).is_some_and(|item| item.to_string().trim() == default) {
            trust.remove(field);
        }
    }
}

fn normalise_rule(rule: &mut Table) {
    for (mut key, member) in rule.iter_mut() {
        key.fmt();
        match member {
            Item::Table(claims) if key == "claims" && claims.len() > MAX_IN_LINE => {
                for (mut claim, condition) in claims.iter_mut() {
                    claim.fmt();
                    write_in_line(condition);
                }
                // Not a table of its own, which would come after `map`: without its end, the text would be a rule with
                // fewer conditions.
                claims.set_dotted(true);
            }
            other => write_in_line(other),
        }
    }
}

/// Converts a table to an inline table.
fn write_in_line(item: &mut Item) {
    if item.is_table() {
        item.make_value();
        if let Some(value) = item.as_value_mut().and_then(Value::as_inline_table_mut) {
            value.fmt();
        }
    }
}
