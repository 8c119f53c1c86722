//! The second table of `ringway show stats --queues`: how hard pressed the queues are.

use crate::control::protocol::{PortStats, RxPressure, Stats, TxPressure};
use crate::table::{Align, Cell, Table, approximate, count, packet_rate};

/// The queues of all ports, as a table; with `before`, by what has been since then.
pub fn render(now: &Stats, before: Option<&Stats>, colour: bool) -> String {
    let mut table = Table::new(&[
        ("queue", Align::Left),
        ("rx load", Align::Right),
        ("bursts", Align::Right),
        ("full", Align::Right),
        ("waiting", Align::Right),
        ("tx stalls", Align::Right),
        ("room", Align::Right),
    ]);
    let from = before.map_or(0, |before| before.uptime_ms);
    let seconds = approximate(now.uptime_ms.saturating_sub(from)) / 1000.0;
    for port in &now.ports {
        let earlier = before.and_then(|before| before.ports.iter().find(|p| p.name == port.name));
        // What is new since then counts from its own start.
        let rates = before.is_some();
        for index in 0..port.rx_pressure.len().max(port.tx_pressure.len()) {
            let (rx, tx) = (queue_rx(port, index), queue_tx(port, index));
            let mut cells = vec![Cell::from(format!("{}:{index}", port.name))];
            let earlier_rx = earlier.map(|port| queue_rx(port, index)).unwrap_or_default();
            let earlier_tx = earlier.map(|port| queue_tx(port, index)).unwrap_or_default();
            cells.extend(received(&rx, &earlier_rx, seconds, rates));
            cells.extend(sent(&tx, &earlier_tx, seconds, rates));
            table.row(cells);
        }
    }
    table.render(colour)
}

fn queue_rx(port: &PortStats, index: usize) -> RxPressure {
    port.rx_pressure.get(index).cloned().unwrap_or_default()
}

fn queue_tx(port: &PortStats, index: usize) -> TxPressure {
    port.tx_pressure.get(index).cloned().unwrap_or_default()
}

fn received(now: &RxPressure, before: &RxPressure, seconds: f64, rates: bool) -> [Cell; 4] {
    let delta = |take: fn(&RxPressure) -> u64| take(now).saturating_sub(take(before));
    let bursts = delta(|queue| queue.bursts);
    let share = |part: f64, whole: f64| match whole > 0.0 {
        // An estimate may be a little more than there is.
        true => format!("{:.0} %", (part * 100.0 / whole).min(100.0)),
        false => "-".to_owned(),
    };
    [
        share(approximate(delta(|queue| queue.busy_us)), seconds * 1e6).into(),
        how_many(bursts, seconds, rates).into(),
        share(approximate(delta(|queue| queue.full_bursts)), approximate(bursts)).into(),
        depth(now.depth),
    ]
}

fn sent(now: &TxPressure, before: &TxPressure, seconds: f64, rates: bool) -> [Cell; 2] {
    let stalls = now.stalls.saturating_sub(before.stalls);
    let cell = Cell::trouble_of(how_many(stalls, seconds, rates), stalls > 0);
    [cell, depth(now.depth)]
}

fn how_many(events: u64, seconds: f64, rates: bool) -> String {
    let (value, unit) = match rates && seconds > 0.0 {
        true => (approximate(events) / seconds, "/s"),
        false => (approximate(events), ""),
    };
    packet_rate(value).replace("pps", unit).trim_end().to_owned()
}

fn depth(depth: Option<u32>) -> Cell {
    depth.map_or_else(|| "-".to_owned(), |depth| count(depth.into())).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::control::protocol::Counters;

    use super::*;

    fn stats(uptime_ms: u64, times: u64) -> Stats {
        let rx = RxPressure {
            depth: Some(17),
            bursts: 100 * times,
            full_bursts: 25 * times,
            busy_us: 400_000 * times,
        };
        let port = PortStats {
            name: "vm1".into(),
            rx: Counters::default(),
            tx: Counters::default(),
            rx_queues: Vec::new(),
            tx_queues: Vec::new(),
            rx_pressure: vec![rx],
            tx_pressure: vec![TxPressure { depth: None, stalls: 3 * times }; 2],
            extended: BTreeMap::new(),
        };
        Stats { uptime_ms, ports: vec![port] }
    }

    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn a_queue_has_its_load_since_the_start_and_since_the_last_look() {
        let text = render(&stats(2_000, 2), None, false);
        assert_eq!(words(&text)[1], ["vm1:0", "40", "%", "200", "25", "%", "17", "6", "-"]);
        let text = render(&stats(3_000, 3), Some(&stats(2_000, 2)), false);
        assert_eq!(
            words(&text)[1],
            ["vm1:0", "40", "%", "100", "/s", "25", "%", "17", "3", "/s", "-"]
        );
        // There is no second receive queue.
        assert_eq!(words(&text)[2], ["vm1:1", "0", "%", "0", "/s", "-", "-", "3", "/s", "-"]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
