//! One bridge: its sockets, the controllers it dials, its connections.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ethdev::Stats;
use litemap::LiteMap;
use ofproto::{Bridge, ConnectionId, Datapath as _, Job, Origin, Port, Received, Settings};
use openflow::PortNo;
use openflow::message::port::{PortDesc, config, feature, state};
use openflow::message::role::Role;
use openflow::message::stats::port::{FIGURES, UNKNOWN};
use ovsdb::Uuid;
use packet::MacAddr;
use switch::{FlowEvent, FlowPacket, PortReport};
use tls::{Identity, Side};

use super::alone::Alone;
use super::datapath::Forwarding;
use super::dial::Dial;
use super::in_band::Links;
use super::peer::{Peer, ROOM, SLICE};
use super::refusal::Refusal;
use super::snooper::Snooper;
use super::sockets::Door;
use super::{BridgeSpec, ControllerSpec, ControllerStatus, PROBE, Sockets};
use crate::device::TUNNELS;

/// Connections of a bridge at a time of those who come to where controllers are listened at, and as many of
/// those who come to its own socket. Who comes when they are there takes the place of one that has not said HELLO yet, or
/// is closed where all have. Those that are dialled are as many as rows, and nobody who comes takes their place.
const CONNECTIONS: usize = 128;

/// Those that listen to controllers of a bridge at most.
const SNOOPERS: usize = 8;

/// Packets of workers that are taken in one turn.
const PACKETS: usize = 256;

/// The driver of ports without a device, of which nothing but frames is counted, as in Open
/// vSwitch.
const DUMMY: &str = "dummy";

/// That of patch ports, of which neither is anything else counted.
const PATCH: &str = "patch";

/// What a controller of the database comes by.
#[derive(Debug)]
enum Way {
    Door(Door),
    Dial(Dial),
    /// It cannot be listened at.
    Shut,
}

/// A controller of the database.
#[derive(Debug)]
struct Controller {
    spec: ControllerSpec,
    way: Way,
    /// Why the last who came to it was refused.
    refusal: Refusal,
}

impl Controller {
    fn new(spec: &ControllerSpec) -> Self {
        Self { spec: spec.clone(), way: way(spec), refusal: Refusal::default() }
    }

    /// Whether it is the one that is to be, be it with other keys.
    fn is(&self, spec: &ControllerSpec) -> bool {
        let keys = spec.tls.clone();
        *spec == ControllerSpec { tls: keys, ..self.spec.clone() }
    }

    /// Has connections from now on be secured by these keys; one that waits to be dialled again is so now.
    fn set_keys(&mut self, keys: Option<&Identity>) {
        if self.spec.tls.as_ref() == keys {
            return;
        }
        self.spec.tls = keys.cloned();
        if let Way::Dial(dial) = &mut self.way {
            dial.hurry();
        }
    }
}

/// A bridge and what it is served by.
#[derive(Debug)]
pub struct Served {
    /// Its OpenFlow side.
    bridge: Bridge,
    spec: BridgeSpec,
    management: Option<Door>,
    snoop: Option<Door>,
    controllers: LiteMap<Uuid, Controller>,
    /// Connections, and the controllers that they are of.
    peers: Vec<(Peer, Option<Uuid>)>,
    /// Who listens to controllers.
    snoopers: Vec<Snooper>,
    forwarding: Forwarding,
    /// Whether its controllers are there.
    alone: Alone,
    /// The links to those who are reached through it, and the address of its own port.
    links: Links,
    local: Option<MacAddr>,
    /// What workers have for controllers and tables, and whether there may be more than was taken.
    packets: Receiver<FlowEvent>,
    has_packets: bool,
}

/// What of a bridge is to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Its own socket.
    Management,
    /// A controller's socket or attempt.
    Controller(Uuid),
    /// A connection.
    Peer(ConnectionId),
    /// The socket of those who listen.
    Snoop,
    /// One of them.
    Snooper(usize),
}

