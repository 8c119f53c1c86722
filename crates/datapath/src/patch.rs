//! Patch ports: what one bridge sends to such a port comes in at its peer, a port of another
//! bridge, in the same worker and burst.
//!
//! No body is copied: the frames stay in the ring of the sender, and those whose tags change have
//! heads in memory that belongs to one step of the way. There are as many steps as a burst may
//! pass patch ports in a row, so a loop of them ends; and since a burst in a loop may multiply at
//! each step, the bridges that it passes are counted, too.

use std::sync::Arc;

use ethdev::{DropReason, PacketTally, QueueStats};
use packet::{BURST, Burst, EditRoom, Edited, Frame};

use crate::bond;
use crate::bond::entry::Room;
use crate::bridge::{Bridge, BridgeId};
use crate::capture::{Direction, Drops};
use crate::datapath::{Beside, Source, place};
use crate::flows::enter::{Manner, enter};
use crate::limit::Limits;
use crate::marks::Marks;
use crate::output::pick;
use crate::outputs::Outputs;
use crate::port_set::MAX_PORTS;
use crate::trap::Traps;
use crate::tunnel::Tunnels;

mod through;

use through::Rooms;

/// Patch ports that a frame passes in a row at most.
pub(crate) const MAX_HOPS: usize = 16;

/// Bridges that a burst is taken to by patch ports at most: as many as there can be pairs of them.
/// Where they make no loop, a burst passes each pair once.
const MAX_PASSES: usize = MAX_PORTS / 2;

/// One worker's view of a patch port whose peer is there.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The bridge of its peer.
    pub bridge: BridgeId,
    /// The number of its peer.
    pub peer: u16,
    /// The worker's counters of what goes out here.
    pub tx: Arc<QueueStats>,
    /// The worker's counters of what comes in at the peer.
    pub rx: Arc<QueueStats>,
}

/// What a burst needs at one step of its way.
#[derive(Debug, Default)]
struct Step {
    /// Where edited frames have their heads.
    room: EditRoom,
    /// Where those have them that go into tunnels, or come out of such.
    tunnelled: Option<Box<EditRoom>>,
    /// Where parts of large segments are that cannot stay large in a tunnel.
    parts: Vec<u8>,
    /// What is to be done: patch ports and the frames that go there. It grows to what the ports at
    /// hand need, and is used again.
    tasks: Vec<(u16, Marks)>,
}

/// What is on the way of a burst behind patch ports.
#[derive(Debug)]
pub(crate) struct Beyond<'b> {
    /// All bridges, by their numbers, in two places.
    pub(crate) bridges: [&'b [Option<Bridge>]; 2],
    pub(crate) limits: &'b mut Limits,
    /// What is taken out of what comes in.
    pub(crate) traps: &'b Traps,
    /// Where frames that mirrors cut have their bodies.
    pub(crate) cut: &'b mut EditRoom,
}

/// The patch ports of a worker.
#[derive(Debug, Default)]
pub(crate) struct Patches {
    /// By port number.
    all: Vec<Option<Patch>>,
    /// None while there are neither patch ports nor tunnels.
    steps: Vec<Step>,
    tunnels: Option<Box<Tunnels>>,
}

impl Patches {
    /// Puts a patch port in place, or takes it away.
    pub(crate) fn set(&mut self, port: u16, patch: Option<Patch>) {
        let index = usize::from(port);
        if self.all.len() <= index {
            self.all.resize_with(index + 1, || None);
        }
        if let Some(place) = self.all.get_mut(index) {
            *place = patch;
        }
        self.make_steps();
    }

    /// Has there be these tunnels, or none; returns those so far.
    pub(crate) fn set_tunnels(&mut self, tunnels: Option<Box<Tunnels>>) -> Option<Box<Tunnels>> {
        let before = std::mem::replace(&mut self.tunnels, tunnels);
        self.make_steps();
        before
    }

    fn make_steps(&mut self) {
        let is_used = self.tunnels.is_some() || self.all.iter().any(Option::is_some);
        self.steps.resize_with(if is_used { MAX_HOPS } else { 0 }, Step::default);
    }

    /// The tunnels, if there are any.
    #[inline]
    pub(crate) fn tunnels(&self) -> Option<&Tunnels> {
        self.tunnels.as_deref()
    }

    /// The same, to be changed.
    pub(crate) fn tunnels_mut(&mut self) -> Option<&mut Tunnels> {
        self.tunnels.as_deref_mut()
    }

    /// Whether frames go on from `port`, and are not sent there.
    pub(crate) fn has(&self, port: u16) -> bool {
        let of_tunnel = |tunnels: &Tunnels| tunnels.places().any(|place| place == port);
        self.get(port).is_some() || self.tunnels().is_some_and(of_tunnel)
    }

    /// Patch port `port`, if it is one.
    pub(crate) fn get(&self, port: u16) -> Option<&Patch> {
        self.all.get(usize::from(port))?.as_ref()
    }

