//! What spanning tree and controllers let the ports of a bridge do, as workers know it.

use flow::{Pipeline, Port};
use packet::Frame;

use crate::bond::way::Bonds;
use crate::header::{self, Addresses};
use crate::port_set::PortSet;

/// The group that spanning tree speaks to.
const STP_GROUP: u64 = 0x0180_C200_0000;

/// A bridge where not all ports forward. A port that is in neither set discards, one that is just
/// joining the bridge among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Ports that forward.
    pub forwarding: PortSet,
    /// Ports where stations are learnt, and nothing is forwarded.
    pub learning: PortSet,
}

impl Gate {
    /// Whether frames from and to `port` are forwarded.
    #[inline]
    pub(crate) fn forwards(&self, port: u16) -> bool {
        self.forwarding.contains(port)
    }

    /// Whether it is learnt from frames from `port`.
    pub(crate) fn learns(&self, port: u16) -> bool {
        self.forwards(port) || self.learning.contains(port)
    }
}

/// What ports of a bridge are told by controllers to leave undone (`OFPPC_NO_*`); bonds are told by their
/// members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bars {
    /// Ports to which nothing is sent.
    pub(crate) no_forward: PortSet,
    no_flood: PortSet,
    /// Those from which nothing comes but what spanning tree says, and those from which that does not.
    no_receive: PortSet,
    no_receive_stp: PortSet,
}

impl Bars {
    /// Those of the ports of a bridge, if there are any.
    pub(crate) fn of(pipeline: &Pipeline) -> Option<Self> {
        let ports = || pipeline.ports.values();
        let set =
            |is_in: fn(&&Port) -> bool| ports().filter(is_in).map(|port| port.number).collect();
        ports().any(Port::is_limited).then(|| Self {
            no_forward: set(|port| port.no_forward),
            no_flood: set(|port| port.no_flood),
            no_receive: set(|port| port.no_receive),
            no_receive_stp: set(|port| port.no_receive_stp),
        })
    }

    /// The same, but that all ports are sent to.
    pub(crate) fn without_no_forward(&self) -> Self {
        Self { no_forward: PortSet::default(), ..*self }
    }

    /// Which frames of a burst that has come in on `port` are dropped, a bit for each.
    pub(crate) fn refused(&self, port: u16, frames: &[Frame<'_>]) -> u32 {
        let [usual, stp] = [&self.no_receive, &self.no_receive_stp].map(|set| set.contains(port));
        if usual == stp {
            return if usual { u32::MAX } else { 0 };
        }
        let is_refused = |frame: &&Frame<'_>| if is_stp(frame) { stp } else { usual };
        let numbered = (0_u32..).zip(frames).filter(|(_, frame)| is_refused(frame));
        numbered.fold(0, |all, (index, _)| all | 1_u32.wrapping_shl(index))
    }
}

/// Whether spanning tree says it, as OpenFlow tells that: without an EtherType, to its group.
fn is_stp(frame: &Frame<'_>) -> bool {
    let is_to = |addresses: Addresses| addresses.destination() == STP_GROUP;
    Addresses::of(frame).is_some_and(is_to) && header::has_length(frame)
}

/// What the ports of a bridge let through, by spanning tree and by what controllers say.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    gate: Gate,
    /// Ports that frames go out on.
    sends: PortSet,
    /// Those that frames do not flood to; members of bonds among them.
    no_flood: PortSet,
}

impl Doors {
    /// `None`: all ports let all through.
    pub(crate) fn new(gate: Option<&Gate>, bars: Option<&Bars>) -> Option<Box<Self>> {
        if gate.is_none() && bars.is_none() {
            return None;
        }
        let all = || Gate { forwarding: PortSet::ALL, learning: PortSet::default() };
        let gate = gate.cloned().unwrap_or_else(all);
        let none = PortSet::default();
        let (shut, no_flood) = bars.map_or((none, none), |bars| (bars.no_forward, bars.no_flood));
        let sends = gate.forwarding.without(&shut);
        Some(Box::new(Self { gate, sends, no_flood }))
    }

    /// Whether frames from `port` are forwarded, and those to it, as far as spanning tree is concerned.
    #[inline]
    pub(crate) fn forwards(&self, port: u16) -> bool {
        self.gate.forwards(port)
    }

    /// Whether it is learnt from frames from `port`.
    pub(crate) fn learns(&self, port: u16) -> bool {
        self.gate.learns(port)
    }

    /// Whether frames go out on `port`.
    #[inline]
    pub(crate) fn sends(&self, port: u16) -> bool {
        self.sends.contains(port)
    }

    /// Whether spanning tree lets frames out on `port`, but nothing is to be sent there.
    pub(crate) fn mutes(&self, port: u16) -> bool {
        self.forwards(port) && !self.sends(port)
    }

    /// Whether frames flood to `port`; to a bond where they do to all of its members.
    pub(crate) fn floods(&self, port: u16, bonds: &Bonds) -> bool {
        let is_out = |port: u16| self.no_flood.contains(port);
        !is_out(port) && !bonds.members(port).any(is_out)
    }
}
