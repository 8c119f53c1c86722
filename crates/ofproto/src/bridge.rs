//! A bridge as controllers see it.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use flow::{Change, Fragments, Outcome, Tables};
use litemap::LiteMap;
use openflow::framing::Header;
use openflow::message::asynchronous::Unasked;
use openflow::message::hello::{Hello, incompatible};
use openflow::message::port::{PortDesc, PortReason, PortStatus, config, state};
use openflow::message::role::Role;
use openflow::message::stats::desc::Desc;
use openflow::message::{Kind, Raw};
use openflow::{ErrorCode, ErrorMessage, PortNo, Version, VersionSet};
use ordered::Gather as _;

use crate::connection::{Connection, ConnectionId, Origin};
use crate::datapath::Datapath;
use crate::handle::{self, flow::add_plain_rule};
use crate::in_band::InBand;
use crate::monitor::Made;
use crate::port::Port;
use crate::rate::Manner;
use crate::table::{TableConfig, TableStates};
use crate::tlv::TlvOptions;

/// Where a port's counters of what it has received are.
const RX_PACKETS: usize = 0;
const RX_BYTES: usize = 2;

/// The type of HELLO in all versions.
const HELLO: u8 = 0;

/// What is set for a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// By which controllers know it.
    pub datapath_id: u64,
    /// The versions that it speaks.
    pub versions: VersionSet,
    /// What kind of switch it is, in words.
    pub desc: Desc,
    /// How long nothing may be done with a bundle until it is forgotten.
    pub bundle_timeout: Duration,
    /// How tables are set that are not as all are.
    pub tables: LiteMap<u8, TableConfig>,
}

/// How long nothing may be done with a bundle, where nothing is said.
pub const BUNDLE_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Settings {
    fn default() -> Self {
        Self {
            datapath_id: 0,
            versions: VersionSet::ALL,
            desc: Desc::default(),
            bundle_timeout: BUNDLE_TIMEOUT,
            tables: LiteMap::new(),
        }
    }
}

/// A connection that is to be closed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed(pub String);

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Closed {}

/// What a controller wants that others have to do. The connection waits for it: nothing is to be
/// received on it until it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Sets bits of a port's `config`, as in [`openflow::message::port::config`].
    SetPort {
        /// The port's name.
        name: String,
        /// All of them.
        config: u32,
    },
}

/// A bridge, its ports, and its connections.
#[derive(Debug)]
pub struct Bridge {
    pub(crate) settings: Settings,
    /// By which it knows packets that it has stopped: one that no other bridge has, nor this one had
    /// before it was made anew.
    pub(crate) id: u128,
    pub(crate) ports: LiteMap<PortNo, Port>,
    pub(crate) connections: LiteMap<ConnectionId, Connection>,
    /// The greatest number of an election so far.
    pub(crate) generation: Option<u64>,
    pub(crate) jobs: Vec<(ConnectionId, Job)>,
    /// The rules.
    pub(crate) tables: Tables,
    /// Who is reached through the bridge itself, by hidden rules of these tables.
    in_band: InBand,
    /// How controllers have set tables.
    pub(crate) table_states: TableStates,
    /// Options of tunnels as fields.
    pub(crate) tlv: TlvOptions,
    /// Whether what forwards does not know them, or the ports, yet.
    pub(crate) is_dirty: bool,
    /// Frames and bytes that have come in and no rule has counted: those of a plain bridge.
    uncounted: (u64, u64),
    /// Whether it goes by no rules, since nobody is there who makes them.
    is_open: bool,
    /// Whether it asks controllers about packets that no rule is for.
    asks: bool,
    last_connection: u64,
    last_xid: u32,
}

