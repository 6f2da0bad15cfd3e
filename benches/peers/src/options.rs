//! The command-line options of the driver.

/// The options of a run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether to write the results to files.
    pub(crate) write: bool,
    /// The number of rounds. Each measures every child and every column once.
    pub(crate) rounds: usize,
    /// The duration of one measurement in a round.
    pub(crate) milliseconds: f64,
    /// The number of tokens in the columns with many tokens.
    pub(crate) many: usize,
    /// Parts of the names of the rows to measure; all rows if empty. The two rows of scaikey-auth
    /// are always included.
    pub(crate) only: Vec<String>,
    /// The command line, for the report.
    pub(crate) command: String,
}

pub(crate) const USAGE: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml -- [--write] \
[--rounds 41] [--milliseconds 10] [--many 10000] [--only name,name]";

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml";

impl Options {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let words: Vec<String> = words.collect();
        let command = format!("{COMMAND} -- {}", words.join(" "));
        let mut options = Self {
            write: false,
            rounds: 41,
            milliseconds: 10.0,
            many: 10_000,
            only: Vec::new(),
            command: command.trim_end_matches([' ', '-']).to_owned(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" => return Err(USAGE.to_owned()),
                "--write" => options.write = true,
                "--rounds" => options.rounds = number(words.next())?,
                "--milliseconds" => options.milliseconds = number(words.next())?,
                "--many" => options.many = number(words.next())?,
                "--only" => options.only = list(words.next())?,
                _ => return Err(format!("unknown option {word}. Usage: {USAGE}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(word: Option<String>) -> Result<T, String> {
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| format!("a number is missing or invalid. Usage: {USAGE}"))
}

fn list(word: Option<String>) -> Result<Vec<String>, String> {
    let word = word.ok_or_else(|| format!("the list of names is missing. Usage: {USAGE}"))?;
    Ok(word.split(',').map(str::to_owned).collect())
}
