//! Packets from controllers, with what is to be done with them.

use std::sync::Arc;

use flow::walk::{Start, walk};
use flow::{Depth, Key, extract, slot};
use openflow::{Action, PortNo};
use packet::{EditRoom, Frame};

use super::enter::{Manner, Onward, VLANS};
use super::run::{NOWHERE, Run, Steps};
use super::{BridgeFlows, Flows};
use crate::bridge::Bridge;
use crate::datapath::Source;
use crate::outputs::Outputs;

/// A packet from a controller.
#[derive(Debug)]
pub(crate) struct PacketOut {
    /// The rules and ports of its bridge.
    pub(crate) flows: BridgeFlows,
    /// Where it seems to have come in.
    pub(crate) in_port: PortNo,
    pub(crate) actions: Vec<Action>,
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
        let frame = Frame::from_bytes(&self.bytes);
        let mut key = *self.key;
        key.set(slot::IN_PORT, self.in_port.0.into());
        extract(&mut key, frame.head(), frame.len(), VLANS, Depth::All);
        let start = Start::Actions(&self.actions);
        let path = walk(&self.flows.pipeline, &mut key, &start, None);
        path.rules.iter().for_each(|rule| rule.add(1, frame.len() as u64, self.now));
        let flows = Flows::new(&self.flows, self.now);
        let next = |at: usize| path.ops.get(at).cloned();
        let steps =
            Steps { bridge, flows: &flows, next: &next, lost: path.lost, manner: Manner::Real };
        let (mut edit, mut cut) = (EditRoom::default(), EditRoom::default());
        let frames = [frame];
        Run::new(steps, &frames, 1).go(source, (&mut edit, &mut cut), outputs, onward);
        flows.flush(self.now);
    }
}

/// A packet from a controller, as the switch is asked to deal with it.
#[derive(Clone, Debug)]
pub struct FlowPacketOut {
    /// Where it seems to have come in; [`PortNo::CONTROLLER`] where it has not.
    pub in_port: PortNo,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// What travels with it: registers, metadata and the like.
    pub key: Box<Key>,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl FlowPacketOut {
    pub(crate) fn of(self, flows: Option<&BridgeFlows>, now: u64) -> PacketOut {
        let none = || BridgeFlows::new(Arc::default());
        let flows = flows.cloned().unwrap_or_else(none);
        let Self { in_port, actions, key, bytes } = self;
        PacketOut { flows, in_port, actions, key, bytes, now }
    }
}
