//! What happens to a burst of frames between the queue where it came in and the ports where it
//! goes out.
//!
//! The frames stay where they are, in the ring of the sender. The bridge that the sender's port
//! belongs to decides about them, in stages that are chosen once for a burst ([`Stage`](crate::stage::Stage)), and leaves its
//! verdicts as marks at the outputs, which then send what is marked.

pub mod trace;

use std::ops::Range;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats, RxBurst};
use flow::{PathCounts, TunnelWords};
use packet::headers::ethernet;
use packet::{BURST, Burst, Edit, EditRoom, Frame, Packet, PoolCache};

use crate::bond;
use crate::bond::entry::Room;
use crate::bond::way::{Fittings, Way};
use crate::bridge::{Bridge, BridgeChange, BridgeId};
use crate::capture::{self, Captures, Drops};
use crate::flows::enter::{Manner, Onward, enter};
use crate::flows::{Flows, NOWHERE, PacketOut};
use crate::guard::{Guard, Guards};
use crate::limit::{Direction, Limiter, Limits};
use crate::marks::all_of;
use crate::mirror::{Copies, Taps, View};
use crate::output::{Output, pick};
use crate::outputs::Outputs;
use crate::patch::{Beyond, Patch, Patches};
use crate::port_set::PortSet;
use crate::record::sparing::{Slot, Turns};
use crate::record::{Record, Recorder, Recording};
use crate::sample::Draft;
use crate::trap::{Trap, Traps};
use crate::tunnel::Tunnels;

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

    /// Changes a bridge, if it is there.
    pub fn change_bridge(&mut self, id: BridgeId, change: BridgeChange) {
        let index = usize::from(id.0);
        if self.bridges.len() <= index {
            self.bridges.resize_with(index + 1, || None);
            self.apart.resize_with(index + 1, || None);
        }
        let is_told = matches!(&change, BridgeChange::Flows(..) | BridgeChange::Close);
        let bridge = match (change, self.take_bridge(index)) {
            (BridgeChange::Open(bridge), _) => Some(bridge),
            (BridgeChange::Close, _) | (_, None) => None,
            (change, Some(mut bridge)) => {
                bridge.change(change);
                Some(bridge)
            }
        };
        self.put_bridge(index, bridge);
        if is_told {
            self.mute_bonds();
        }
    }

    /// Has bonds send nothing by members that are told to be sent nothing.
    fn mute_bonds(&mut self) {
        let bridges = self.bridges.iter().chain(&self.apart).flatten();
        let bars = bridges.filter_map(Bridge::bars);
        let muted = bars.fold(PortSet::default(), |all, bars| all.with(&bars.no_forward));
        self.outputs.bonds_mut().mute(muted);
    }

    /// How often paths were looked up on all bridges since this was asked last.
    pub(crate) fn take_look_ups(&self) -> PathCounts {
        let flows = self.apart.iter().flatten().filter_map(Bridge::flows);
        flows.map(Flows::take_look_ups).fold(PathCounts::default(), PathCounts::and)
    }

    fn take_bridge(&mut self, index: usize) -> Option<Bridge> {
        let places = [&mut self.bridges, &mut self.apart];
        places.into_iter().find_map(|places| places.get_mut(index)?.take())
    }

    /// Puts a bridge where it belongs.
    fn put_bridge(&mut self, index: usize, bridge: Option<Bridge>) {
        let has_taps = bridge.as_ref().is_some_and(|bridge| bridge.taps().is_some());
        let has_flows = bridge.as_ref().is_some_and(|bridge| bridge.flows().is_some());
        let is_apart = has_taps || has_flows || !self.is_calm;
        if let Some(flows) = bridge.as_ref().and_then(Bridge::flows) {
            flows.record(self.turns.slot());
        }
        let places = if is_apart { &mut self.apart } else { &mut self.bridges };
        if let Some(place) = places.get_mut(index) {
            *place = bridge;
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

    /// Has there be these tunnels, or none.
    pub(crate) fn set_tunnels(&mut self, tunnels: Option<Box<Tunnels>>) {
        let places = |tunnels: Option<&Tunnels>| {
            tunnels.map(|tunnels| tunnels.places().collect::<Vec<u16>>()).unwrap_or_default()
        };
        let next = places(tunnels.as_deref());
        let before = self.patches.set_tunnels(tunnels);
        for port in places(before.as_deref()) {
            self.outputs.set_patch(port, self.patches.has(port));
        }
        next.into_iter().for_each(|port| self.outputs.set_patch(port, true));
        if let (Some(before), Some(tunnels)) = (before, self.patches.tunnels_mut()) {
            tunnels.go_on_from(*before);
        }
        self.sort_bridges();
    }

    /// Changes a limit of `port`.
    pub(crate) fn set_limit(
        &mut self,
        port: u16,
        direction: Direction,
        limiter: Option<Box<Limiter>>,
    ) {
        self.limits.set(port, direction, limiter);
        self.sort_bridges();
    }

    /// Has `port` be a bond, or no more.
    pub(crate) fn set_bond(&mut self, port: u16, bond: Option<(Way, Fittings)>) {
        self.outputs.set_bond(port, bond);
        self.sort_bridges();
    }

    /// Changes what `port` may send.
    pub(crate) fn set_guard(&mut self, port: u16, guard: Option<Box<Guard>>) {
        self.guards.set(port, guard);
        self.sort_bridges();
    }

    /// Has what neighbours say to the switch itself on `port` be taken out of what comes in there.
    pub(crate) fn set_trap(&mut self, port: u16, trap: Option<Box<Trap>>) {
        self.traps.set(port, trap);
        self.sort_bridges();
    }

    /// Captures this from now on.
    pub(crate) fn set_captures(&mut self, captures: Option<Box<Captures>>) {
        self.outputs.set_captures(captures);
        self.sort_bridges();
    }

    /// Records this from `now` on, in clock cycles.
    pub fn set_recording(&mut self, record: Record, now: u64) {
        self.turns.set(record, now);
        self.turn_recording(now);
    }

    /// It is about to sleep, at `now`: there is time to record frames.
    #[inline]
    pub fn sleeps(&mut self, now: u64) {
        if self.turns.sleeps(now) {
            self.turn_recording(now);
        }
    }

    /// Has recorders do what it is the turn of, from `now` on.
    #[cold]
    fn turn_recording(&mut self, now: u64) {
        let lacks = self.recorder.set(self.turns.slot());
        if lacks && let Some(recorder) = self.recorder.any() {
            recorder.pass(now);
        }
        self.sort_bridges();
    }

    /// Gives away what was recorded: where it came in, and where it has come again in bridges.
    pub(crate) fn take_recording(&mut self) -> (Recording, Vec<(BridgeId, Recording)>) {
        let came = self.recorder.any().map(Recorder::take).unwrap_or_default();
        let of = |(at, bridge): (u16, &Option<Bridge>)| {
            Some((BridgeId(at), bridge.as_ref()?.flows()?.take_recording()))
        };
        (came, (0..).zip(&self.apart).filter_map(of).collect())
    }

    /// Puts all bridges where they belong.
    fn sort_bridges(&mut self) {
        self.is_calm = self.limits.is_empty()
            && self.guards.is_empty()
            && self.traps.is_empty()
            && self.patches.tunnels().is_none()
            && !self.recorder.is_active()
            && self.outputs.bonds().is_empty()
            && !self.outputs.is_watched();
        for index in 0..self.bridges.len() {
            let bridge = self.take_bridge(index);
            self.put_bridge(index, bridge);
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
