//! Builds the tables of results: rows are children, columns are kinds of tokens.

use crate::columns::{Column, Kind};
use crate::measure::{Measurement, Runner, median};
use crate::rows::ROWS;
use crate::table::Table;

/// The results of all children.
pub(crate) struct View<'a> {
    pub(crate) runners: &'a [Runner],
    pub(crate) columns: &'a [Column],
    pub(crate) rounds: usize,
    pub(crate) many: usize,
}

impl View<'_> {
    pub(crate) fn table(
        &self,
        title: &str,
        columns: &[usize],
        figure: &dyn Fn(&Measurement) -> Option<f64>,
    ) -> Table {
        let mut head = vec![String::new()];
        head.extend(columns.iter().map(|at| self.head(self.columns[*at])));
        let row = |runner: &Runner| {
            let mut row = vec![ROWS[runner.row].title.to_owned()];
            row.extend(columns.iter().map(|at| {
                let result = &runner.results[*at];
                shown(self.columns[*at], result, figure(result))
            }));
            row
        };
        Table { title: title.to_owned(), head, rows: self.runners.iter().map(row).collect() }
    }

    fn head(&self, column: Column) -> String {
        match column.kind {
            Kind::One => format!("one {}", column.title()),
            Kind::Many => format!("{} {}", self.many, column.title()),
            Kind::BadSignature => format!("bad {}", column.title()),
            _ => column.title(),
        }
    }

    pub(crate) fn add_allocations(&self, table: &mut Table) {
        table.head.push("allocations".to_owned());
        for (row, runner) in table.rows.iter_mut().zip(self.runners) {
            row.push(runner.allocations.map_or_else(String::new, |count| format!("{count:.0}")));
        }
    }

    /// Builds a table of ratios to the cost of another row in the same round.
    pub(crate) fn ratios(&self, title: &str, columns: &[usize], of: usize) -> Table {
        let Some(base) = self.runners.iter().find(|runner| runner.row == of) else {
            return self.table(title, &[], &|_| None);
        };
        let mut table = self.table(title, columns, &|_| None);
        for (row, runner) in table.rows.iter_mut().zip(self.runners) {
            for (text, at) in row.iter_mut().skip(1).zip(columns) {
                let (result, base) = (&runner.results[*at], &base.results[*at].overheads);
                let pairs = result.overheads.iter().zip(base).take(self.rounds);
                let ratio = median(pairs.map(|(overhead, base)| overhead / base));
                *text = shown(self.columns[*at], result, ratio);
            }
        }
        table
    }
}

pub(crate) fn microseconds(result: &Measurement) -> Option<f64> {
    median(result.overheads.iter().copied())
}

/// Formats a figure with three significant digits, and a wrong status if there is one.
fn shown(column: Column, result: &Measurement, figure: Option<f64>) -> String {
    let Some(statuses) = &result.statuses else { return "–".to_owned() };
    let figure = figure.map_or_else(String::new, digits);
    match column.fault(statuses) {
        // The time of a wrongly rejected token is not comparable.
        Some(status) if column.valid() => format!("({status})"),
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
