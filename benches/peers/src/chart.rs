//! The chart: two panels of bars on a logarithmic scale, for light and dark pages.

use std::fmt::Write;

use scaikey_auth::config::Algorithm;

use crate::columns::{Column, Kind};
use crate::measure::{Runner, median};
use crate::rows::{CACHED, ROWS, UNCACHED};

const NAMES: f64 = 290.0;
const BARS: f64 = 380.0;
const LINE: f64 = 22.0;
const WIDTH: f64 = NAMES + BARS + 70.0;

const STYLE: &str = "<style>\
text{font:13px system-ui,sans-serif;fill:#24292f}\
.head{font-weight:600}.axis{font-size:11px;fill:#6e7781}\
.bar{fill:#9aa4af}.ours{fill:#0969da}line{stroke:#d0d7de}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{fill:#8b949e}\
.bar{fill:#6e7681}.ours{fill:#4493f8}line{stroke:#30363d}}\
</style>";

struct Bar {
    row: usize,
    microseconds: f64,
}

pub(crate) fn draw(runners: &[Runner], columns: &[Column], many: usize) -> String {
    let panels = [
        ("one valid RS256 token, repeated".to_owned(), Kind::One, Algorithm::RS256),
        (format!("{many} valid ES256 tokens, in turn"), Kind::Many, Algorithm::ES256),
    ];
    let panels =
        panels.map(|(title, kind, algorithm)| (title, bars(runners, columns, kind, algorithm)));
    // Both panels have the same scale, so that their bars are comparable.
    let scale = decades(panels.iter().flat_map(|(_, bars)| bars));
    let mut body = String::new();
    let mut top = 10.0;
    for (title, bars) in &panels {
        top = panel(&mut body, top, title, bars, scale);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\" \
         aria-label=\"Time that authentication adds to a request, in microseconds\">{STYLE}{body}</svg>\n"
    )
}

/// Returns the bars, cheapest first, without peers that reject the tokens.
fn bars(runners: &[Runner], columns: &[Column], kind: Kind, algorithm: Algorithm) -> Vec<Bar> {
    let at = columns.iter().position(|column| column.kind == kind && column.algorithm == algorithm);
    let bar = |runner: &Runner| {
        let at = at?;
        let result = &runner.results[at];
        let accepted = columns[at].fault(result.statuses.as_ref()?).is_none();
        let microseconds = median(result.overheads.iter().copied()).filter(|_| accepted)?;
        Some(Bar { row: runner.row, microseconds: microseconds.max(0.01) })
    };
    let mut bars: Vec<Bar> = runners.iter().filter_map(bar).collect();
    bars.sort_by(|one, other| one.microseconds.total_cmp(&other.microseconds));
    bars
}

/// Draws one panel and returns the top of the next one.
fn panel(body: &mut String, top: f64, title: &str, bars: &[Bar], (low, high): (f64, f64)) -> f64 {
    let x = |microseconds: f64| NAMES + BARS * (microseconds.log10() - low) / (high - low);
    let bottom = top + 34.0 + LINE * bars.len() as f64;
    text(body, "head", 0.0, top + 14.0, "start", &format!("{title}: µs added to a request"));
    for decade in low as i32..=high as i32 {
        let microseconds = 10_f64.powi(decade);
        let x = x(microseconds);
        let _ = write!(
            body,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>",
            top + 26.0
        );
        text(body, "axis", x, bottom + 14.0, "middle", &microseconds.to_string());
    }
    for (line, bar) in bars.iter().enumerate() {
        let y = top + 30.0 + LINE * line as f64;
        let class = if [CACHED, UNCACHED].contains(&bar.row) { "ours" } else { "bar" };
        let end = x(bar.microseconds);
        let length = end - NAMES;
        let _ = write!(
            body,
            "<rect class=\"{class}\" x=\"{NAMES}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"16\" rx=\"2\"/>"
        );
        text(body, "", NAMES - 8.0, y + 13.0, "end", ROWS[bar.row].title);
        text(body, "", end + 6.0, y + 13.0, "start", &label(bar.microseconds));
    }
    bottom + 36.0
}

/// Returns the powers of ten that enclose all bars, at least from 0.1 µs to 10 µs.
fn decades<'a>(bars: impl Iterator<Item = &'a Bar>) -> (f64, f64) {
    let (mut low, mut high) = (-1.0_f64, 1.0_f64);
    for bar in bars {
        low = low.min(bar.microseconds.log10().floor());
        high = high.max(bar.microseconds.log10().ceil());
    }
    (low, high)
}

fn label(microseconds: f64) -> String {
    if microseconds < 10.0 { format!("{microseconds:.2}") } else { format!("{microseconds:.0}") }
}

fn text(body: &mut String, class: &str, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = write!(
        body,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}
