//! What a running switch answers on its control socket.

use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use daemon::{Address, Bridge, Daemon, Diff, Missing, Port, check, merge};
use eal::clock;
use eal::signals::Signals;
use eal::time::Time;
use ethdev::{Pressure, ask_depths};
use litemap::LiteMap;
use ordered::Gather as _;
use packet::MacAddr;
use rustix::event::PollFlags;
use serde::Serialize;
use serde_json::{Map, Value, json};
use switch::PortReport;

use crate::bonds;
use crate::bridges;
use crate::capture::stream::{self, Stream};
use crate::config::{self, Source};
use crate::control::event::{Event, SHUT_BY, Topic};
use crate::control::protocol::{
    Added, Config, ConfigDiff, Counters, Fdb, FdbEntry, Flushed, Info, NewPort, Port as PortAnswer,
    PortStats, Ports, Reloaded, Request, RxPressure, Shown, Stats, Subscribed, TxPressure, Vdpa,
    WaitingDevice, Worker, WorkerQueue, Workers,
};
use crate::control::refusal::{Code, Refusal, code};
use crate::control::server::{Serve, Takeover};
use crate::events::Events;
use crate::groups;
use crate::log;
use crate::metrics::{self, Figures};
use crate::mirrors;
use crate::neighbours;
use crate::notify::Notifier;
use crate::orders;
use crate::rstp;
use crate::serve::status;
use crate::trace;
use crate::vdpa::report::devices;

/// The most stations that are told of a port; `show-fdb` has all.
const STATIONS: usize = 16;

/// The most milliseconds that the clock can be put forward by at once: a year.
pub const MAX_WARP: u64 = 365 * 24 * 3600 * 1000;

/// Why the clock is not touched.
const FIXED_CLOCK: &str = "the clock of this switch is the system's; for tests, start it with \
                           --control-time to have it stopped and moved";

/// Answers requests, and looks after what waits.
#[derive(Debug)]
pub struct Control {
    daemon: Daemon,
    signals: Signals,
    source: Source,
    notifier: Notifier,
    time: Time,
    metrics: Option<metrics::Server>,
    service: metrics::Service,
    events: Events,
    /// Who gets the connection of the request at hand.
    takeover: Option<Takeover>,
}

impl Serve for Control {
    fn subscribe(
        &mut self,
        client: u64,
        topics: Vec<Topic>,
        drop_rate: u64,
    ) -> Result<Value, Refusal> {
        let topics = self.events.subscribe(client, topics, drop_rate, &self.daemon)?;
        value(&Subscribed { topics })
    }

    fn unsubscribe(&mut self, client: u64) {
        self.events.unsubscribe(client);
    }

    fn events(&mut self, client: u64) -> Option<String> {
        self.events.take(client, self.daemon.switch().uptime())
    }