impl Bridge {
    /// One without ports.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            id: random(),
            ports: LiteMap::new(),
            connections: LiteMap::new(),
            generation: None,
            jobs: Vec::new(),
            tables: Tables::default(),
            in_band: InBand::default(),
            table_states: TableStates::default(),
            tlv: TlvOptions::default(),
            is_dirty: true,
            uncounted: (0, 0),
            is_open: false,
            asks: false,
            last_connection: 0,
            last_xid: 0,
        }
    }

    /// What is set for it.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets it anew. Gives the connections that have to go, since they speak a version that it does
    /// not speak any more, or know it by another number.
    pub fn set(&mut self, settings: Settings, datapath: &mut dyn Datapath) -> Vec<ConnectionId> {
        let is_new = settings.datapath_id != self.settings.datapath_id;
        let versions = settings.versions;
        let before = std::mem::replace(&mut self.settings, settings);
        if before.tables != self.settings.tables {
            self.set_tables(&before.tables, datapath);
        }
        let goes = |connection: &Connection| match &connection.session {
            Some(session) => is_new || !versions.has(session.version),
            None => connection.versions != versions,
        };
        let gone = self.connections.iter().filter(|(_, connection)| goes(connection));
        gone.map(|(id, _)| *id).collect()
    }

    /// Forgets all rules; if `is_plain`, it has the one by which all is switched as usual, as
    /// without a controller.
    pub fn reset(&mut self, is_plain: bool, datapath: &mut dyn Datapath) {
        let now = datapath.now();
        let removed = self.tables.clear();
        if is_plain {
            add_plain_rule(&mut self.tables, now);
        }
        self.is_dirty = true;
        self.tell_changes(&[Made::unasked(&Outcome { removed, ..Outcome::default() })], now);
        self.settle(datapath);
    }

    /// Has what forwards know all that has changed.
    pub fn settle(&mut self, datapath: &mut dyn Datapath) {
        let asks = self.wants_misses();
        if std::mem::take(&mut self.is_dirty) || asks != self.asks {
            self.asks = asks;
            let plain = self.is_open.then(|| {
                let mut plain = Tables::default();
                add_plain_rule(&mut plain, datapath.now());
                plain.set_fragments(self.tables.fragments());
                plain
            });
            let tables = plain.as_ref().unwrap_or(&self.tables);
            datapath.set_options(self.tlv.fields());
            datapath.publish(tables, &mut self.ports.values(), asks);
        }
    }

    /// Has this become of fragments.
    pub(crate) fn set_fragments(&mut self, fragments: Fragments) {
        self.is_dirty |= fragments != self.tables.fragments();
        self.tables.set_fragments(fragments);
    }

    /// Has the rules be there by which these are reached through the bridge itself. If they are those that were,
    /// nothing is done.
    pub fn set_in_band(&mut self, in_band: InBand, datapath: &mut dyn Datapath) {
        if in_band != self.in_band {
            self.is_dirty |= self.tables.set_hidden(&in_band.rules(), datapath.now());
            self.in_band = in_band;
        }
    }

    /// Has what forwards know the ports anew, though they look the same.
    pub const fn renew(&mut self) {
        self.is_dirty = true;
    }

    /// Ends rules and bundles whose time is over.
    pub fn expire(&mut self, datapath: &mut dyn Datapath) {
        self.expire_bundles(datapath.now());
        if !self.tables.has_timed() {
            return;
        }
        datapath.flush();
        self.expire_rules(datapath.now());
        self.settle(datapath);
    }

    /// Makes a rule that was learnt from a packet.
    pub fn learn(&mut self, change: &Change, datapath: &mut dyn Datapath) {
        let now = datapath.now();
        match self.tables.change(change, now) {
            Ok(outcome) => {
                self.is_dirty = true;
                self.tell_changes(
                    &[Made { outcome: &outcome, command: change.command, by: None }],
                    now,
                );
            }
            Err(refusal) => tracing::debug!("a rule cannot be learnt: {refusal}"),
        }
    }

    /// Whether there is something that ends by itself.
    #[must_use]
    pub fn has_timed(&self) -> bool {
        let has_something = |connection: &Connection| {
            let session = connection.session.as_ref();
            session.is_some_and(|one| !one.bundles.is_empty() || !one.tally.is_empty())
        };
        self.tables.has_timed() || self.connections.values().any(has_something)
    }

    /// Tells those whose bundles are forgotten.
    fn expire_bundles(&mut self, now: u64) {
        let timeout = self.settings.bundle_timeout.as_millis().try_into().unwrap_or(u64::MAX);
        let Some(then) = now.checked_sub(timeout) else { return };
        for (_, connection) in &mut self.connections {
            let Some(session) = &mut connection.session else { continue };
            for head in session.bundles.expire(then) {
                let xid = Header::read(&head).map_or(0, |header| header.xid);
                let (code, version) = (ErrorCode::BfcTimeout, session.version);
                connection.outbox.tell(ErrorMessage::reply(code, version, xid, &head));
            }
        }
    }

    /// Whether groups go by which links are up.
    #[must_use]
    pub fn goes_by_links(&self) -> bool {
        self.tables.go_by_links()
    }

    /// A number for a message that answers none.
    pub(crate) const fn next_xid(&mut self) -> u32 {
        self.last_xid = self.last_xid.wrapping_add(1);
        self.last_xid
    }

    /// Begins a connection. Of what it is told unasked, `room` bytes wait at most.
    pub fn connect(&mut self, origin: Origin, room: usize) -> ConnectionId {
        self.last_connection = self.last_connection.wrapping_add(1);
        let (id, xid) = (ConnectionId(self.last_connection), self.next_xid());
        let connection = Connection::new(origin, self.settings.versions, xid, room);
        self.connections.insert(id, connection);
        id
    }

    /// Has a connection be so from the beginning.
    pub fn set_manner(&mut self, id: ConnectionId, manner: Manner) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.set(manner);
        }
    }

    /// The role of the controller of a connection, once there is one.
    #[must_use]
    pub fn role(&self, id: ConnectionId) -> Option<Role> {
        Some(self.connections.get(&id)?.session.as_ref()?.role)
    }

    /// Has all be switched as usual, whatever the rules are, or go by them.
    pub fn set_open(&mut self, is_open: bool) {
        self.is_dirty |= is_open != self.is_open;
        self.is_open = is_open;
    }

    /// Whether all is switched as usual, whatever the rules are.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Ends a connection.
    pub fn disconnect(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id)
            && connection.outbox.dropped() > 0
        {
            tracing::info!(
                messages = connection.outbox.dropped(),
                "a controller did not read fast enough: it was not told all"
            );
        }
        self.jobs.retain(|(of, _)| *of != id);
    }

    /// Takes the next message to be sent.
    pub fn take(&mut self, id: ConnectionId) -> Option<Vec<u8>> {
        let connection = self.connections.get_mut(&id)?;
        let message = connection.outbox.take();
        if message.is_some() {
            connection.resume_monitors(&self.tables);
        }
        message
    }

    /// Whether a connection is to be closed, since it does not read what it wants to be told.
    #[must_use]
    pub fn is_overrun(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(Connection::is_overrun)
    }

    /// Whether all that there was to be sent has been taken: until then, nothing should be
    /// received.
    #[must_use]
    pub fn is_drained(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| connection.outbox.is_empty())
    }

    /// The version that a connection has agreed on.
    #[must_use]
    pub fn version(&self, id: ConnectionId) -> Option<Version> {
        Some(self.connections.get(&id)?.session.as_ref()?.version)
    }

    /// What is to be done for connections.
    pub fn take_jobs(&mut self) -> Vec<(ConnectionId, Job)> {
        std::mem::take(&mut self.jobs)
    }

    /// Whether a connection waits for a job that nobody has taken yet.
    #[must_use]
    pub fn has_job(&self, id: ConnectionId) -> bool {
        self.jobs.iter().any(|(of, _)| *of == id)
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    /// Has these ports from now on. What is new, gone or different is told to those who want to
    /// know.
    pub fn set_ports(&mut self, ports: Vec<Port>) {
        let next: LiteMap<PortNo, Port> =
            ports.into_iter().map(|port| (port.desc.number, port)).gather();
        let before = std::mem::replace(&mut self.ports, next);
        self.note_received(&before);
        let mut news = Vec::new();
        for (number, old) in &before {
            let is_same = |new: &&Port| new.name == old.name;
            if self.ports.get(number).filter(is_same).is_none() {
                news.push((PortReason::Delete, None, old.desc.clone()));
            }
        }
        for (number, new) in &mut self.ports {
            match before.get(number).filter(|old| old.name == new.name) {
                None => {
                    // As in Open vSwitch, it comes to life once it is there.
                    let (live, mut added) = (new.desc.clone(), new.desc.clone());
                    added.state &= !state::LIVE;
                    let before = added.clone();
                    news.push((PortReason::Add, None, added));
                    if live.state != before.state {
                        news.push((PortReason::Modify, Some(before), live));
                    }
                }
                Some(old) => {
                    new.since = old.since;
                    if new.differs(old) {
                        let steps = steps(&old.desc, &new.desc);
                        news.extend(steps.map(|(old, new)| (PortReason::Modify, Some(old), new)));
                    }
                }
            }
        }
        self.is_dirty |= !news.is_empty();
        for (reason, before, port) in news {
            self.tell_port(&PortStatus { reason, port }, before, None);
        }
    }

    /// Whether workers have nothing of its rules, as they say no more than that all is switched as usual, and no
    /// port is told to do less.
    fn is_plain(&self) -> bool {
        let is_limited = |port: &Port| port.desc.config & config::LIMITS != 0;
        self.tables.is_plain() && !self.ports.values().any(is_limited)
    }

    /// The one rule of a plain bridge is for all that comes in; workers do not count it.
    fn note_received(&mut self, before: &LiteMap<PortNo, Port>) {
        if !self.is_plain() {
            return;
        }
        let (packets, bytes) = &mut self.uncounted;
        for (number, port) in &self.ports {
            let Some(old) = before.get(number).filter(|old| old.name == port.name) else {
                continue;
            };
            let since = |at: usize| {
                let [now, then] =
                    [port, old].map(|port| port.figures.get(at).copied().unwrap_or(0));
                now.saturating_sub(then)
            };
            *packets = packets.saturating_add(since(RX_PACKETS));
            *bytes = bytes.saturating_add(since(RX_BYTES));
        }
    }

    /// Has rules count all that has come, also on a plain bridge.
    pub(crate) fn count(&mut self, datapath: &mut dyn Datapath) {
        datapath.flush();
        let (packets, bytes) = std::mem::take(&mut self.uncounted);
        if packets > 0 && self.tables.is_plain() {
            self.tables.iter().for_each(|rule| rule.stats.add(packets, bytes, datapath.now()));
            self.tables.look_ups().add(0, true, packets);
        }
    }

    /// Tells of a port, which was like `before`. Before OpenFlow 1.5, the controller that has changed
    /// it is not told; nor is one to whom both look the same in its version.
    pub(crate) fn tell_port(
        &mut self,
        status: &PortStatus,
        before: Option<PortDesc>,
        by: Option<ConnectionId>,
    ) {
        let reason = status.reason as u32;
        let before = before.map(|port| PortStatus { port, ..status.clone() });
        let xid = self.next_xid();
        for (id, connection) in &mut self.connections {
            let Some(session) = connection.listener(Unasked::PortStatus, reason) else { continue };
            let version = session.version;
            if by == Some(*id) && version < Version::V15 {
                continue;
            }
            let message = status.encode(version, xid);
            let is_same = |before: &PortStatus| before.encode(version, xid) == message;
            if !before.as_ref().is_some_and(is_same) {
                connection.outbox.tell(message);
            }
        }
    }

    /// Takes a message that has come in.
    ///
    /// # Errors
    /// It cannot be gone on with; what waits to be sent may still be.
    pub fn receive(
        &mut self,
        id: ConnectionId,
        message: &[u8],
        datapath: &mut dyn Datapath,
        now: Instant,
    ) -> Result<(), Closed> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let Ok(header) = Header::read(message) else {
            return Err(Closed("a message without a header".to_owned()));
        };
        let Some(session) = &connection.session else {
            return greet(connection, header, message);
        };
        let spoken = session.version;
        let answer = match Version::from_wire(header.version) {
            Some(version) if version == spoken => self.answer(id, message, datapath, now),
            other if header.kind == HELLO && other.is_some() => Ok(()),
            _ => {
                tracing::warn!(
                    "received OpenFlow version {:#04x} != expected {:02x}",
                    header.version,
                    spoken.wire()
                );
                Err(ErrorCode::BrcBadVersion)
            }
        };
        if let (Err(code), Some(connection)) = (answer, self.connections.get_mut(&id)) {
            // In the version of what is wrong, if there is such a version.
            let version = Version::from_wire(header.version).unwrap_or(spoken);
            tracing::debug!("{code} in answer to a message of type {}", header.kind);
            connection.outbox.answer(ErrorMessage::reply(code, version, header.xid, message));
        }
        Ok(())
    }

    fn answer(
        &mut self,
        id: ConnectionId,
        message: &[u8],
        datapath: &mut dyn Datapath,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let raw = Raw::read(message)?;
        let answers = handle::handle(self, id, &raw, datapath, now)?;
        if let Some(connection) = self.connections.get_mut(&id) {
            answers.into_iter().for_each(|answer| connection.outbox.answer(answer));
        }
        Ok(())
    }
}

