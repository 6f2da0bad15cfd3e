//! The report: tables of medians, notes, and the conditions of the measurement.

use crate::columns::Column;
use crate::machine;
use crate::measure::{Measurement, Runner};
use crate::options::Options;
use crate::rows::{CACHED, ROWS, Row, UNCACHED};
use crate::table::Table;
use crate::view::{View, microseconds};

const EXPLANATION: &str = "Times are the microseconds that authentication adds to one request: the protected \
service minus the bare service, in one process, as a median over the rounds. Ratios are computed within \
each round. The bare service is the same handler without protection, in a router if the peer needs one. \
Every peer runs in its own process, in its newest release, with its keys already fetched. A number in \
parentheses is a wrong status; – means that the peer does not support the algorithm. Allocations are those \
of the first column. A cost below the noise can be negative.";

pub(crate) struct Report {
    conditions: String,
    rounds: usize,
    many: usize,
    tables: Vec<Table>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let conditions = format!(
            "{}. {}.\n\n`{}`, {} rounds, {} ms for each measurement",
            machine::date(),
            machine::description(),
            options.command,
            options.rounds,
            options.milliseconds
        );
        let (rounds, many) = (options.rounds, options.many);
        Self { conditions, rounds, many, tables: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn leave_out(&mut self, row: usize, reason: String) {
        self.notes.push(format!("{}: NOT MEASURED: {reason}", title(&ROWS[row])));
    }

    pub(crate) fn finish(&mut self, runners: &[Runner], columns: &[Column]) {
        let accepted: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].valid()).collect();
        let refused: Vec<usize> = (0..columns.len()).filter(|at| !columns[*at].valid()).collect();
        let view = View { runners, columns, rounds: self.rounds, many: self.many };
        let mut times = view.table("Valid tokens, µs", &accepted, &microseconds);
        view.add_allocations(&mut times);
        self.tables.push(times);
        self.tables.push(view.table("Rejected tokens, µs", &refused, &microseconds));
        for (of, name) in [(CACHED, "scaikey-auth"), (UNCACHED, "scaikey-auth without its cache")] {
            let title = format!("Valid tokens: cost relative to {name}");
            self.tables.push(view.ratios(&title, &accepted, of));
        }
        self.tables.push(view.ratios(
            "Rejected tokens: cost relative to scaikey-auth",
            &refused,
            CACHED,
        ));
        for runner in runners {
            let row = &ROWS[runner.row];
            self.notes.push(format!("{}: {}", title(row), row.note));
            let blind = |(result, column): (&Measurement, &Column)| {
                column.valid() && result.statuses.is_some() && !result.subject_seen
            };
            if runner.results.iter().zip(columns).any(blind) {
                self.notes.push(format!("{}: ITS HANDLER DID NOT RECEIVE THE SUBJECT", title(row)));
            }
        }
    }

    pub(crate) fn plain(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::plain).collect();
        let notes = self.notes.join("\n");
        format!("{}\n\n{}\n{EXPLANATION}\n\n{notes}", self.conditions, tables.join("\n"))
    }

    pub(crate) fn markdown(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::markdown).collect();
        let notes: Vec<String> = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        format!(
            "# The cost of authentication\n\nThis file is written by the command below. Do not edit it.\n\n{}\n\n\
             {EXPLANATION}\n\n![chart](chart.svg)\n\n{}\n## Notes\n\n{}",
            self.conditions,
            tables.join("\n"),
            notes.concat()
        )
    }
}

fn title(row: &Row) -> String {
    let version = machine::version(row.package);
    match row.title.strip_prefix(row.package) {
        Some(rest) => format!("{} {version}{rest}", row.package),
        None => format!("{} {version}", row.title),
    }
}
