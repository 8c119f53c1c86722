//! What happens to a burst of frames between the queue where it came in and the ports where it
//! goes out.
//!
//! The frames stay where they are, in the ring of the sender. The bridge that the sender's port
//! belongs to decides about them, in stages that are chosen once for a burst ([`Stage`](crate::stage::Stage)), and leaves its
//! verdicts as marks at the outputs, which then send what is marked.

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats, RxBurst};
use packet::{BURST, Frame, Packet, PoolCache};

use crate::bridge::{Bridge, BridgeChange, BridgeId};
use crate::output::Output;
use crate::outputs::Outputs;
use crate::patch::{Patch, Patches};

/// Where a burst came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'s> {
    /// The bridge that the port belongs to.
    pub(crate) bridge: BridgeId,
    /// Number of the port.
    pub(crate) port: u16,
    /// Counters of the receive queue, where frames without destination are counted.
    pub(crate) stats: &'s QueueStats,
    /// The time, in clock cycles, give or take a round.
    pub(crate) now: u64,
}

/// One worker's data path.
#[derive(Debug)]
pub(crate) struct Datapath {
    /// By their numbers.
    bridges: Vec<Option<Bridge>>,
    outputs: Outputs,
    patches: Patches,
    /// Where buffers of packets go that are done with.
    cache: PoolCache,
}

impl Datapath {
    /// One without bridges and ports.
    pub(crate) fn new(cache: PoolCache) -> Self {
        let (bridges, outputs, patches) = Default::default();
        Self { bridges, outputs, patches, cache }
    }

    /// Changes a bridge, if it is there.
    pub(crate) fn change_bridge(&mut self, id: BridgeId, change: BridgeChange) {
        let index = usize::from(id.0);
        if self.bridges.len() <= index {
            self.bridges.resize_with(index + 1, || None);
        }
        let Some(place) = self.bridges.get_mut(index) else { return };
        match (change, place) {
            (BridgeChange::Open(bridge), place) => *place = Some(bridge),
            (BridgeChange::Close, place) => *place = None,
            (BridgeChange::Set { fdb, learn_per_burst, group_fwd_mask }, Some(bridge)) => {
                bridge.fdb = fdb;
                bridge.learn_per_burst = learn_per_burst;
                bridge.group_fwd_mask = group_fwd_mask;
            }
            (BridgeChange::Join(port, policy), Some(bridge)) => bridge.join(port, policy),
            (BridgeChange::SetVlan(port, policy), Some(bridge)) => bridge.set_vlan(port, policy),
            (BridgeChange::Leave(port), Some(bridge)) => bridge.leave(port),
            (_, None) => {}
        }
    }

    /// Puts the output to `port` in place, and returns the one that was there.
    pub(crate) fn set_output(&mut self, port: u16, output: Option<Output>) -> Option<Output> {
        self.outputs.set(port, output)
    }

    /// Lets `act` change the output to `port`, if there is one.
    pub(crate) fn on_output(&mut self, port: u16, act: impl FnOnce(&mut Output)) {
        self.outputs.get_mut(port).map(act);
    }

    /// Has `port` be a patch port that leads to another bridge, or no more.
    pub(crate) fn set_patch(&mut self, port: u16, patch: Option<Patch>) {
        self.outputs.set_patch(port, patch.is_some());
        self.patches.set(port, patch);
    }

    /// Changes how often to try again although `port` takes nothing.
    pub(crate) fn set_retries(&mut self, port: u16, retries: u32) {
        if let Some(output) = self.outputs.get_mut(port) {
            output.set_retries(retries);
        }
    }

    /// Sends each frame of a burst where it belongs: without a copy if the burst lies in packet
    /// buffers, and all of it goes to one device that sends from such.
    #[inline]
    pub(crate) fn forward_burst(&mut self, burst: RxBurst<'_>, source: &Source<'_>) {
        let gives = burst.gives_packets();
        if let Some(port) = self.forward(burst.frames(), source, gives) {
            self.give(burst, port);
        }
    }

    /// Sends each frame of a burst, of [`BURST`] at most, where it belongs. If all of them are to go
    /// to one port which could have them as packets, and `gives` says that they can be, then they
    /// are not sent, and the port is returned.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let Some(Some(bridge)) = self.bridges.get(usize::from(source.bridge.0)) else {
            source.stats.count_drops(DropReason::LinkDown, frames.len());
            return None;
        };
        let longest = bridge.decide(frames, source, &mut self.outputs);
        if gives && let Some(port) = self.outputs.take_whole(frames.len(), longest, source.now) {
            return Some(port);
        }
        self.outputs.send(frames, longest, source);
        if self.outputs.has_patched() {
            self.patches.pass(&self.bridges, &mut self.outputs, frames, source.now);
        }
        None
    }

    /// Gives a burst to a port, as packets.
    #[inline(never)]
    fn give(&mut self, burst: RxBurst<'_>, port: u16) {
        let mut packets = ArrayVec::<Packet, BURST>::new();
        burst.into_packets(&mut packets, &mut self.cache);
        self.outputs.give(port, &mut packets, &mut self.cache);
    }

    /// Lets the devices finish what was sent; see [`Outputs::flush`].
    #[inline]
    pub(crate) fn flush(&mut self) -> bool {
        self.outputs.flush()
    }
}

#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vlan_tests;
