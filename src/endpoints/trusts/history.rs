//! `GET trusts/history`: the versions of the policy, which are its audit log.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::super::identity_id::rfc3339;
use super::super::parameters::Parameters;
use super::problem::{Problem, Refused};
use super::read::store_away;
use super::{Admitted, Outcome};
use crate::clock::with_timeout;
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::trust::{PolicyAuthor, PolicyChange, PolicyVersion, TenantPolicy};

/// The largest number of versions in an answer, which is also the default.
pub(super) const MAX_VERSIONS: usize = 100;

/// The limit of a request to the store, in real time.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// A version in an answer.
#[derive(Serialize)]
pub(super) struct Version {
    version: String,
    number: u64,
    at: Option<String>,
    author: Option<Author>,
    note: Option<String>,
    restores: Option<u64>,
    in_force: bool,
    /// The store cannot read this version. Only its number is known.
    damaged: bool,
}

#[derive(Serialize)]
struct Author {
    issuer: String,
    subject: String,
    tenant: Option<String>,
    name: Option<String>,
}

impl Version {
    pub(super) fn new(change: &PolicyChange, in_force: bool) -> Self {
        Self {
            version: change.id.to_string(),
            number: change.id.number(),
            at: (!change.is_damaged).then(|| rfc3339(change.at)),
            author: change.author.clone().map(Author::new),
            note: change.note.clone(),
            restores: change.restores,
            in_force,
            damaged: change.is_damaged,
        }
    }

    /// Returns a version of a tenant's part. Its id is the one in the entity tag.
    pub(super) fn of_tenant(tenant: &TenantId, change: &PolicyChange, in_force: bool) -> Self {
        let version = TenantPolicy::id_of(tenant, &change.id).to_string();
        Self { version, ..Self::new(change, in_force) }
    }
}

impl Author {
    fn new(author: PolicyAuthor) -> Self {
        let PolicyAuthor { issuer, subject, tenant, name, .. } = author;
        Self { issuer, subject, tenant, name }
    }
}

impl Admitted<'_> {
    pub(super) async fn history(&self) -> Outcome {
        let parameters = self.parameters(&["before", "limit"])?;
        let before = number(&parameters, "before")?;
        let limit = limit(&parameters, MAX_VERSIONS, MAX_VERSIONS)?;
        let latest = self.latest().await?;
        let in_force = latest.current.version().map(|version| version.change.id.clone());
        let changes = match self.evaluator.policy_store() {
            None => Vec::new(),
            Some(store) => in_time(store.history(before, limit)).await?,
        };
        let version =
            |change: &PolicyChange| Version::new(change, Some(&change.id) == in_force.as_ref());
        let versions: Vec<_> = changes.iter().map(version).collect();
        Ok(self.inner.ok(&json!({ "versions": versions })))
    }

    /// Returns one version with its text.
    pub(super) async fn version(&self, number: u64) -> Outcome {
        let latest = self.latest().await?;
        let version = self.find_version(number).await?;
        let in_force = latest.current.version().map(|version| &version.change.id);
        let is_in_force = Some(&version.change.id) == in_force;
        let change = Version::new(&version.change, is_in_force);
        Ok(self.inner.ok(&json!({ "version": change, "text": version.text })))
    }

    pub(super) async fn find_version(&self, number: u64) -> Result<PolicyVersion, Refused> {
        let store = self.evaluator.policy_store().ok_or(NO_VERSION)?;
        let version = in_time(store.read(number)).await?.ok_or(NO_VERSION)?;
        match version.change.id.number() == number && version.change.id.is_of(&version.text) {
            true => Ok(version),
            false => Err(store_away("returned another version or text").into()),
        }
    }
}

pub(super) const NO_VERSION: Problem =
    Problem::new(404, "not_found", "The policy has no version with this number.");

/// Awaits the store, but not for long.
pub(super) async fn in_time<T>(
    request: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, Refused> {
    match with_timeout(STORE_LIMIT, request).await {
        Some(answer) => answer.map_err(|error| store_away(error).into()),
        None => Err(store_away("did not answer within 5 s").into()),
    }
}

/// Reads a number of a query.
pub(super) fn number(parameters: &Parameters, name: &str) -> Result<Option<u64>, Problem> {
    let parse = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number)
    };
    let malformed = || Problem::malformed_by(format!("The parameter {name} is not a number."));
    parameters.get(name).map(|text| parse(text).ok_or_else(malformed)).transpose()
}

/// Reads the number of entries that an answer may have.
pub(super) fn limit(parameters: &Parameters, default: usize, max: usize) -> Result<usize, Problem> {
    let limit = match number(parameters, "limit")? {
        None => default,
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    match limit {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::malformed_by(format!("The parameter limit must be 1 to {max}."))),
    }
}
