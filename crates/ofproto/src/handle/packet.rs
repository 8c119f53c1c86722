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
    tell_all_of_connection(&mut metadata);
    metadata
}

/// What a connection began with is told as a whole, where anything of it is: also what of it is zero.
fn tell_all_of_connection(metadata: &mut Match) {
    let ends = match metadata.exact(Field::EthType) {
        Some(0x0800) => [Field::CtNwSrc, Field::CtNwDst],
        Some(0x86DD) => [Field::CtIpv6Src, Field::CtIpv6Dst],
        _ => return,
    };
    if metadata.exact(Field::CtNwProto).is_none() {
        return;
    }
    for field in ends.into_iter().chain([Field::CtTpSrc, Field::CtTpDst]) {
        if metadata.exact(field).is_none() {
            metadata.set(field, 0);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_began_with_is_told_as_a_whole() {
        let told = |ether_type: u128, known: &[(Field, u128)]| {
            let mut metadata = Match::new().with(Field::EthType, ether_type);
            known.iter().for_each(|(field, value)| metadata.set(*field, *value));
            tell_all_of_connection(&mut metadata);
            metadata
        };
        let echo = [(Field::CtNwProto, 1), (Field::CtTpSrc, 8), (Field::CtNwSrc, 5)];
        let metadata = told(0x0800, &echo);
        let fields = [Field::CtNwSrc, Field::CtNwDst, Field::CtTpSrc, Field::CtTpDst];
        let values = fields.map(|field| metadata.exact(field));
        assert_eq!(values, [Some(5), Some(0), Some(8), Some(0)]);
        let metadata = told(0x86DD, &[(Field::CtNwProto, 58)]);
        let fields = [Field::CtIpv6Src, Field::CtIpv6Dst, Field::CtTpSrc, Field::CtTpDst];
        assert_eq!(fields.map(|field| metadata.exact(field)), [Some(0); 4]);
        assert_eq!(metadata.exact(Field::CtNwSrc), None);
        // Of what is of no connection there is nothing to tell.
        for (ether_type, known) in [(0x0800, &[][..]), (0x0806, &echo[..1])] {
            assert_eq!(told(ether_type, known).exact(Field::CtTpDst), None);
        }
    }
}
