//! What a path says is done.
//!
//! Frames that are changed have heads of their own, which are changed step by step and sent in
//! between; bodies stay where they lie.

use std::sync::Arc;

use arrayvec::ArrayVec;
use conntrack::{Fragment, Tracked, Translation};
use ethdev::DropReason;
use flow::{Cause, Edit, Lost, NshPush, Op, Track, TunnelWords};
use packet::{BURST, Burst, DEEPEST_HEAD, EditRoom, Editing, Frame, Open};

use super::changes::{Changes, Depth, Mark};
use super::enter::{Entry, Manner, Onward, mark, reason};
use super::meter::{Packets, Verdict};
use super::track::Tracking;
use super::{Flows, RunRoom};
use crate::bridge::Bridge;
use crate::datapath::{Source, place};
use crate::marks::all_of;
use crate::mirror::Taps;
use crate::outputs::Outputs;
use crate::sample::Samplers;

/// Clones within each other, at most.
const MAX_SAVED: usize = 64;

/// Ports that frames are marked at before they are sent, at most.
const MAX_MARKED: usize = 64;

/// A port that is none.
pub const NOWHERE: u16 = u16::MAX;

/// The operations of a path, and where they are done.
pub(super) struct Steps<'s> {
    pub(super) bridge: &'s Bridge,
    pub(super) flows: &'s Flows,
    /// The operation of this number; `None` past the last one.
    pub(super) next: &'s dyn Fn(usize) -> Option<Op>,
    /// Why they go nowhere in the end, if they do.
    pub(super) lost: Option<Lost>,
    pub(super) manner: Manner,
}

/// Frames on their way along a path.
pub(super) struct Run<'s, 'f> {
    pub(super) steps: Steps<'s>,
    /// As they came.
    frames: Burst<'s, 'f>,
    /// The next operation.
    pub(super) at: usize,
    /// Which of them go on, a bit for each.
    pub(super) alive: u32,
    /// What was changed.
    pub(super) changes: Changes,
    /// How many bytes of them go on, where not all do.
    cut: Option<usize>,
    /// What of that was so when they were to be remembered.
    pub(super) saved: ArrayVec<Saved, MAX_SAVED>,
    /// Where they are marked.
    marked: ArrayVec<u16, MAX_MARKED>,
    /// By what they have come to the bridge.
    came: Cause,
    /// Until they are tracked: where they are fragments of one packet, what that is, and how they are
    /// translated.
    whole: Option<(Tracked, Option<Translation>)>,
}

/// Which frames go on, how they were changed, how many bytes of them go on, and what is known of where they go out.
type Saved = (u32, Mark, Option<usize>, Told);

/// Into which tunnel frames go, what they begin with, which mark they have, and by what they go to other bridges.
type Told = (TunnelWords, u32, u32, Cause);

const fn told(outputs: &Outputs) -> Told {
    (outputs.tunnel(), outputs.packet_type(), outputs.pkt_mark(), outputs.cause())
}

const fn tell(outputs: &mut Outputs, (tunnel, packet_type, mark, cause): Told) {
    outputs.set_tunnel(tunnel);
    outputs.set_packet_type(packet_type);
    outputs.set_pkt_mark(mark);
    outputs.set_cause(cause);
}

/// How a stretch of the way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Path,
    /// The frames are as they were before.
    Restore,
}

impl<'s, 'f> Run<'s, 'f> {
    pub(super) fn new(steps: Steps<'s>, frames: Burst<'s, 'f>) -> Self {
        let alive = all_of(frames.len());
        Self {
            steps,
            frames,
            at: 0,
            alive,
            changes: Changes::default(),
            cut: None,
            saved: ArrayVec::new(),
            marked: ArrayVec::new(),
            came: Cause::Rule,
            whole: None,
        }
    }

    /// The same of fragments of one packet, which go on where they have waited to be tracked.
    pub(super) fn of_whole(
        steps: Steps<'s>,
        frames: Burst<'s, 'f>,
        (at, whole): (usize, (Tracked, Option<Translation>)),
    ) -> Self {
        Self { at, whole: Some(whole), ..Self::new(steps, frames) }
    }