    fn handle(&mut self, request: Request) -> Result<Value, Refusal> {
        match request {
            Request::Info {} => value(&self.info()),
            Request::ShowPorts {} => value(&self.ports()),
            Request::ShowStats {} => value(&self.stats()),
            Request::ShowBridges {} => value(&bridges::answer(&self.daemon)),
            Request::ShowBonds {} => value(&bonds::answer(&self.daemon)),
            Request::ShowMirrors {} => value(&mirrors::answer(&self.daemon)),
            Request::ShowNeighbours {} => value(&neighbours::answer(&self.daemon)),
            Request::ShowRstp {} => value(&rstp::answer(&self.daemon)),
            Request::ShowGroups {} => value(&groups::answer(&self.daemon)),
            Request::ShowFdb {} => value(&self.fdb()),
            Request::ShowWorkers {} => value(&self.workers()),
            Request::ShowVdpa {} => value(&Vdpa { devices: devices(self.daemon.hub()) }),
            Request::PortAdd(new) => self.port_add(*new),
            Request::PortSet { name, settings } => self.port_set(&name, settings),
            Request::ConfigShow {} => value(&self.config()),
            Request::ConfigDiff {} => value(&self.config_diff()?),
            request @ Request::Capture { .. } => self.capture(request),
            Request::LogSet { level, target } => log_set(&level, target.as_deref()),
            Request::LogShow {} => value(&log::levels()),
            // The server does that.
            Request::Subscribe { .. } => {
                Err(Refusal::new(Code::Internal, "this is no connection to tell events on"))
            }
            Request::TimeStop {} => self.time_stop(),
            Request::TimeWarp { milliseconds } => self.time_warp(milliseconds),
            Request::Reload { exact } => value(&self.reload(exact)?),
            Request::PortDel { name } => self.edit(|state| state.remove(&name)),
            Request::FdbAdd { mac, port, vlan } => self.fdb_add(&mac, vlan, &port),
            Request::BridgeAdd { name, settings } => {
                let bridge =
                    Bridge::of(settings).map_err(|why| format!("bridge '{name}': {why}"))?;
                self.edit(|state| state.add_bridge(&name, bridge))
            }
            Request::BridgeSet { name, settings } => {
                self.edit(|state| state.set_bridge(&name, settings))
            }
            Request::BridgeDel { name } => self.edit(|state| state.remove_bridge(&name)),
            Request::BondAdd { name, members, settings, bridge, vlan } => {
                let bond = bonds::port(bridge, vlan);
                self.edit(|state| {
                    check::check_name(&name)?;
                    state.add_bond(&name, bond, &members)?;
                    state.set_bond(&name, settings, None)
                })
            }
            Request::BondSet { name, members, settings } => {
                self.edit(|state| state.set_bond(&name, settings, members.as_deref()))
            }
            Request::BondDel { name } => self.edit(|state| state.remove_bond(&name)),
            request @ (Request::BondSetActiveMember { .. }
            | Request::BondEnableMember { .. }
            | Request::BondDisableMember { .. }
            | Request::BondMigrate { .. }
            | Request::RstpMcheck { .. }
            | Request::RstpTcn { .. }) => value(&orders::give(self.daemon.switch(), request)?),
            Request::MirrorAdd { name, mirror } => {
                self.edit(|state| state.add_mirror(&name, mirror))
            }
            Request::MirrorSet { name, mirror } => {
                self.edit(|state| state.set_mirror(&name, mirror))
            }
            Request::MirrorDel { name } => self.edit(|state| state.remove_mirror(&name)),
            Request::FdbDel { mac, vlan, bridge } => self.fdb_del(&bridge, &mac, vlan),
            Request::Trace { port, frame } => {
                value(&trace::answer(self.daemon.switch(), &port, &frame)?)
            }
            Request::FdbFlush { port, bridge } => {
                self.fdb_flush(port.as_deref(), bridge.as_deref())
            }
        }
    }

    fn takeover(&mut self) -> Option<Takeover> {
        self.takeover.take()
    }

    /// A SIGHUP; nobody but root and the switch's own user can send one.
    fn notice(&mut self) {
        let _ = self.signals.hung_up().drain();
        if let Err(error) = self.reload(false) {
            tracing::warn!("SIGHUP: nothing is changed: {error}");
        }
    }

    fn next_turn(&self) -> Option<Duration> {
        let metrics = self.metrics.as_ref().and_then(metrics::Server::next_turn);
        let events = self.events.next_turn();
        self.daemon.next_retry().into_iter().chain(metrics).chain(events).min()
    }

    fn turn(&mut self) {
        self.daemon.retry();
        self.serve_metrics();
        self.events.turn(&self.daemon);
    }

    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let metrics = self.metrics.iter().flat_map(metrics::Server::files);
        let links = self.daemon.switch().links();
        metrics.chain(self.events.is_watching().then_some((links, PollFlags::IN))).collect()
    }
}

impl Control {
    /// Answers about `daemon`, which was made from `source` and waits by `time`.
    pub fn new(
        daemon: Daemon,
        signals: Signals,
        source: Source,
        notifier: Notifier,
        time: Time,
    ) -> Self {
        let service = metrics::Service::default();
        let events = Events::new(time.clone());
        let (metrics, takeover) = (None, None);
        Self { daemon, signals, source, notifier, time, metrics, service, events, takeover }
    }

