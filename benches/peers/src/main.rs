//! The driver: builds the children, signs the tokens, measures in interleaved rounds, and prints
//! tables.

mod chart;
mod children;
mod columns;
mod machine;
mod measure;
mod options;
mod protocol;
mod report;
mod rows;
mod table;
mod view;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scaikey_auth::testing::{self, Fault, ProviderEndpoint};
use serde_json::{Value, json};

use children::Child;
use measure::Runner;
use options::Options;
use report::Report;
use rows::{CACHED, ROWS, UNCACHED};

fn main() -> Result<(), Box<dyn Error>> {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            std::process::exit(2);
        }
    };
    let files = build_children(&options);
    // The provider runs on other threads, because this thread waits for the children.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let provider = runtime.block_on(provider());
    let mut report = Report::new(&options);
    let mut runners = start(&files, &provider, &mut report);
    let columns = columns::all();
    for column in &columns {
        eprint!("\rchecking: {:20}", column.title());
        let tokens = column.tokens(&provider, options.many);
        keep_if_ok(&mut runners, &mut report, |runner| runner.check(*column, &tokens));
    }
    keep_if_ok(&mut runners, &mut report, |runner| runner.prepare(options.milliseconds));
    measure::rounds(&mut runners, columns.len(), options.rounds)?;
    report.finish(&runners, &columns);
    println!("{}", report.plain());
    if options.write {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::write(folder.join("RESULTS.md"), report.markdown())?;
        std::fs::write(folder.join("chart.svg"), chart::draw(&runners, &columns, options.many))?;
    }
    Ok(())
}

/// The executable of each feature, or the reason why there is none.
type Files = BTreeMap<&'static str, Result<PathBuf, String>>;

fn build_children(options: &Options) -> Files {
    let mut files = Files::new();
    for (index, row) in ROWS.iter().enumerate() {
        let selected = options.only.is_empty()
            || options.only.iter().any(|part| row.name.contains(part.as_str()));
        if selected || [CACHED, UNCACHED].contains(&index) {
            files.entry(row.feature).or_insert_with(|| children::build(row.feature));
        }
    }
    files
}

/// Starts a provider whose tokens are valid for the whole run. Its Ed25519 key has the algorithm
/// name `EdDSA`, which peers support.
async fn provider() -> testing::Provider {
    let lifetime = Duration::from_secs(24 * 3600);
    let builder = testing::Provider::builder().algorithms(columns::ALGORITHMS);
    let provider = builder.token_lifetime(lifetime).start().await;
    provider.fail(ProviderEndpoint::Jwks, Fault::rewrite(|set| renamed(set).to_string()));
    provider
}

fn renamed(mut set: Value) -> Value {
    for key in set["keys"].as_array_mut().into_iter().flatten() {
        if key["kty"] == "OKP" {
            key["alg"] = json!("EdDSA");
        }
    }
    set
}

fn start(files: &Files, provider: &testing::Provider, report: &mut Report) -> Vec<Runner> {
    let known = protocol::Provider {
        issuer: provider.issuer(),
        audience: "scaiwave".to_owned(),
        jwks: renamed(provider.jwks()).to_string(),
        jwks_uri: provider.jwks_uri(),
    };
    let mut runners = Vec::new();
    for (index, row) in ROWS.iter().enumerate() {
        let Some(file) = files.get(row.feature) else { continue };
        let started = file.clone().and_then(|file| Child::start(&file, row.name));
        match started.and_then(|child| Runner::new(index, child, &known)) {
            Ok(runner) => runners.push(runner),
            Err(reason) => report.leave_out(index, reason),
        }
    }
    runners
}

/// Runs a step for each child. Removes a child that fails, and adds the reason to the notes.
fn keep_if_ok(
    runners: &mut Vec<Runner>,
    report: &mut Report,
    mut step: impl FnMut(&mut Runner) -> Result<(), String>,
) {
    runners.retain_mut(|runner| match step(runner) {
        Ok(()) => true,
        Err(reason) => {
            report.leave_out(runner.row, reason);
            false
        }
    });
}
