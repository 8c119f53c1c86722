//! `ringway show`: looks into a running switch.

use std::io::IsTerminal as _;
use std::time::Duration;

use eal::signals::Signals;
use serde_json::Value;

use crate::cli::{ShowArgs, What};
use crate::control::client::Client;
use crate::control::protocol::{Request, Stats, Vdpa, Worker, WorkerQueue, Workers};
use crate::exit::Failure;
use crate::output;
use crate::table::{Align, Cell, Table, Tone, approximate, colour_stdout, count, packet_rate};
use crate::vdpa::report;
use crate::{rates, wait};

pub mod bonds;
mod bridges;
mod fdb;
#[cfg(test)]
mod fits;
mod groups;
pub mod mirrors;
mod neighbours;
mod ports;
mod rstp;
use bonds::show_bonds;
use bridges::show_bridges;
use fdb::show_fdb;
use groups::show_groups;
use mirrors::show_mirrors;
use neighbours::show_neighbours;
use ports::show_ports;
pub use ports::{front_end, home};
use rstp::show_rstp;

/// Clears the screen and puts the cursor into its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `ringway show`.
pub fn run(args: &ShowArgs) -> Result<(), Failure> {
    if args.name.is_some() && !takes_name(args.what) {
        let message = "a NAME is for 'show ports', 'stats', 'fdb' and 'groups' only";
        return Err(Failure::usage(message));
    }
    let mut client = Client::connect(args.control.control.clone())?;
    let request = match args.what {
        What::Ports => Request::ShowPorts {},
        What::Bridges => Request::ShowBridges {},
        What::Bonds => Request::ShowBonds {},
        What::Mirrors => Request::ShowMirrors {},
        What::Neighbours => Request::ShowNeighbours {},
        What::Rstp => Request::ShowRstp {},
        What::Groups => Request::ShowGroups {},
        What::Fdb => Request::ShowFdb {},
        What::Stats => Request::ShowStats {},
        What::Workers => Request::ShowWorkers {},
        What::Vdpa => Request::ShowVdpa {},
    };
    let mut view = View::default();
    let Some(interval) = args.watch else {
        let value = client.ask_raw(&request)?;
        if args.json {
            output::json_pretty(&value);
        } else {
            output::text(&view.render(&client, args, value)?);
        }
        return Ok(());
    };
    watch(&mut client, args, &request, interval, &mut view)
}

/// Whether one port or bridge alone can be shown.
const fn takes_name(what: What) -> bool {
    matches!(what, What::Ports | What::Stats | What::Fdb | What::Groups)
}

fn watch(
    client: &mut Client,
    args: &ShowArgs,
    request: &Request,
    interval: Duration,
    view: &mut View,
) -> Result<(), Failure> {
    let signals = Signals::install().map_err(Failure::runtime)?;
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let value = client.ask_raw(request)?;
        if args.json {
            output::json_line(&value);
        } else {
            let text = view.render(client, args, value)?;
            output::text(&format!("{clear}{text}{}", if clear.is_empty() { "\n" } else { "" }));
        }
        if wait::readable(&signals, interval)? || output::is_closed() {
            return Ok(());
        }
    }
}

/// What was shown last, for rates.
#[derive(Debug, Default)]
struct View {
    stats: Option<Stats>,
    workers: Option<Workers>,
}

impl View {
    fn render(
        &mut self,
        client: &Client,
        args: &ShowArgs,
        value: Value,
    ) -> Result<String, Failure> {
        let colour = colour_stdout();
        Ok(match args.what {
            What::Ports => show_ports(&client.parse(value)?, args.name.as_deref(), colour)?,
            What::Bridges => show_bridges(&client.parse(value)?, colour),
            What::Bonds => show_bonds(&client.parse(value)?, colour),
            What::Mirrors => show_mirrors(&client.parse(value)?, colour),
            What::Neighbours => show_neighbours(&client.parse(value)?, colour),
            What::Rstp => show_rstp(&client.parse(value)?, colour),
            What::Groups => show_groups(client.parse(value)?, args.name.as_deref(), colour)?,
            What::Fdb => show_fdb(client.parse(value)?, args.name.as_deref(), colour)?,
            What::Vdpa => {
                let answer: Vdpa = client.parse(value)?;
                report::attached(&answer.devices, colour)
            }
            What::Stats => {
                let mut now: Stats = client.parse(value)?;
                if let Some(name) = &args.name {
                    now.ports.retain(|port| port.name == *name);
                }
                let text = rates::render(&now, self.stats.as_ref(), args.queues, colour);
                self.stats = Some(now);
                text
            }
            What::Workers => {
                let now: Workers = client.parse(value)?;
                let text = workers(&now, self.workers.as_ref(), colour);
                self.workers = Some(now);
                text
            }
        })
    }
}

