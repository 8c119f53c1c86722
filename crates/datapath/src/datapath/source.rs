//! Where a burst came from, and what it has come with beside its bytes.

use ethdev::QueueStats;
use flow::TunnelWords;
use packet::headers::ethernet;

use crate::bridge::BridgeId;

/// Where a burst came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'s> {
    /// The bridge that the port belongs to.
    pub(crate) bridge: BridgeId,
    /// Number of the port, as the bridge knows it.
    pub(crate) port: u16,
    /// That of the one where it came in: of a bond, the member.
    pub(crate) inlet: u16,
    /// The same, before it went through patch ports.
    pub(crate) origin: u16,
    /// Counters of the receive queue, where frames without destination are counted.
    pub(crate) stats: &'s QueueStats,
    /// The time, in clock cycles, give or take a round.
    pub(crate) now: u64,
    /// What it has come with beside its bytes, if with anything.
    pub(crate) beside: Option<&'s Beside>,
}

/// What a burst has come with beside its bytes: all of its frames with the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// The tunnel that it has come by.
    pub(crate) tunnel: TunnelWords,
    /// What its packets begin with, as rules see them.
    pub(crate) packet_type: u32,
    /// Whether they have the place of a header of Ethernet alone, which is nothing of them.
    pub(crate) is_bare: bool,
    /// The mark that rules of another bridge have given them.
    pub(crate) mark: u32,
}

impl<'s> Source<'s> {
    /// The tunnel that it has come by; none where it has come by none.
    pub(crate) fn tunnel(&self) -> TunnelWords {
        self.beside.map(|beside| beside.tunnel).unwrap_or_default()
    }

    /// What its packets begin with, as rules see them.
    pub(crate) fn packet_type(&self) -> u32 {
        self.beside.map_or(0, |beside| beside.packet_type)
    }

    /// The mark that it has come with from another bridge.
    pub(crate) fn mark(&self) -> u32 {
        self.beside.map_or(0, |beside| beside.mark)
    }

    /// How many bytes of its frames are nothing of the packets.
    pub(crate) fn place(&self) -> usize {
        place(self.beside.is_some_and(|beside| beside.is_bare))
    }

    /// A burst that came in on a port of a bridge, or on a member of a bond ([`BridgeId::BOND`]).
    pub(crate) const fn new(
        (bridge, port): (BridgeId, u16),
        stats: &'s QueueStats,
        now: u64,
    ) -> Self {
        Self { bridge, port, inlet: port, origin: port, stats, now, beside: None }
    }
}

/// How many bytes of a frame are nothing of the packet: the place of a header of Ethernet where that has none.
pub(crate) const fn place(is_bare: bool) -> usize {
    if is_bare { ethernet::HEADER_LEN } else { 0 }
}