    /// Has metrics be read at `listener`, if there is one.
    pub fn with_metrics(mut self, listener: Option<metrics::listener::Listener>) -> Self {
        let time = self.time.clone();
        self.metrics = listener.map(|listener| metrics::Server::new(listener, time));
        self
    }

    fn serve_metrics(&mut self) {
        let Self { metrics: Some(server), daemon, service, .. } = self else { return };
        server.turn(|format| {
            let start = clock::now();
            let text = Figures::take(daemon, *service).write(format);
            service.scrape = clock::now().wrapping_sub(start);
            service.scrapes = service.scrapes.saturating_add(1);
            text
        });
    }

    /// The end of the answers.
    pub fn end(self) -> Daemon {
        self.notifier.stopping();
        self.daemon
    }

    /// What is answered about, for whoever else looks after it.
    pub const fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// The signals of the process.
    pub const fn signals(&self) -> Signals {
        self.signals
    }

    /// Tells the service manager that the switch is ready.
    pub fn tell_ready(&self) {
        self.notifier.ready(&status(&self.daemon));
    }

    /// Changes the desired state; what cannot be opened now is refused.
    fn edit(
        &mut self,
        edit: impl FnOnce(&mut daemon::State) -> Result<(), daemon::Error>,
    ) -> Result<Value, Refusal> {
        self.daemon.edit(Missing::Refuse, edit)?;
        self.notifier.status(&status(&self.daemon));
        Ok(json!({}))
    }

    /// Begins to capture; what is captured goes to whoever has asked.
    fn capture(&mut self, request: Request) -> Result<Value, Refusal> {
        let (capture, expression) = stream::wanted(request)?;
        let snaplen = capture.snaplen;
        let reader = self.daemon.switch().capture(&capture).map_err(text)?;
        let stream = Stream::new(reader, expression, snaplen);
        self.takeover = Some(Takeover::new(|connection| stream.start(connection)));
        Ok(json!({ "format": "pcapng" }))
    }

    fn port_add(&mut self, new: NewPort) -> Result<Value, Refusal> {
        let port = Port {
            rstp: new.rstp,
            mtu: new.mtu,
            workers: new.workers,
            bridge: new.bridge,
            vlan: new.vlan,
            limits: new.limits,
            guard: new.guard,
            lldp: new.lldp,
            mcast_snooping: new.mcast_snooping,
            ..Port::new(new.device)
        };
        let (name, peer_bridge) = (new.name, new.peer_bridge);
        self.edit(|state| match peer_bridge {
            Some(bridge) => {
                check::check_name(&name)?;
                state.add_patch(&name, port, &bridge)
            }
            None => config::add(state, &name, port),
        })
    }

    fn port_set(&mut self, name: &str, settings: Map<String, Value>) -> Result<Value, Refusal> {
        let changed = self.edit(|state| state.set_port(name, settings))?;
        // One that was shut, and is what it is to be, would stay so.
        let _ = self.daemon.switch().reopen_port(name);
        Ok(changed)
    }

    fn fdb_add(&mut self, mac: &str, vlan: u16, port: &str) -> Result<Value, Refusal> {
        let address = address(mac, vlan)?;
        let mut moved_from = None;
        self.edit(|state| {
            moved_from = state.add_address(address, port)?;
            Ok(())
        })?;
        value(&Added { moved_from })
    }

    /// A static address goes from the desired state; one that was learnt is just forgotten.
    fn fdb_del(&mut self, bridge: &str, mac: &str, vlan: u16) -> Result<Value, Refusal> {
        let address = address(mac, vlan)?;
        if self.daemon.state().port_of(bridge, address).is_none() {
            self.daemon.switch().fdb_delete(bridge, address.mac, vlan)?;
            return Ok(json!({}));
        }
        self.edit(|state| {
            state.remove_address(bridge, address);
            Ok(())
        })
    }

