//! What the data path makes of the mirrors of a bridge.
//!
//! Which frames are copied is found out between a bridge's verdicts on a burst and the sending of
//! it; the copies are sent afterwards, mirror by mirror, as verdicts of their own. So a port can
//! have a frame and its copy, each with a tag of its own.

use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::Counter;
use packet::{BURST, Edit, EditRoom, Frame};

use super::MAX_MIRRORS;
use super::recorder::Recorder;
use crate::bridge::VlanTable;
use crate::datapath::Source;
use crate::gate::{Bars, Doors};
use crate::header::{self, Addresses};
use crate::outputs::Outputs;
use crate::port_set::PortSet;
use crate::sample::Samplers;
use crate::stage::{Stage as _, Vlans};
use crate::vlan::VlanSet;
use crate::vlan::tags::{Meta, Tags, with_vid};

/// What one worker counts of a mirror.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Copies.
    pub packets: Counter,
    /// Their bytes.
    pub bytes: Counter,
}

/// Where copies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// This port, which gets nothing else.
    Port(u16),
    /// All ports of this VLAN.
    Vlan(u16),
    /// The file of this number.
    File(u64),
}

/// A mirror.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Ports of which what comes in is copied.
    pub src: PortSet,
    /// Ports of which what goes out is copied.
    pub dst: PortSet,
    /// The VLANs of which frames are copied; `None`: all.
    pub vlans: Option<VlanSet>,
    /// Where copies go.
    pub to: To,
    /// Whether copies to a VLAN may go back to where a frame came from.
    pub reflects: bool,
    /// The most bytes of a frame.
    pub snaplen: usize,
    /// What this worker counts of it.
    pub counters: Arc<Counters>,
    /// Of a mirror to a file.
    pub recorder: Option<Recorder>,
}

/// Neighbouring frames with the same tags.
#[derive(Clone, Copy, Debug)]
struct Part {
    mask: u32,
    meta: Meta,
}

/// For each mirror the frames of a burst that it copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copies([u32; MAX_MIRRORS]);

/// The mirrors of a bridge, as one worker knows them, and its samplings.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    all: Vec<Tap>,
    /// Ports that are for copies alone.
    outputs: PortSet,
    samplers: Samplers,
    /// Ports of which what comes in is not forwarded at once: those for copies, or all where it is sampled.
    stops: PortSet,
}

impl Taps {
    /// These mirrors, [`MAX_MIRRORS`] at most; the ports in `outputs` are for copies alone.
    pub fn new(all: Vec<Tap>, outputs: PortSet) -> Self {
        Self { all, outputs, samplers: Samplers::default(), stops: outputs }
    }

    /// The same with these samplings.
    pub fn with_samplers(self, samplers: Samplers) -> Self {
        let stops = if samplers.has_any() { PortSet::ALL } else { self.outputs };
        Self { samplers, stops, ..self }
    }

    /// The samplings.
    pub(crate) const fn samplers(&self) -> &Samplers {
        &self.samplers
    }

    /// Whether frames that come in on `port` may be sampled, or go nowhere.
    #[inline]
    pub(crate) fn stops(&self, port: u16) -> bool {
        self.stops.contains(port)
    }

    /// Whether `port` is for copies alone.
    pub(crate) fn keeps(&self, port: u16) -> bool {
        self.outputs.contains(port)
    }