    /// Goes all of the way.
    pub(super) fn go<'r>(
        mut self,
        source: &Source<'_>,
        room: &'r mut RunRoom,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) where
        'f: 'r,
    {
        let RunRoom { edit, cut, translations, .. } = room;
        let before = told(outputs);
        self.came = outputs.cause();
        self.changes = Changes::new(std::mem::take(translations));
        while self.stretch(source, (&mut edit.begin(), cut), outputs, onward) == End::Restore {}
        if let Some(lost) = self.steps.lost {
            source.stats.count_drops(reason(lost), self.alive.count_ones() as usize);
        }
        tell(outputs, before);
        *translations = self.changes.into_memory();
    }

    /// Goes until what was changed is undone.
    fn stretch<'r>(
        &mut self,
        source: &Source<'_>,
        (editing, cut): (&mut Editing<'r>, &mut EditRoom),
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) -> End
    where
        'f: 'r,
    {
        let mut open = None;
        if !self.changes.is_empty() {
            open = Some(self.open(editing, source));
        }
        while let Some(op) = (self.steps.next)(self.at) {
            self.at += 1;
            if !leaves_frames(&op) {
                self.send(open.as_deref(), cut, source, outputs, onward);
            }
            if open.is_some() && self.changes.depth < depth_of(&op) {
                // What it is about may be behind the heads that they have.
                self.changes.depth = depth_of(&op);
                self.at -= 1;
                return End::Restore;
            }
            match op {
                Op::Edit(edit) => self.edit((u32::MAX, edit), &mut open, editing, source),
                Op::PushNsh(header) => self.push_nsh(header, &mut open, editing, source),
                Op::Meter(id) => {
                    let place = place(outputs.packet_type() != 0);
                    self.meter((id, place), &mut open, (editing, cut), source);
                }
                Op::Cut(len) => {
                    self.cut = Some(self.cut.map_or(len as usize, |cut| cut.min(len as usize)));
                }
                Op::Tunnel(tunnel) => {
                    outputs.set_tunnel(*tunnel);
                }
                Op::Begins(packet_type) => {
                    outputs.set_packet_type(packet_type);
                }
                Op::Mark(mark) => {
                    outputs.set_pkt_mark(mark);
                }
                Op::Cause(cause) => {
                    outputs.set_cause(cause.max(self.came));
                }
                Op::Save => {
                    let now = (self.alive, self.changes.mark(), self.cut, told(outputs));
                    if self.saved.try_push(now).is_err() {
                        return End::Path;
                    }
                }
                Op::Restore => match self.restore(outputs) {
                    Some(true) => {}
                    Some(false) => return End::Restore,
                    None => return End::Path,
                },
                Op::Track(track, round) => {
                    self.connect(
                        (&track, round),
                        &mut open,
                        (editing, cut),
                        source,
                        outputs,
                        onward,
                    );
                }
                Op::Again(next, round) => {
                    self.again((&next, round), open.as_deref(), cut, source, outputs, onward);
                }
                other => self.output(&other, open.as_deref(), cut, source, outputs, onward),
            }
        }
        self.send(open.as_deref(), cut, source, outputs, onward);
        End::Path
    }

    /// Goes back to what was remembered last; whether frames are as they were then. `None`: nothing was.
    fn restore(&mut self, outputs: &mut Outputs) -> Option<bool> {
        let (alive, edits, len, before) = self.saved.pop()?;
        self.cut = len;
        tell(outputs, before);
        if edits.len >= self.changes.len() && alive == self.alive {
            return Some(true);
        }
        self.changes.go_back(edits);
        self.alive = alive;
        Some(false)
    }