fn workers(answer: &Workers, before: Option<&Workers>, colour: bool) -> String {
    let packets = if before.is_some() { "rate" } else { "packets" };
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("core", Align::Right),
        ("state", Align::Left),
        ("load", Align::Right),
        (packets, Align::Right),
        ("cycles/pkt", Align::Right),
        ("pkts/poll", Align::Right),
        ("asleep", Align::Right),
        ("queues", Align::Left),
    ]);
    for worker in &answer.workers {
        let earlier = before
            .and_then(|before| before.workers.iter().find(|other| other.index == worker.index));
        table.row(worker_row(worker, earlier, answer.cycles_per_second));
    }
    table.render(colour)
}

fn worker_row(worker: &Worker, earlier: Option<&Worker>, hz: u64) -> Vec<Cell> {
    let delta = |take: fn(&Worker) -> u64| {
        approximate(take(worker).saturating_sub(earlier.map_or(0, take)))
    };
    let packets = delta(|worker| worker.packets);
    let (busy, total) = (delta(|worker| worker.busy_cycles), delta(|worker| worker.total_cycles));
    let asleep = delta(|worker| worker.sleep_cycles);
    let busy_polls = delta(|worker| worker.busy_polls);
    let ratio = |part: f64, whole: f64, digits: usize| match whole > 0.0 {
        true => format!("{:.digits$}", part / whole),
        false => "-".to_owned(),
    };
    let percent = |part: f64| format!("{} %", ratio(part * 100.0, total, 0));
    let state = if worker.alive {
        Cell::toned("running", Tone::Good)
    } else {
        Cell::toned("PANICKED", Tone::Bad)
    };
    vec![
        worker.index.to_string().into(),
        worker.core.map_or("any".to_owned(), |core| core.to_string()).into(),
        state,
        percent(busy).into(),
        match earlier {
            Some(_) => packet_rate(packets / (total / approximate(hz.max(1))).max(1e-9)).into(),
            None => count(worker.packets).into(),
        },
        ratio(busy, packets, 0).into(),
        ratio(packets, busy_polls, 1).into(),
        percent(asleep).into(),
        queues(&worker.queues).into(),
    ]
}

/// The queues of a worker, those of a port that follow each other in one: `vm1:0-3 vm2:0`.
fn queues(all: &[WorkerQueue]) -> String {
    let mut runs: Vec<(&str, usize, usize)> = Vec::new();
    for WorkerQueue { port, queue } in all {
        match runs.last_mut() {
            Some((of, _, last)) if *of == port && last.checked_add(1) == Some(*queue) => {
                *last = *queue;
            }
            _ => runs.push((port, *queue, *queue)),
        }
    }
    let run = |(port, first, last): (&str, usize, usize)| match first == last {
        true => format!("{port}:{first}"),
        false => format!("{port}:{first}-{last}"),
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_many_queues_fits_a_terminal() {
        let all = (0..64).flat_map(|port| (0..2).map(move |queue| (format!("guest{port}"), queue)));
        let all = all.map(|(port, queue)| WorkerQueue { port, queue });
        let worker = Worker {
            index: 11,
            core: Some(127),
            alive: true,
            packets: 12_345_678_901,
            polls: 99_999_999_999,
            busy_polls: 9_999_999,
            busy_cycles: 999_999_999_999,
            total_cycles: 1_000_000_000_000,
            sleeps: 5,
            sleep_cycles: 1_000_000_000_000,
            queues: all.chain([WorkerQueue { port: "x".into(), queue: 7 }]).collect(),
        };
        let answer = Workers { cycles_per_second: 1_000_000_000, workers: vec![worker] };
        for before in [None, Some(&answer)] {
            let text = workers(&answer, before, false);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains("guest0:0-1 guest1:0-1 ") && text.contains("guest63:0-1 x:7"));
            assert_eq!(text.contains("rate"), before.is_some());
        }
        let mut apart = answer.workers[0].queues[127..].to_vec();
        apart.push(WorkerQueue { port: "x".into(), queue: 9 });
        assert_eq!(queues(&apart), "guest63:1 x:7 x:9");
    }
}
