//! `PUT trusts` and `POST trusts/rollback`: new versions of the policy.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use serde::Deserialize;
use serde_json::json;

use super::super::parameters::Parameters;
use super::conditions::{Expected, entity_tag};
use super::history::Version;
use super::policy_text::{Format, faults, utf8};
use super::problem::{Problem, Refused};
use super::read::store_away;
use super::{Admitted, EndpointRequest, Outcome};
use crate::support::invisible::is_misleading;
use crate::support::media_type::media_type;
use crate::trust::{
    NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyVersionId, SaveError, TrustPolicy,
};

/// The longest note, in characters.
const MAX_NOTE: usize = 200;

/// The longest name of an author, in characters.
const MAX_NAME: usize = 200;

/// The body of a request to roll back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackRequest {
    pub(super) number: u64,
    pub(super) note: Option<String>,
}

impl RollbackRequest {
    pub(super) fn of(incoming: &EndpointRequest) -> Result<Self, Problem> {
        if media_type(&incoming.head.headers) != "application/json" {
            return Err(Problem::unsupported_media_type("The body must be application/json."));
        }
        serde_json::from_slice(&incoming.body).map_err(|_| ROLLBACK)
    }
}

impl Admitted<'_> {
    /// Replaces the whole policy.
    pub(super) async fn replace(&self) -> Outcome {
        let parameters = self.parameters(&["note", "accept_lockout"])?;
        let note = checked_note(parameters.get("note"))?;
        let format = Format::of(&self.incoming.head.headers)?;
        let expected = self.expected(Expected::of).await?;
        let body = utf8(&self.incoming.body)?;
        let read = move || {
            format.parse(&body).map(|policy| match format {
                Format::Toml => (body, policy),
                Format::Json => (policy.to_toml(), policy),
            })
        };
        let (text, policy) = self.administration.run(read).await?.map_err(invalid)?;
        self.check_lockout(&parameters, &policy)?;
        let mut version = self.new_version(text);
        version.note = note;
        self.save(version, expected).await
    }

    /// Puts the text of an earlier version into force again, as a new version.
    pub(super) async fn rollback(&self) -> Outcome {
        let parameters = self.parameters(&["accept_lockout"])?;
        let request = RollbackRequest::of(&self.incoming)?;
        let note = checked_note(request.note.as_deref())?;
        if self.evaluator.policy_store().is_none() {
            return Err(READ_ONLY.into());
        }
        // A condition counts only if the request would succeed without it (RFC 9110 §13.2.1).
        let earlier = self.find_version(request.number).await?.text;
        let expected = self.expected(Expected::of_next).await?;
        let read = move || TrustPolicy::from_toml(&earlier).map(|policy| (earlier, policy));
        let (text, policy) = self.administration.run(read).await?.map_err(invalid)?;
        self.check_lockout(&parameters, &policy)?;
        let mut version = self.new_version(text);
        version.note = note;
        version.restores = Some(request.number);
        self.save(version, expected).await
    }

    pub(super) fn parameters(&self, known: &[&str]) -> Result<Parameters, Refused> {
        let query = self.incoming.head.uri.query().unwrap_or_default();
        let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        if names.any(|name| !known.contains(&&*name)) {
            let known = known.join(", ");
            let detail =
                format!("The query has an unknown parameter. The known ones are: {known}.");
            return Err(Problem::malformed_by(detail).into());
        }
        Parameters::from_query(&self.incoming, known).map_err(Problem::of_parameters)
    }

    /// Reads the version that the change expects to be in force, and compares it before the work begins. The store
    /// compares it again when it writes.
    async fn expected(
        &self,
        condition: impl FnOnce(&HeaderMap) -> Result<Expected, Problem>,
    ) -> Result<Option<PolicyVersionId>, Refused> {
        if self.evaluator.policy_store().is_none() {
            return Err(READ_ONLY.into());
        }
        let expected = condition(&self.incoming.head.headers)?;
        let latest = self.latest().await?;
        let in_force = latest.current.version().map(|version| &version.change.id);
        // A rejected version is the latest one of the store, although it is not in force.
        let current = latest.current.rejected().or(in_force);
        match expected {
            Expected::Version(id) if id.as_ref() == current => Ok(id),
            _ => Err(conflict(current)),
        }
    }

    pub(super) fn new_version(&self, text: String) -> NewPolicyVersion {
        let identity = self.caller.identity();
        let mut author = PolicyAuthor::new(identity.issuer(), identity.subject());
        author.tenant = identity.tenant_id().map(ToString::to_string);
        // Some databases store no NUL.
        let shown = |name: &str| name.chars().filter(|it| !is_hidden(*it)).take(MAX_NAME).collect();
        author.name = identity.display_name().map(shown);
        let mut version = NewPolicyVersion::new(text, self.inner.auth.now());
        version.author = Some(author);
        version
    }

    /// Refuses a policy that takes away the identity by which the caller is here, unless they insist.
    pub(super) fn check_lockout(
        &self,
        parameters: &Parameters,
        policy: &TrustPolicy,
    ) -> Result<(), Problem> {
        let accepts = match parameters.get("accept_lockout") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Problem::malformed("accept_lockout is neither true nor false.")),
        };
        let (identity, tenant) = (self.caller.identity(), self.caller.tenant());
        let tenant = tenant.map(|tenant| tenant.id());
        match !accepts && self.evaluator.would_lock_out(policy, identity, tenant) {
            true => Err(LOCKS_OUT),
            false => Ok(()),
        }
    }

    async fn save(&self, version: NewPolicyVersion, expected: Option<PolicyVersionId>) -> Outcome {
        let saved = self.evaluator.save(version.clone(), expected.as_ref()).await;
        let id = saved.map_err(|error| match error {
            SaveError::Faults(error) => invalid(error),
            SaveError::Conflict(current) => conflict(current.as_ref()),
            SaveError::ReadOnly => READ_ONLY.into(),
            SaveError::Store(error) => store_away(error).into(),
        })?;
        Ok(self.saved(id, version))
    }

    /// Returns the answer to a change.
    fn saved(&self, id: PolicyVersionId, version: NewPolicyVersion) -> Response<Bytes> {
        let tag = entity_tag(&id);
        let mut change = PolicyChange::new(id, version.at);
        (change.author, change.note) = (version.author, version.note);
        change.restores = version.restores;
        let mut response = self.inner.ok(&json!({ "version": Version::new(&change, true) }));
        if let Some(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

const ROLLBACK: Problem =
    Problem::malformed("The body must be a JSON object with number, and optionally note.");

pub(super) const READ_ONLY: Problem = Problem::new(
    403,
    "read_only",
    "The policy is in no store, so it cannot be changed here: change it where it comes from.",
);

const LOCKS_OUT: Problem = Problem::new(
    409,
    "locks_you_out",
    "The policy would no longer grant your own identity, by which you are here. To save it, add \
     accept_lockout=true.",
);

/// Returns 422 with the faults.
pub(super) fn invalid(error: crate::trust::PolicyError) -> Refused {
    Problem::faults(&faults(error.faults())).into()
}

/// Returns 412 with the tag of the version in force.
pub(super) fn conflict(current: Option<&PolicyVersionId>) -> Refused {
    let tag: Option<HeaderValue> = current.and_then(entity_tag);
    Problem::precondition_failed(tag).into()
}

/// Checks a note: the words of the author for the audit log.
pub(super) fn checked_note(note: Option<&str>) -> Result<Option<String>, Problem> {
    match note {
        Some(note) if note.chars().count() > MAX_NOTE || note.chars().any(is_hidden) => {
            Err(Problem::malformed(
                "A note has at most 200 characters, and neither line breaks nor control or invisible characters.",
            ))
        }
        note => Ok(note.map(str::to_owned)),
    }
}

/// Returns whether a character must not be in a note or a name, which other administrators read.
fn is_hidden(c: char) -> bool {
    c.is_control() || is_misleading(c)
}