impl Served {
    /// A bridge without connections.
    pub fn new(
        spec: BridgeSpec,
        sockets: Sockets,
        forwarding: Forwarding,
        packets: Receiver<FlowEvent>,
    ) -> Self {
        let bridge = Bridge::new(Settings::default());
        let empty = BridgeSpec { controllers: LiteMap::new(), ..spec.clone() };
        let [management, snoop] =
            [sockets.management, sockets.snoop].map(|socket| socket.map(Door::Unix));
        let (controllers, peers, snoopers) = Default::default();
        let mut served = Self {
            bridge,
            spec: empty,
            management,
            snoop,
            controllers,
            peers,
            snoopers,
            forwarding,
            alone: Alone::default(),
            links: Links::default(),
            local: None,
            packets,
            has_packets: false,
        };
        let is_plain = is_plain(&spec);
        served.set(spec);
        served.bridge.reset(is_plain, &mut served.forwarding);
        served
    }

    /// Has it be so.
    pub fn set(&mut self, spec: BridgeSpec) {
        for gone in self.bridge.set(spec.settings.clone(), &mut self.forwarding) {
            self.close(gone, "its bridge is set otherwise");
        }
        let stays = |row: &Uuid, controller: &Controller| {
            spec.controllers.get(row).is_some_and(|spec| controller.is(spec))
        };
        let gone: Vec<Uuid> = self
            .controllers
            .iter()
            .filter(|(row, controller)| !stays(row, controller))
            .map(|(row, _)| *row)
            .collect();
        for row in gone {
            self.snoopers.retain(|snooper| snooper.of != row);
            let of = self.peers.iter().filter(|(_, of)| *of == Some(row));
            let of: Vec<ConnectionId> = of.map(|(peer, _)| peer.id).collect();
            of.into_iter().for_each(|id| self.close(id, "its controller is set otherwise"));
            self.controllers.remove(&row);
        }
        for (row, controller) in &spec.controllers {
            let there = self.controllers.entry(*row).or_insert_with(|| Controller::new(controller));
            there.set_keys(controller.tls.as_ref());
        }
        let is_other = has_primary(&spec) != has_primary(&self.spec)
            || (spec.is_secure != self.spec.is_secure && !has_primary(&spec));
        self.spec = spec;
        self.forwarding.set_vlans(self.spec.vlans);
        if is_other {
            self.bridge.reset(is_plain(&self.spec), &mut self.forwarding);
        }
        self.bridge.renew();
    }

    /// What ports do: what is new is told to controllers.
    pub fn look(&mut self, reports: &LiteMap<&str, &PortReport>, now: Instant) {
        let known = self.spec.ports.iter().filter_map(|(name, (number, config))| {
            let report = reports.get(name.as_str())?;
            let desc = describe(PortNo::from_v10(*number), report, *config);
            let queues = match report.driver {
                // As Open vSwitch's.
                DUMMY => BTreeSet::from([0]),
                _ => self.spec.queues.get(name).cloned().unwrap_or_default(),
            };
            let (figures, custom) = (figures(report), custom(report));
            let marks = self.spec.marks.get(name).cloned().unwrap_or_default();
            Some(Port { desc, name: name.clone(), figures, custom, queues, marks, since: now })
        });
        let known = known.collect();
        self.bridge.set_ports(known);
        let own = reports.get(self.forwarding.bridge());
        self.local = own.map(|report| report.mac);
    }

    /// Whether anybody is connected that may want to know of ports, or is reached by them.
    pub fn is_watched(&self) -> bool {
        !self.peers.is_empty() || !self.spec.in_band.remotes.is_empty()
    }

    /// Has those be reached through the bridge who are to be.
    fn reach(&mut self, now: Instant) {
        let (bridge, spec) = (self.forwarding.bridge(), &self.spec.in_band);
        let in_band = self.links.look(bridge, spec, self.local, now);
        self.bridge.set_in_band(in_band, &mut self.forwarding);
    }

    /// Whether groups go by which links are up.
    pub fn goes_by_links(&self) -> bool {
        self.bridge.goes_by_links()
    }