    /// Which frames of a burst are copied, given the verdicts on it; `None` where none is.
    pub(crate) fn select(
        &self,
        view: &View<'_>,
        frames: &[Frame<'_>],
        outputs: &Outputs,
    ) -> Option<Copies> {
        self.select_more(self.from(view), view, frames, outputs)
    }

    /// The same of frames that have come in before, and were copied as such then.
    pub(crate) fn select_leaving(
        &self,
        view: &View<'_>,
        frames: &[Frame<'_>],
        outputs: &Outputs,
    ) -> Option<Copies> {
        self.select_more(Copies([0; MAX_MIRRORS]), view, frames, outputs)
    }

    /// Which frames of a burst are copied as they come in, but those that their port refuses, and the mirrors, a bit
    /// for each, that have some of them then.
    pub(crate) fn select_coming(
        &self,
        view: &View<'_>,
        frames: &[Frame<'_>],
        bars: Option<&Bars>,
    ) -> Option<(Copies, u32)> {
        let mut copies = self.from(view);
        if let Some(bars) = bars {
            let refused = bars.refused(view.source.inlet, frames);
            copies.0.iter_mut().for_each(|mask| *mask &= !refused);
        }
        if copies.is_empty() || view.source.packet_type() != 0 {
            return None;
        }
        self.narrow(&mut copies, view, frames);
        let mirrors = (0..self.len()).fold(0, |all, at| all | self.sharing(at, &copies));
        (mirrors != 0).then_some((copies, mirrors))
    }

    /// All that comes in on a port.
    fn from(&self, view: &View<'_>) -> Copies {
        let mut copies = Copies([0; MAX_MIRRORS]);
        for (mask, tap) in copies.0.iter_mut().zip(&self.all) {
            if tap.src.contains(view.source.port) {
                *mask = u32::MAX;
            }
        }
        copies
    }

    fn select_more(
        &self,
        mut copies: Copies,
        view: &View<'_>,
        frames: &[Frame<'_>],
        outputs: &Outputs,
    ) -> Option<Copies> {
        for (port, marked) in outputs.marked() {
            for (mask, tap) in copies.0.iter_mut().zip(&self.all) {
                if tap.dst.contains(port) {
                    *mask |= marked;
                }
            }
        }
        // Mirrors copy frames of Ethernet.
        if copies.is_empty() || outputs.packet_type() != 0 {
            return None;
        }
        self.narrow(&mut copies, view, frames);
        (!copies.is_empty()).then_some(copies)
    }

    /// Takes out what is in other VLANs, and what goes to the same place by an earlier mirror.
    fn narrow(&self, copies: &mut Copies, view: &View<'_>, frames: &[Frame<'_>]) {
        let parts = view.parts(frames);
        let groups = reserved(frames);
        for (index, tap) in self.all.iter().enumerate().take(MAX_MIRRORS) {
            let of_vlans = parts.iter().filter(|part| tap.takes(part.meta.vlan));
            let mut taken = of_vlans.fold(0, |all, part| all | part.mask);
            if matches!(tap.to, To::Vlan(_)) {
                taken &= !groups;
            }
            let (before, from) = copies.0.split_at_mut(index);
            let earlier = before.iter().zip(&self.all).filter(|(_, other)| other.to == tap.to);
            let earlier = earlier.fold(0, |all, (mask, _)| all | mask);
            if let Some(mask) = from.first_mut() {
                *mask &= taken & !earlier;
            }
        }
    }

    /// Notes the copies of mirror `index` as verdicts, and returns the frames that they are about,
    /// cut in `room` where they are too long; `None` if there are none.
    pub(crate) fn copy<'r>(
        &self,
        index: usize,
        copies: &Copies,
        view: &View<'_>,
        frames: &[Frame<'r>],
        outputs: &mut Outputs,
        room: &'r mut EditRoom,
    ) -> Option<ArrayVec<Frame<'r>, BURST>> {
        let tap = self.all.get(index)?;
        let mask = copies.0.get(index).copied().filter(|mask| *mask != 0)?;
        if let Some(recorder) = &tap.recorder {
            tap.record(recorder, frames, mask, view.source.now);
            return None;
        }
        let cut = tap.cut(frames, mask, room);
        self.mark(index, copies, view, frames, outputs);
        Some(cut)
    }

    /// Notes the copies of mirror `index` as verdicts, and does not count them.
    pub(crate) fn mark(
        &self,
        index: usize,
        copies: &Copies,
        view: &View<'_>,
        frames: &[Frame<'_>],
        outputs: &mut Outputs,
    ) {
        let (Some(tap), Some(mask)) = (self.all.get(index), copies.0.get(index)) else { return };
        for Part { mask: part, meta } in view.parts(frames) {
            let mask = part & mask;
            if mask != 0 {
                match tap.to {
                    To::Port(port) => view.mark_port(port, mask, &meta, outputs),
                    To::Vlan(vlan) => {
                        self.mark_vlan((vlan, tap.reflects), mask, &meta, view, outputs);
                    }
                    // That is written down above.
                    To::File(_) => {}
                }
            }
        }
    }

    /// Notes frames at all ports that carry `vlan`, as if they were in it.
    fn mark_vlan(
        &self,
        (vlan, reflects): (u16, bool),
        mask: u32,
        meta: &Meta,
        view: &View<'_>,
        outputs: &mut Outputs,
    ) {
        let meta = Meta { vlan, tag: with_vid(meta.tag, vlan), ..*meta };
        let others = view.ports.iter().filter(|port| reflects || **port != view.source.port);
        let others = others.filter(|port| view.doors.is_none_or(|doors| doors.sends(**port)));
        for &port in others.filter(|port| !self.keeps(**port)) {
            if let Some(edit) = view.vlans.of(port).edit(&meta)
                && outputs.is_ready(port, view.source.now)
            {
                outputs.mark(port, mask, edit);
            }
        }
    }

    /// The mirrors, a bit for each, that copy to the place of mirror `index`; none if that copies
    /// nothing.
    pub(crate) fn sharing(&self, index: usize, copies: &Copies) -> u32 {
        let is_used = copies.0.get(index).is_some_and(|mask| *mask != 0);
        let Some(to) = self.all.get(index).map(|tap| tap.to).filter(|_| is_used) else { return 0 };
        let same = self.all.iter().enumerate().take(MAX_MIRRORS).filter(|(_, tap)| tap.to == to);
        same.fold(0, |all, (at, _)| all | 1_u32 << at)
    }

    /// Number of mirrors.
    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }
}

impl Copies {
    /// One frame, for the mirror of this number alone.
    pub(crate) fn of_one(index: usize) -> Self {
        let mut copies = [0; MAX_MIRRORS];
        copies.iter_mut().skip(index).take(1).for_each(|mask| *mask = 1);
        Self(copies)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|mask| *mask == 0)
    }
}

/// The bridge that a burst goes through, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'b> {
    /// The bridge's ports.
    pub(crate) ports: &'b [u16],
    pub(crate) vlans: &'b VlanTable,
    /// What these let through, if not all let all through.
    pub(crate) doors: Option<&'b Doors>,
    pub(crate) source: &'b Source<'b>,
}

