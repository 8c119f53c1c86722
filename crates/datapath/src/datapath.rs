//! What happens to a burst of frames between the queue where it came in and the ports where it
//! goes out.
//!
//! The frames stay where they are, in the ring of the sender. The bridge that the sender's port
//! belongs to decides about them, in stages that are chosen once for a burst ([`Stage`](crate::stage::Stage)), and leaves its
//! verdicts as marks at the outputs, which then send what is marked.
//!
//! - `change`: its bridges, outputs and ports, as workers are told of them
//! - `source`: where a burst came from
//! - [`trace`]: what would become of a frame

mod change;
mod source;
pub mod trace;

use std::ops::Range;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats, RxBurst};
use packet::{BURST, Burst, Edit, EditRoom, Frame, Packet, PoolCache};

use crate::bond;
use crate::bond::entry::Room;
use crate::bridge::{Bridge, BridgeId};
use crate::capture::{self, Drops};
use crate::flows::enter::{Manner, Onward, enter};
use crate::flows::{NOWHERE, PacketOut};
use crate::guard::Guards;
use crate::limit::Limits;
use crate::marks::all_of;
use crate::mirror::{Copies, Taps, View};
use crate::output::pick;
use crate::outputs::Outputs;
use crate::patch::{Beyond, Patches};
use crate::record::sparing::{Slot, Turns};
use crate::sample::Draft;
use crate::trap::Traps;

pub(crate) use self::source::{Beside, Source, place};

/// One worker's data path.
#[derive(Debug)]
pub struct Datapath {
    /// By their numbers; those that only have to decide about frames.
    bridges: Vec<Option<Bridge>>,
    /// Those with mirrors, or all while there are limits, guards, bonds, traps or captures, or packets are
    /// recorded: so a bridge without does not even look whether there are any.
    apart: Vec<Option<Bridge>>,
    /// Whether there is nothing of that but mirrors.
    is_calm: bool,
    outputs: Outputs,
    patches: Patches,
    limits: Limits,
    guards: Guards,
    traps: Traps,
    /// Counts packets by what they are, while somebody looks.
    recorder: Slot,
    /// Whether it does.
    turns: Turns,
    /// Where frames that mirrors cut have their bodies.
    cut: EditRoom,
    /// Where buffers of packets go that are done with.
    cache: PoolCache,
}

impl Datapath {
    /// One without bridges and ports.
    pub fn new(cache: PoolCache) -> Self {
        let (bridges, apart, outputs, patches) = Default::default();
        let (limits, guards, traps, recorder, turns, cut) = Default::default();
        Self {
            bridges,
            apart,
            is_calm: true,
            outputs,
            patches,
            limits,
            guards,
            traps,
            recorder,
            turns,
            cut,
            cache,
        }
    }