    /// What is to be polled, and for what.
    pub fn spots(&self) -> Vec<(Spot, std::os::fd::BorrowedFd<'_>, rustix::event::PollFlags)> {
        use rustix::event::PollFlags;
        let own = self.management.iter().map(|door| (Spot::Management, door.fd(), PollFlags::IN));
        let controllers = self.controllers.iter().filter_map(|(row, controller)| {
            let spot = Spot::Controller(*row);
            match &controller.way {
                Way::Door(door) => Some((spot, door.fd(), PollFlags::IN)),
                Way::Dial(dial) => Some((spot, dial.fd()?, PollFlags::OUT)),
                Way::Shut => None,
            }
        });
        let peers = self
            .peers
            .iter()
            .map(|(peer, _)| (Spot::Peer(peer.id), peer.fd(), peer.interest(&self.bridge)));
        let snoop = self.snoop.iter().map(|door| (Spot::Snoop, door.fd(), PollFlags::IN));
        let snoopers = self.snoopers.iter().enumerate();
        let snoopers = snoopers.map(|(at, one)| (Spot::Snooper(at), one.fd(), one.interest()));
        own.chain(controllers).chain(peers).chain(snoop).chain(snoopers).collect()
    }

    /// When something is to be done although nothing comes.
    pub fn due(&self) -> Option<Instant> {
        let dials = self.controllers.values().filter_map(|controller| match &controller.way {
            Way::Dial(dial) => dial.due(),
            _ => None,
        });
        let peers = self.peers.iter().filter_map(|(peer, _)| peer.due(&self.bridge));
        let open = self.alone.due(longest_probe(&self.spec)).filter(|_| !self.bridge.is_open());
        dials.chain(peers).chain(open).chain(self.links.due(&self.spec.in_band)).min()
    }

    /// Whether it can go on without anything coming.
    pub fn is_busy(&self) -> bool {
        self.has_packets || self.peers.iter().any(|(peer, _)| peer.is_busy())
    }

