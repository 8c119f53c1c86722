//! The generator's live table and its summary.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::receiver::Received;
use crate::control::protocol::Counters;
use crate::table::{approximate, bit_rate, count, nanoseconds, packet_rate};

/// What happened in one interval.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Seconds since the start.
    pub seconds: f64,
    /// Frames sent per second.
    pub sent_pps: f64,
    /// Bits sent per second.
    pub sent_bps: f64,
    /// Frames received per second.
    pub received_pps: f64,
    /// Bits received per second.
    pub received_bps: f64,
    /// Frames dropped here, for all reasons, in the interval.
    pub dropped: u64,
    /// Damaged test frames in the interval.
    pub corrupt: u64,
    /// Latencies in the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySummary>,
}

/// Percentiles of latency in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Number of frames measured.
    pub count: u64,
    /// Shortest.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Half of the frames took at most this long.
    pub p50_ns: u64,
    /// 90 % did.
    pub p90_ns: u64,
    /// 99 % did.
    pub p99_ns: u64,
    /// 99.9 % did.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

impl LatencySummary {
    /// The percentiles of `histogram`; `None` when it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        })
    }
}

/// Everything that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The mode.
    pub mode: String,
    /// Seconds from the first to the last frame.
    pub seconds: f64,
    /// What the device or devices sent.
    pub sent: Counters,
    /// What they received.
    pub received: Counters,
    /// Sent frames per second.
    pub sent_pps: f64,
    /// Received frames per second.
    pub received_pps: f64,
    /// Good test frames received.
    pub good: u64,
    /// Damaged test frames.
    pub corrupt: u64,
    /// Test frames overtaken by a later one of their flow.
    pub reordered: u64,
    /// Frames of others.
    pub foreign: u64,
    /// Test frames that came to another port than they should have.
    pub misdirected: u64,
    /// Test frames that were sent and did not come; absent where nothing is expected back.
    pub lost: Option<u64>,
    /// Flows of which a frame came.
    pub flows: usize,
    /// How long they took.
    pub latency: Option<LatencySummary>,
}

impl Summary {
    /// Fills in what was received and checked.
    pub fn add_received(&mut self, received: &Received) {
        self.good = received.good;
        self.corrupt = received.corrupt;
        self.reordered = received.reordered;
        self.foreign = received.foreign;
        self.misdirected = received.misdirected;
    }
}

/// Prints rows and summary, as text or as one JSON object per line.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    latency: bool,
    rows: usize,
}

/// Rows after which the heading is printed again.
const HEADING_EVERY: usize = 20;

impl Printer {
    /// A printer; `latency` adds its columns.
    pub const fn new(json: bool, latency: bool) -> Self {
        Self { json, latency, rows: 0 }
    }

    /// Prints a row.
    pub fn row(&mut self, row: &Row) {
        if self.json {
            crate::output::json_line(&serde_json::json!({ "interval": row }));
            return;
        }
        if self.rows.is_multiple_of(HEADING_EVERY) {
            crate::output::line(&self.heading());
        }
        self.rows += 1;
        crate::output::line(&self.text(row));
    }

    fn heading(&self) -> String {
        let mut text = format!(
            "{:>7}  {:>11}  {:>12}  {:>11}  {:>12}  {:>9}",
            "seconds", "sent", "", "received", "", "dropped"
        );
        if self.latency {
            text.push_str(&format!("  {:>9}  {:>9}  {:>9}", "p50", "p99", "max"));
        }
        text
    }

    fn text(&self, row: &Row) -> String {
        let mut text = format!(
            "{:>7.1}  {:>11}  {:>12}  {:>11}  {:>12}  {:>9}",
            row.seconds,
            packet_rate(row.sent_pps),
            bit_rate(row.sent_bps),
            packet_rate(row.received_pps),
            bit_rate(row.received_bps),
            count(row.dropped),
        );
        if self.latency {
            let show = |value: Option<u64>| value.map_or("-".to_owned(), nanoseconds);
            let latency = row.latency.as_ref();
            text.push_str(&format!(
                "  {:>9}  {:>9}  {:>9}",
                show(latency.map(|l| l.p50_ns)),
                show(latency.map(|l| l.p99_ns)),
                show(latency.map(|l| l.max_ns)),
            ));
        }
        if row.corrupt > 0 {
            text.push_str(&format!("  {} CORRUPT", count(row.corrupt)));
        }
        text
    }

    /// Prints the summary.
    pub fn summary(&self, summary: &Summary) {
        if self.json {
            crate::output::json_line(&serde_json::json!({ "summary": summary }));
            return;
        }
        crate::output::line("");
        for line in summary_lines(summary) {
            crate::output::line(&line);
        }
    }
}

/// The summary for people, line by line.
pub fn summary_lines(summary: &Summary) -> Vec<String> {
    let total = |name: &str, counters: &Counters, pps: f64| {
        let bits = approximate(counters.bytes) * 8.0 / summary.seconds.max(1e-9);
        format!(
            "{name:<10} {} frames, {}, {}, {}{}",
            count(counters.packets),
            crate::table::bytes(counters.bytes),
            packet_rate(pps),
            bit_rate(bits),
            drops(&counters.drops),
        )
    };
    let mut lines = vec![
        total("sent", &summary.sent, summary.sent_pps),
        total("received", &summary.received, summary.received_pps),
    ];
    if summary.good > 0 || summary.corrupt > 0 || summary.lost.is_some() {
        let lost = summary.lost.map_or("unknown".to_owned(), count);
        lines.push(format!(
            "checked    {} good in {} flows, {} corrupt, {} reordered, {lost} lost, {} foreign",
            count(summary.good),
            count(summary.flows as u64),
            count(summary.corrupt),
            count(summary.reordered),
            count(summary.foreign),
        ));
    }
    if summary.misdirected > 0 {
        let misdirected = count(summary.misdirected);
        lines.push(format!("           {misdirected} came to other ports than they should have"));
    }
    if let Some(l) = &summary.latency {
        lines.push(format!(
            "latency    min {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {} (of {} frames, from \
             when each was due)",
            nanoseconds(l.min_ns),
            nanoseconds(l.p50_ns),
            nanoseconds(l.p90_ns),
            nanoseconds(l.p99_ns),
            nanoseconds(l.p999_ns),
            nanoseconds(l.max_ns),
            count(l.count),
        ));
    }
    lines
}

fn drops(drops: &BTreeMap<String, u64>) -> String {
    if drops.is_empty() {
        return String::new();
    }
    let reasons: Vec<String> =
        drops.iter().map(|(reason, value)| format!("{} {reason}", count(*value))).collect();
    format!("; dropped: {}", reasons.join(", "))
}
