//! Trials and results, as text and JSON.

use std::io::IsTerminal as _;

use serde::Serialize;

use super::trial::Outcome;
use crate::output;
use crate::table::{Align, Cell, Table, bit_rate, colour_stdout, count, packet_rate};

/// Bytes of the frame check sequence, which RFC 2544 counts as part of a frame.
pub const FCS: u16 = 4;

/// A trial.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Trial {
    /// Bytes of each frame, with frame check sequence.
    pub size: u16,
    /// Frames sent.
    pub sent: u64,
    /// Frames sent per second.
    pub sent_pps: f64,
    /// Frames that came.
    pub received: u64,
    /// Part of them in percent that did not.
    pub loss_percent: f64,
    /// Whether that is as little as it may be.
    pub passed: bool,
}

impl Trial {
    /// A trial with frames of `size` bytes with frame check sequence.
    pub fn of(size: u16, outcome: &Outcome, passed: bool) -> Self {
        Self {
            size,
            sent: outcome.sent,
            sent_pps: outcome.rate(),
            received: outcome.received,
            loss_percent: outcome.loss(),
            passed,
        }
    }
}

/// What was found for one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Result {
    /// Bytes of each frame, with frame check sequence.
    pub size: u16,
    /// The highest rate without more loss than allowed, in frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_pps: Option<f64>,
    /// The same in bits of frames with frame check sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_bps: Option<f64>,
    /// The longest burst that came whole, in frames, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_frames: Option<f64>,
    /// The rate of those bursts in frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_pps: Option<f64>,
    /// Trials that it took.
    pub trials: u32,
    /// More could not be tried: the generator, or a limit of the command, came first.
    pub limited_by_generator: bool,
}

/// Prints them.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// As JSON, an object per line.
    json: bool,
    /// A line for each trial, which otherwise shows only for as long as it is the last.
    each: bool,
    /// Whether a line can be written over.
    terminal: bool,
}

/// To the beginning of a line that is empty then.
const OVER: &str = "\r\x1b[K";

impl Printer {
    /// A printer, as JSON or as text; `each` trial has a line of its own there, if it is to.
    pub fn new(json: bool, each: bool) -> Self {
        Self { json, each, terminal: !json && std::io::stdout().is_terminal() }
    }

    /// A trial is over.
    pub fn trial(self, trial: &Trial) {
        if self.json {
            output::json_line(&serde_json::json!({ "trial": trial }));
            return;
        }
        let line = format!(
            "{:>5} bytes  {:>11}  {:>15} frames  {:>9.4} % lost  {}",
            trial.size,
            packet_rate(trial.sent_pps),
            count(trial.sent),
            trial.loss_percent,
            if trial.passed { "passed" } else { "failed" },
        );
        if self.each {
            output::line(&line);
        } else if self.terminal {
            output::text(&format!("{OVER}{line}"));
        }
    }

    /// One of several searches for the same is over: what it has found, after so many trials.
    pub fn search(self, size: u16, (number, of): (u32, u32), frames: f64, trials: u32) {
        if !self.json {
            self.clear();
            output::line(&format!(
                "{size:>5} bytes  search {number} of {of}  {frames:>12.0} frames  {trials:>4} trials"
            ));
        }
    }

    /// Takes away the line of a trial that is to show no more.
    pub fn clear(self) {
        if !self.each && self.terminal {
            output::text(OVER);
        }
    }

    /// All are over.
    pub fn results(self, mode: &str, results: &[Result]) {
        if self.json {
            let summary = serde_json::json!({ "mode": mode, "results": results });
            output::json_line(&serde_json::json!({ "summary": summary }));
            return;
        }
        output::line("");
        output::text(&table(results).render(colour_stdout()));
        if results.iter().any(|result| result.limited_by_generator) {
            output::line("* as much as was sent: the device under test may do more");
        }
    }
}

fn table(results: &[Result]) -> Table {
    let right = Align::Right;
    let bursts = results.iter().any(|result| result.burst_frames.is_some());
    let titles = if bursts { ["burst", "rate"] } else { ["throughput", "bit rate"] };
    let titles = [titles[0], titles[1], "trials"].map(|title| (title, right));
    let mut table = Table::new(&[&[("size", right)], &titles[..], &[("", Align::Left)]].concat());
    for result in results {
        let values = match (result.burst_frames, result.burst_pps) {
            (Some(frames), Some(rate)) => [format!("{frames:.0} frames"), packet_rate(rate)],
            _ => [
                packet_rate(result.throughput_pps.unwrap_or_default()),
                bit_rate(result.throughput_bps.unwrap_or_default()),
            ],
        };
        let [first, second] = values.map(Cell::from);
        let star = if result.limited_by_generator { "*" } else { "" };
        let size = result.size.to_string().into();
        table.row(vec![size, first, second, count(result.trials.into()).into(), star.into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_rows() {
        let outcome = Outcome { sent: 1000, received: 990, corrupt: 0, seconds: 0.5 };
        let trial = Trial::of(64, &outcome, false);
        assert!((trial.sent_pps - 2000.0).abs() < 1e-9 && (trial.loss_percent - 1.0).abs() < 1e-9);
        let throughput = Result {
            size: 64,
            throughput_pps: Some(14_880_952.0),
            throughput_bps: Some(7.62e9),
            burst_frames: None,
            burst_pps: None,
            trials: 8,
            limited_by_generator: true,
        };
        let text = table(&[throughput]).render(false);
        let expected = "\
size  throughput     bit rate  trials
  64   14.9 Mpps  7.62 Gbit/s       8  *
";
        assert_eq!(text, expected);
        let burst = Result {
            throughput_pps: None,
            throughput_bps: None,
            burst_frames: Some(512.4),
            burst_pps: Some(1e6),
            limited_by_generator: false,
            ..throughput
        };
        let value = serde_json::to_value(burst).unwrap();
        assert_eq!((&value["burst_frames"], value.get("throughput_pps")), (&512.4.into(), None));
        assert!(table(&[burst]).render(false).contains("512 frames  1.00 Mpps"));
    }
}