    /// Takes new connections, at those spots where somebody waits.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn welcome(&mut self, ready: &[Spot]) -> Result<(), rustix::io::Errno> {
        let mut new: Vec<(OwnedFd, String, Option<Uuid>)> = Vec::new();
        let mut refused = Ok(());
        if let Some(door) = &self.management
            && ready.contains(&Spot::Management)
        {
            match door.accept() {
                Ok(taken) => new.extend(taken.map(|(socket, name)| (socket, name, None))),
                Err(error) => refused = Err(error),
            }
        }
        for (row, controller) in &mut self.controllers {
            let is_ready = ready.contains(&Spot::Controller(*row));
            match &mut controller.way {
                Way::Door(door) if is_ready => match door.accept() {
                    Ok(taken) => new.extend(taken.map(|(socket, name)| (socket, name, Some(*row)))),
                    Err(error) => refused = Err(error),
                },
                Way::Dial(dial) => {
                    let name = controller.spec.target.to_string();
                    new.extend(dial.step(is_ready).map(|socket| (socket, name, Some(*row))));
                }
                _ => {}
            }
        }
        for (socket, name, row) in new {
            self.add_peer(socket, name, row);
        }
        if ready.contains(&Spot::Snoop) {
            self.welcome_snooper()?;
        }
        refused
    }

    /// Has somebody listen to the controller that has the most to say.
    fn welcome_snooper(&mut self) -> Result<(), rustix::io::Errno> {
        let Some((socket, _)) = self.snoop.as_ref().map_or(Ok(None), Door::accept)? else {
            return Ok(());
        };
        let rank = |row: &Uuid| {
            let mut of = self.peers.iter().filter(|(_, of)| of.as_ref() == Some(row));
            match of.find_map(|(peer, _)| self.bridge.role(peer.id)) {
                Some(Role::Primary) => 3,
                Some(Role::Equal) => 2,
                Some(Role::Secondary) => 1,
                None => 0,
            }
        };
        let dialled = self.controllers.iter();
        let dialled = dialled.filter(|(_, one)| matches!(one.way, Way::Dial(_)));
        match dialled.map(|(row, _)| *row).max_by_key(rank) {
            Some(_) if self.snoopers.len() >= SNOOPERS => {
                tracing::warn!("closed, as {SNOOPERS} listen to controllers already");
            }
            Some(row) => self.snoopers.push(Snooper::new(socket, row)),
            None => tracing::info!("no controller connection to snoop"),
        }
        Ok(())
    }

    /// Passes on what has come from controllers and gone to them to those who listen.
    fn serve_snoopers(&mut self) {
        for (peer, row) in &mut self.peers {
            let copies = peer.take_copies();
            let of = self.snoopers.iter_mut().filter(|snooper| Some(snooper.of) == *row);
            of.for_each(|snooper| copies.iter().for_each(|copy| snooper.hear(copy)));
        }
        self.snoopers.retain_mut(Snooper::step);
        for (peer, row) in &mut self.peers {
            peer.set_heard(self.snoopers.iter().any(|snooper| Some(snooper.of) == *row));
        }
    }

    /// Whether there is room for one more of those who come the same way. Where there is none, the one that has been there
    /// longest without a HELLO gives way: those who have nothing to say keep nobody out.
    fn make_room(&mut self, row: Option<Uuid>) -> bool {
        let is_dialled = |row: &Option<Uuid>| {
            let controller = row.as_ref().and_then(|row| self.controllers.get(row));
            controller.is_some_and(|controller| matches!(controller.way, Way::Dial(_)))
        };
        let is_alike = |of: &Option<Uuid>| of.is_some() == row.is_some() && !is_dialled(of);
        let alike = || self.peers.iter().filter(|(_, of)| is_alike(of)).map(|(peer, _)| peer.id);
        if is_dialled(&row) || alike().count() < CONNECTIONS {
            return true;
        }
        // They are in the order in which they have come.
        let stranger = alike().find(|id| self.bridge.version(*id).is_none());
        stranger.inspect(|id| self.close(*id, "no HELLO, and another one has come")).is_some()
    }

    fn add_peer(&mut self, socket: OwnedFd, name: String, row: Option<Uuid>) {
        if !self.make_room(row) {
            tracing::warn!("{name}: closed, as {CONNECTIONS} others are connected by OpenFlow");
            return;
        }
        let spec =
            row.and_then(|row| self.controllers.get(&row)).map(|controller| &controller.spec);
        let origin = match spec {
            Some(spec) if !spec.is_service => Origin::Controller,
            _ => Origin::Service,
        };
        let secured = match spec {
            Some(spec) => spec.secure(socket),
            None => Ok((socket, None)),
        };
        let socket = match secured {
            Ok(socket) => socket,
            Err(why) => return self.lose(row, &name, &why, true),
        };
        let probe = spec.and_then(|spec| spec.probe);
        let manner = spec.map(|spec| spec.manner).unwrap_or_default();
        let id = self.bridge.connect(origin, ROOM);
        self.bridge.set_manner(id, manner);
        tracing::debug!("{name}: connected");
        let mut peer = Peer::new(socket, id, name, probe);
        peer.set_heard(self.snoopers.iter().any(|snooper| Some(snooper.of) == row));
        self.peers.push((peer, row));
    }

    /// Takes what workers have, as long as others can wait.
    fn take_packets(&mut self) {
        let Self { bridge, forwarding, packets, .. } = self;
        let begin = forwarding.now();
        for _ in 0..PACKETS {
            let Ok(event) = packets.try_recv() else {
                self.has_packets = false;
                return;
            };
            match event {
                FlowEvent::Packet(FlowPacket { about, bytes, len, mirrors }) => {
                    let received = Received { about, bytes, len, mirrors };
                    bridge.receive_packet(&received, forwarding.now());
                }
                FlowEvent::Learn(change) => bridge.learn(&change, forwarding),
            }
            if forwarding.now().saturating_sub(begin) >= SLICE {
                break;
            }
        }
        self.has_packets = true;
    }

    /// Goes on with all connections.
    pub fn serve(&mut self, now: Instant) {
        self.take_packets();
        let Self { bridge, peers, forwarding, controllers, .. } = self;
        let mut gone = Vec::new();
        for (peer, row) in peers {
            let was_stranger = bridge.version(peer.id).is_none();
            if let Err(why) = peer.step(bridge, forwarding, now) {
                gone.push((peer.id, why.to_string()));
            }
            if was_stranger
                && bridge.version(peer.id).is_some()
                && let Some(controller) = row.and_then(|row| controllers.get_mut(&row))
            {
                controller.refusal.forget();
            }
        }
        for (id, why) in gone {
            self.close(id, &why);
        }
        self.serve_snoopers();
        self.watch_controllers(Instant::now());
        self.reach(Instant::now());
        self.bridge.settle(&mut self.forwarding);
    }

    /// Where none of the controllers is there that decide, all is switched as usual after a while.
    fn watch_controllers(&mut self, now: Instant) {
        let decides = |row: &Uuid| {
            self.spec.controllers.get(row).is_some_and(|controller| !controller.is_service)
        };
        let is_there = |(peer, row): &(Peer, Option<Uuid>)| {
            row.as_ref().is_some_and(decides) && self.bridge.version(peer.id).is_some()
        };
        let is_alone =
            !self.spec.is_secure && has_primary(&self.spec) && !self.peers.iter().any(is_there);
        let is_open = self.alone.step(is_alone, longest_probe(&self.spec), now);
        if is_open != self.bridge.is_open() {
            let what = if is_open { "all is switched as usual" } else { "rules decide again" };
            tracing::warn!("bridge {}: {what}", self.forwarding.bridge());
            self.bridge.set_open(is_open);
        }
    }

    /// Whether there is something that ends by itself.
    pub fn has_timed(&self) -> bool {
        self.bridge.has_timed()
    }

    /// Ends rules and bundles whose time is over.
    pub fn expire(&mut self) {
        self.bridge.expire(&mut self.forwarding);
        let now = self.forwarding.now();
        for (peer, _) in &self.peers {
            let done = self.bridge.take_tally(peer.id, now, false);
            tell_done(self.forwarding.bridge(), &peer.name, done);
        }
    }

    fn close(&mut self, id: ConnectionId, why: &str) {
        let Some(at) = self.peers.iter().position(|(peer, _)| peer.id == id) else { return };
        let (peer, row) = self.peers.remove(at);
        let done = self.bridge.take_tally(id, self.forwarding.now(), true);
        tell_done(self.forwarding.bridge(), &peer.name, done);
        let is_stranger = self.bridge.version(id).is_none();
        self.bridge.disconnect(id);
        self.lose(row, &peer.name, why, is_stranger);
    }

    /// Tells why a connection is over, which has never said HELLO if it is a stranger's.
    fn lose(&mut self, row: Option<Uuid>, name: &str, why: &str, is_stranger: bool) {
        let Some(controller) = row.and_then(|row| self.controllers.get_mut(&row)) else {
            return tracing::debug!("{name}: {why}");
        };
        let Controller { spec, way, refusal } = controller;
        // Anybody may come, as often as they like.
        let is_refused = is_stranger && spec.target.secured() == Some(Side::Server);
        let is_told =
            if is_refused { refusal.refuse(why, Instant::now()) } else { !spec.is_service };
        if is_told {
            tracing::info!("{name}: {why}");
        } else {
            tracing::debug!("{name}: {why}");
        }
        if let Way::Dial(dial) = way {
            dial.lost(why, !is_stranger);
        }
    }

    /// What its controllers want of others.
    pub fn take_jobs(&mut self) -> Vec<(ConnectionId, Job)> {
        let jobs = self.bridge.take_jobs();
        for (_, job) in &jobs {
            let Job::SetPort { name, config: wanted } = job;
            if let Some((_, config)) = self.spec.ports.get_mut(name) {
                *config = wanted & !config::PORT_DOWN;
            }
        }
        jobs
    }

    /// What a connection has waited for is done.
    pub fn grant(&mut self, id: ConnectionId) {
        if let Some((peer, _)) = self.peers.iter_mut().find(|(peer, _)| peer.id == id) {
            peer.waits = false;
        }
    }

    /// What has become of its controllers.
    pub fn status(&self) -> impl Iterator<Item = (Uuid, ControllerStatus)> {
        self.controllers.iter().map(|(row, controller)| {
            let mut of = self.peers.iter().filter(|(_, of)| of == &Some(*row));
            let role = of.find_map(|(peer, _)| self.bridge.role(peer.id));
            let (state, last_error) = match &controller.way {
                Way::Dial(dial) => (dial.state(), dial.last_error().map(str::to_owned)),
                // Who is refused beside it is nobody of it.
                Way::Door(_) if role.is_some() => ("ACTIVE", None),
                Way::Door(_) => ("IDLE", controller.refusal.why().map(str::to_owned)),
                Way::Shut => ("VOID", None),
            };
            (*row, ControllerStatus { role, state, last_error })
        })
    }
}