    /// Sends frames of the switch's own, [`BURST`] at most, to `port`, if that takes frames at time
    /// `now`; by a patch port they come in at its peer, as others do. Returns whether it does.
    pub(crate) fn send_own(&mut self, port: u16, frames: &[Frame<'_>], now: u64) -> bool {
        if !self.patches.has(port) || self.outputs.has_output(port) {
            return self.outputs.send_own(port, frames, now);
        }
        let all = all_of(frames.len());
        self.outputs.mark(port, all, Edit::NONE);
        self.pass(frames, (NOWHERE, now));
        self.outputs.end_burst();
        true
    }

    /// Sends each frame of a burst where it belongs: without a copy if the burst lies in packet
    /// buffers, and all of it goes to one device that sends from such.
    #[inline]
    pub(crate) fn forward_burst(&mut self, burst: RxBurst<'_>, source: &Source<'_>) {
        let gives = burst.gives_packets();
        if let Some(port) = self.forward(burst.known(), source, gives) {
            self.give(burst, port);
        }
    }

    /// Sends each frame of a burst, of [`BURST`] at most, where it belongs. If all of them are to go
    /// to one port which could have them as packets, and `gives` says that they can be, then they
    /// are not sent, and the port is returned.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let Some(Some(bridge)) = self.bridges.get(usize::from(source.bridge.0)) else {
            if self.is_calm {
                return self.forward_calm(frames, source, gives);
            }
            if self.recorder.is_active() {
                return self.forward_recorded(frames, source, gives);
            }
            return self.forward_apart(frames, source, gives);
        };
        bridge.decide(frames, source, &mut self.outputs);
        if gives && let Some(port) = self.outputs.take_whole(frames, source.now) {
            return Some(port);
        }
        self.outputs.send(frames, source);
        if self.outputs.has_patched() {
            self.pass(&frames, (source.origin, source.now));
        }
        None
    }

    /// As `forward_apart`, where nothing looks at frames but the rules of their bridge, or its mirrors.
    #[inline(never)]
    fn forward_calm(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let Self { bridges, apart, outputs, patches, limits, traps, cut, .. } = self;
        let bridge = apart.get(usize::from(source.bridge.0)).and_then(Option::as_ref);
        let bridge = bridge.filter(|bridge| bridge.taps().is_none());
        let Some((bridge, flows)) =
            bridge.and_then(|bridge| bridge.flows().map(|flows| (bridge, flows)))
        else {
            return self.forward_apart(frames, source, gives);
        };
        let bridges: [&[Option<Bridge>]; 2] = [bridges, apart];
        let mut onward = |outputs: &mut Outputs, frames: Burst<'_, '_>, source: &Source<'_>| {
            outputs.send(frames, source);
            if outputs.has_patched() {
                let beyond = &mut Beyond { bridges, limits, traps, cut };
                patches.pass(beyond, outputs, &frames, (source.origin, source.now));
            }
        };
        enter((bridge, flows), frames, source, Manner::Real, outputs, &mut onward);
        None
    }

    /// As `forward_apart`, where frames are recorded.
    #[cold]
    fn forward_recorded(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let rests = self.turns.spend(frames.len());
        if let Some(recorder) = self.recorder.active() {
            recorder.note(&frames, source);
        }
        let taken = self.forward_apart(frames, source, gives);
        if rests {
            self.turn_recording(source.now);
        }
        taken
    }

    /// As `forward`, where there are limits, guards, mirrors, bonds, traps or captures, or there is no
    /// such bridge.
    #[inline(never)]
    fn forward_apart(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let taken = match self.outputs.watches_in(source.port) {
            true => self.forward_watched(frames, source),
            false => self.forward_all(frames, source, gives),
        };
        self.outputs.end_burst();
        taken
    }

    /// As `forward_apart`, from a port of which what comes in is captured. Frames that are captured
    /// go by themselves, so that the counters tell what has become of them.
    #[inline(never)]
    fn forward_watched(&mut self, frames: Burst<'_, '_>, source: &Source<'_>) -> Option<u16> {
        let stats = source.stats;
        let (mut others, mut drops) = (0..0, Drops::new(stats.drops()));
        for (index, frame) in frames.iter().enumerate() {
            let Some(handle) = self.outputs.begin(frame, source.port, capture::Direction::In)
            else {
                others.end = index + 1;
                continue;
            };
            if !others.is_empty() {
                self.forward_some(frames, others, source);
                drops.moved(stats.dropped(), || stats.drops());
            }
            self.forward_some(frames, index..index + 1, source);
            self.outputs.end(handle, drops.moved(stats.dropped(), || stats.drops()));
            others = index + 1..index + 1;
        }
        self.forward_some(frames, others, source);
        None
    }

    /// Sends a part of a burst where it belongs.
    fn forward_some(&mut self, frames: Burst<'_, '_>, part: Range<usize>, source: &Source<'_>) {
        let part = frames.part(part.start, part.len());
        if !part.is_empty() {
            self.forward_all(part, source, false);
        }
    }

    /// As `forward_apart`, whether it is captured or not.
    #[inline(always)]
    fn forward_all(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        if self.traps.has(source.port) && !self.guards.has_shut(source.port) {
            return self.forward_trapped(frames, source, gives);
        }
        self.forward_limited(frames, source, gives)
    }

    /// As `forward_apart`, from a port where somebody listens. What is for him comes in whatever limits
    /// and guards say, unless the port is shut; it goes no further, but to mirrors.
    #[inline(never)]
    fn forward_trapped(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let taken = self.traps.take(&frames, source);
        if taken == 0 {
            return self.forward_limited(frames, source, gives);
        }
        let trapped = pick(&frames, taken);
        let bridge = self.apart.get(usize::from(source.bridge.0)).and_then(Option::as_ref);
        let copies = bridge.and_then(|bridge| {
            bridge.taps()?.select(&bridge.view(source), &trapped, &self.outputs)
        });
        if let Some(copies) = copies {
            self.mirror(&trapped, source, &copies);
        }
        let others = pick(&frames, !taken);
        if !others.is_empty() {
            self.forward_limited(Burst::new(&others), source, false);
        }
        None
    }

    /// As `forward_apart`, of frames that are for nobody here.
    #[inline(always)]
    fn forward_limited(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let mut kept = ArrayVec::new();
        let all = frames.len();
        let frames = self.limits.receive(frames, source, &mut kept);
        let gives = gives && frames.len() == all;
        if self.guards.of(source.port).is_some() {
            return self.forward_guarded(frames, source, gives);
        }
        self.forward_admitted::<true>(frames, source, gives)
    }

    /// As `forward_apart`, from a port with a guard.
    #[inline(never)]
    fn forward_guarded(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let mut room = self.guards.take_room();
        let whole = {
            let mut kept = ArrayVec::new();
            let admitted = match self.guards.of(source.port) {
                Some(guard) => guard.admit(&frames, source, &mut room.begin(), &mut kept),
                None => frames.as_slice(),
            };
            let is_all = std::ptr::eq(admitted, frames.as_slice());
            let admitted = if is_all { frames } else { Burst::new(admitted) };
            let gives = gives && is_all;
            // What was noted of bursts that nobody guards.
            self.outputs.take_notes();
            self.forward_admitted::<true>(admitted, source, gives)
        };
        self.guards.give_room(room);
        whole
    }

    /// As `forward_apart`, of frames that limits and guards let in; `STOPS` where it is still to be looked whether
    /// they are sampled.
    fn forward_admitted<const STOPS: bool>(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let Some(Some(bridge)) = self.apart.get(usize::from(source.bridge.0)) else {
            if source.bridge == BridgeId::BOND {
                return self.forward_member(frames, source, gives);
            }
            source.stats.count_drops(DropReason::LinkDown, frames.len());
            return None;
        };
        if STOPS && bridge.taps().is_some_and(|taps| taps.stops(source.port)) {
            return self.forward_stopped(frames, source, gives);
        }
        if bridge.flows().is_some() {
            self.forward_flows(frames, source);
            return None;
        }
        bridge.decide(frames, source, &mut self.outputs);
        self.outputs.spread(&frames, source);
        self.guards.judge(&frames, source, &mut self.outputs);
        self.limits.send(&frames, &mut self.outputs, source.now);
        let taps = bridge.taps();
        let copies =
            taps.and_then(|taps| taps.select(&bridge.view(source), &frames, &self.outputs));
        if gives
            && copies.is_none()
            && !self.outputs.watches_marked()
            && let Some(port) = self.outputs.take_whole(frames, source.now)
        {
            return Some(port);
        }
        if let Some(tunnels) = self.patches.tunnels() {
            tunnels.divert(&frames, &mut self.outputs, source.now);
        }
        self.outputs.send_apart(frames, source);
        if self.outputs.has_patched() {
            self.pass(&frames, (source.origin, source.now));
        }
        if let Some(copies) = copies {
            self.mirror(&frames, source, &copies);
        }
        None
    }

    /// As `forward_apart`, from a port of a bridge whose frames are sampled, or that is for copies alone.
    #[inline(never)]
    fn forward_stopped(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let mut rest = 0..frames.len();
        while let Some(taps) = self.taps(source) {
            if taps.keeps(source.port) {
                source.stats.count_drops(DropReason::MirrorPort, rest.len());
                return None;
            }
            let Some(place) = taps.samplers().next(rest.len()) else { break };
            let at = rest.start.saturating_add(place);
            let sampled = frames.part(at, 1);
            self.forward_part(frames, rest.start..at, source);
            self.forward_sampled(sampled, source);
            rest.start = at.saturating_add(1);
        }
        if rest.start == 0 {
            return self.forward_through(frames, source, gives);
        }
        self.forward_part(frames, rest, source);
        None
    }

    /// What looks at frames of a bridge.
    fn taps(&self, source: &Source<'_>) -> Option<&Taps> {
        self.apart.get(usize::from(source.bridge.0))?.as_ref()?.taps()
    }

    fn forward_part(&mut self, frames: Burst<'_, '_>, part: Range<usize>, source: &Source<'_>) {
        let part = frames.part(part.start, part.len());
        if !part.is_empty() {
            self.forward_through(part, source, false);
        }
    }

    /// Sends one frame where it belongs, of which a sample is taken.
    fn forward_sampled(&mut self, frame: Burst<'_, '_>, source: &Source<'_>) {
        let (first, from) = (frame.first(), (source.inlet, source.place()));
        let draft = first.and_then(|first| Some(self.taps(source)?.samplers().begin(from, first)));
        self.outputs.begin_sample(draft.as_ref().map_or(0, Draft::bytes_out));
        self.forward_through(frame, source, false);
        let seen = self.outputs.end_sample();
        if let (Some(draft), Some(taps)) = (draft, self.taps(source)) {
            taps.samplers().end(&draft, &seen);
        }
        self.outputs.forget_sample(seen);
    }

    /// As `forward_apart`, of frames of which samples were taken.
    #[inline(never)]
    fn forward_through(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        self.forward_admitted::<false>(frames, source, gives)
    }

    /// As `forward_apart`, by the flows of a bridge.
    #[inline(never)]
    fn forward_flows(&mut self, frames: Burst<'_, '_>, source: &Source<'_>) {
        let arrived = self.copy_arrivals(&frames, source);
        let before = self.outputs.set_arrived(arrived);
        self.with_onward(source, Taps::select_leaving, |bridge, outputs, onward| {
            if let Some(flows) = bridge.flows() {
                enter((bridge, flows), frames, source, Manner::Real, outputs, onward);
            }
        });
        self.outputs.set_arrived(before);
    }

    /// Sends mirrors what has come in, before rules make something else of it or drop it; gives which of them have
    /// a copy, a bit for each.
    fn copy_arrivals(&mut self, frames: &[Frame<'_>], source: &Source<'_>) -> u32 {
        let bridge = self.apart.get(usize::from(source.bridge.0)).and_then(Option::as_ref);
        let coming = bridge.and_then(|bridge| {
            bridge.taps()?.select_coming(&bridge.view(source), frames, bridge.bars())
        });
        let Some((copies, mirrors)) = coming else { return 0 };
        self.mirror(frames, source, &copies);
        mirrors
    }

    /// Does with a frame what a controller says, on a bridge that goes by these flows.
    pub(crate) fn packet_out(&mut self, id: BridgeId, packet: &PacketOut, now: u64) {
        let stats = QueueStats::default();
        let source = Source::new((id, packet.port()), &stats, now);
        self.with_onward(&source, Taps::select, |bridge, outputs, onward| {
            packet.send(bridge, &source, outputs, onward);
        });
    }

    /// Has `act` mark frames at outputs, and hand them to what sends them on, as often as it likes.
    fn with_onward(
        &mut self,
        source: &Source<'_>,
        select: fn(&Taps, &View<'_>, &[Frame<'_>], &Outputs) -> Option<Copies>,
        act: impl FnOnce(&Bridge, &mut Outputs, Onward<'_>),
    ) {
        let Self { bridges, apart, outputs, patches, limits, guards, traps, cut, .. } = self;
        let all: [&[Option<Bridge>]; 2] = [bridges, apart];
        let at = usize::from(source.bridge.0);
        let Some(bridge) = all.into_iter().find_map(|all| all.get(at)?.as_ref()) else { return };
        let mut onward = |outputs: &mut Outputs, frames: Burst<'_, '_>, source: &Source<'_>| {
            outputs.spread(&frames, source);
            guards.judge(&frames, source, outputs);
            limits.send(&frames, outputs, source.now);
            let taps = bridge.taps();
            let copies = taps.and_then(|taps| select(taps, &bridge.view(source), &frames, outputs));
            if let Some(tunnels) = patches.tunnels() {
                tunnels.divert(&frames, outputs, source.now);
            }
            outputs.send_apart(frames, source);
            let mut pass = |outputs: &mut Outputs, limits: &mut Limits, cut: &mut EditRoom| {
                if outputs.has_patched() {
                    let beyond = &mut Beyond { bridges: all, limits, traps, cut };
                    patches.pass(beyond, outputs, &frames, (source.origin, source.now));
                }
            };
            pass(outputs, limits, cut);
            if let Some(copies) = copies {
                bridge.mirror(&frames, source, &copies, outputs, limits, cut);
                pass(outputs, limits, cut);
            }
        };
        act(bridge, outputs, &mut onward);
    }

    /// As `forward_apart`, for what came in on a member of a bond.
    fn forward_member(
        &mut self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        gives: bool,
    ) -> Option<u16> {
        let (all, mut room) = (frames.len(), Room::default());
        let Self { bridges, apart, outputs, .. } = self;
        let bonds = outputs.bonds_mut();
        let (source, frames) =
            bond::entry::receive(bonds, [bridges, apart], frames, source, &mut room)?;
        self.forward_apart(frames, &source, gives && frames.len() == all)
    }

    /// Takes what is marked at patch ports on from there.
    #[inline(never)]
    fn pass(&mut self, frames: &[Frame<'_>], came: (u16, u64)) {
        let Self { bridges, apart, outputs, patches, limits, traps, cut, .. } = self;
        let bridges: [&[Option<Bridge>]; 2] = [bridges, apart];
        patches.pass(&mut Beyond { bridges, limits, traps, cut }, outputs, frames, came);
    }

    /// Sends copies to where the bridge's mirrors have them go.
    fn mirror(&mut self, frames: &[Frame<'_>], source: &Source<'_>, copies: &Copies) {
        let Self { apart, outputs, limits, cut, .. } = self;
        if let Some(Some(bridge)) = apart.get(usize::from(source.bridge.0)) {
            bridge.mirror(frames, source, copies, outputs, limits, cut);
        }
        if self.outputs.has_patched() {
            self.pass(frames, (source.origin, source.now));
        }
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
mod bare_tests;
#[cfg(test)]
mod bond_tests;
#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod mirror_tests;
#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod said_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trap_tests;
#[cfg(test)]
mod tunnel_tests;
#[cfg(test)]
mod vlan_tests;
