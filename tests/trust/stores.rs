//! Stores of policy versions: the conformance suite, and the stores that it finds faulty.

use std::sync::Arc;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::testing::conformance::policy_store;
use scaikey_auth::trust::{
    Appended, FilePolicies, MemoryPolicies, NewPolicyVersion, PolicyChange, PolicyStore,
    PolicyVersion, PolicyVersionId,
};

use crate::support::File;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_store_passes_conformance_suite() {
    policy_store(Arc::new(MemoryPolicies::new())).await;
    assert_eq!(MemoryPolicies::new().kind(), "memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn file_store_passes_conformance_suite() {
    let file = File::reserve("trust.toml");
    policy_store(Arc::new(FilePolicies::new(file.path()))).await;
    assert_eq!(FilePolicies::new("x").kind(), "file");
}

#[test]
fn version_ids_have_one_spelling() {
    let id = PolicyVersionId::new(7, "text");
    assert_eq!(id.to_string().parse(), Ok(id.clone()));
    assert!(id.is_of("text") && !id.is_of("text "));
    let digest = id.to_string().split_off(2);
    for faulty in ["", "7", "7-", "-7", "07-", "+7-", " 7-", "7-x", "18446744073709551616-"] {
        for text in [faulty.to_owned(), format!("{faulty}{}", digest.to_uppercase())] {
            assert!(text.parse::<PolicyVersionId>().is_err(), "{text}");
        }
    }
    assert!(format!("07-{digest}").parse::<PolicyVersionId>().is_err());
    assert!(format!("+7-{digest}").parse::<PolicyVersionId>().is_err());
}

/// A mistake that the author of a store could make.
#[derive(Debug, Clone, Copy)]
enum Mistake {
    ChecksThenWrites,
    IgnoresDigest,
    IgnoresExpectation,
    TrimsText,
    ForgetsAuthor,
    ForgetsRestored,
    SharesEqualTexts,
    OldestFirst,
    IgnoresLimit,
    IncludesBefore,
    CountsFromZero,
    CutsLongTexts,
}

#[derive(Debug)]
struct Faulty(MemoryPolicies, Mistake);

#[async_trait]
impl PolicyStore for Faulty {
    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.0.latest().await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        match self.1 {
            Mistake::CountsFromZero => self.0.read(number.saturating_add(1)).await,
            _ => self.0.read(number).await,
        }
    }

    async fn append(
        &self,
        mut version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        let latest = self.0.latest().await?;
        let is_expected = latest.as_ref() == expected;
        let has_number = latest.as_ref().map(|id| id.number()) == expected.map(|id| id.number());
        match self.1 {
            Mistake::ChecksThenWrites if is_expected => {
                tokio::task::yield_now().await;
                let latest = self.0.latest().await?;
                return self.0.append(version, latest.as_ref()).await;
            }
            Mistake::IgnoresDigest if has_number => {
                return self.0.append(version, latest.as_ref()).await;
            }
            Mistake::IgnoresExpectation => return self.0.append(version, latest.as_ref()).await,
            Mistake::TrimsText => version.text = version.text.trim_end().to_owned(),
            Mistake::CutsLongTexts => version.text.truncate(65_535),
            Mistake::ForgetsAuthor => version.author = None,
            Mistake::ForgetsRestored => version.restores = None,
            Mistake::SharesEqualTexts => {
                for number in 1..=latest.as_ref().map_or(0, |id| id.number()) {
                    let known = self.0.read(number).await?.filter(|old| old.text == version.text);
                    if let (true, Some(known)) = (is_expected, known) {
                        return Ok(Appended::Done(known.change.id));
                    }
                }
            }
            _ => {}
        }
        self.0.append(version, expected).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        match self.1 {
            Mistake::OldestFirst => {
                let mut all = self.0.history(before, limit).await?;
                all.reverse();
                Ok(all)
            }
            Mistake::IgnoresLimit => self.0.history(before, usize::MAX).await,
            Mistake::IncludesBefore => {
                self.0.history(before.map(|before| before.saturating_add(1)), limit).await
            }
            _ => self.0.history(before, limit).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn suite_names_the_broken_rule() {
    use Mistake::*;
    for (mistake, rule) in [
        (ChecksThenWrites, "of parallel appends exactly one succeeds"),
        (IgnoresDigest, "an append that expects another version is a conflict"),
        (IgnoresExpectation, "an append to an empty store that expects a version is a conflict"),
        (TrimsText, "gets the next number"),
        (CutsLongTexts, "gets the next number"),
        (ForgetsAuthor, "a version is stored byte for byte, with author, note and time"),
        (ForgetsRestored, "a version is stored byte for byte, with author, note and time"),
        (SharesEqualTexts, "gets the next number"),
        (OldestFirst, "the pages of the history"),
        (IgnoresLimit, "a page of the history has at most `limit` versions"),
        (IncludesBefore, "the pages of the history"),
        (CountsFromZero, "a version is stored byte for byte"),
    ] {
        let store = Arc::new(Faulty(MemoryPolicies::new(), mistake));
        let outcome = tokio::spawn(policy_store(store)).await;
        let panic = outcome.expect_err(&format!("{mistake:?} passed")).into_panic();
        let message = panic.downcast_ref::<String>().map_or("", String::as_str);
        assert!(
            message.contains("rule broken: ") && message.contains(rule),
            "{mistake:?}: {message}"
        );
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn unusable_database_says_what_to_do() {
    use scaikey_auth::trust::SqlPolicies;
    let missing = File::reserve("vault.db");
    let url = format!("sqlite://{}", missing.path_text());
    let error = SqlPolicies::connect(&url.into()).await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(text.contains("unable to open database file"), "{text}");
        assert!(text.contains("add `?mode=rwc`") && text.contains("create its folder"), "{text}");
    }
    let other = File::new("vault.db", &"This is no database.\n".repeat(100));
    let error = SqlPolicies::connect(&other.sqlite_url()).await.unwrap_err().to_string();
    assert!(error.contains("not a database") && !error.contains("mode=rwc"), "{error}");
}

#[tokio::test]
async fn missing_folder_of_a_file_is_named() {
    let file = File::reserve("trust.toml");
    let path = file.path().with_file_name("missing").join("trust.toml");
    let error = FilePolicies::new(&path).latest().await.unwrap_err().to_string();
    let expected = format!("{} cannot be read: its folder does not exist", path.display());
    assert_eq!(error, expected);
}
