//! Asks every child about every kind of token: first whether it answers rightly, then how fast, in
//! interleaved rounds.

use crate::cells::Cell;
use crate::children::Child;
use crate::protocol::{Answer, Ask, Provider, Statuses};

/// A child and what is known of it.
pub(crate) struct Runner {
    /// Which row of the table it fills.
    pub(crate) row: usize,
    child: Child,
    /// By column.
    pub(crate) findings: Vec<Finding>,
    pub(crate) allocations: Option<f64>,
}

/// What one child does with one kind of token.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    /// None if it cannot do the algorithm.
    pub(crate) statuses: Option<Statuses>,
    /// Whether the handler saw the subject of a valid token.
    pub(crate) subject_seen: bool,
    calls: u32,
    bare_calls: u32,
    /// Microseconds over the bare service, by round.
    pub(crate) shares: Vec<f64>,
}

impl Runner {
    pub(crate) fn new(row: usize, mut child: Child, provider: &Provider) -> Result<Self, String> {
        child.ask(&Ask::Start(provider.clone()))?;
        Ok(Self { row, child, findings: Vec::new(), allocations: None })
    }

    /// Gives it the tokens of a column and sees how it answers all of them.
    pub(crate) fn check(&mut self, cell: Cell, tokens: &[Option<String>]) -> Result<(), String> {
        let slot = self.findings.len();
        let algorithm = crate::cells::name(cell.algorithm).to_owned();
        let keep = Ask::Keep { slot, algorithm, tokens: tokens.to_vec() };
        let mut finding = Finding::default();
        if matches!(self.child.ask(&keep)?, Answer::Ready)
            && let Answer::Checked { statuses, subject } = self.child.ask(&Ask::Check { slot })?
        {
            finding.statuses = Some(statuses);
            finding.subject_seen = subject.as_deref() == Some("alice-id");
        }
        self.findings.push(finding);
        Ok(())
    }

    /// Finds how many calls fill the time, and how much the first kind of token allocates.
    pub(crate) fn prepare(&mut self, milliseconds: f64) -> Result<(), String> {
        for slot in 0..self.findings.len() {
            if self.findings[slot].statuses.is_some() {
                let calls = |nanos: f64, share| (milliseconds * share * 1e6 / nanos) as u32;
                let protected = self.nanos(slot, 100, false)?;
                let bare = self.nanos(slot, 1000, true)?;
                self.findings[slot].calls = calls(protected, 1.0).max(20);
                self.findings[slot].bare_calls = calls(bare, 0.25).max(20);
            }
        }
        self.allocations = Some(self.allocated(0, false)? - self.allocated(0, true)?);
        Ok(())
    }

    /// One round of one column.
    pub(crate) fn round(&mut self, slot: usize) -> Result<(), String> {
        let Finding { calls, bare_calls, .. } = self.findings[slot];
        if calls > 0 {
            let protected = self.nanos(slot, calls, false)?;
            let bare = self.nanos(slot, bare_calls, true)?;
            self.findings[slot].shares.push((protected - bare) / 1e3);
        }
        Ok(())
    }

    fn nanos(&mut self, slot: usize, calls: u32, bare: bool) -> Result<f64, String> {
        match self.child.ask(&Ask::Run { slot, calls, bare })? {
            Answer::Took(nanos) => Ok(nanos),
            other => Err(format!("{other:?} is no time")),
        }
    }

    fn allocated(&mut self, slot: usize, bare: bool) -> Result<f64, String> {
        match self.child.ask(&Ask::Allocations { slot, bare })? {
            Answer::Allocated(count) => Ok(count),
            other => Err(format!("{other:?} is no count")),
        }
    }
}

/// All rounds. Who begins changes from round to round, so that nobody always follows the same neighbour.
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