/// Tells the log what a controller has done to rules, in the words of Open vSwitch.
fn tell_done(bridge: &str, peer: &str, done: Option<String>) {
    if let Some(done) = done {
        tracing::info!(target: "connmgr", "{bridge}<->{peer}: {done}");
    }
}

/// Whether there are controllers that decide.
fn has_primary(spec: &BridgeSpec) -> bool {
    spec.has_lost || spec.controllers.values().any(|controller| !controller.is_service)
}

/// How long that one of the controllers may be silent that may be so longest.
fn longest_probe(spec: &BridgeSpec) -> Duration {
    let probes = spec.controllers.values().filter_map(|controller| controller.probe);
    probes.max().unwrap_or(PROBE)
}

/// Whether a bridge switches all as usual as long as there are no other rules.
fn is_plain(spec: &BridgeSpec) -> bool {
    !spec.is_secure && !has_primary(spec)
}

fn way(spec: &ControllerSpec) -> Way {
    match Door::open(&spec.target) {
        Ok(Some(door)) => Way::Door(door),
        Ok(None) => {
            Way::Dial(Dial::new(spec.target.clone(), spec.max_backoff.max(Duration::from_secs(1))))
        }
        Err(error) => {
            tracing::warn!("controller: {error}");
            Way::Shut
        }
    }
}

