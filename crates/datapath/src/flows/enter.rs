//! From a burst of frames to the paths that they take.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use flow::{Key, Lost, Op, PathId, extract, slot, unpadded};
use packet::{BURST, Burst, Edit, EditRoom, Editing, Frame};

use super::run::{Run, Steps, bits};
use super::{Flows, Inner, NO_PORT, Rooms, RunRoom};
use crate::bridge::Bridge;
use crate::datapath::{self, Source};
use crate::marks::{all_of, neighbours};
use crate::output::pick;
use crate::outputs::Outputs;
use crate::segments::{self, is_large};

/// The most tables that are told of a frame's way.
const MAX_TOLD: usize = 4_096;

/// What is done with frames that are marked at outputs.
pub(crate) type Onward<'o> = &'o mut dyn FnMut(&mut Outputs, Burst<'_, '_>, &Source<'_>);

/// How a burst comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// In earnest.
    Real,
    /// Only to tell what would become of it: nothing is counted, and controllers get nothing. Whether
    /// its source is learnt is another matter.
    Told { learns: bool },
}

/// Frames of a burst with the same path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    path: PathId,
    mask: u32,
    bytes: u64,
}

impl Group {
    /// Adds frames, a bit for each, with their bytes to those with their path.
    #[inline]
    pub(super) fn add(groups: &mut ArrayVec<Self, BURST>, path: PathId, (mask, bytes): (u32, u64)) {
        // Of neighbours most have the path of the one before.
        match groups.iter_mut().rev().find(|group| group.path == path) {
            Some(group) => {
                group.mask |= mask;
                group.bytes += bytes;
            }
            // There are no more groups than frames.
            None => _ = groups.try_push(Self { path, mask, bytes }),
        }
    }
}

/// Takes a burst through a bridge with flows. What is to go out is marked, and handed to `onward`,
/// several times where frames are changed in between.
#[inline(never)]
pub(crate) fn enter(
    (bridge, flows): (&Bridge, &Flows),
    frames: Burst<'_, '_>,
    source: &Source<'_>,
    manner: Manner,
    outputs: &mut Outputs,
    onward: Onward<'_>,
) {
    let entry = Entry { bridge, flows, manner };
    match flows.begin_whole(bridge, (frames, source), manner, outputs) {
        Whole::Marked(false) => {}
        Whole::Marked(true) => onward(outputs, frames, source),
        Whole::OnPath(group) => entry.take_apart((frames, source), Some(group), outputs, onward),
        Whole::Unknown => entry.take_apart((frames, source), None, outputs, onward),
    }
    flows.end_burst();
}

/// What is known of a burst without a look at each of its frames.
#[derive(Clone, Copy, Debug)]
enum Whole {
    /// It only goes out, or nowhere, and is counted and marked; whether any of it is.
    Marked(bool),
    /// It has one path, which does more, and is counted.
    OnPath(Group),
    Unknown,
}

/// A bridge that a burst comes in to.
#[derive(Clone, Copy)]
pub(super) struct Entry<'e> {
    pub(super) bridge: &'e Bridge,
    pub(super) flows: &'e Flows,
    pub(super) manner: Manner,
}