    /// Puts a network service header in front of frames.
    fn push_nsh<'r>(
        &mut self,
        header: Arc<NshPush>,
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        editing: &mut Editing<'r>,
        source: &Source<'_>,
    ) where
        'f: 'r,
    {
        let first = self.changes.len();
        if self.changes.push_nsh(header) {
            self.change(first, open, editing, source);
        } else {
            self.drop_open(self.alive, DropReason::FlowTooDeep, open.as_mut(), source);
        }
    }

    /// Finds out which connections frames are of, and translates them where that is asked for.
    fn connect<'r>(
        &mut self,
        (track, round): (&Track, u32),
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        (editing, cut): (&mut Editing<'r>, &mut EditRoom),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) where
        'f: 'r,
    {
        let whole = self.whole.take();
        let tracking = Tracking { track, round, whole: whole.as_ref() };
        let fragments = match track.request.nat {
            Some(_) => {
                self.translate(tracking, open, (editing, &mut *cut), source, outputs, onward)
            }
            None => self.track(tracking, open, cut, source, outputs, onward),
        };
        if !fragments.is_empty() {
            self.gather(fragments, track, source, outputs, onward);
        }
    }

    /// The frames that go on with heads of their own, changed so far.
    fn open<'r>(
        &mut self,
        editing: &mut Editing<'r>,
        source: &Source<'_>,
    ) -> ArrayVec<Open<'r>, BURST>
    where
        'f: 'r,
    {
        let mut open = ArrayVec::new();
        for (bit, frame) in bits(self.alive).zip(self.alive()) {
            let opened = match self.changes.depth {
                Depth::Head => editing.open(&frame),
                Depth::Deep => editing.open_deep(&frame),
                Depth::Deepest => editing.open_to(&frame, DEEPEST_HEAD),
            };
            match opened {
                Some(frame) => open.push(frame),
                None => self.drop_all(bit, DropReason::TooLong, source),
            }
        }
        let Self { changes, alive, .. } = self;
        changes.apply(0, &mut open, alive, source);
        open
    }

    /// Changes frames.
    fn edit<'r>(
        &mut self,
        edit: (u32, Edit),
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        editing: &mut Editing<'r>,
        source: &Source<'_>,
    ) where
        'f: 'r,
    {
        let first = self.changes.len();
        if !self.changes.edit(edit) {
            let all = edit.0 & self.alive;
            self.drop_open(all, DropReason::FlowTooDeep, open.as_mut(), source);
            return;
        }
        self.change(first, open, editing, source);
    }

    /// Does changes from number `first` on, which were not done yet.
    pub(super) fn change<'r>(
        &mut self,
        first: usize,
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        editing: &mut Editing<'r>,
        source: &Source<'_>,
    ) where
        'f: 'r,
    {
        match open {
            None => *open = Some(self.open(editing, source)),
            Some(open) => self.changes.apply(first, open, &mut self.alive, source),
        }
    }

    /// Sends frames through a meter, without so many bytes in front of the packets.
    fn meter<'r>(
        &mut self,
        (id, place): (u32, usize),
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        (editing, cut): (&mut Editing<'r>, &mut EditRoom),
        source: &Source<'_>,
    ) where
        'f: 'r,
    {
        if self.steps.manner != Manner::Real || self.alive == 0 {
            return;
        }
        let mut verdict = Verdict::default();
        let charge = |frames: Burst<'_, '_>| {
            verdict = self.steps.flows.charge(id, (&frames, place), source.now);
        };
        self.with(open.as_deref(), cut, charge);
        // The verdict is on those that were alive then.
        let before = self.alive;
        let dropped = deposit(verdict.dropped, before);
        self.drop_open(dropped, DropReason::FlowMeter, open.as_mut(), source);
        for (mask, level) in verdict.remarked {
            self.edit((deposit(mask, before), Edit::RaiseDrop(level)), open, editing, source);
        }
    }

    /// Finds out which connections frames are of; copies go on. Returns the fragments that wait for others.
    fn track(
        &mut self,
        tracking: Tracking<'_>,
        open: &mut Option<ArrayVec<Open<'_>, BURST>>,
        cut: &mut EditRoom,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) -> Vec<Fragment> {
        let Steps { bridge, flows, manner, .. } = self.steps;
        let entry = Entry { bridge, flows, manner };
        let mut fragments = 0;
        self.with(open.as_deref(), cut, |frames| {
            fragments = entry.track(frames, tracking, source, outputs, onward);
        });
        self.set_apart(fragments, tracking.track, open.as_mut(), cut, source)
    }

    /// Drops some of the frames that go on.
    fn drop_all(&mut self, which: u32, why: DropReason, source: &Source<'_>) {
        self.alive &= !which;
        source.stats.count_drops(why, which.count_ones() as usize);
    }

    /// The same, where they may have heads of their own.
    pub(super) fn drop_open(
        &mut self,
        which: u32,
        why: DropReason,
        open: Option<&mut ArrayVec<Open<'_>, BURST>>,
        source: &Source<'_>,
    ) {
        self.let_go(which, open);
        source.stats.count_drops(why, which.count_ones() as usize);
    }

    /// Some of the frames do not go on.
    pub(super) fn let_go(&mut self, which: u32, open: Option<&mut ArrayVec<Open<'_>, BURST>>) {
        if let Some(open) = open {
            let mut bits = bits(self.alive);
            open.retain(|_| bits.next().is_some_and(|bit| which & bit == 0));
        }
        self.alive &= !which;
    }

    /// The frames that go on, as they came.
    pub(super) fn alive(&self) -> ArrayVec<Frame<'f>, BURST> {
        let alive = |(at, _): &(usize, &Frame<'f>)| self.alive & 1_u32 << at != 0;
        self.frames.iter().enumerate().take(BURST).filter(alive).map(|(_, frame)| *frame).collect()
    }

    /// Hands frames, as they are by now, to `take`.
    pub(super) fn with(
        &self,
        open: Option<&[Open<'_>]>,
        room: &mut EditRoom,
        take: impl FnOnce(Burst<'_, '_>),
    ) {
        let mut changed = ArrayVec::<Frame<'_>, BURST>::new();
        let mut frames = self.frames;
        if let Some(open) = open {
            changed.extend(open.iter().filter_map(Open::frame).take(BURST));
            frames = Burst::new(&changed);
        } else if self.alive != all_of(frames.len()) {
            changed.extend(self.alive());
            frames = Burst::new(&changed);
        }
        let mut shorter = ArrayVec::<Frame<'_>, BURST>::new();
        if let Some(len) = self.cut {
            let mut editing = room.begin();
            shorter.extend(frames.iter().map(|frame| editing.cut(frame, len)).take(BURST));
            frames = Burst::new(&shorter);
        }
        take(frames);
    }

    /// Sends what is marked.
    fn send(
        &mut self,
        open: Option<&[Open<'_>]>,
        room: &mut EditRoom,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        if !self.marked.is_empty() {
            self.marked.clear();
            self.with(open, room, |frames| onward(outputs, frames, source));
        }
    }

    /// Does an operation that changes nothing.
    fn output(
        &mut self,
        op: &Op,
        open: Option<&[Open<'_>]>,
        room: &mut EditRoom,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        match op {
            Op::Output(port) => self.send_to(*port, open, room, source, outputs, onward),
            Op::Flood { all, but } => {
                let pipeline = self.steps.flows.pipeline();
                let packet_type = outputs.packet_type();
                let others = pipeline.ports.iter().filter(|(no, port)| {
                    no.0 != *but && port.floods(*all) && port.takes(packet_type)
                });
                for (_, port) in others {
                    if outputs.is_ready(port.number, source.now) {
                        self.send_to(port.number, open, room, source, outputs, onward);
                    }
                }
            }
            Op::Normal(port) => {
                self.send(open, room, source, outputs, onward);
                self.with(open, room, |frames| {
                    self.normal(*port, frames, source, outputs, onward);
                });
            }
            Op::Sample(rule) if self.steps.manner == Manner::Real => {
                let lost = self.steps.lost.is_some();
                let samplers = self.steps.bridge.taps().map(Taps::samplers);
                let from = (source.inlet, place(outputs.packet_type() != 0));
                self.with(open, room, |frames| {
                    let take = |all: &Samplers| all.take(rule, &frames, from, lost);
                    samplers.into_iter().for_each(take);
                });
            }
            Op::Controller(about) if self.steps.manner == Manner::Real => {
                if about.frozen.is_some() {
                    // Mirrors are told by then which of it they have.
                    self.send(open, room, source, outputs, onward);
                }
                let (about, mirrors) = (about.by(self.came), outputs.mirrored());
                let punt = |frames: Burst<'_, '_>| {
                    self.steps.flows.punt((&about, mirrors), &frames, source);
                };
                self.with(open, room, punt);
            }
            _ => {}
        }
    }

    fn send_to(
        &mut self,
        port: u16,
        open: Option<&[Open<'_>]>,
        room: &mut EditRoom,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        // A frame can be marked at a port once.
        if self.marked.contains(&port) || self.marked.is_full() {
            self.send(open, room, source, outputs, onward);
        }
        let all = all_of(self.alive.count_ones() as usize);
        if all != 0 && mark(self.steps.bridge, port, all, source, outputs) {
            let _ = self.marked.try_push(port);
        }
    }

    /// Does what a plain bridge does.
    fn normal(
        &self,
        port: Option<u16>,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        if frames.is_empty() {
            return;
        }
        let Steps { bridge, manner, .. } = &self.steps;
        // Rules see the member of a bond, and the bridge the bond.
        let port_of = |port| outputs.bonds().bond_of(port).unwrap_or(port);
        let source = Source { port: port.map_or(NOWHERE, port_of), ..*source };
        let packet_type = outputs.packet_type();
        let learns = matches!(manner, Manner::Real | Manner::Told { learns: true });
        if packet_type != 0 {
            // It has no addresses: it floods to where it can go.
            bridge.decide_dry(frames, &source, outputs);
            outputs.spread(&frames, &source);
            let pipeline = self.steps.flows.pipeline();
            outputs.leave_bare(|port| {
                let mut ports = pipeline.ports.values();
                ports.any(|to| to.number == port && to.takes(packet_type))
            });
        } else if learns && port.is_some() {
            bridge.decide(frames, &source, outputs);
        } else {
            bridge.decide_dry(frames, &source, outputs);
        }
        onward(outputs, frames, &source);
    }
}

/// Whether what is marked may go on waiting while an operation is done: it changes nothing.
const fn leaves_frames(op: &Op) -> bool {
    use Op::{Controller, Flood, Normal, Output, Sample, Save};
    matches!(op, Output(_) | Flood { .. } | Normal(_) | Controller(_) | Sample(_) | Save)
}

/// How much of frames an operation may look at.
fn depth_of(op: &Op) -> Depth {
    match op {
        // A header of any length may be taken off.
        Op::Edit(Edit::PopNsh { .. }) => Depth::Deepest,
        // What errors are about is translated as well.
        Op::Track(track, _) if track.request.nat.is_some() => Depth::Deep,
        Op::Again(..) => Depth::Deep,
        _ => Depth::Head,
    }
}

/// Each bit that is set, the lowest first.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = mask & mask.wrapping_neg();
        mask &= !bit;
        (bit != 0).then_some(bit)
    })
}

/// The bits that are set in `places`, as many as `mask` has, of which those stay that it says.
pub(super) fn deposit(mask: u32, places: u32) -> u32 {
    let bits = bits(places).enumerate().filter(|(at, _)| mask & 1_u32 << at != 0);
    bits.fold(0, |all, (_, bit)| all | bit)
}

impl Flows {
    /// What a meter does to frames.
    fn charge(&self, id: u32, packets: Packets<'_, '_>, now: u64) -> Verdict {
        let inner = self.0.try_borrow_mut();
        inner.map(|mut inner| inner.meters.charge(id, packets, now)).unwrap_or_default()
    }

    /// Puts frames where controllers get them from.
    fn punt(
        &self,
        (about, mirrors): (&Arc<flow::PacketIn>, u32),
        frames: &[Frame<'_>],
        source: &Source<'_>,
    ) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return };
        let Some(inlet) = &mut inner.inlet else { return };
        for frame in frames {
            inlet.put((about, mirrors), frame, source.now);
        }
    }
}
