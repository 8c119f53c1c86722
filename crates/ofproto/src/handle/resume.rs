//! Packets that stop on their way, and go on when a controller says so (NXT_RESUME).
//!
//! Nothing of such a packet is kept here. What the controller gives back may be anything, so it is checked
//! as what it sends out by itself is: it can do no more with it.

use flow::{Frozen, slot};
use openflow::ErrorCode;
use openflow::message::continuation::Continuation;
use openflow::message::packet_in::PacketIn;

use super::flow::refusal;
use super::{Answers, Request};
use crate::datapath::Resumed;

/// The bit of the state of a connection that says that it was tracked.
const TRACKED: u32 = 0x20;

/// The most values of the stack that a packet goes on with: as many as it may have.
const MAX_STACK: usize = 4_096;

/// What a packet that has stopped on the bridge of this number takes along, of which mirrors have
/// copies.
pub(super) fn continuation(frozen: &Frozen, (bridge, mirrors): (u128, u32)) -> Continuation {
    let Frozen { key, stack, set, rest, .. } = frozen;
    Continuation {
        bridge,
        stack: stack.clone(),
        mirrors,
        is_tracked: key.get_u32(slot::CT_STATE) & TRACKED != 0,
        rest: rest.clone(),
        set: set.clone(),
    }
}

impl Request<'_> {
    pub(super) fn resume(&mut self) -> Answers {
        self.check_role()?;
        let PacketIn { packet, metadata, continuation, .. } = PacketIn::decode(self.raw)?;
        let continuation = Continuation::decode(&continuation, self.raw.version)?;
        let Continuation { bridge, stack, mirrors, is_tracked, rest, set } = continuation;
        if bridge != self.bridge.id {
            return Err(ErrorCode::NxrStale);
        }
        if stack.len() > MAX_STACK {
            return Err(ErrorCode::BpcTooMany);
        }
        let known = flow::place::pattern(&metadata).map_err(|_| ErrorCode::BmcBadField)?;
        let mut key = Box::new(known.to_key());
        if !is_tracked {
            key.set(slot::CT_STATE, 0);
        }
        let frozen = Box::new(Frozen { key, stack, set, table: None, rest, zone: None });
        self.bridge.tables.check_frozen(&frozen).map_err(refusal)?;
        self.datapath.resume(Resumed { frozen, mirrors, bytes: packet });
        Ok(Vec::new())
    }
}