    /// Takes those of `frames` that are marked at patch ports to their peers, and on from there,
    /// until all have gone out or are dropped. They came in on port `origin`.
    #[inline(never)]
    pub(crate) fn pass(
        &mut self,
        beyond: &mut Beyond<'_>,
        outputs: &mut Outputs,
        frames: &[Frame<'_>],
        (origin, now): (u16, u64),
    ) {
        let Self { all, tunnels, .. } = self;
        let tunnels = tunnels.as_deref();
        let mut walk = Walk { patches: all, tunnels, beyond, origin, now, passes: 0 };
        walk.step(&mut self.steps, outputs, frames);
    }
}

/// Counts packets that pass; so many bytes of each frame are nothing of them.
fn count_packets(stats: &QueueStats, frames: &[Frame<'_>], place: usize) {
    if place == 0 {
        return stats.count_frames(frames);
    }
    let mut tally = PacketTally::default();
    let packets = frames.iter().take(BURST);
    packets.for_each(|frame| tally.add(frame.len().saturating_sub(place), &[]));
    stats.count_tally(&tally);
}

/// The way of one burst.
struct Walk<'w, 'b> {
    patches: &'w [Option<Patch>],
    tunnels: Option<&'w Tunnels>,
    beyond: &'w mut Beyond<'b>,
    /// The port where it came in.
    origin: u16,
    now: u64,
    /// How often it was taken to a bridge.
    passes: usize,
}

impl<'b> Walk<'_, 'b> {
    /// Takes what is marked one step further; `steps` are those that are left.
    fn step(&mut self, steps: &mut [Step], outputs: &mut Outputs, frames: &[Frame<'_>]) {
        let Some((Step { room, tunnelled, parts, tasks }, rest)) = steps.split_first_mut() else {
            outputs.for_each_patched(|port, marks| {
                self.drop(port, DropReason::PatchLoop, marks.frames());
                marks.clear();
            });
            return;
        };
        let mut count = 0;
        outputs.for_each_patched(|port, marks| {
            if count == tasks.len() {
                tasks.push((port, Marks::default()));
            }
            if let Some((to, place)) = tasks.get_mut(count) {
                *to = port;
                std::mem::swap(place, marks);
                count += 1;
            }
        });
        for (port, marks) in tasks.iter_mut().take(count) {
            match self.tunnels.and_then(|tunnels| tunnels.place(*port)) {
                None => self.cross(*port, marks, room, rest, outputs, frames),
                Some(place) => {
                    let tunnelled = &mut **tunnelled.get_or_insert_default();
                    let rooms = Rooms { edited: &mut *room, tunnelled, parts: &mut *parts };
                    self.tunnel(&place, marks, rooms, rest, outputs, frames);
                }
            }
            marks.clear();
        }
    }

    /// Takes the frames of `marks` through patch port `port`.
    fn cross(
        &mut self,
        port: u16,
        marks: &Marks,
        room: &mut EditRoom,
        rest: &mut [Step],
        outputs: &mut Outputs,
        frames: &[Frame<'_>],
    ) {
        let patches = self.patches;
        let Some(patch) = patches.get(usize::from(port)).and_then(Option::as_ref) else { return };
        // That of a member of a bond is the bond's, which is looked for there.
        let bridge = self.bridge(patch.bridge);
        if bridge.is_none() && patch.bridge != BridgeId::BOND {
            return self.refuse(port, DropReason::LinkDown, marks, outputs, frames);
        }
        if self.passes >= MAX_PASSES {
            return self.refuse(port, DropReason::PatchLoop, marks, outputs, frames);
        }
        self.passes += 1;
        let mut editing = room.begin();
        let mut passed = Edited::default();
        marks.apply(Burst::new(frames), &mut editing, &mut passed);
        let passed = passed.known();
        let lost = (marks.frames().count_ones() as usize).saturating_sub(passed.len());
        patch.tx.count_drops(DropReason::TooLong, lost);
        let (packet_type, mark) = (outputs.packet_type(), outputs.pkt_mark());
        for stats in [&patch.tx, &patch.rx] {
            count_packets(stats, &passed, place(packet_type != 0));
        }
        let Patch { bridge: id, peer, rx, .. } = patch;
        let is_bare = packet_type != 0;
        let beside = Beside { packet_type, is_bare, mark, ..Beside::default() };
        let beside = (is_bare || mark != 0).then_some(&beside);
        let source = Source::new((*id, *peer), rx, self.now);
        let source = Source { origin: self.origin, beside, ..source };
        outputs.note_out(&passed, port, None);
        self.come_in(bridge, &passed, &source, rest, outputs);
    }

    /// Takes frames into another bridge, of which nothing is known there but where they come in, and what they have
    /// come with.
    fn come_in(
        &mut self,
        bridge: Option<&Bridge>,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        // The mirrors of the other bridge are others.
        let (mirrored, arrived) = (outputs.set_mirrored(None), outputs.set_arrived(0));
        let tunnel = outputs.set_tunnel(source.tunnel());
        let packet_type = outputs.set_packet_type(source.packet_type());
        let mark = outputs.set_pkt_mark(source.mark());
        if outputs.watches_in(source.port) {
            self.enter_watched(bridge, frames, source, rest, outputs);
        } else {
            self.enter(bridge, frames, source, rest, outputs);
        }
        outputs.set_pkt_mark(mark);
        outputs.set_packet_type(packet_type);
        outputs.set_tunnel(tunnel);
        outputs.set_mirrored(mirrored);
        outputs.set_arrived(arrived);
    }

    /// A bridge, of whichever kind it is.
    fn bridge(&self, id: BridgeId) -> Option<&'b Bridge> {
        let all = self.beyond.bridges.into_iter();
        all.map(|all| all.get(usize::from(id.0))).find_map(|bridge| bridge?.as_ref())
    }

    /// Takes frames into the bridge of the peer, or into the bond that it is a member of.
    fn enter(
        &mut self,
        bridge: Option<&Bridge>,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        if self.beyond.traps.has(source.port) {
            return self.enter_trapped(bridge, frames, source, rest, outputs);
        }
        self.enter_further(bridge, frames, source, rest, outputs);
    }

    /// The same at a port where somebody listens: what is for him goes no further.
    #[inline(never)]
    fn enter_trapped(
        &mut self,
        bridge: Option<&Bridge>,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        let others = pick(frames, !self.beyond.traps.take(frames, source));
        if !others.is_empty() {
            self.enter_further(bridge, &others, source, rest, outputs);
        }
    }

    fn enter_further(
        &mut self,
        bridge: Option<&Bridge>,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        match bridge {
            Some(bridge) => {
                self.enter_bridge(bridge, Burst::new(frames), source, rest, outputs);
            }
            None => self.enter_bond(frames, source, rest, outputs),
        }
    }

    /// Takes frames into a bond, by a member.
    #[inline(never)]
    fn enter_bond(
        &mut self,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        let (bonds, mut room) = (outputs.bonds_mut(), Room::default());
        let (frames, bridges) = (Burst::new(frames), self.beyond.bridges);
        let received = bond::entry::receive(bonds, bridges, frames, source, &mut room);
        let Some((source, frames)) = received else { return };
        match self.bridge(source.bridge) {
            Some(bridge) => self.enter_bridge(bridge, frames, &source, rest, outputs),
            None => source.stats.count_drops(DropReason::LinkDown, frames.len()),
        }
    }

    /// Takes frames into a bridge.
    fn enter_bridge(
        &mut self,
        bridge: &Bridge,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        if let Some(flows) = bridge.flows() {
            flows.note_again(frames.len());
            let mut onward = |outputs: &mut Outputs, frames: Burst<'_, '_>, source: &Source<'_>| {
                self.onward(bridge, frames, source, rest, outputs);
            };
            return enter((bridge, flows), frames, source, Manner::Real, outputs, &mut onward);
        }
        if source.packet_type() != 0 {
            // A bridge without rules knows frames of Ethernet alone.
            return source.stats.count_drops(DropReason::FlowPacketType, frames.len());
        }
        bridge.decide(frames, source, outputs);
        self.onward(bridge, frames, source, rest, outputs);
    }

    /// Sends what the bridge of the peer has decided to send.
    #[inline(always)]
    fn onward(
        &mut self,
        bridge: &Bridge,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        outputs.spread(&frames, source);
        self.beyond.limits.send(&frames, outputs, self.now);
        let taps = bridge.taps();
        let copies = taps.and_then(|taps| taps.select(&bridge.view(source), &frames, outputs));
        if let Some(tunnels) = self.tunnels {
            tunnels.divert(&frames, outputs, self.now);
        }
        outputs.send_apart(frames, source);
        if outputs.has_patched() {
            self.step(rest, outputs, &frames);
        }
        if let Some(copies) = copies {
            let Beyond { limits, cut, .. } = &mut *self.beyond;
            bridge.mirror(&frames, source, &copies, outputs, limits, cut);
        }
        if outputs.has_patched() {
            self.step(rest, outputs, &frames);
        }
    }

    /// The same one by one, so that the counters tell what has become of each.
    #[inline(never)]
    fn enter_watched(
        &mut self,
        bridge: Option<&Bridge>,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        let mut drops = Drops::new(source.stats.drops());
        for frame in frames {
            let handle = outputs.begin(frame, source.port, Direction::In);
            self.enter(bridge, std::slice::from_ref(frame), source, rest, outputs);
            let dropped = drops.moved(source.stats.dropped(), || source.stats.drops());
            if let Some(handle) = handle {
                outputs.end(handle, dropped);
            }
        }
    }

    /// Drops frames that do not get through patch port `port`.
    fn refuse(
        &self,
        port: u16,
        reason: DropReason,
        marks: &Marks,
        outputs: &mut Outputs,
        frames: &[Frame<'_>],
    ) {
        self.drop(port, reason, marks.frames());
        outputs.note_out(&pick(frames, marks.frames()), port, Some(reason));
    }

    /// Counts frames that do not get through patch port `port`, or through a tunnel.
    fn drop(&self, port: u16, reason: DropReason, mask: u32) {
        let count = mask.count_ones() as usize;
        match self.patches.get(usize::from(port)) {
            Some(Some(patch)) => patch.tx.count_drops(reason, count),
            _ => self.drop_tunnelled(port, reason, count),
        }
    }
}
