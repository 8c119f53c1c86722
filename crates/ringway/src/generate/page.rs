//! A report of a run, as one HTML page that needs nothing else.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::plot::{Axis, Line, Plot, Scale, escape};
use super::report::{Row, Summary, summary_lines};
use super::rfc2544::{Found, Trial};
use crate::cli::{GenArgs, Mode};
use crate::table::{bit_rate, count, nanoseconds, packet_rate};

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 880px; margin: 2em auto; padding: 0 1em }
pre { background: #f4f4f4; padding: .8em; overflow-x: auto }
svg { width: 100%; margin: 1em 0 }
svg text { font: 12px system-ui, sans-serif }
svg .title { font-weight: bold; font-size: 14px }
svg .x { text-anchor: middle } svg .y { text-anchor: end }
svg .grid { stroke: #ddd; fill: none }
table { border-collapse: collapse } td, th { padding: .15em .8em; text-align: right }
tr:nth-child(even) { background: #f4f4f4 }
";

/// What happened.
#[derive(Debug)]
pub enum History<'a> {
    /// Second by second, and in all.
    Run(&'a [Row], &'a Summary),
    /// Trial by trial, and what was found.
    Benchmark(&'a [Trial], &'a [Found]),
}

/// The report.
pub fn page(args: &GenArgs, latency: Option<&Histogram<u64>>, history: &History<'_>) -> String {
    let mode = clap::ValueEnum::to_possible_value(&args.mode);
    let mode = mode.map_or_else(String::new, |mode| mode.get_name().to_owned());
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <title>ringway gen {mode}</title>\n<style>\n{STYLE}</style></head><body>\n\
         <h1>ringway gen {mode}</h1>\n<pre>{}</pre>\n<p>Ringway {}</p>\n",
        escape(&command_line()),
        escape(env!("RINGWAY_VERSION")),
    );
    match history {
        History::Run(rows, summary) => {
            let _ = writeln!(html, "<pre>{}</pre>", escape(&summary_lines(summary).join("\n")));
            for plot in over_time(args, rows) {
                html.push_str(&plot.svg());
            }
            html.push_str(&latency.map_or_else(String::new, |latency| distribution(latency).svg()));
        }
        History::Benchmark(trials, found) => {
            for plot in by_size(args, found) {
                html.push_str(&plot.svg());
            }
            results(&mut html, found);
            attempts(&mut html, trials);
        }
    }
    html.push_str("</body></html>\n");
    html
}

fn command_line() -> String {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

fn seconds() -> Axis {
    Axis { title: "seconds", scale: Scale::Linear, label: |value| format!("{value:.0}") }
}

/// Rates, and latencies where there are any.
fn over_time(args: &GenArgs, rows: &[Row]) -> Vec<Plot> {
    let line = |name, value: fn(&Row) -> f64| Line {
        name,
        points: rows.iter().map(|row| (row.seconds, value(row))).collect(),
    };
    let frames = Axis { title: "", scale: Scale::Linear, label: packet_rate };
    let bits = Axis { label: bit_rate, ..frames };
    let mut plots = vec![
        Plot {
            title: "Frames per second",
            x: seconds(),
            y: frames,
            lines: vec![line("sent", |row| row.sent_pps), line("received", |row| row.received_pps)],
        },
        Plot {
            title: "Bits per second",
            x: seconds(),
            y: bits,
            lines: vec![line("sent", |row| row.sent_bps), line("received", |row| row.received_bps)],
        },
    ];
    if args.mode == Mode::Latency {
        let line = |name, value: fn(&super::report::LatencySummary) -> u64| Line {
            name,
            points: rows
                .iter()
                .filter_map(|row| Some((row.seconds, number(value(row.latency.as_ref()?)))))
                .collect(),
        };
        plots.push(Plot {
            title: "Latency",
            x: seconds(),
            y: Axis { title: "", scale: Scale::Logarithmic, label: time },
            lines: vec![
                line("median", |latency| latency.p50_ns),
                line("99 %", |latency| latency.p99_ns),
                line("longest", |latency| latency.max_ns),
            ],
        });
    }
    plots
}

/// Latency by percentile.
fn distribution(latency: &Histogram<u64>) -> Plot {
    let points = latency.iter_quantiles(5).map(|value| {
        // The last one is all of the frames, of which there are so many.
        let rest = (1.0 - value.quantile_iterated_to()).max(1.0 / number(latency.len().max(1)));
        (1.0 / rest, number(value.value_iterated_to()))
    });
    Plot {
        title: "Latency by percentile",
        x: Axis { title: "frames that were as fast", scale: Scale::Logarithmic, label: percentile },
        y: Axis { title: "", scale: Scale::Logarithmic, label: time },
        lines: vec![Line { name: "latency", points: points.collect() }],
    }
}

/// Of each thousand, say, 999.
fn percentile(of: f64) -> String {
    let percent = (1.0 - 1.0 / of.max(1.0)) * 100.0;
    let text = format!("{percent:.6}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 ns to a minute")]
fn time(value: f64) -> String {
    nanoseconds(value.clamp(0.0, 1e18) as u64)
}

const fn number(value: u64) -> f64 {
    crate::table::approximate(value)
}

/// Results by size of frame.
fn by_size(args: &GenArgs, found: &[Found]) -> Vec<Plot> {
    let size = Axis {
        title: "bytes per frame, with frame check sequence",
        scale: Scale::Linear,
        label: |value| format!("{value:.0}"),
    };
    let plot = |title, name, label, value: fn(&Found) -> Option<f64>| Plot {
        title,
        x: size,
        y: Axis { title: "", scale: Scale::Linear, label },
        lines: vec![Line {
            name,
            points: found
                .iter()
                .filter_map(|row| Some((f64::from(row.size), value(row)?)))
                .collect(),
        }],
    };
    if args.mode == Mode::BackToBack {
        let frames = |value: f64| format!("{value:.0}");
        return vec![plot("Longest burst without loss", "frames", frames, |row| row.burst_frames)];
    }
    vec![
        plot("Throughput in frames", "throughput", packet_rate, |row| row.throughput_pps),
        plot("Throughput in bits", "throughput", bit_rate, |row| row.throughput_bps),
    ]
}

fn results(html: &mut String, found: &[Found]) {
    let bursts = found.iter().any(|row| row.burst_frames.is_some());
    let titles = if bursts { ["burst", "rate"] } else { ["throughput", "bit rate"] };
    let _ = writeln!(
        html,
        "<table><tr><th>size</th><th>{}</th><th>{}</th><th>trials</th><th></th></tr>",
        titles[0], titles[1]
    );
    for row in found {
        let (first, second) = match (row.burst_frames, row.burst_pps) {
            (Some(frames), Some(rate)) => (format!("{frames:.0} frames"), packet_rate(rate)),
            _ => (
                packet_rate(row.throughput_pps.unwrap_or_default()),
                bit_rate(row.throughput_bps.unwrap_or_default()),
            ),
        };
        let note = if row.limited_by_generator { "as much as was sent" } else { "" };
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{first}</td><td>{second}</td><td>{}</td><td>{note}</td></tr>",
            row.size, row.trials
        );
    }
    html.push_str("</table>\n");
}

fn attempts(html: &mut String, trials: &[Trial]) {
    html.push_str(
        "<h2>Trials</h2>\n<table><tr><th>size</th><th>rate</th><th>frames</th><th>lost</th>\
         <th></th></tr>\n",
    );
    for trial in trials {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.4} %</td><td>{}</td></tr>",
            trial.size,
            packet_rate(trial.sent_pps),
            count(trial.sent),
            trial.loss_percent,
            if trial.passed { "passed" } else { "failed" }
        );
    }
    html.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_as_many_digits_as_they_need() {
        for (of, text) in [(1.0, "0 %"), (10.0, "90 %"), (1000.0, "99.9 %"), (1e5, "99.999 %")] {
            assert_eq!(percentile(of), text);
        }
    }

    #[test]
    fn latencies_are_a_line_that_rises() {
        let mut histogram = crate::generate::receiver::new_histogram().unwrap();
        for value in 1..=10_000_u64 {
            histogram.record(value).unwrap();
        }
        let plot = distribution(&histogram);
        let points = &plot.lines[0].points;
        assert!(points.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].1 <= two[1].1));
        assert_eq!(points.last().map(|point| point.0), Some(10_000.0));
        assert!(plot.svg().contains("99.9 %"));
    }
}