impl View<'_> {
    /// Divides a burst by tags; frames that their port does not carry are in no part.
    fn parts(&self, frames: &[Frame<'_>]) -> ArrayVec<Part, BURST> {
        let stage = Vlans::new(self.vlans, self.source.port);
        let mut parts = ArrayVec::<Part, BURST>::new();
        let mut last = None;
        let mut bit = 1_u32;
        for frame in frames.iter().take(BURST) {
            if Addresses::of(frame).is_some() {
                let tags = Tags::of(frame);
                let is_more = last == Some(tags);
                if let Some(part) = parts.last_mut().filter(|_| is_more) {
                    part.mask |= bit;
                } else {
                    let meta = stage.admit(tags).ok();
                    last = meta.map(|_| tags);
                    // There are no more parts than frames.
                    let _ = meta.map(|meta| parts.try_push(Part { mask: bit, meta }));
                }
            }
            bit = bit.wrapping_shl(1);
        }
        parts
    }

    /// Notes frames at `port`, whatever VLANs it carries.
    fn mark_port(&self, port: u16, mask: u32, meta: &Meta, outputs: &mut Outputs) {
        if self.doors.is_some_and(|doors| doors.mutes(port)) {
            return;
        }
        let edit = match self.vlans.is_used() {
            true => self.vlans.of(port).edit_any(meta),
            // As they came.
            false => Edit::NONE,
        };
        outputs.mark(port, mask, edit);
    }
}

impl Tap {
    /// Whether frames of a VLAN are copied. Those that are in the output VLAN are copies, as far
    /// as anybody can know.
    fn takes(&self, vlan: u16) -> bool {
        self.to != To::Vlan(vlan) && self.vlans.as_ref().is_none_or(|set| set.contains(vlan))
    }

    /// Counts the frames in `mask` and writes them down.
    fn record(&self, recorder: &Recorder, frames: &[Frame<'_>], mask: u32, now: u64) {
        let numbered = (0..u32::BITS).zip(frames);
        let marked = numbered.filter(|(index, _)| mask.wrapping_shr(*index) & 1 != 0);
        let marked = marked.map(|(_, frame)| frame);
        let lens = marked.clone().map(|frame| frame.len().min(self.snaplen) as u64);
        let (count, bytes) =
            lens.fold((0_u64, 0_u64), |(count, bytes), len| (count + 1, bytes.wrapping_add(len)));
        self.counters.packets.add(count);
        self.counters.bytes.add(bytes);
        recorder.record(marked, count, self.snaplen, now);
    }

    /// Counts the frames in `mask` and cuts them; all others are there as they are.
    fn cut<'f>(
        &self,
        frames: &[Frame<'f>],
        mask: u32,
        room: &'f mut EditRoom,
    ) -> ArrayVec<Frame<'f>, BURST> {
        let mut editing = room.begin();
        let (mut packets, mut bytes) = (0_u64, 0_u64);
        let mut bit = 1_u32;
        let mut cut = ArrayVec::new();
        for frame in frames.iter().take(BURST) {
            let mut frame = *frame;
            if mask & bit != 0 {
                frame = editing.cut(&frame, self.snaplen);
                packets = packets.wrapping_add(1);
                bytes = bytes.wrapping_add(frame.len() as u64);
            }
            // There are as many as room at most.
            let _ = cut.try_push(frame);
            bit = bit.wrapping_shl(1);
        }
        self.counters.packets.add(packets);
        self.counters.bytes.add(bytes);
        cut
    }
}

/// The frames to groups that bridges keep for themselves: copied into a VLAN, they would tell
/// other bridges there what is not so.
fn reserved(frames: &[Frame<'_>]) -> u32 {
    let is_reserved = |frame: &Frame<'_>| {
        Addresses::of(frame).is_some_and(|addresses| header::is_reserved(addresses.destination()))
    };
    let numbered = frames.iter().enumerate().take(BURST);
    numbered.filter(|(_, frame)| is_reserved(frame)).fold(0, |all, (index, _)| all | 1_u32 << index)
}