    fn fdb_flush(&self, port: Option<&str>, bridge: Option<&str>) -> Result<Value, Refusal> {
        let switch = self.daemon.switch();
        let removed = match bridge {
            Some(_) if port.is_some() => {
                let both = "fdb-flush: of a port or of a bridge, not both";
                return Err(Refusal::new(Code::BadRequest, both));
            }
            Some(bridge) => switch.fdb_flush_bridge(bridge),
            None => switch.fdb_flush(port),
        };
        value(&Flushed { removed: removed? })
    }

    fn time_stop(&self) -> Result<Value, Refusal> {
        if self.time.stop() { value(&self.shown()) } else { Err(fixed_clock()) }
    }

    /// Whatever is due on the clock's new time in the forwarding database and among the devices
    /// that are tried again has been done when this answers.
    fn time_warp(&mut self, milliseconds: u64) -> Result<Value, Refusal> {
        if milliseconds > MAX_WARP {
            let message = format!("milliseconds is {milliseconds}: expected at most {MAX_WARP}");
            return Err(message.into());
        }
        if !self.time.warp(Duration::from_millis(milliseconds)) {
            return Err(fixed_clock());
        }
        self.daemon.catch_up();
        value(&self.shown())
    }

    fn shown(&self) -> Shown {
        Shown { uptime_ms: milliseconds(self.daemon.switch().uptime()) }
    }

    fn config(&self) -> Config {
        Config {
            version: self.daemon.version(),
            file: self.source.file().map(Path::to_owned),
            arguments: self.source.arguments(),
            state: self.daemon.state().clone(),
            waiting: waiting(self.daemon.waiting()),
        }
    }

    fn config_diff(&self) -> Result<ConfigDiff, Refusal> {
        let Diff { changes, fixed } = self.daemon.check(&self.source.read().map_err(text)?)?;
        Ok(ConfigDiff { changes: lines(&changes), restart: lines(&fixed) })
    }

    /// Reads the configuration again, and has the service manager know meanwhile.
    fn reload(&mut self, exact: bool) -> Result<Reloaded, Refusal> {
        self.notifier.reloading();
        let reloaded = self.read_again(exact);
        self.service.reloaded(reloaded.is_ok());
        let (ok, changes, error) = match &reloaded {
            Ok(reloaded) => (true, reloaded.changes.clone(), None),
            Err(refusal) => (false, Vec::new(), Some(refusal.message.clone())),
        };
        self.events.tell(&self.daemon, &Event::Reload { ok, changes, error });
        self.notifier.ready(&status(&self.daemon));
        reloaded
    }

    /// What cannot be opened now is tried again.
    fn read_again(&mut self, exact: bool) -> Result<Reloaded, Refusal> {
        if self.source.file().is_none() {
            let message = "the switch was started without a configuration file";
            return Err(Refusal::new(Code::Unsupported, message));
        }
        let said = self.source.read().map_err(text)?;
        let next = match exact {
            true => said.clone(),
            false => merge(self.source.last(), &said, self.daemon.state())?,
        };
        let applied = self.daemon.apply(next, Missing::Retry);
        let applied =
            applied.map_err(|error| Refusal::new(code(&error), self.source.explain(&error)))?;
        self.source.set_last(said);
        let changes = lines(&applied.changes);
        tracing::info!(changes = changes.len(), "configuration read again");
        changes.iter().for_each(|line| tracing::info!("{line}"));
        Ok(Reloaded { version: applied.version, changes, waiting: waiting(self.daemon.waiting()) })
    }

