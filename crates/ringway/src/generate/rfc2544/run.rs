//! Trial after trial.

use std::time::Duration;

use eal::signals::Signals;
use ethdev::TxQueue;

use super::super::lane::Lane;
use super::super::traffic::Traffic;
use super::report::{FCS, Printer, Result as Found, Trial};
use super::search::Search;
pub use super::trial::sources;
use super::trial::{Bench, Load, Outcome};
use crate::cli::{GenArgs, Mode};
use crate::exit::Failure;
use crate::output;
use crate::table::approximate;

/// Part of a rate that a sender may fall behind before it counts as unable to send that fast.
const BEHIND: f64 = 0.02;

/// Frames that a trial has at least: with fewer of them no rate is told.
const LEAST: f64 = 100.0;

/// The longest burst of back-to-back frames, as long as RFC 2544 (26.4) wants it at least.
const LONGEST: Duration = Duration::from_secs(2);

/// Runs the benchmark that `args` names on `lanes`; frames are expected on the device of `back`.
///
/// # Errors
/// When a frame arrived damaged, or something failed.
pub fn run(
    args: &GenArgs,
    traffic: Traffic,
    signals: Signals,
    lanes: Vec<Lane>,
    back: Option<TxQueue>,
) -> Result<(Vec<Trial>, Vec<Found>), Failure> {
    let bench = Bench::new(args, traffic, signals, lanes, back);
    // Searches for bursts have hundreds of trials.
    let printer = Printer::new(args.json, args.mode != Mode::BackToBack);
    let mut benchmark = Benchmark { args, bench, printer, trials: 0, all: Vec::new() };
    let mut results = Vec::new();
    for size in &args.rfc2544.sizes {
        let found = match args.mode {
            Mode::BackToBack => benchmark.back_to_back(*size),
            _ => benchmark.throughput(*size),
        };
        benchmark.printer.clear();
        // A signal: what there is so far is told.
        let Some(found) = found? else { break };
        results.push(found);
    }
    let mode = if args.mode == Mode::BackToBack { "back-to-back" } else { "throughput" };
    benchmark.printer.results(mode, &results);
    Ok((benchmark.all, results))
}

struct Benchmark<'a> {
    args: &'a GenArgs,
    bench: Bench<'a>,
    printer: Printer,
    /// Trials of the present size.
    trials: u32,
    /// All trials.
    all: Vec<Trial>,
}

impl Benchmark<'_> {
    /// Runs a trial; whether no more was lost than may be. `None` when a signal came, or nobody reads
    /// what is found.
    fn trial(&mut self, load: Load, loss: f64) -> Result<Option<(Outcome, bool)>, Failure> {
        let Some(outcome) = self.bench.run(load)? else { return Ok(None) };
        let size = load.size + FCS;
        if outcome.corrupt > 0 {
            let corrupt = outcome.corrupt;
            return Err(Failure::runtime(format!(
                "{size} bytes: {corrupt} frames arrived damaged"
            )));
        }
        self.trials += 1;
        let passed = outcome.sent > 0 && outcome.loss() <= loss;
        let trial = Trial::of(size, &outcome, passed);
        self.printer.trial(&trial);
        self.all.push(trial);
        if outcome.sent > 0 && outcome.received == 0 && !passed {
            // Less of it would not come either.
            let back = self.args.port2.iter().chain(&self.args.ports).next();
            let back = back.map_or("", String::as_str);
            return Err(Failure::runtime(format!(
                "{size} bytes: none of {} frames arrived at {back}: what is tested has to forward \
                 from --port to --port2, or back",
                outcome.sent
            )));
        }
        Ok((!output::is_closed()).then_some((outcome, passed)))
    }

    /// The highest rate at which no more is lost than may be (RFC 2544, 26.1).
    fn throughput(&mut self, size: u16) -> Result<Option<Found>, Failure> {
        let wish = &self.args.rfc2544;
        let (loss, precision, time) = (wish.loss, wish.precision / 100.0, wish.trial);
        let bytes = size.saturating_sub(FCS);
        self.trials = 0;
        let asked = self.args.rate.map(|rate| rate.packets_per_second(f64::from(bytes)));
        let load = |rate| Load { size: bytes, rate, count: None, time };
        let Some((first, passed)) = self.trial(load(asked), loss)? else { return Ok(None) };
        let most = asked.unwrap_or_else(|| first.rate());
        let mut search = Search::new(LEAST / time.as_secs_f64(), most, precision);
        let mut limited = passed;
        if passed {
            // There is nothing beyond it to be tried.
            search.pass(first.rate());
            search.fail(first.rate());
        } else {
            search.fail(most);
        }
        while let Some(rate) = search.next() {
            let Some((outcome, passed)) = self.trial(load(Some(rate)), loss)? else {
                return Ok(None);
            };
            let behind = outcome.rate() < rate * (1.0 - BEHIND);
            let reached = outcome.rate().min(rate);
            if passed && reached > search.result() {
                limited = behind;
                search.pass(reached);
            }
            if !passed || behind {
                search.fail(rate);
            }
        }
        let rate = search.result();
        Ok(Some(Found {
            size,
            throughput_pps: Some(rate),
            throughput_bps: Some(rate * 8.0 * f64::from(size)),
            burst_frames: None,
            burst_pps: None,
            trials: self.trials,
            limited_by_generator: limited,
        }))
    }

    /// The longest burst at full speed of which nothing is lost (RFC 2544, 26.4), on average.
    fn back_to_back(&mut self, size: u16) -> Result<Option<Found>, Failure> {
        let wish = &self.args.rfc2544;
        let (precision, repeat) = (wish.precision / 100.0, wish.repeat);
        let bytes = size.saturating_sub(FCS);
        self.trials = 0;
        let rate = self.args.rate.map(|rate| rate.packets_per_second(f64::from(bytes)));
        let load = |count: Option<u64>, time| Load { size: bytes, rate, count, time };
        // How many frames that is, at the speed that there is.
        let first = load(self.args.count, LONGEST);
        let Some((all, _)) = self.trial(first, 0.0)? else { return Ok(None) };
        let most = all.sent.max(1);
        let (mut sum, mut limited) = (0.0, true);
        for number in 1..=repeat {
            let before = self.trials;
            let mut search = Search::whole(approximate(most), precision);
            while let Some(burst) = search.next() {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "from 1 to a number of frames"
                )]
                let frames = burst.round() as u64;
                let load = load(Some(frames), LONGEST.saturating_mul(4));
                let Some((_, passed)) = self.trial(load, 0.0)? else { return Ok(None) };
                if passed {
                    search.pass(approximate(frames));
                } else {
                    search.fail(approximate(frames));
                }
            }
            let trials = self.trials.saturating_sub(before);
            self.printer.search(size, (number, repeat), search.result(), trials);
            sum += search.result();
            limited &= search.result() >= approximate(most);
        }
        let repeats = f64::from(repeat.max(1));
        Ok(Some(Found {
            size,
            throughput_pps: None,
            throughput_bps: None,
            burst_frames: Some(sum / repeats),
            burst_pps: Some(all.rate()),
            trials: self.trials,
            limited_by_generator: limited,
        }))
    }
}
