//! What is told: tables of medians, notes, and how it was measured.

use crate::cells::{Cell, Kind};
use crate::machine;
use crate::measure::{Finding, Runner, median};
use crate::options::Options;
use crate::rows::{FIRST_SEEN, KNOWN, ROWS, Row};
use crate::table::Table;

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

struct View<'a> {
    runners: &'a [Runner],
    columns: &'a [Cell],
    rounds: usize,
    many: usize,
}

impl View<'_> {
    fn table(
        &self,
        title: &str,
        columns: &[usize],
        figure: &dyn Fn(&Finding) -> Option<f64>,
    ) -> Table {
        let mut head = vec![String::new()];
        head.extend(columns.iter().map(|at| self.head(self.columns[*at])));
        let row = |runner: &Runner| {
            let mut row = vec![ROWS[runner.row].title.to_owned()];
            row.extend(columns.iter().map(|at| {
                let finding = &runner.findings[*at];
                shown(self.columns[*at], finding, figure(finding))
            }));
            row
        };
        Table { title: title.to_owned(), head, rows: self.runners.iter().map(row).collect() }
    }

    fn head(&self, cell: Cell) -> String {
        match cell.kind {
            Kind::One => format!("one {}", cell.title()),
            Kind::Many => format!("{} {}", self.many, cell.title()),
            Kind::BadSignature => format!("bad {}", cell.title()),
            _ => cell.title(),
        }
    }

    fn add_allocations(&self, table: &mut Table) {
        table.head.push("allocations".to_owned());
        for (row, runner) in table.rows.iter_mut().zip(self.runners) {
            row.push(runner.allocations.map_or_else(String::new, |count| format!("{count:.0}")));
        }
    }

    /// Times the cost of another row in the same round.
    fn ratios(&self, title: &str, columns: &[usize], of: usize) -> Table {
        let Some(base) = self.runners.iter().find(|runner| runner.row == of) else {
            return self.table(title, &[], &|_| None);
        };
        let mut table = self.table(title, columns, &|_| None);
        for (row, runner) in table.rows.iter_mut().zip(self.runners) {
            for (text, at) in row.iter_mut().skip(1).zip(columns) {
                let (finding, base) = (&runner.findings[*at], &base.findings[*at].shares);
                let pairs = finding.shares.iter().zip(base).take(self.rounds);
                let ratio = median(pairs.map(|(share, base)| share / base));
                *text = shown(self.columns[*at], finding, ratio);
            }
        }
        table
    }
}

fn microseconds(finding: &Finding) -> Option<f64> {
    median(finding.shares.iter().copied())
}

/// A figure with three digits that mean something, and what was answered wrongly.
fn shown(cell: Cell, finding: &Finding, figure: Option<f64>) -> String {
    let Some(statuses) = &finding.statuses else { return "–".to_owned() };
    let figure = figure.map_or_else(String::new, digits);
    match cell.fault(statuses) {
        // How fast a good token is refused is no news.
        Some(status) if cell.valid() => format!("({status})"),
        Some(status) => format!("{figure} ({status})"),
        None => figure,
    }
}

fn digits(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        medium if medium >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
