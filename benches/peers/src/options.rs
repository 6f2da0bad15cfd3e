//! What a person says to the driver.

/// How long, how often, about whom.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether the results go to files, too.
    pub(crate) write: bool,
    /// Rounds; each asks every child about everything once.
    pub(crate) rounds: usize,
    /// How long a child is asked about one kind of token in one round.
    pub(crate) milliseconds: f64,
    /// How many tokens are many.
    pub(crate) many: usize,
    /// The rows wanted, by parts of their names; all if empty. The two rows of scaikey-auth stay.
    pub(crate) only: Vec<String>,
    /// As it was said, for the record.
    pub(crate) said: String,
}

pub(crate) const USAGE: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml -- [--write] \
[--rounds 41] [--milliseconds 10] [--many 10000] [--only name,name]";

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml";

impl Options {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let words: Vec<String> = words.collect();
        let said = format!("{COMMAND} -- {}", words.join(" "));
        let mut options = Self {
            write: false,
            rounds: 41,
            milliseconds: 10.0,
            many: 10_000,
            only: Vec::new(),
            said: said.trim_end_matches([' ', '-']).to_owned(),
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
                // Cargo says so to every bench.
                "--bench" => {}
                _ => return Err(format!("{word}? {USAGE}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(word: Option<String>) -> Result<T, String> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| format!("which number? {USAGE}"))
}

fn list(word: Option<String>) -> Result<Vec<String>, String> {
    let word = word.ok_or_else(|| format!("which names? {USAGE}"))?;
    Ok(word.split(',').map(str::to_owned).collect())
}
