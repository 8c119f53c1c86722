//! Packets from controllers, with what is to be done with them.

use std::borrow::Cow;
use std::sync::Arc;

use flow::walk::Start;
use flow::{Depth, Frozen, Key, Lost, PathId, extract, slot, unpadded};
use openflow::{Action, PortNo};
use packet::{Burst, Frame};

use super::enter::{Manner, Onward};
use super::run::{NOWHERE, Run, Steps};
use super::{BridgeFlows, Flows};
use crate::bridge::Bridge;
use crate::datapath::Source;
use crate::outputs::Outputs;

/// A packet from a controller.
#[derive(Debug)]
pub struct PacketOut {
    /// The rules and ports of its bridge.
    pub(crate) flows: BridgeFlows,
    /// Where it seems to have come in.
    pub(crate) in_port: PortNo,
    pub(crate) begin: FlowBegin,
    pub(crate) key: Box<Key>,
    pub(crate) bytes: Vec<u8>,
    /// The time, in milliseconds.
    pub(crate) now: u64,
}

impl PacketOut {
    /// The switch's number of the port where it seems to have come in.
    pub(crate) fn port(&self) -> u16 {
        let port = self.flows.pipeline.ports.get(&self.in_port);
        port.map_or(NOWHERE, |port| port.number)
    }

    /// Does with it what the controller says.
    pub(crate) fn send(
        &self,
        bridge: &Bridge,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let packet_type = self.key.get_u32(slot::PACKET_TYPE);
        let bytes = with_place(packet_type, &self.bytes);
        let frame = Frame::from_bytes(&bytes);
        let mut key = *self.key;
        key.set(slot::IN_PORT, self.in_port.0.into());
        let vlans = self.flows.pipeline.vlans.tags();
        extract(&mut key, frame.head(), frame.len(), vlans, Depth::All);
        key.set_packet_type(packet_type);
        key.set_frame_len(unpadded(frame.head(), frame.len(), vlans));
        let (start, mirrors) = match &self.begin {
            FlowBegin::Actions(actions) => (Start::Actions(actions), 0),
            FlowBegin::Resume { frozen, mirrors } => (Start::Frozen(frozen), *mirrors),
        };
        let flows = Flows::new(&self.flows, self.now);
        // As for a burst that comes in: so rounds are counted from here on.
        let mut rooms = flows.take_rooms();
        let (id, lost) = flows.find_once(&key, &start, frame.len());
        let next = |at: usize| flows.op(id, at);
        let steps = Steps { bridge, flows: &flows, next: &next, lost, manner: Manner::Real };
        let frames = [frame];
        let before = outputs.set_mirrored(Some(mirrors));
        outputs.set_packet_type(packet_type);
        outputs.set_pkt_mark(key.get_u32(slot::PKT_MARK));
        Run::new(steps, Burst::new(&frames)).go(source, &mut rooms.onward, outputs, onward);
        outputs.set_mirrored(before);
        outputs.set_packet_type(0);
        outputs.set_pkt_mark(0);
        flows.flush(self.now);
    }
}

/// A packet of this type, with the place of a header of Ethernet if it has none: what comes behind is said there.
fn with_place(packet_type: u32, bytes: &[u8]) -> Cow<'_, [u8]> {
    if packet_type == 0 {
        return Cow::Borrowed(bytes);
    }
    let ether_type = u16::try_from(packet_type & 0xFFFF).unwrap_or_default();
    Cow::Owned([&[0; 12][..], &ether_type.to_be_bytes(), bytes].concat())
}

/// What becomes of a packet from a controller.
#[derive(Clone, Debug)]
pub enum FlowBegin {
    /// These are done with it.
    Actions(Vec<Action>),
    /// It goes on where it had stopped.
    Resume {
        /// With what.
        frozen: Box<Frozen>,
        /// Mirrors that have a copy of it already, a bit for each.
        mirrors: u32,
    },
}

impl Flows {
    /// The path of one packet of this length that begins elsewhere than in the first table, and why it
    /// goes nowhere, if it does.
    fn find_once(&self, key: &Key, start: &Start<'_>, len: usize) -> (PathId, Option<Lost>) {
        let mut inner = self.0.borrow_mut();
        let id = inner.cache.find_once(key, start);
        inner.cache.count(id, 1, len as u64);
        (id, inner.cache.path(id).and_then(|path| path.lost))
    }
}

/// A packet from a controller, as the switch is asked to deal with it.
#[derive(Clone, Debug)]
pub struct FlowPacketOut {
    /// Where it seems to have come in; [`PortNo::CONTROLLER`] where it has not.
    pub in_port: PortNo,
    /// What is done with it.
    pub begin: FlowBegin,
    /// What travels with it: registers, metadata and the like.
    pub key: Box<Key>,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl FlowPacketOut {
    /// What a worker does with it at `now` by these flows; `None`: by tables without rules.
    #[must_use]
    pub fn of(self, flows: Option<&BridgeFlows>, now: u64) -> PacketOut {
        let none = || BridgeFlows::new(Arc::default());
        let flows = flows.cloned().unwrap_or_else(none);
        let Self { in_port, begin, key, bytes } = self;
        PacketOut { flows, in_port, begin, key, bytes, now }
    }
}