impl Entry<'_> {
    /// The same of a burst that is more than to be sent as it is; all of it has the path of `whole`, if that
    /// is known.
    #[inline(never)]
    fn take_apart(
        &self,
        (frames, source): (Burst<'_, '_>, &Source<'_>),
        whole: Option<Group>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let mut rooms = self.flows.lend_room();
        let Rooms { deep, onward: own } = &mut *rooms;
        match whole {
            Some(group) => {
                let groups = &mut ArrayVec::from_iter([group]);
                self.go((frames, groups), source, own, outputs, onward);
            }
            None => self.take((frames, source), (deep, own), outputs, onward),
        }
        self.flows.take_back(rooms);
    }

    fn take(
        &self,
        (frames, source): (Burst<'_, '_>, &Source<'_>),
        (deep, own): (&mut EditRoom, &mut RunRoom),
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let mut kept = ArrayVec::<Frame<'_>, BURST>::new();
        let mut groups = ArrayVec::<Group, BURST>::new();
        if let Ok(mut inner) = self.flows.0.try_borrow_mut() {
            inner.classify((frames, source), &mut deep.begin(), &mut kept, &mut groups);
            inner.count(&groups, source, self.manner);
            if source.beside.is_some() && inner.records(self.manner) {
                inner.record_arrival(&frames, source);
            }
        }
        let frames = if kept.is_empty() { frames } else { Burst::new(&kept) };
        self.go((frames, &mut groups), source, own, outputs, onward);
    }

    /// Has frames whose paths are known go along these.
    pub(super) fn go(
        &self,
        (frames, groups): (Burst<'_, '_>, &mut ArrayVec<Group, BURST>),
        source: &Source<'_>,
        room: &mut RunRoom,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let Self { bridge, flows, manner } = *self;
        // Those that only go out are sent together.
        let mut is_any = false;
        groups.retain(|group| {
            let marked = flows.mark_group(bridge, group, source, outputs);
            is_any |= marked == Some(true);
            marked.is_none()
        });
        if is_any {
            onward(outputs, frames, source);
        }
        for group in &*groups {
            let next = |at| flows.op(group.path, at);
            let (lost, stops, cuts) = flows.end(group.path);
            let mut run = |frames: Burst<'_, '_>, room: &mut RunRoom| {
                // Which mirrors have a copy by then goes along with each that stops.
                let before = stops.then(|| outputs.set_mirrored(Some(0)));
                let steps = Steps { bridge, flows, next: &next, lost, manner };
                Run::new(steps, frames).go(source, room, outputs, onward);
                before.map(|before| outputs.set_mirrored(before));
            };
            let goes_apart = stops || cuts && frames.iter().any(is_large);
            if !goes_apart {
                match neighbours(frames, group.mask) {
                    Some(group) => run(group, room),
                    None => run(Burst::new(&pick(&frames, group.mask)), room),
                }
                continue;
            }
            for bit in bits(group.mask) {
                let one = frames.part(bit.trailing_zeros() as usize, 1);
                match one.first().filter(|frame| cuts && is_large(frame)) {
                    None => run(one, room),
                    Some(frame) => go_cut(frame, source, room, &mut run),
                }
            }
        }
    }
}

impl Inner {
    /// The OpenFlow number of the port where a burst has come in.
    #[inline]
    fn number_of(&self, source: &Source<'_>) -> u32 {
        self.numbers.get(usize::from(source.inlet)).copied().unwrap_or(NO_PORT)
    }

    /// Counts the frames of paths, and tells of the rules that are made of them; or notes the tables that
    /// they pass.
    pub(super) fn count(&mut self, groups: &[Group], source: &Source<'_>, manner: Manner) {
        if manner != Manner::Real {
            return self.note(groups);
        }
        for Group { path, mask, bytes } in groups {
            self.count_on((*path, mask.count_ones().into(), *bytes), source);
        }
    }

    /// Counts so many frames with so many bytes on a path.
    #[inline]
    fn count_on(&mut self, (path, frames, bytes): (PathId, u64, u64), source: &Source<'_>) {
        let Self { cache, inlet, .. } = self;
        let learns = cache.count(path, frames, bytes);
        if let Some(inlet) = inlet {
            learns.iter().for_each(|change| inlet.learn(change, source.now));
        }
    }

    /// Marks the frames of a group whose path only sends them to ports as they are, or nowhere; returns
    /// whether any are marked, and `None` where it does more.
    #[inline]
    fn mark(
        &self,
        bridge: &Bridge,
        group: &Group,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) -> Option<bool> {
        let Some(path) = self.cache.path(group.path) else { return Some(false) };
        if let Some(lost) = path.lost
            && path.ops.is_empty()
        {
            source.stats.count_drops(reason(lost), group.mask.count_ones() as usize);
            return Some(false);
        }
        if !path.is_simple {
            return None;
        }
        let mut is_any = false;
        for op in &path.ops {
            if let Op::Output(port) = op {
                is_any |= mark(bridge, *port, group.mask, source, outputs);
            }
        }
        Some(is_any)
    }

    /// Counts frames that have come by a tunnel, for somebody who looks at flows.
    #[cold]
    fn record_arrival(&mut self, frames: &[Frame<'_>], source: &Source<'_>) {
        let number = self.number_of(source);
        if let Some(recorder) = self.recorder.active() {
            recorder.note_arrival(frames, source, number);
        }
    }

    /// Notes the tables that a frame passes.
    #[cold]
    fn note(&mut self, groups: &[Group]) {
        let Self { cache, told, .. } = self;
        for path in groups.iter().filter_map(|group| cache.path(group.path)) {
            let room = MAX_TOLD.saturating_sub(told.len());
            told.extend(path.visits.iter().take(room).cloned());
        }
    }

    /// Finds the paths of a burst. Where a frame has to be looked at farther than its head goes, all of
    /// them are put into `kept`, that one with more in its head.
    fn classify<'f>(
        &mut self,
        (frames, source): (Burst<'_, 'f>, &Source<'_>),
        editing: &mut Editing<'f>,
        kept: &mut ArrayVec<Frame<'f>, BURST>,
        groups: &mut ArrayVec<Group, BURST>,
    ) {
        let number = self.number_of(source);
        let mut shaped = 0;
        // What it has come with beside its bytes is not among them.
        if source.beside.is_none() {
            shaped = self.cache.take_frames(number, frames);
            while let Some(run) = self.cache.next_run(&frames) {
                Group::add(groups, run.path, (run.mask, run.bytes));
            }
        }
        if shaped.count_ones() as usize != frames.len() {
            self.classify_others((&frames, source), (number, shaped), editing, kept, groups);
        }
    }

    /// The same of the frames that have no ordinary shape.
    fn classify_others<'f>(
        &mut self,
        (frames, source): (&[Frame<'f>], &Source<'_>),
        (number, shaped): (u32, u32),
        editing: &mut Editing<'f>,
        kept: &mut ArrayVec<Frame<'f>, BURST>,
        groups: &mut ArrayVec<Group, BURST>,
    ) {
        let (depth, vlans) = (self.cache.depth(), self.cache.pipeline().vlans.tags());
        let mut key = Key::default();
        key.set(slot::IN_PORT, number.into());
        let (packet_type, place) = (source.packet_type(), source.place());
        key.set_tunnel(&source.tunnel());
        if packet_type != 0 {
            self.cache.tell_types();
        }
        key.set(slot::PKT_MARK, source.mark().into());
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let bit = 1_u32 << index;
            if shaped & bit != 0 {
                if !kept.is_empty() {
                    let _ = kept.try_push(*frame);
                }
                continue;
            }
            key.clear_packet();
            let layers = extract(&mut key, frame.head(), frame.len(), vlans, depth);
            let mut is_known = layers.network != 0 && !layers.is_cut;
            if layers.is_cut {
                let deep = editing.deepen(frame);
                key.clear_packet();
                is_known = deep.is_some_and(|deep| {
                    !extract(&mut key, deep.head(), deep.len(), vlans, depth).is_cut
                });
                if kept.is_empty() {
                    kept.extend(frames.iter().take(index).copied());
                }
                // There are no more than in a burst.
                let _ = kept.try_push(deep.unwrap_or(*frame));
            } else if !kept.is_empty() {
                let _ = kept.try_push(*frame);
            }
            if !is_known {
                // Nobody gets by a rule by headers that are longer than what is looked at.
                let reason =
                    if layers.is_cut { DropReason::Malformed } else { DropReason::TooShort };
                source.stats.count_drops(reason, 1);
                continue;
            }
            key.set_packet_type(packet_type);
            // What rules see without a header of Ethernet has none in its length either.
            let less = datapath::place(packet_type != 0);
            self.cache.note_len(&mut key, || {
                unpadded(frame.head(), frame.wire_len(), vlans).saturating_sub(less)
            });
            let path = match source.mark() {
                0 => self.cache.find(&key),
                _ => self.cache.find_marked(&key),
            };
            Group::add(groups, path, (bit, frame.len().saturating_sub(place) as u64));
        }
    }
}

impl Flows {
    /// A burst comes in. If it is known without a look at each of its frames that they have one path, they are
    /// counted, and marked where it only sends them on.
    #[inline]
    fn begin_whole(
        &self,
        bridge: &Bridge,
        (frames, source): (Burst<'_, '_>, &Source<'_>),
        manner: Manner,
        outputs: &mut Outputs,
    ) -> Whole {
        let inner = &mut *self.0.borrow_mut();
        inner.begin_burst();
        // What it has come with beside its bytes is not among them.
        if source.beside.is_some() {
            return Whole::Unknown;
        }
        let number = inner.number_of(source);
        let Some((path, bytes)) = inner.cache.find_whole(number, frames) else {
            return Whole::Unknown;
        };
        let group = Group { path, mask: all_of(frames.len()), bytes };
        match manner {
            Manner::Real => inner.count_on((path, frames.len() as u64, bytes), source),
            Manner::Told { .. } => inner.note(&[group]),
        }
        let marked = inner.mark(bridge, &group, source, outputs);
        marked.map_or(Whole::OnPath(group), Whole::Marked)
    }

    /// Marks the frames of a group, as [`Inner::mark`] does.
    fn mark_group(
        &self,
        bridge: &Bridge,
        group: &Group,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) -> Option<bool> {
        self.0.try_borrow().ok()?.mark(bridge, group, source, outputs)
    }
}

/// Has a large segment go on as the frames that it becomes.
#[cold]
#[inline(never)]
fn go_cut(
    frame: &Frame<'_>,
    source: &Source<'_>,
    room: &mut RunRoom,
    run: &mut dyn FnMut(Burst<'_, '_>, &mut RunRoom),
) {
    let mut memory = std::mem::take(&mut room.parts);
    let is_all = segments::cut(frame, &mut memory, |parts| run(Burst::new(parts), room));
    room.parts = memory;
    if !is_all {
        source.stats.count_drops(DropReason::BadHeader, 1);
    }
}

/// Marks frames at a port, and counts those that are lost there; returns whether they are marked.
pub(super) fn mark(
    bridge: &Bridge,
    port: u16,
    mask: u32,
    source: &Source<'_>,
    outputs: &mut Outputs,
) -> bool {
    let reason = match bridge.forwards_to(port) {
        true if outputs.mark(port, mask, Edit::NONE) => return true,
        true => DropReason::LinkDown,
        false => DropReason::SpanningTree,
    };
    source.stats.count_drops(reason, mask.count_ones() as usize);
    false
}

pub(super) const fn reason(lost: Lost) -> DropReason {
    match lost {
        Lost::NoRule => DropReason::NoFlow,
        Lost::Dropped => DropReason::FlowDrop,
        Lost::TooDeep => DropReason::FlowTooDeep,
        Lost::TooMany => DropReason::FlowTooLong,
        Lost::StackTooDeep => DropReason::FlowStack,
        Lost::TooManyLabels => DropReason::FlowLabels,
        Lost::PacketType => DropReason::FlowPacketType,
    }
}
