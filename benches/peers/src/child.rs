//! A child process: runs one peer, reads commands from standard input, and writes the answers to
//! standard output.

mod peers;
mod protocol;
mod service;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use http::HeaderValue;
use tokio::runtime::Runtime;

use protocol::{Answer, Command, Provider};
use service::{Pair, Slot};

fn main() -> Result<(), Box<dyn Error>> {
    let peer =
        std::env::args().nth(1).ok_or("the argument with the name of the peer is missing")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut child =
        Child { peer, runtime, provider: None, services: BTreeMap::new(), slots: BTreeMap::new() };
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let answer = match child.answer(serde_json::from_str(&line?)?) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error.to_string()),
        };
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

struct Child {
    peer: String,
    runtime: Runtime,
    provider: Option<Provider>,
    /// Services by algorithm, because some peers need one for each. `None`: the algorithm is not
    /// supported.
    services: BTreeMap<String, Option<Pair>>,
    slots: BTreeMap<usize, (String, Slot)>,
}

impl Child {
    fn answer(&mut self, command: Command) -> Result<Answer, Box<dyn Error>> {
        match command {
            Command::Start(provider) => {
                self.provider = Some(provider);
                Ok(Answer::Ready)
            }
            Command::Store { slot, algorithm, tokens } => self.store(slot, algorithm, tokens),
            Command::Check { slot } => self.check(slot),
            Command::Run { slot, calls, bare } => self.run(slot, calls, bare),
            Command::Allocations { slot, bare } => self.allocations(slot, bare),
        }
    }

    fn store(
        &mut self,
        slot: usize,
        algorithm: String,
        tokens: Vec<Option<String>>,
    ) -> Result<Answer, Box<dyn Error>> {
        let provider = self.provider.as_ref().ok_or("not started")?;
        if !self.services.contains_key(&algorithm) {
            let pair = self.runtime.block_on(peers::build(&self.peer, provider, &algorithm))?;
            self.services.insert(algorithm.clone(), pair);
        }
        if self.services.get(&algorithm).is_none_or(Option::is_none) {
            return Ok(Answer::Unsupported);
        }
        let bearer = |token: String| HeaderValue::try_from(format!("Bearer {token}"));
        let headers = tokens.into_iter().map(|token| token.map(bearer).transpose());
        self.slots.insert(slot, (algorithm, Slot::new(headers.collect::<Result<_, _>>()?)));
        Ok(Answer::Ready)
    }

    fn check(&mut self, slot: usize) -> Result<Answer, Box<dyn Error>> {
        let (runtime, pair, slot) = self.pair_and_slot(slot)?;
        let statuses = runtime.block_on(pair.protected.send(slot, slot.len()));
        let subject = runtime.block_on(pair.protected.subject(slot));
        Ok(Answer::Checked { statuses, subject })
    }

    fn run(&mut self, slot: usize, calls: u32, bare: bool) -> Result<Answer, Box<dyn Error>> {
        let (runtime, pair, slot) = self.pair_and_slot(slot)?;
        let requests = pair.side(bare).send(slot, calls);
        let start = Instant::now();
        runtime.block_on(requests);
        Ok(Answer::Took(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)))
    }

    fn allocations(&mut self, slot: usize, bare: bool) -> Result<Answer, Box<dyn Error>> {
        const CALLS: u32 = 100;
        let (runtime, pair, slot) = self.pair_and_slot(slot)?;
        let requests = pair.side(bare).send(slot, CALLS);
        let info = allocations::measure(|| {
            runtime.block_on(requests);
        });
        Ok(Answer::Allocated(info.count as f64 / f64::from(CALLS)))
    }

    fn pair_and_slot(
        &mut self,
        slot: usize,
    ) -> Result<(&Runtime, &mut Pair, &mut Slot), Box<dyn Error>> {
        let (algorithm, slot) = self.slots.get_mut(&slot).ok_or("no such slot")?;
        let pair = self.services.get_mut(algorithm).and_then(Option::as_mut);
        Ok((&self.runtime, pair.ok_or("no such service")?, slot))
    }
}
