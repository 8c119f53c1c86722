//! `ringway switch`: runs a switch and serves its control socket.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use eal::signals::Signals;
use eal::{clock, files};
use packet::MacAddr;
use serde::Serialize;
use serde_json::{Value, json};
use switch::{PortOptions, PortReport, Switch};

use crate::cli::SwitchArgs;
use crate::config::{Config, NO_PORT, PortConfig, check_port_name};
use crate::control::listener::Listener;
use crate::control::protocol::{
    Added, Counters, Fdb, FdbEntry, Flushed, Info, Port, PortStats, Ports, Request, Stats, Vdpa,
    Worker, WorkerQueue, Workers,
};
use crate::control::server::{Limits, Server};
use crate::exit::Failure;
use crate::output;
use crate::sandbox::Sandbox;
use crate::vdpa::hub::Hub;
use crate::vdpa::placement::{Placement, is_vdpa};

/// Open files of a switch without ports, with some to spare for what comes and goes.
const OWN_FILES: u64 = 40;

/// Open files of a guest: its sockets, what wakes its workers, its control queue.
const FILES_PER_GUEST: u64 = 8;

/// Open files of a pair of queues: kick, call and error files, and what the worker waits for.
const FILES_PER_PAIR: u64 = 6;

/// `ringway switch`.
pub fn run(args: &SwitchArgs) -> Result<(), Failure> {
    let config = Config::load(args, args.control.control.clone())?;
    if args.check {
        config.check_ports()?;
        output::line(&checked_line(&config));
        return Ok(());
    }
    let signals = Signals::install().map_err(Failure::runtime)?;
    raise_file_limit();
    let listener = Listener::bind(&config.control, config.control_access)?;
    // Before there are threads: each would have to give things up by itself.
    let sandbox = Sandbox::enter(&config)?;
    let switch = start(&config)?;
    let mut hub = Hub::new(config.sockets);
    let opened = open_ports(&switch, &mut hub, &config.ports)?;
    output::line(&ready_line(&config, opened, hub.len()));
    let mut control = Control { switch: &switch, sandbox, hub };
    let mut server = Server::new(listener, Limits::default(), |request| control.handle(request));
    let served = server.run(signals.as_fd(), signals.hung_up().as_fd(), || hung_up(&signals));
    tracing::info!("ending");
    drop(server);
    // The devices first: they stop, and their sockets go.
    drop(control);
    let report = switch.shutdown();
    for (worker, message) in &report.panics {
        tracing::error!(worker, "a worker had ended by a panic: {message}");
    }
    served.map_err(|error| Failure::runtime(format!("control socket: {error}")))?;
    if report.panics.is_empty() {
        Ok(())
    } else {
        Err(Failure::runtime("a worker had ended by a panic; see the log"))
    }
}

/// Says what becomes of a SIGHUP; nobody but root and the switch's own user can send one.
fn hung_up(signals: &Signals) {
    let _ = signals.hung_up().drain();
    tracing::warn!(
        "SIGHUP is ignored: a running switch does not read its configuration again; change it \
         with 'ringway port', or restart it"
    );
}

/// Allows as many open files as the administrator does, and says how many guests will fit.
fn raise_file_limit() {
    let limit = files::raise_limit().unwrap_or_else(|error| {
        let limit = files::limit();
        tracing::warn!("cannot allow more open files than {limit}: {error}");
        limit
    });
    let guests = limit.saturating_sub(OWN_FILES) / (FILES_PER_GUEST + FILES_PER_PAIR);
    tracing::info!(
        limit,
        "a guest takes {FILES_PER_GUEST} open files and {FILES_PER_PAIR} for each pair of queues: \
         there is room for {guests} guests with one pair"
    );
}

fn start(config: &Config) -> Result<Switch, Failure> {
    Switch::start(&config.switch()).map_err(|error| match error {
        switch::Error::Config { .. } => Failure::usage(error),
        other => Failure::runtime(other),
    })
}

