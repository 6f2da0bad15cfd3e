//! What is told: tables of medians, notes, and how it was measured.

use crate::cells::Cell;
use crate::machine;
use crate::measure::{Finding, Runner};
use crate::options::Options;
use crate::rows::{FIRST_SEEN, KNOWN, ROWS, Row};
use crate::table::Table;
use crate::view::{View, microseconds};

const READING: &str = "Time is what authentication adds to one request, in µs: the protected service \
less the same service bare, both in one process, median over the rounds. Ratios are taken within \
each round. Bare is the same handler without protection, a router where the peer works in routers \
alone. Every peer has a process of its own, its newest release and its keys at hand. A number in \
brackets is a wrong status; – means the peer cannot do the algorithm.";

pub(crate) struct Report {
    how: String,
    rounds: usize,
    many: usize,
    tables: Vec<Table>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let how = format!(
            "{}. {}.\n\n`{}`, {} rounds of {} ms",
            machine::date(),
            machine::description(),
            options.said,
            options.rounds,
            options.milliseconds
        );
        let (rounds, many) = (options.rounds, options.many);
        Self { how, rounds, many, tables: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn leave_out(&mut self, row: usize, reason: String) {
        self.notes.push(format!("{}: LEFT OUT: {reason}", title(&ROWS[row])));
    }

    pub(crate) fn finish(&mut self, runners: &[Runner], columns: &[Cell]) {
        let accepted: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].valid()).collect();
        let refused: Vec<usize> = (0..columns.len()).filter(|at| !columns[*at].valid()).collect();
        let view = View { runners, columns, rounds: self.rounds, many: self.many };
        let mut times = view.table("valid tokens, µs", &accepted, &microseconds);
        view.add_allocations(&mut times);
        self.tables.push(times);
        self.tables.push(view.table("refused tokens, µs", &refused, &microseconds));
        for (of, name) in [(KNOWN, "scaikey-auth"), (FIRST_SEEN, "scaikey-auth, every token new")] {
            let title = format!("valid tokens, times the cost of {name}");
            self.tables.push(view.ratios(&title, &accepted, of));
        }
        self.tables.push(view.ratios(
            "refused tokens, times the cost of scaikey-auth",
            &refused,
            KNOWN,
        ));
        for runner in runners {
            let row = &ROWS[runner.row];
            self.notes.push(format!("{}: {}", title(row), row.note));
            let blind = |(finding, cell): (&Finding, &Cell)| {
                cell.valid() && finding.statuses.is_some() && !finding.subject_seen
            };
            if runner.findings.iter().zip(columns).any(blind) {
                self.notes.push(format!("{}: ITS HANDLER DID NOT SEE THE SUBJECT", title(row)));
            }
        }
    }

    pub(crate) fn plain(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::plain).collect();
        let notes = self.notes.join("\n");
        format!("{}\n\n{}\n{READING}\n\n{notes}", self.how, tables.join("\n"))
    }

    pub(crate) fn markdown(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::markdown).collect();
        let notes: Vec<String> = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        format!(
            "# What authentication costs\n\nWritten by the command below, not by hand.\n\n{}\n\n\
             {READING}\n\n![chart](chart.svg)\n\n{}\n### notes\n\n{}",
            self.how,
            tables.join("\n"),
            notes.concat()
        )
    }
}

fn title(row: &Row) -> String {
    format!("{} {}", row.title, machine::version(row.package))
}