    fn info(&self) -> Info {
        Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.daemon.switch().uptime().as_secs(),
        }
    }

    fn ports(&self) -> Ports {
        let mut stations: LiteMap<String, Vec<String>> = LiteMap::new();
        for entry in self.daemon.switch().fdb() {
            let of_port = stations.entry(entry.port).or_default();
            if of_port.len() < STATIONS {
                of_port.push(entry.mac.to_string());
            }
        }
        let ports = self.daemon.switch().ports();
        let ports = ports.iter().map(|report| PortAnswer {
            stations: stations.remove(&report.name).unwrap_or_default(),
            ..port(report)
        });
        Ports { ports: ports.collect() }
    }

    fn stats(&self) -> Stats {
        ask_depths();
        Stats {
            uptime_ms: milliseconds(self.daemon.switch().uptime()),
            ports: self.daemon.switch().ports().iter().map(port_stats).collect(),
        }
    }

    fn fdb(&self) -> Fdb {
        let report = self.daemon.switch().fdb_report();
        let entries = self.daemon.switch().fdb().into_iter().map(|entry| FdbEntry {
            mac: entry.mac.to_string(),
            bridge: entry.bridge,
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
            refused: report.refused,
            bridges: bridges::answer(&self.daemon).bridges,
            entries: entries.collect(),
        }
    }

    fn workers(&self) -> Workers {
        let workers = self.daemon.switch().workers().into_iter().map(|worker| Worker {
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

/// Sets the level of one target, or of all.
fn log_set(level: &str, target: Option<&str>) -> Result<Value, Refusal> {
    target.map_or_else(|| log::set(level), |target| log::set_target(target, level))?;
    Ok(json!({}))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn lines(changes: &[impl Display]) -> Vec<String> {
    let each = changes.iter().map(ToString::to_string);
    each.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn waiting<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<WaitingDevice> {
    let waiting = |(name, reason): (&str, &str)| WaitingDevice {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    names.map(waiting).collect()
}

fn value(answer: &impl Serialize) -> Result<Value, Refusal> {
    Ok(serde_json::to_value(answer)?)
}

/// Nobody but a test may touch the clock.
fn fixed_clock() -> Refusal {
    Refusal::new(Code::NotPermitted, FIXED_CLOCK)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: impl Display) -> String {
    error.to_string()
}

fn address(mac: &str, vlan: u16) -> Result<Address, Refusal> {
    let mac: MacAddr = mac.parse().map_err(|error| format!("mac {mac:?}: {error}"))?;
    Ok(Address::new(mac, vlan).map_err(|error| format!("forwarding database: {error}"))?)
}

fn port(report: &PortReport) -> PortAnswer {
    PortAnswer {
        name: report.name.clone(),
        device: report.device.clone(),
        driver: report.driver.to_owned(),
        link_up: report.link.up,
        link_changes: report.link.changes,
        speed_mbps: report.link.speed_mbps,
        mac: report.mac.to_string(),
        mtu: report.mtu,
        enabled: !report.disabled,
        shut: report.is_shut.then(|| SHUT_BY.to_owned()),
        bridge: report.bridge.clone(),
        bond: report.bond.clone(),
        vlan: report.vlan.clone(),
        limits: report.limits,
        guard: report.guard.clone(),
        mcast_snooping: report.mcast_snooping.clone(),
        rx_queues: report.stats.rx.len(),
        tx_queues: report.stats.tx.len(),
        rx_workers: report.rx_workers.clone(),
        fdb_entries: report.fdb_entries,
        stations: Vec::new(),
        details: report.details.iter().cloned().gather(),
    }
}

fn rx_pressure(pressure: &Pressure) -> RxPressure {
    RxPressure {
        depth: pressure.depth,
        bursts: pressure.bursts,
        full_bursts: pressure.full_bursts,
        busy_us: microseconds(clock::duration(pressure.cycles)),
    }
}

const fn tx_pressure(pressure: &Pressure) -> TxPressure {
    TxPressure { depth: pressure.depth, stalls: pressure.stalls }
}

fn port_stats(report: &PortReport) -> PortStats {
    let [rx, tx] = &report.pressures;
    PortStats {
        name: report.name.clone(),
        rx: Counters::from(&report.stats.rx_total()),
        tx: Counters::from(&report.stats.tx_total()),
        rx_queues: report.stats.rx.iter().map(Counters::from).collect(),
        tx_queues: report.stats.tx.iter().map(Counters::from).collect(),
        rx_pressure: rx.iter().map(rx_pressure).collect(),
        tx_pressure: tx.iter().map(tx_pressure).collect(),
        extended: report.extended.iter().cloned().gather(),
    }
}