/// Opens the ports. One that cannot be opened does not keep the others from working, but a
/// mistake in a device string ends everything before it has begun.
fn open_ports(switch: &Switch, hub: &mut Hub, ports: &[PortConfig]) -> Result<usize, Failure> {
    let mut opened = 0;
    for port in ports {
        if is_vdpa(&port.device) {
            match open_vdpa(hub, port) {
                Ok(()) => {}
                Err(failure @ Failure::Usage(_)) => return Err(failure),
                Err(failure) => {
                    tracing::error!("'{}': {failure}; the switch goes on without it", port.name);
                }
            }
            continue;
        }
        match switch.open_port(&port.name, &port.device, &port.options) {
            Ok(()) => opened += 1,
            Err(error) if is_usage(&error) => return Err(Failure::usage(error)),
            Err(error) => tracing::error!("{error}; the switch goes on without it"),
        }
    }
    if opened == 0 && hub.len() == 0 && !ports.is_empty() {
        return Err(Failure::runtime("none of the ports could be opened; see the log"));
    }
    Ok(opened)
}

/// Attaches a vDPA device to its socket.
fn open_vdpa(hub: &mut Hub, port: &PortConfig) -> Result<(), Failure> {
    let placement = Placement::parse(&port.device)?;
    if port.options != PortOptions::default() {
        return Err(Failure::usage(format!("port '{}': {NO_PORT}", port.name)));
    }
    hub.open(&port.name, placement)
}

const fn is_usage(error: &switch::Error) -> bool {
    use switch::Error::{DuplicatePort, Port, PortName, UnknownWorker};
    match error {
        Port { source, .. } => matches!(source, ethdev::Error::Spec { .. }),
        DuplicatePort { .. } | PortName { .. } | UnknownWorker { .. } => true,
        _ => false,
    }
}

/// What a configuration that is good has.
fn checked_line(config: &Config) -> String {
    let names: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("the configuration is good; ports: {names}; nothing was opened")
}

/// What tests and service managers wait for.
fn ready_line(config: &Config, opened: usize, devices: usize) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let wanted = config.ports.iter().filter(|port| !is_vdpa(&port.device)).count();
    let ports = match wanted {
        all if all == opened => format!("{opened} port{}", plural(opened)),
        all => format!("{opened} of {all} ports"),
    };
    let workers = if config.cores.is_empty() {
        format!("{} worker{}", config.workers, plural(config.workers))
    } else {
        format!(
            "worker{} on core{} {}",
            plural(config.cores.len()),
            plural(config.cores.len()),
            config.cores
        )
    };
    let devices = match devices {
        0 => String::new(),
        count => format!(", {count} vDPA device{}", plural(count)),
    };
    format!(
        "ringway switch ready: {ports}{devices}, {workers}, control socket {}",
        config.control.display()
    )
}

/// Answers requests.
struct Control<'a> {
    switch: &'a Switch,
    sandbox: Sandbox,
    hub: Hub,
}

