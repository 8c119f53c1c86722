//! What `ringway l2fwd` tells about itself: counters of ports and workers, for people and programs.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::clock;
use ethdev::{Load, LoadReport, Port};
use serde::Serialize;
use serde_json::json;

use super::forward::Plan;
use crate::control::protocol::Counters;
use crate::output;
use crate::table::{self, Align, Cell, Table, Tone, approximate, count, packet_rate};

/// Clears the screen and puts the cursor into its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// A worker as the main thread sees it.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The core that it is bound to, if any.
    pub core: Option<usize>,
    /// How many receive queues it has.
    pub queues: usize,
    /// Its counters.
    pub load: Arc<Load>,
}

/// Counters of everything at one moment.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    /// Seconds since forwarding began.
    seconds: f64,
    ports: Vec<PortSample>,
    total: Total,
    workers: Vec<WorkerSample>,
}

#[derive(Clone, Debug, Serialize)]
struct PortSample {
    port: usize,
    name: String,
    device: String,
    mac: String,
    /// The number of the port that its frames go to.
    to: usize,
    link_up: bool,
    received: Counters,
    sent: Counters,
}

impl PortSample {
    /// Frames of it that were dropped, and frames for it.
    const fn dropped(&self) -> u64 {
        self.received.dropped.wrapping_add(self.sent.dropped)
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Total {
    received: u64,
    sent: u64,
    dropped: u64,
}

#[derive(Clone, Debug, Serialize)]
struct WorkerSample {
    core: Option<usize>,
    queues: usize,
    frames: u64,
    busy_rounds: u64,
    busy_cycles: u64,
    sleeps: u64,
}

/// Prints statistics.
#[derive(Debug)]
pub struct Reporter {
    json: bool,
    clear: bool,
    plans: Vec<Plan>,
    workers: Vec<Worker>,
    start: Instant,
    /// The last sample, for rates.
    last: Sample,
}

impl Reporter {
    /// A reporter of what happens from now on.
    pub fn new(json: bool, plans: Vec<Plan>, workers: Vec<Worker>, ports: &[Port]) -> Self {
        let clear = !json && std::io::stdout().is_terminal();
        let last = Sample { seconds: 0.0, ports: vec![], total: Total::default(), workers: vec![] };
        let mut reporter = Self { json, clear, plans, workers, start: Instant::now(), last };
        reporter.last = reporter.sample(ports, Duration::ZERO);
        reporter
    }

    /// Says that forwarding has begun.
    pub fn ready(&self) {
        if self.json {
            let ports = &self.last.ports;
            output::json_line(
                &json!({ "ready": { "ports": ports, "workers": self.last.workers } }),
            );
            return;
        }
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let (ports, workers) = (self.plans.len(), &self.workers);
        let cores: Vec<String> =
            workers.iter().filter_map(|worker| worker.core).map(|core| core.to_string()).collect();
        let cores = match cores.len() {
            0 => String::new(),
            count => format!(" on core{} {}", plural(count), cores.join(",")),
        };
        output::line(&format!(
            "ringway l2fwd ready: {ports} port{}, {} worker{}{cores}; Ctrl-C ends it",
            plural(ports),
            workers.len(),
            plural(workers.len()),
        ));
    }

    /// Prints the counters, with rates since they were printed last.
    pub fn print(&mut self, ports: &[Port]) {
        let now = self.sample(ports, self.start.elapsed());
        if self.json {
            output::json_line(&json!({ "statistics": now }));
        } else {
            let text = render(&now, Some(&self.last), table::colour_stdout());
            output::text(&format!("{}{text}\n", if self.clear { CLEAR } else { "" }));
        }
        self.last = now;
    }

    /// Prints the counters at the end, with mean rates.
    pub fn summary(&self, ports: &[Port]) {
        let now = self.sample(ports, self.start.elapsed());
        if self.json {
            output::json_line(&json!({ "summary": now }));
        } else {
            let text = render(&now, None, table::colour_stdout());
            output::text(&format!("\nIn {} of forwarding:\n{text}", span(now.seconds)));
        }
    }

    fn sample(&self, ports: &[Port], time: Duration) -> Sample {
        let ports: Vec<PortSample> = ports.iter().zip(&self.plans).enumerate().map(port).collect();
        let total = ports.iter().fold(Total::default(), |sum, port| Total {
            received: sum.received.wrapping_add(port.received.packets),
            sent: sum.sent.wrapping_add(port.sent.packets),
            dropped: sum.dropped.wrapping_add(port.dropped()),
        });
        let workers = self.workers.iter().map(worker).collect();
        Sample { seconds: time.as_secs_f64(), ports, total, workers }
    }
}

fn port((number, (port, plan)): (usize, (&Port, &Plan))) -> PortSample {
    let stats = port.stats();
    PortSample {
        port: number,
        name: port.name().to_owned(),
        device: port.device().to_owned(),
        mac: port.control().mac().to_string(),
        to: plan.to,
        link_up: port.control().link().up,
        received: Counters::from(&stats.rx_total()),
        sent: Counters::from(&stats.tx_total()),
    }
}

fn worker(worker: &Worker) -> WorkerSample {
    let LoadReport { busy_rounds, frames, busy_cycles, sleeps } = worker.load.report();
    let (core, queues) = (worker.core, worker.queues);
    WorkerSample { core, queues, frames, busy_rounds, busy_cycles, sleeps }
}

/// Counters since the start, rates since `before`, or since the start where there is none.
fn render(now: &Sample, before: Option<&Sample>, colour: bool) -> String {
    let right = Align::Right;
    let mut table = Table::new(&[
        ("port", Align::Left),
        ("to", Align::Left),
        ("link", Align::Left),
        ("received", right),
        ("", right),
        ("sent", right),
        ("", right),
        ("dropped", right),
    ]);
    let seconds = now.seconds - before.map_or(0.0, |before| before.seconds);
    let rate = |now: u64, before: u64| {
        packet_rate(approximate(now.saturating_sub(before)) / seconds.max(1e-9))
    };
    for (index, port) in now.ports.iter().enumerate() {
        let earlier = before.and_then(|before| before.ports.get(index));
        let earlier = |take: fn(&PortSample) -> u64| earlier.map_or(0, take);
        let link = if port.link_up { ("up", Tone::Good) } else { ("down", Tone::Bad) };
        table.row(vec![
            port.name.as_str().into(),
            now.ports.get(port.to).map_or("", |to| to.name.as_str()).into(),
            Cell::toned(link.0, link.1),
            count(port.received.packets).into(),
            rate(port.received.packets, earlier(|port| port.received.packets)).into(),
            count(port.sent.packets).into(),
            rate(port.sent.packets, earlier(|port| port.sent.packets)).into(),
            Cell::trouble(port.dropped()),
        ]);
    }
    let earlier = before.map_or(Total::default(), |before| before.total);
    table.row(vec![
        "total".into(),
        "".into(),
        "".into(),
        count(now.total.received).into(),
        rate(now.total.received, earlier.received).into(),
        count(now.total.sent).into(),
        rate(now.total.sent, earlier.sent).into(),
        Cell::trouble(now.total.dropped),
    ]);
    let mut text = table.render(colour);
    for port in &now.ports {
        text.push_str(&drops(&port.name, "received", &port.received));
        text.push_str(&drops(&port.name, "to send", &port.sent));
    }
    for (index, worker) in now.workers.iter().enumerate() {
        let earlier = before.and_then(|before| before.workers.get(index));
        text.push_str(&worker_line(index, worker, earlier, seconds));
    }
    text
}

/// Dropped frames of one side of a port by reason; nothing where there are none.
fn drops(port: &str, side: &str, counters: &Counters) -> String {
    if counters.drops.is_empty() {
        return String::new();
    }
    let reasons: Vec<String> =
        counters.drops.iter().map(|(name, value)| format!("{} {name}", count(*value))).collect();
    format!("{port}: {side} and dropped: {}\n", reasons.join(", "))
}

fn worker_line(
    index: usize,
    now: &WorkerSample,
    before: Option<&WorkerSample>,
    seconds: f64,
) -> String {
    let since = |take: fn(&WorkerSample) -> u64| {
        approximate(take(now).wrapping_sub(before.map_or(0, take)))
    };
    let (frames, rounds) = (since(|worker| worker.frames), since(|worker| worker.busy_rounds));
    let cycles = since(|worker| worker.busy_cycles);
    let load = 100.0 * cycles / approximate(clock::hz()) / seconds.max(1e-9);
    let core = now.core.map_or(String::new(), |core| format!(" on core {core}"));
    let queues = if now.queues == 1 { "queue" } else { "queues" };
    let mut line = format!("worker {index}{core}: {} {queues}, {load:.0} % busy", now.queues);
    if frames > 0.0 {
        let (each, burst) = (cycles / frames, frames / rounds.max(1.0));
        line.push_str(&format!(", {each:.0} cycles per frame, {burst:.1} frames per round"));
    }
    line.push('\n');
    line
}

/// A time for people: tenths of seconds where there are few.
fn span(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds).as_secs();
    if whole < 60 { format!("{seconds:.1} s") } else { table::seconds(whole) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample(seconds: f64, packets: u64) -> Sample {
        let counters = |packets, dropped| Counters {
            packets,
            dropped,
            drops: BTreeMap::from([("ring_full".to_owned(), dropped)])
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            ..Counters::default()
        };
        let port = |port: usize, name: &str, received, sent, dropped| PortSample {
            port,
            name: name.to_owned(),
            device: "null:".to_owned(),
            mac: "02:00:00:00:00:02".to_owned(),
            to: port ^ 1,
            link_up: port == 0,
            received: counters(received, 0),
            sent: counters(sent, dropped),
        };
        let worker = WorkerSample {
            core: Some(3),
            queues: 2,
            frames: packets,
            busy_rounds: packets / 8,
            busy_cycles: packets * 100,
            sleeps: 5,
        };
        Sample {
            seconds,
            ports: vec![port(0, "lan", packets, 0, 0), port(1, "wan", 0, packets - 2, 2)],
            total: Total { received: packets, sent: packets - 2, dropped: 2 },
            workers: vec![worker],
        }
    }

    #[test]
    fn a_screen_has_ports_total_reasons_and_workers() {
        let text = render(&sample(3.0, 3_000_000), Some(&sample(1.0, 1_000_000)), false);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..6], ["lan", "wan", "up", "3,000,000", "1.00", "Mpps"], "{text}");
        assert_eq!(lines[2][..3], ["wan", "lan", "down"]);
        assert_eq!(lines[2].last(), Some(&"2"));
        assert_eq!(lines[3][..2], ["total", "3,000,000"]);
        assert_eq!(lines[4].join(" "), "wan: to send and dropped: 2 ring_full");
        assert!(text.contains("worker 0 on core 3: 2 queues, "), "{text}");
        assert!(text.contains(", 100 cycles per frame, 8.0 frames per round\n"), "{text}");
    }

    #[test]
    fn without_an_earlier_sample_rates_are_means() {
        let text = render(&sample(2.0, 1_000_000), None, false);
        assert!(text.contains("500 kpps"), "{text}");
        assert_eq!((span(0.34), span(61.2)), ("0.3 s".to_owned(), "1m01s".to_owned()));
    }

    #[test]
    fn json_has_the_names_that_the_documentation_tells() {
        let value = serde_json::to_value(sample(2.0, 1000)).unwrap();
        assert_eq!(value["ports"][1]["sent"]["drops"]["ring_full"], 2);
        assert_eq!(value["total"], json!({"received": 1000, "sent": 998, "dropped": 2}));
        assert_eq!(value["workers"][0]["busy_cycles"], 100_000);
    }
}