/// What controllers are told of a port.
fn describe(number: PortNo, report: &PortReport, settings: u32) -> PortDesc {
    let is_down = report.disabled;
    // One that LACP has not agreed on has a link, and carries nothing.
    let link = match report.link.up && !is_down {
        true if report.is_agreed => state::LIVE,
        true => 0,
        false => state::LINK_DOWN,
    };
    let speed = report.link.speed_mbps.unwrap_or(0);
    let kbps = speed.saturating_mul(1_000);
    let features = if speed > 0 { speed_feature(speed) } else { 0 };
    PortDesc {
        mac: report.mac,
        name: report.name.clone(),
        config: (settings & !config::PORT_DOWN) | if is_down { config::PORT_DOWN } else { 0 },
        state: link,
        current: features,
        current_speed: kbps,
        ..PortDesc::new(number)
    }
}

/// The bit of a link's speed, in Mb/s.
const fn speed_feature(speed: u32) -> u32 {
    match speed {
        10 => feature::MB_10_FD,
        100 => feature::MB_100_FD,
        1_000 => feature::GB_1_FD,
        10_000 => feature::GB_10_FD,
        40_000 => feature::GB_40_FD,
        100_000 => feature::GB_100_FD,
        1_000_000 => feature::TB_1_FD,
        _ => feature::OTHER,
    }
}

/// The counters that a port has by names of its own: a dummy, as Open vSwitch's, has two that count nothing,
/// and those of its queue.
fn custom(report: &PortReport) -> Vec<(String, u64)> {
    if report.driver != DUMMY {
        return Vec::new();
    }
    let (rx, tx) = (report.stats.rx_total(), report.stats.tx_total());
    let all = [
        ("rx_custom_packets_1", 0),
        ("rx_custom_packets_2", 0),
        ("rx_q0_bytes", rx.bytes),
        ("rx_q0_packets", rx.packets),
        ("tx_q0_bytes", tx.bytes),
        ("tx_q0_packets", tx.packets),
    ];
    all.map(|(name, count)| (name.to_owned(), count)).to_vec()
}

/// The counters of a port, as statistics have them.
fn figures(report: &PortReport) -> [u64; FIGURES] {
    let (rx, tx) = (report.stats.rx_total(), report.stats.tx_total());
    let is_unknown = [DUMMY, PATCH].contains(&report.driver) || TUNNELS.contains(&report.driver);
    let dropped = |stats: &Stats| if is_unknown { UNKNOWN } else { stats.dropped() };
    // Errors of the wire are not for a switch to count.
    let none = UNKNOWN;
    let known = [rx.packets, tx.packets, rx.bytes, tx.bytes, dropped(&rx), dropped(&tx)];
    let mut figures = [none; FIGURES];
    figures.iter_mut().zip(known).for_each(|(figure, known)| *figure = known);
    figures
}

#[cfg(test)]
mod tests;