impl Control<'_> {
    fn handle(&mut self, request: Request) -> Result<Value, String> {
        match request {
            Request::Info {} => value(&Info {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_seconds: self.switch.uptime().as_secs(),
            }),
            Request::ShowPorts {} => {
                value(&Ports { ports: self.switch.ports().iter().map(port).collect() })
            }
            Request::ShowStats {} => value(&Stats {
                uptime_ms: u64::try_from(self.switch.uptime().as_millis()).unwrap_or(u64::MAX),
                ports: self.switch.ports().iter().map(port_stats).collect(),
            }),
            Request::ShowFdb {} => value(&self.fdb()),
            Request::ShowWorkers {} => value(&self.workers()),
            Request::ShowVdpa {} => value(&Vdpa { devices: self.hub.report() }),
            Request::PortAdd { name, device, mtu, workers } if is_vdpa(&device) => {
                check_port_name(&name)?;
                if self.switch.ports().iter().any(|port| port.name == name) {
                    return Err(format!("port '{name}' exists already"));
                }
                self.sandbox.check(&device)?;
                let options = PortOptions { mtu, workers, ..PortOptions::default() };
                let port = PortConfig { name, device, options };
                open_vdpa(&mut self.hub, &port).map_err(text)?;
                Ok(json!({}))
            }
            Request::PortAdd { name, .. } if self.hub.has(&name) => {
                Err(format!("a vDPA device '{name}' exists already"))
            }
            Request::PortDel { name } if self.hub.has(&name) => {
                self.hub.remove(&name);
                Ok(json!({}))
            }
            Request::PortAdd { name, device, mtu, workers } => {
                check_port_name(&name)?;
                self.sandbox.check(&device)?;
                let options = PortOptions { mtu, workers, ..PortOptions::default() };
                self.switch.open_port(&name, &device, &options).map_err(text)?;
                Ok(json!({}))
            }
            Request::PortDel { name } => {
                self.switch.remove_port(&name).map_err(text)?;
                Ok(json!({}))
            }
            Request::FdbAdd { mac, port, vlan } => {
                let moved_from = self.switch.fdb_add_static(address(&mac)?, vlan, &port);
                value(&Added { moved_from: moved_from.map_err(text)? })
            }
            Request::FdbDel { mac, vlan } => {
                self.switch.fdb_delete(address(&mac)?, vlan).map_err(text)?;
                Ok(json!({}))
            }
            Request::FdbFlush { port } => {
                let removed = self.switch.fdb_flush(port.as_deref()).map_err(text)?;
                value(&Flushed { removed })
            }
        }
    }

    fn fdb(&self) -> Fdb {
        let report = self.switch.fdb_report();
        let entries = self.switch.fdb().into_iter().map(|entry| FdbEntry {
            mac: entry.mac.to_string(),
            vlan: entry.vlan,
            port: entry.port,
            age_seconds: (!entry.is_static).then_some(entry.age),
            is_static: entry.is_static,
        });
        Fdb {
            limit: report.limit,
            ageing_seconds: report.ageing,
            learned: report.learned,
            moved: report.moved,
            expired: report.expired,
            evicted: report.evicted,
            entries: entries.collect(),
        }
    }

    fn workers(&self) -> Workers {
        let workers = self.switch.workers().into_iter().map(|worker| Worker {
            index: worker.index,
            core: worker.core,
            alive: worker.alive,
            packets: worker.packets,
            polls: worker.polls,
            busy_polls: worker.busy_polls,
            busy_cycles: worker.busy_cycles,
            total_cycles: worker.total_cycles,
            sleeps: worker.sleeps,
            sleep_cycles: worker.sleep_cycles,
            queues: worker
                .queues
                .into_iter()
                .map(|(port, queue)| WorkerQueue { port, queue })
                .collect(),
        });
        Workers { cycles_per_second: clock::hz(), workers: workers.collect() }
    }
}

fn value(answer: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(text)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn address(mac: &str) -> Result<MacAddr, String> {
    mac.parse().map_err(|error| format!("mac {mac:?}: {error}"))
}

fn port(report: &PortReport) -> Port {
    Port {
        name: report.name.clone(),
        device: report.device.clone(),
        driver: report.driver.to_owned(),
        link_up: report.link.up,
        link_changes: report.link.changes,
        speed_mbps: report.link.speed_mbps,
        mac: report.mac.to_string(),
        mtu: report.mtu,
        rx_queues: report.stats.rx.len(),
        tx_queues: report.stats.tx.len(),
        rx_workers: report.rx_workers.clone(),
        fdb_entries: report.fdb_entries,
        details: report.details.iter().cloned().collect::<BTreeMap<_, _>>(),
    }
}

fn port_stats(report: &PortReport) -> PortStats {
    PortStats {
        name: report.name.clone(),
        rx: Counters::from(&report.stats.rx_total()),
        tx: Counters::from(&report.stats.tx_total()),
        rx_queues: report.stats.rx.iter().map(Counters::from).collect(),
        tx_queues: report.stats.tx.iter().map(Counters::from).collect(),
        extended: report.extended.iter().cloned().collect(),
    }
}
