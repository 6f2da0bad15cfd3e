//! Measures every child with every kind of token: first the correctness of its answers, then the
//! time, in interleaved rounds.

use crate::children::Child;
use crate::columns::Column;
use crate::protocol::{Answer, Command, Provider, Statuses};

/// A child and its results.
pub(crate) struct Runner {
    /// Its row in the tables.
    pub(crate) row: usize,
    child: Child,
    /// The results by column.
    pub(crate) results: Vec<Measurement>,
    pub(crate) allocations: Option<f64>,
}

/// The results of one child for one kind of token.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    /// `None` if it does not support the algorithm.
    pub(crate) statuses: Option<Statuses>,
    /// Whether the handler received the subject of a valid token.
    pub(crate) subject_seen: bool,
    calls: u32,
    bare_calls: u32,
    /// Microseconds over the bare service in each round.
    pub(crate) overheads: Vec<f64>,
}

impl Runner {
    pub(crate) fn new(row: usize, mut child: Child, provider: &Provider) -> Result<Self, String> {
        child.ask(&Command::Start(provider.clone()))?;
        Ok(Self { row, child, results: Vec::new(), allocations: None })
    }

    /// Sends the tokens of a column to the child and records its answers.
    pub(crate) fn check(
        &mut self,
        column: Column,
        tokens: &[Option<String>],
    ) -> Result<(), String> {
        let slot = self.results.len();
        let algorithm = crate::columns::name(column.algorithm).to_owned();
        let store = Command::Store { slot, algorithm, tokens: tokens.to_vec() };
        let mut result = Measurement::default();
        if matches!(self.child.ask(&store)?, Answer::Ready)
            && let Answer::Checked { statuses, subject } =
                self.child.ask(&Command::Check { slot })?
        {
            result.statuses = Some(statuses);
            result.subject_seen = subject.as_deref() == Some("alice-id");
        }
        self.results.push(result);
        Ok(())
    }

    /// Determines the number of calls per round, and the allocations for the first kind of token.
    pub(crate) fn prepare(&mut self, milliseconds: f64) -> Result<(), String> {
        for slot in 0..self.results.len() {
            if self.results[slot].statuses.is_some() {
                let calls = |nanos: f64, share| (milliseconds * share * 1e6 / nanos) as u32;
                let protected = self.nanos(slot, 100, false)?;
                let bare = self.nanos(slot, 1000, true)?;
                self.results[slot].calls = calls(protected, 1.0).max(20);
                self.results[slot].bare_calls = calls(bare, 0.25).max(20);
            }
        }
        self.allocations = Some(self.allocated(0, false)? - self.allocated(0, true)?);
        Ok(())
    }

    /// Runs one round of one column.
    pub(crate) fn round(&mut self, slot: usize) -> Result<(), String> {
        let Measurement { calls, bare_calls, .. } = self.results[slot];
        if calls > 0 {
            let protected = self.nanos(slot, calls, false)?;
            let bare = self.nanos(slot, bare_calls, true)?;
            self.results[slot].overheads.push((protected - bare) / 1e3);
        }
        Ok(())
    }

    fn nanos(&mut self, slot: usize, calls: u32, bare: bool) -> Result<f64, String> {
        match self.child.ask(&Command::Run { slot, calls, bare })? {
            Answer::Took(nanos) => Ok(nanos),
            other => Err(format!("expected a time, got {other:?}")),
        }
    }

    fn allocated(&mut self, slot: usize, bare: bool) -> Result<f64, String> {
        match self.child.ask(&Command::Allocations { slot, bare })? {
            Answer::Allocated(count) => Ok(count),
            other => Err(format!("expected a count, got {other:?}")),
        }
    }
}

/// Runs all rounds. The order rotates, so that no child always follows the same one.
pub(crate) fn rounds(runners: &mut [Runner], columns: usize, count: usize) -> Result<(), String> {
    for round in 0..count {
        eprint!("\rround {} of {count}", round + 1);
        for column in 0..columns {
            for turn in 0..runners.len() {
                let next = (turn + round) % runners.len();
                runners[next].round(column)?;
            }
        }
    }
    eprintln!();
    Ok(())
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