/// The peer's first message.
fn greet(connection: &mut Connection, header: Header, message: &[u8]) -> Result<(), Closed> {
    if header.kind != HELLO {
        let kind = Raw::read(message).map_or_else(|_| "?".to_owned(), |raw| name(raw.kind));
        return Err(Closed(format!(
            "received message type {} ({kind}) while expecting hello",
            header.kind
        )));
    }
    let body = message.get(openflow::framing::HEADER..).unwrap_or_default();
    let theirs = Hello::decode(header.version, body).versions;
    match connection.versions.negotiate(theirs) {
        Some(version) => {
            connection.agree(version);
            Ok(())
        }
        None => {
            let ours = connection.versions;
            connection.outbox.answer(incompatible(ours, theirs, header.xid));
            Err(Closed(format!(
                "version negotiation failed (we support {ours}, peer supports {theirs})"
            )))
        }
    }
}

/// How a port comes from one description to another, as controllers are told of it. One that is taken
/// down loses its link then, as in Open vSwitch.
fn steps(old: &PortDesc, new: &PortDesc) -> impl Iterator<Item = (PortDesc, PortDesc)> {
    let has = |port: &PortDesc| port.config & config::PORT_DOWN != 0;
    let goes_down = has(new) && !has(old) && new.state & !old.state & state::LINK_DOWN != 0;
    let between = PortDesc { state: new.state & !state::LINK_DOWN, ..new.clone() };
    let first = goes_down.then(|| (old.clone(), between.clone()));
    let last = (if goes_down { between } else { old.clone() }, new.clone());
    first.into_iter().chain([last])
}

/// A number that nobody guesses or has by chance.
fn random() -> u128 {
    let half = |which: u8| u128::from(RandomState::new().hash_one(which));
    half(0) << 64 | half(1)
}

fn name(kind: Kind) -> String {
    format!("{kind:?}")
}

#[cfg(test)]
mod tests;
