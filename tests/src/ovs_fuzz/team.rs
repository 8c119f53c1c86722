use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::Effort;
use super::both::{Both, IMPATIENCE, PATIENCE};
use super::case::Case;
use super::report::Report;
use super::shrink::shrink;

/// How often is told how far it is.
const PROGRESS: Duration = Duration::from_secs(20);

/// Has pairs of switches compare one set of rules after the other, until there were enough.
pub fn run(dir: &Path, effort: Effort) -> Result<Report> {
    let begin = Instant::now();
    let report = Report { seeds: (effort.seed, effort.seed), ..Report::default() };
    let state = Mutex::new(State { report, told: begin, is_over: false });
    let team = Team { effort, begin, state };
    thread::scope(|scope| {
        let one = |pair: usize| {
            let (team, dir) = (&team, dir.join(pair.to_string()));
            scope.spawn(move || team.compare(&dir))
        };
        let all: Vec<_> = (0..effort.pairs.max(1)).map(one).collect();
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow!("a pair has panicked"))?)
    })?;
    Ok(team.state.into_inner().unwrap_or_else(PoisonError::into_inner).report)
}

/// What pairs of switches have in common.
struct Team {
    effort: Effort,
    begin: Instant,
    state: Mutex<State>,
}

struct State {
    report: Report,
    /// When was told how far it is.
    told: Instant,
    /// Something is wrong with one of them.
    is_over: bool,
}

impl Team {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next seed, if there is to be one.
    fn next(&self) -> Option<u64> {
        let Effort { time, sets, packets, seed: first, differences, .. } = self.effort;
        let mut state = self.state();
        let State { report, told, is_over } = &mut *state;
        if told.elapsed() >= PROGRESS {
            *told = Instant::now();
            eprintln!("in {} s: {report}", self.begin.elapsed().as_secs());
        }
        let seed = report.seeds.1;
        let is_enough = *is_over
            || self.begin.elapsed() >= time
            || seed - first >= sets
            || report.packets >= packets
            || report.differences.len() >= differences;
        if is_enough {
            return None;
        }
        report.seeds.1 = seed + 1;
        Some(seed)
    }

    /// Compares with a pair of its own.
    fn compare(&self, dir: &Path) -> Result<()> {
        let done = self.compare_in(dir);
        self.state().is_over |= done.is_err();
        done
    }

    fn compare_in(&self, dir: &Path) -> Result<()> {
        let traces = self.effort.traces;
        let mut both = Both::start(dir, traces)?;
        while let Some(seed) = self.next() {
            match take(&mut both, seed) {
                Ok(report) => self.state().report.add(report),
                // What makes Open vSwitch end is its own matter.
                Err(_) if both.real.has_ended() => {
                    self.state().report.ended += 1;
                    both = Both::start(&dir.join(seed.to_string()), traces)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Tries the set of rules of a seed.
fn take(both: &mut Both, seed: u64) -> Result<Report> {
    let mut case = Case::new(seed);
    let found = both.agree(&mut case);
    let found = found.inspect_err(|error| eprintln!("{case}\nseed {seed}: {error:#}"))?;
    let mut report = Report {
        sets: 1,
        packets: case.count() as u64,
        traces: found.traces,
        refused: found.refused,
        mistaken: u64::from(found.is_mistaken),
        by_chance: u64::from(found.is_by_chance),
        coverage: found.coverage,
        ..Report::default()
    };
    let Some(difference) = found.difference else { return Ok(report) };
    eprintln!("seed {seed} differs, and is made smaller:\n{difference}");
    // There are many cases then, and most that differ do so for good.
    both.patience = IMPATIENCE;
    let (case, difference) = shrink(both, case, difference)?;
    both.patience = PATIENCE;
    let text = format!("--seed {seed}\n{case}{difference}");
    eprintln!("as small as it gets:\n{text}");
    report.differences.push(text);
    Ok(report)
}
