//! Packets from controllers, and packets for them.

use openflow::Version;
use openflow::message::asynchronous::Unasked;
use openflow::message::nicira::PacketInFormat;
use openflow::message::packet_in::PacketIn;
use openflow::packet_in::Reason;
use openflow::{ErrorCode, Field, Match, PortNo};

use super::flow::refusal;
use super::resume::continuation;
use super::{Answers, Request};
use crate::bridge::Bridge;
use crate::datapath::{PacketOut, Received};

impl Request<'_> {
    pub(super) fn packet_out(&mut self) -> Answers {
        self.check_role()?;
        let wanted = openflow::message::packet_out::PacketOut::decode(self.raw)?;
        if wanted.buffer.is_some() {
            // Nothing is kept, so that there is none.
            return Err(ErrorCode::BrcBufferUnknown);
        }
        self.bridge.tables.check_actions(&wanted.actions).map_err(refusal)?;
        self.datapath.send(PacketOut::of(wanted)?);
        Ok(Vec::new())
    }
}

/// What travels with a packet: all of its key but the packet itself.
fn metadata(received: &Received) -> Match {
    let mut metadata = flow::place::to_match(&received.about.key);
    for field in [Field::EthSrc, Field::EthDst, Field::VlanTci] {
        metadata.remove(field);
    }
    // It is told with what is known of the packet's connection.
    if metadata.exact(Field::EthType) == Some(0) {
        metadata.remove(Field::EthType);
    }
    let unset = u128::from(PortNo::UNSET.0);
    if metadata.exact(Field::ActsetOutput) == Some(unset) {
        metadata.remove(Field::ActsetOutput);
    }
    metadata
}

impl Bridge {
    /// Whether any controller wants packets that no rule is for.
    pub(crate) fn wants_misses(&self) -> bool {
        let miss = u32::from(Reason::IMPLICIT_MISS.0);
        self.connections
            .values()
            .any(|connection| connection.listener(Unasked::PacketIn, miss).is_some())
    }

    /// Tells controllers of a packet that a rule has sent them, or that none is for.
    ///
    /// `now` is the time in milliseconds, by which there are limits.
    pub fn receive_packet(&mut self, received: &Received, now: u64) {
        let about = &received.about;
        let is_miss = about.reason.is_miss();
        let has_rule = about.cookie != u64::MAX;
        let reason = u32::from(about.reason.0);
        let stopped = received.about.frozen.as_deref();
        let id = self.id;
        let continuation = stopped.map(|frozen| continuation(frozen, (id, received.mirrors)));
        let mut told = PacketIn {
            packet: received.bytes.clone(),
            full_len: u32::try_from(received.len).unwrap_or(u32::MAX),
            buffer: None,
            table: about.table,
            // Of what no rule is for, it is none's; of what a controller has sent out, it is not known.
            cookie: match about.reason {
                Reason::IMPLICIT_MISS => Some(0),
                _ => has_rule.then_some(about.cookie),
            },
            reason: about.reason,
            metadata: metadata(received),
            userdata: about.userdata.clone(),
            continuation: Vec::new(),
        };
        for (_, connection) in &mut self.connections {
            let listener = connection.listener(Unasked::PacketIn, reason);
            let Some(session) = listener.filter(|session| session.controller_id == about.id) else {
                continue;
            };
            let (version, format): (_, PacketInFormat) =
                (session.version, session.packet_in_format);
            // Before OpenFlow 1.3 a rule is no miss.
            if let Some(continuation) = &continuation {
                told.continuation = continuation.encode(version);
            }
            told.reason = match about.reason {
                Reason::EXPLICIT_MISS if version < Version::V13 => Reason::ACTION,
                _ if is_miss => Reason::NO_MATCH,
                reason => reason,
            };
            if connection.may_tell_packet(is_miss, now) {
                connection.outbox.tell_whole(told.encode(version, format));
            }
        }
    }
}
