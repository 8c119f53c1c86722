//! Connections: what has been agreed on, and what waits to be sent.

use std::collections::VecDeque;

use openflow::message::asynchronous::{AsyncConfig, Unasked};
use openflow::message::hello::Hello;
use openflow::message::nicira::{FlowFormat, PacketInFormat};
use openflow::message::role::Role;
use openflow::message::stats::table_features::TableFeatures;
use openflow::{Version, VersionSet};

use crate::handle::bundle::Bundles;
use crate::monitor::Monitors;
use crate::rate::{Bucket, Manner};
use crate::tally::Tally;

/// The number of a connection; none is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a program on this machine that asks something and goes, such as `ovs-ofctl`. It is told
    /// nothing unasked as long as it has not set how much of a packet it wants.
    Service,
    /// From one of the bridge's controllers.
    Controller,
}

/// How much of a packet a controller gets that has not said how much.
pub(crate) const MISS_SEND_LEN: u16 = 128;

/// A connection whose version has been agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub version: Version,
    pub role: Role,
    pub asynchronous: AsyncConfig,
    pub miss_send_len: u16,
    pub invalid_ttl: bool,
    pub flow_format: FlowFormat,
    pub packet_in_format: PacketInFormat,
    pub controller_id: u16,
    /// Whether changes of rules have a table's number, in OpenFlow 1.0.
    pub has_table_id: bool,
    pub bundles: Bundles,
    pub monitors: Monitors,
    /// Changes of rules that the log was not told of yet.
    pub tally: Tally,
    /// Of a request about tables that is in several messages, its number and what has come.
    pub wishes: (u32, Vec<TableFeatures>),
}

impl Session {
    fn new(version: Version, origin: Origin) -> Self {
        Self {
            version,
            role: Role::Equal,
            asynchronous: AsyncConfig::default_of(version),
            miss_send_len: if origin == Origin::Controller { MISS_SEND_LEN } else { 0 },
            invalid_ttl: false,
            flow_format: FlowFormat::default(),
            packet_in_format: PacketInFormat::default(),
            controller_id: 0,
            has_table_id: false,
            bundles: Bundles::default(),
            monitors: Monitors::default(),
            tally: Tally::default(),
            wishes: Default::default(),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub origin: Origin,
    pub versions: VersionSet,
    /// `None` until the peer has said HELLO.
    pub session: Option<Session>,
    pub outbox: Outbox,
    /// How it is from the beginning.
    pub manner: Manner,
    /// What may still be told of packets that no rule is for, and of others.
    buckets: Option<[Bucket; 2]>,
}

impl Connection {
    pub fn new(origin: Origin, versions: VersionSet, xid: u32, room: usize) -> Self {
        let mut outbox = Outbox::new(room);
        outbox.answer(Hello { versions }.encode(xid));
        let (manner, buckets) = Default::default();
        Self { origin, versions, session: None, outbox, manner, buckets }
    }

    /// Has it be so from the beginning.
    pub fn set(&mut self, manner: Manner) {
        self.buckets = manner.rate.map(|rate| [Bucket::new(rate); 2]);
        self.manner = manner;
    }

    /// Whether it may be told of a packet now, in milliseconds.
    pub fn may_tell_packet(&mut self, is_miss: bool, now: u64) -> bool {
        let Some([misses, others]) = &mut self.buckets else { return true };
        if is_miss { misses.take(now) } else { others.take(now) }
    }

    /// Takes the version that both speak.
    pub fn agree(&mut self, version: Version) {
        let mut session = Session::new(version, self.origin);
        if self.manner.is_silent {
            session.asynchronous = AsyncConfig::default();
        }
        self.session = Some(session);
    }

    /// The session, if it is to be told of this kind of message for this reason.
    pub fn listener(&self, kind: Unasked, reason: u32) -> Option<&Session> {
        let session = self.session.as_ref()?;
        let is_silent = self.origin == Origin::Service && session.miss_send_len == 0;
        let is_secondary = session.role == Role::Secondary;
        let wants = session.asynchronous.wants(kind, is_secondary, reason);
        (wants && !is_silent).then_some(session)
    }
}

/// Messages that wait to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages: VecDeque<Waiting>,
    bytes: usize,
    /// How many of them are of updates of monitors.
    updates: usize,
    /// The most bytes that wait, of what is told unasked.
    room: usize,
    /// How many messages had no room.
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    message: Vec<u8>,
    is_update: bool,
}

impl Outbox {
    const fn new(room: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, updates: 0, room, dropped: 0 }
    }

    fn push(&mut self, message: Vec<u8>, is_update: bool) {
        let len = message.len();
        self.bytes = self.bytes.saturating_add(len);
        self.updates = self.updates.saturating_add(if is_update { len } else { 0 });
        self.messages.push_back(Waiting { message, is_update });
    }

    /// Appends an answer. Answers have no limit here: as long as one waits, nothing more is asked.
    pub fn answer(&mut self, message: Vec<u8>) {
        self.push(message, false);
    }

    /// Appends what a monitor tells: it pauses where much of it waits.
    pub fn update(&mut self, message: Vec<u8>) {
        self.push(message, true);
    }

    /// Appends what nobody has asked for, if there is room for it.
    pub fn tell(&mut self, message: Vec<u8>) {
        if self.bytes.saturating_add(message.len()) > self.room {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.answer(message);
    }

    /// The same, but for what is longer than a message can be.
    pub fn tell_whole(&mut self, message: Vec<u8>) {
        if message.len() > usize::from(u16::MAX) {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.tell(message);
        }
    }

    pub fn take(&mut self) -> Option<Vec<u8>> {
        let Waiting { message, is_update } = self.messages.pop_front()?;
        let len = message.len();
        self.bytes = self.bytes.saturating_sub(len);
        self.updates = self.updates.saturating_sub(if is_update { len } else { 0 });
        Some(message)
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of what monitors tell that wait.
    pub const fn updates(&self) -> usize {
        self.updates
    }

    /// The most bytes that wait, of what is told unasked.
    pub const fn room(&self) -> usize {
        self.room
    }

    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_dropped_when_the_peer_does_not_read() {
        let mut outbox = Outbox::new(20);
        outbox.tell(vec![0; 15]);
        outbox.tell(vec![1; 6]);
        outbox.answer(vec![2; 100]);
        assert_eq!((outbox.dropped(), outbox.bytes), (1, 115));
        assert_eq!(outbox.take(), Some(vec![0; 15]));
        assert_eq!(outbox.take(), Some(vec![2; 100]));
        assert!(outbox.is_empty() && outbox.take().is_none());
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn who_only_asks_is_told_nothing() {
        let told = |origin, miss_send_len| {
            let mut connection = Connection::new(origin, VersionSet::ALL, 1, 100);
            assert!(connection.listener(Unasked::PortStatus, 0).is_none(), "before HELLO");
            connection.agree(Version::V10);
            if let (Some(length), Some(session)) = (miss_send_len, &mut connection.session) {
                session.miss_send_len = length;
            }
            connection.listener(Unasked::PortStatus, 0).is_some()
        };
        assert!(!told(Origin::Service, None) && told(Origin::Service, Some(1)));
        assert!(told(Origin::Controller, None) && told(Origin::Controller, Some(0)));
    }
}
