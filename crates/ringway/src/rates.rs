//! The table of `ringway show stats`: counters, and rates where there are two samples.

use crate::control::protocol::{Counters, PortStats, Stats};
use crate::pressures;
use crate::table::{
    Align, Cell, Table, approximate, bit_rate, bytes, count, packet_rate, paragraph,
};

/// The statistics as a table; with `before`, rates since then; with `queues`, one row per queue.
pub fn render(now: &Stats, before: Option<&Stats>, queues: bool, colour: bool) -> String {
    if now.ports.is_empty() {
        return "no ports; 'ringway port add NAME=DEVICE' adds one\n".to_owned();
    }
    let seconds = before
        .map(|before| approximate(now.uptime_ms.saturating_sub(before.uptime_ms)) / 1000.0)
        .filter(|seconds| *seconds > 0.0);
    let (packets, octets, dropped) = match seconds {
        Some(_) => ("rate", "bit rate", "drop rate"),
        None => ("packets", "bytes", "drops"),
    };
    let right = Align::Right;
    let side = |name| [(name, right), (packets, right), (octets, right), (dropped, right)];
    let mut wide = [("port", Align::Left)].to_vec();
    wide.extend(side("rx").into_iter().chain(side("tx")));
    let mut table = Table::new(&wide);
    // One row per direction, for where both are too much for a line.
    let mut tall = Table::new(&[&[("port", Align::Left)][..], &side("")].concat());
    for port in &now.ports {
        let earlier = before.and_then(|stats| stats.ports.iter().find(|p| p.name == port.name));
        for row in rows(port, earlier, seconds, queues) {
            by_direction(&row).into_iter().for_each(|row| tall.row(row));
            table.row(row);
        }
    }
    let table = if table.fits() { table } else { tall };
    let mut text = table.render(colour);
    if queues {
        text.push('\n');
        text.push_str(&pressures::render(now, before, colour));
        text.push('\n');
    }
    for port in &now.ports {
        let since = if seconds.is_some() { "dropped in all" } else { "dropped" };
        text.push_str(&drops(&format!("{} rx {since}", port.name), &port.rx));
        text.push_str(&drops(&format!("{} tx {since}", port.name), &port.tx));
    }
    text
}

/// A row of both directions as two.
fn by_direction(row: &[Cell]) -> Vec<Vec<Cell>> {
    let Some((name, sides)) = row.split_first() else { return Vec::new() };
    let side = |(cells, word): (&[Cell], &str)| {
        let own = [name.clone(), Cell::from(word)].into_iter();
        own.chain(cells.iter().skip(1).cloned()).collect()
    };
    sides.chunks(sides.len().div_ceil(2).max(1)).zip(["rx", "tx"]).map(side).collect()
}

fn rows(
    port: &PortStats,
    before: Option<&PortStats>,
    seconds: Option<f64>,
    queues: bool,
) -> Vec<Vec<Cell>> {
    let row = |name: String, rx: Option<Pair<'_>>, tx: Option<Pair<'_>>| {
        let mut cells = vec![Cell::from(name)];
        cells.extend(side(rx, seconds));
        cells.extend(side(tx, seconds));
        cells
    };
    if !queues {
        let pair = |take: fn(&PortStats) -> &Counters| (take(port), before.map(take));
        return vec![row(port.name.clone(), Some(pair(|p| &p.rx)), Some(pair(|p| &p.tx)))];
    }
    let count = port.rx_queues.len().max(port.tx_queues.len());
    let queue = |index: usize, take: fn(&PortStats) -> &Vec<Counters>| {
        let now = take(port).get(index)?;
        Some((now, before.and_then(|before| take(before).get(index))))
    };
    (0..count)
        .map(|index| {
            let name = format!("{}:{index}", port.name);
            row(name, queue(index, |p| &p.rx_queues), queue(index, |p| &p.tx_queues))
        })
        .collect()
}

/// Counters now and before.
type Pair<'a> = (&'a Counters, Option<&'a Counters>);

/// An empty cell (the heading says which side it is), packets, bytes, drops.
fn side(pair: Option<Pair<'_>>, seconds: Option<f64>) -> Vec<Cell> {
    let Some((now, before)) = pair else {
        return vec!["".into(), "-".into(), "-".into(), "-".into()];
    };
    let (packets, octets, dropped) = match (seconds, before) {
        (Some(seconds), Some(before)) => {
            let rate = |now: u64, before: u64| approximate(now.saturating_sub(before)) / seconds;
            let bits = rate(now.bytes, before.bytes) * 8.0;
            let dropped = rate(now.dropped, before.dropped);
            let dropped = Cell::trouble_of(packet_rate(dropped), now.dropped > before.dropped);
            (packet_rate(rate(now.packets, before.packets)), bit_rate(bits), dropped)
        }
        (Some(_), None) => ("-".to_owned(), "-".to_owned(), "-".into()),
        (None, _) => (count(now.packets), bytes(now.bytes), Cell::trouble(now.dropped)),
    };
    vec!["".into(), packets.into(), octets.into(), dropped]
}

/// What was dropped, and why, behind `heading`.
fn drops(heading: &str, counters: &Counters) -> String {
    if counters.drops.is_empty() {
        return String::new();
    }
    let reasons: Vec<String> = counters
        .drops
        .iter()
        .map(|(reason, value)| format!("{} {reason}", count(*value)))
        .collect();
    paragraph(&format!("{heading}: {}", reasons.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::protocol::{RxPressure, TxPressure};

    fn stats(uptime_ms: u64, packets: u64) -> Stats {
        let counters = |packets: u64| Counters {
            packets,
            bytes: packets * 100,
            dropped: 2,
            drops: BTreeMap::from([("ring_full".to_owned(), 2)]),
            ..Counters::default()
        };
        let port = PortStats {
            name: "vm1".into(),
            rx: counters(packets),
            tx: Counters::default(),
            rx_queues: vec![counters(packets)],
            tx_queues: vec![Counters::default(), Counters::default()],
            rx_pressure: vec![RxPressure::default()],
            tx_pressure: vec![TxPressure::default(); 2],
            extended: BTreeMap::new(),
        };
        Stats { uptime_ms, ports: vec![port] }
    }

    #[test]
    fn one_sample_shows_sums_and_reasons() {
        let text = render(&stats(5, 1_234_567), None, false, false);
        assert!(text.contains("1,234,567") && text.contains("123 MB"), "{text}");
        assert!(text.contains("vm1 rx dropped: 2 ring_full"), "{text}");
    }

    #[test]
    fn two_samples_show_rates() {
        let text = render(&stats(2000, 3000), Some(&stats(1000, 1000)), false, false);
        assert!(text.contains("2.00 kpps") && text.contains("1.60 Mbit/s"), "{text}");
        // What was dropped before is told as such, beside rates that have none of it.
        assert!(text.contains("drop rate") && text.contains("0 pps"), "{text}");
        assert!(text.contains("vm1 rx dropped in all: 2 ring_full"), "{text}");
        let mut now = stats(2000, 3000);
        now.ports[0].rx.dropped = 502;
        let text = render(&now, Some(&stats(1000, 1000)), false, false);
        assert!(text.contains("500 pps"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn queues_have_rows_of_their_own() {
        let text = render(&stats(5, 7), None, true, false);
        let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["port", "vm1:0", "vm1:1", "", "queue", "vm1:0", "vm1:1", "", "vm1"]);
    }
}
