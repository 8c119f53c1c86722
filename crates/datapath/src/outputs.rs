//! All ports that a worker sends to, and the verdicts on the burst at hand: which of its frames
//! go to which port, and what becomes of them on the way.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use flow::{Cause, TunnelWords};
use packet::{BURST, Burst, Edit, EditRoom, Edited, Frame, Packet, PoolCache};

use crate::bond::way::{Bonds, Fittings, Verdict, Way};
use crate::capture::{Captures, Direction, Drops, Handle};
use crate::datapath::Source;
use crate::datapath::trace::Verdict as TraceVerdict;
use crate::marks::{Marks, all_of};
use crate::output::Output;
use crate::sample::Seen;

/// The ways to all ports.
///
/// Verdicts are marks at the outputs, of which the list of marked ports can be told; it grows with
/// the ports, so that no verdict ever finds it full, whatever a stage decides.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// By port number.
    all: Vec<Option<Output>>,
    /// Ports with marks, each once: there is room for all of them.
    marked: Vec<u16>,
    /// Marks at patch ports whose peers are there, by port number.
    patches: Vec<Option<Marks>>,
    /// Those of them with marks, each once.
    patched: Vec<u16>,
    /// Bonds, and marks at them until these are handed on to their members.
    bonds: Bonds,
    /// Ports used since the last flush, each once.
    unflushed: Vec<u16>,
    /// Frames that go to all ports since nobody knows their destinations, of the burst that did so
    /// last; not taken away by whom it does not concern.
    unknown: u32,
    /// Frames from addresses that their port may not learn, noted in the same way.
    strangers: u32,
    /// Of a frame by itself: mirrors that have a copy of it, a bit for each.
    mirrored: Option<u32>,
    /// Mirrors that have a copy of what has come in, before rules have made something else of it.
    arrived: u32,
    /// Where edited frames have their heads.
    room: EditRoom,
    /// What is captured of them.
    captures: Option<Box<Captures>>,
    /// What takes its place for a frame that is sampled, where nothing is captured.
    no_captures: Option<Box<Captures>>,
    /// Memory for what is noted of such a frame.
    sampled: Seen,
    /// The tunnel that frames go into which rules send to one.
    tunnel: TunnelWords,
    /// What the packets begin with that go out, for ports that take others than Ethernet.
    packet_type: u32,
    /// The mark that they have for other bridges.
    pkt_mark: u32,
    /// By what they go to other bridges.
    cause: Cause,
}

impl Outputs {
    /// Has it be known from now on which mirrors have a copy of the one frame at hand, or not;
    /// returns what was so before.
    pub(crate) const fn set_mirrored(&mut self, mirrored: Option<u32>) -> Option<u32> {
        std::mem::replace(&mut self.mirrored, mirrored)
    }

    /// Has it be known from now on which mirrors have a copy of the burst as it has come in; returns what was so
    /// before.
    pub(crate) const fn set_arrived(&mut self, arrived: u32) -> u32 {
        std::mem::replace(&mut self.arrived, arrived)
    }

    /// Has it be known from now on which tunnel frames go into, where rules say that; returns what was so
    /// before.
    pub(crate) const fn set_tunnel(&mut self, tunnel: TunnelWords) -> TunnelWords {
        std::mem::replace(&mut self.tunnel, tunnel)
    }

    /// The tunnel that frames go into, where rules say that.
    pub(crate) const fn tunnel(&self) -> TunnelWords {
        self.tunnel
    }

    /// Has it be known from now on what packets begin with, where that may be something else than Ethernet;
    /// returns what was so before.
    pub(crate) const fn set_packet_type(&mut self, packet_type: u32) -> u32 {
        std::mem::replace(&mut self.packet_type, packet_type)
    }

    /// Has it be known from now on which mark packets have for other bridges; returns what was so before.
    pub(crate) const fn set_pkt_mark(&mut self, mark: u32) -> u32 {
        std::mem::replace(&mut self.pkt_mark, mark)
    }

    /// Has it be known from now on by what packets go to other bridges; returns what was so before.
    pub(crate) const fn set_cause(&mut self, cause: Cause) -> Cause {
        std::mem::replace(&mut self.cause, cause)
    }

    /// By what packets go to other bridges.
    pub(crate) const fn cause(&self) -> Cause {
        self.cause
    }

    /// The mark that packets have for other bridges.
    pub(crate) const fn pkt_mark(&self) -> u32 {
        self.pkt_mark
    }

    /// What packets begin with.
    pub(crate) const fn packet_type(&self) -> u32 {
        self.packet_type
    }

    /// Whether there is a way to `port` itself.
    pub(crate) fn has_output(&self, port: u16) -> bool {
        matches!(self.all.get(usize::from(port)), Some(Some(_)))
    }

    /// Has those frames that are marked at `port`, and that `choose` tells, not be sent there, but go on from
    /// there as from a patch port.
    pub(crate) fn divert(&mut self, port: u16, choose: impl FnOnce(u32) -> u32) {
        let Self { all, marked, patches, patched, .. } = self;
        let Some(Some(output)) = all.get_mut(usize::from(port)) else { return };
        let Some(Some(place)) = patches.get_mut(usize::from(port)) else { return };
        let mask = output.marks.frames();
        let taken = if mask == 0 { 0 } else { mask & choose(mask) };
        if taken == 0 {
            return;
        }
        if place.is_empty() {
            patched.push(port);
        }
        for (part, edit) in output.marks.parts() {
            place.add(part & taken, edit);
        }
        output.marks.retain(!taken);
        if output.marks.is_empty() {
            output.marks.clear();
            marked.retain(|other| *other != port);
        }
    }

    /// Whether mirrors to one place, a bit for each, have no copy of the frame at hand yet; they
    /// have one from then on.
    pub(crate) fn may_mirror(&mut self, mirrors: impl FnOnce() -> u32) -> bool {
        if self.mirrored.is_none() && self.arrived == 0 {
            return true;
        }
        let mirrors = mirrors();
        let is_new = self.mirrored() & mirrors == 0;
        self.mirrored = self.mirrored.map(|mirrored| mirrored | mirrors);
        is_new
    }

    /// Mirrors that have a copy of the frame at hand, where that is known.
    pub(crate) fn mirrored(&self) -> u32 {
        self.mirrored.unwrap_or(0) | self.arrived
    }

    /// Puts the output to `port` in place, and returns the one that was there.
    pub(crate) fn set(&mut self, port: u16, output: Option<Output>) -> Option<Output> {
        let index = usize::from(port);
        if self.all.len() <= index {
            self.all.resize_with(index + 1, || None);
        }
        self.unflushed.reserve(self.all.len());
        self.marked.reserve(self.all.len());
        let place = self.all.get_mut(index)?;
        let mut before = std::mem::replace(place, output);
        if before.as_mut().is_some_and(Output::flush)
            && let Some(output) = place
        {
            output.take_over();
        }
        before
    }

    /// The way to `port`.
    #[inline]
    pub(crate) fn get_mut(&mut self, port: u16) -> Option<&mut Output> {
        self.all.get_mut(usize::from(port))?.as_mut()
    }

    /// Whether `port` takes frames, as far as is known at time `now`.
    #[inline]
    pub(crate) fn is_ready(&mut self, port: u16, now: u64) -> bool {
        match self.get_mut(port) {
            Some(output) => output.is_ready(now),
            None => {
                matches!(self.patches.get(usize::from(port)), Some(Some(_)))
                    || self.bonds.is_ready(port)
            }
        }
    }

    /// Has `port` be a patch port whose peer is there, or no more.
    pub(crate) fn set_patch(&mut self, port: u16, is_there: bool) {
        let index = usize::from(port);
        if self.patches.len() <= index {
            self.patches.resize_with(index + 1, || None);
        }
        self.patched.reserve(self.patches.len());
        if let Some(place) = self.patches.get_mut(index) {
            *place = is_there.then(Marks::default);
        }
    }

    /// Notes that the frames in `mask` go to `port`, edited as told. Returns whether there is such
    /// a port.
    #[inline(always)]
    pub(crate) fn mark(&mut self, port: u16, mask: u32, edit: Edit) -> bool {
        let Some(Some(output)) = self.all.get_mut(usize::from(port)) else {
            return self.mark_patch(port, mask, edit);
        };
        if output.marks.is_empty() {
            self.marked.push(port);
        }
        output.marks.add(mask, edit);
        true
    }

    #[inline(never)]
    fn mark_patch(&mut self, port: u16, mask: u32, edit: Edit) -> bool {
        let Some(Some(marks)) = self.patches.get_mut(usize::from(port)) else {
            return self.bonds.mark(port, mask, edit);
        };
        if marks.is_empty() {
            self.patched.push(port);
        }
        marks.add(mask, edit);
        true
    }

    /// The bonds.
    pub(crate) const fn bonds(&self) -> &Bonds {
        &self.bonds
    }

    /// The bonds, to receive by.
    pub(crate) const fn bonds_mut(&mut self) -> &mut Bonds {
        &mut self.bonds
    }

    /// Has `port` be a bond, or no more.
    pub(crate) fn set_bond(&mut self, port: u16, bond: Option<(Way, Fittings)>) {
        self.bonds.set(port, bond);
    }

    /// Hands the frames that go to bonds on to their members. Those for which there is none are
    /// counted at `source`.
    #[inline]
    pub(crate) fn spread(&mut self, frames: &[Frame<'_>], source: &Source<'_>) {
        if self.bonds.has_marked() {
            self.spread_all::<true>(frames, source);
        }
    }

    /// The same where nothing is sent, but told: bonds do not count it.
    pub(crate) fn spread_dry(&mut self, frames: &[Frame<'_>], source: &Source<'_>) {
        self.spread_all::<false>(frames, source);
    }

    #[inline(never)]
    fn spread_all<const COUNTS: bool>(&mut self, frames: &[Frame<'_>], source: &Source<'_>) {
        let mut bonds = std::mem::take(&mut self.bonds);
        let mut take = |(member, mask, edit): Verdict| {
            if !self.mark(member, mask, edit) {
                source.stats.count_drops(DropReason::LinkDown, mask.count_ones() as usize);
            }
        };
        while bonds.spread_one::<COUNTS>(frames, &mut take) {}
        self.bonds = bonds;
    }

    /// Whether frames are to go to patch ports.
    #[inline]
    pub(crate) const fn has_patched(&self) -> bool {
        !self.patched.is_empty()
    }

    /// Hands each patch port with marks to `take`, which takes them away.
    pub(crate) fn for_each_patched(&mut self, mut take: impl FnMut(u16, &mut Marks)) {
        for port in self.patched.drain(..) {
            if let Some(Some(marks)) = self.patches.get_mut(usize::from(port)) {
                take(port, marks);
            }
        }
    }

    /// The ports with marks, and which frames are marked.
    pub(crate) fn marked(&self) -> impl Iterator<Item = (u16, u32)> {
        let marked = self.marked.iter();
        marked.filter_map(|port| {
            let output = self.all.get(usize::from(*port))?.as_ref()?;
            // Whoever looks for a bond does not know its members.
            Some((self.bonds.bond_of(*port).unwrap_or(*port), output.marks.frames()))
        })
    }

    /// Notes frames that go to all ports since nobody knows their destinations.
    pub(crate) const fn note_unknown(&mut self, mask: u32) {
        self.unknown = mask;
    }

    /// Notes frames from addresses that their port may not learn.
    pub(crate) const fn note_strangers(&mut self, mask: u32) {
        self.strangers = mask;
    }

    /// Which frames were noted so since this was asked last: of unknown destinations, and of sources
    /// that their port may not learn.
    pub(crate) const fn take_notes(&mut self) -> (u32, u32) {
        (std::mem::replace(&mut self.unknown, 0), std::mem::replace(&mut self.strangers, 0))
    }

    /// Leaves those marked frames to each port, patch ports among them, that `keep` tells.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u16, u32) -> u32) {
        let Self { all, marked, patches, patched, bonds, .. } = self;
        let mut keep_in = |port: u16, marks: &mut Marks| {
            marks.retain(keep(port, marks.frames()));
            if marks.is_empty() {
                marks.clear();
            }
            !marks.is_empty()
        };
        marked.retain(|port| {
            let output = all.get_mut(usize::from(*port)).and_then(Option::as_mut);
            // Whoever looks for a bond does not know its members.
            let port = bonds.bond_of(*port).unwrap_or(*port);
            output.is_some_and(|output| keep_in(port, &mut output.marks))
        });
        patched.retain(|port| {
            let marks = patches.get_mut(usize::from(*port)).and_then(Option::as_mut);
            let port = bonds.bond_of(*port).unwrap_or(*port);
            marks.is_some_and(|marks| keep_in(port, marks))
        });
    }

    /// Leaves marked frames to ports that take packets without a header of Ethernet, as `takes` tells, and those as they
    /// are: there are no tags in them.
    pub(crate) fn leave_bare(&mut self, takes: impl Fn(u16) -> bool) {
        self.retain(|port, mask| if takes(port) { mask } else { 0 });
        let Self { patches, patched, .. } = self;
        for port in patched.iter() {
            let marks = patches.get_mut(usize::from(*port)).and_then(Option::as_mut);
            marks.into_iter().for_each(Marks::leave_unedited);
        }
    }

    /// Leaves those marked frames to each port that `pass` lets through, and counts the others.
    pub(crate) fn limit(&mut self, frames: &[Frame<'_>], mut pass: impl FnMut(u16, u32) -> u32) {
        let Self { all: outputs, room, captures, .. } = self;
        self.marked.retain(|port| {
            let output = outputs.get_mut(usize::from(*port)).and_then(Option::as_mut);
            output.is_some_and(|output| {
                let passed = pass(*port, output.marks.frames());
                let out = output.marks.retain(passed);
                if out != 0 {
                    output.drop_count(DropReason::RateLimited, out.count_ones());
                    if let Some(captures) = captures {
                        let of_port = (*port, &output.marks);
                        captures.note_dropped(frames, out, of_port, room, DropReason::RateLimited);
                    }
                }
                if output.marks.is_empty() {
                    output.marks.clear();
                }
                !output.marks.is_empty()
            })
        });
    }

    /// The output of a whole burst, if it is one that takes packets as they are; the marks are then
    /// gone.
    #[inline(never)]
    pub(crate) fn take_whole(&mut self, frames: Burst<'_, '_>, now: u64) -> Option<u16> {
        let [port] = *self.marked else { return None };
        if self.has_patched() {
            return None;
        }
        let output = self.get_mut(port)?;
        let is_whole = output.marks.is_whole(frames.len());
        if !is_whole || !output.is_ready(now) || !output.takes_packets(frames.longest()) {
            return None;
        }
        output.marks.clear();
        self.marked.clear();
        Some(port)
    }

    /// Gives packets to a port.
    pub(crate) fn give(
        &mut self,
        port: u16,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
    ) {
        let Some(output) = self.get_mut(port) else { return };
        output.give(packets, cache);
        if output.is_first_use() {
            self.unflushed.push(port);
        }
    }

    /// Sends what is noted, and forgets the marks.
    #[inline]
    pub(crate) fn send(&mut self, frames: Burst<'_, '_>, source: &Source<'_>) {
        let frames = frames.measured();
        let Self { all, marked, unflushed, room, .. } = self;
        for port in &*marked {
            let Some(Some(output)) = all.get_mut(usize::from(*port)) else { continue };
            output.is_ready(source.now);
            let mask = output.marks.frames();
            if !output.send_marked(frames, room) {
                source.stats.count_drops(DropReason::LinkDown, mask.count_ones() as usize);
            }
            if output.is_first_use() {
                unflushed.push(*port);
            }
        }
        marked.clear();
    }

    /// Adds what becomes of `frames` to `verdicts`, in place of sending it, and forgets the marks.
    pub(crate) fn take_verdicts(&mut self, frames: &[Frame<'_>], verdicts: &mut Vec<TraceVerdict>) {
        let Self { all, marked, patches, patched, room, .. } = self;
        let mut take = |port: u16, marks: &mut Marks, is_patch: bool| {
            let mut editing = room.begin();
            let mut edited = Edited::default();
            marks.apply(Burst::new(frames), &mut editing, &mut edited);
            let edited = edited.known();
            let frames = edited.iter().map(Frame::to_vec);
            verdicts.extend(frames.map(|frame| TraceVerdict { port, is_patch, frame }));
            marks.clear();
        };
        for port in marked.drain(..) {
            if let Some(Some(output)) = all.get_mut(usize::from(port)) {
                take(port, &mut output.marks, false);
            }
        }
        for port in patched.drain(..) {
            if let Some(Some(marks)) = patches.get_mut(usize::from(port)) {
                take(port, marks, true);
            }
        }
    }

    /// Sends frames of the switch's own, of which there are [`BURST`] at most, to `port`, if that
    /// takes frames; returns whether it does.
    pub(crate) fn send_own(&mut self, port: u16, frames: &[Frame<'_>], now: u64) -> bool {
        let Some(output) = self.get_mut(port).filter(|output| output.marks.is_empty()) else {
            return false;
        };
        if !output.is_ready(now) {
            return false;
        }
        let all = all_of(frames.len());
        output.send(Burst::new(frames), all);
        if output.is_first_use() {
            self.unflushed.push(port);
        }
        self.note_out(frames, port, None);
        self.end_burst();
        true
    }

    /// Captures this from now on.
    pub(crate) fn set_captures(&mut self, captures: Option<Box<Captures>>) {
        self.captures = captures;
    }

    /// Notes from now on where the one frame at hand goes, which is sampled, and so many bytes of it as it goes out.
    pub(crate) fn begin_sample(&mut self, bytes: usize) {
        if self.captures.is_none() {
            // Made for the first one.
            let made = || Box::new(Captures::none());
            self.captures = Some(self.no_captures.take().unwrap_or_else(made));
        }
        if let Some(captures) = &mut self.captures {
            captures.set_seen(Some(Seen::new(bytes, std::mem::take(&mut self.sampled))));
        }
    }

    /// Notes that no more, until it is to [go on](Self::go_on_sampling) with what was noted: what is sent meanwhile
    /// is something else.
    pub(crate) fn pause_sampling(&mut self) -> Option<Seen> {
        self.captures.as_mut().and_then(|captures| captures.set_seen(None))
    }

    /// Goes on with what was noted.
    pub(crate) fn go_on_sampling(&mut self, seen: Option<Seen>) {
        if let (Some(captures), Some(seen)) = (&mut self.captures, seen) {
            captures.set_seen(Some(seen));
        }
    }

    /// Where it has gone.
    pub(crate) fn end_sample(&mut self) -> Seen {
        let seen = self.pause_sampling();
        self.no_captures = self.captures.take_if(|captures| captures.is_none());
        seen.unwrap_or_default()
    }

    /// Gives memory back that is not needed any more.
    pub(crate) fn forget_sample(&mut self, seen: Seen) {
        self.sampled = seen;
    }

    /// Whether anything is captured.
    pub(crate) const fn is_watched(&self) -> bool {
        self.captures.is_some()
    }

    /// Whether something that comes in on `port` may be captured.
    #[inline]
    pub(crate) fn watches_in(&self, port: u16) -> bool {
        self.captures.as_ref().is_some_and(|captures| captures.watch_in(port))
    }

    /// Whether some of what is marked may be captured on its way out.
    #[inline]
    pub(crate) fn watches_marked(&self) -> bool {
        let captures = self.captures.as_ref();
        captures.is_some_and(|captures| self.marked.iter().any(|port| captures.watch_out(*port)))
    }

    /// Notes a frame that goes one way through `port`, where it is captured.
    pub(crate) fn begin(
        &mut self,
        frame: &Frame<'_>,
        port: u16,
        direction: Direction,
    ) -> Option<Handle> {
        self.captures.as_mut()?.begin(frame, port, direction)
    }

    /// Tells what has become of it.
    pub(crate) fn end(&mut self, handle: Handle, dropped: Option<DropReason>) {
        if let Some(captures) = &mut self.captures {
            captures.end(handle, dropped);
        }
    }

    /// Notes frames that go out on `port`, or do not for a reason, where that is captured.
    pub(crate) fn note_out(
        &mut self,
        frames: &[Frame<'_>],
        port: u16,
        dropped: Option<DropReason>,
    ) {
        let captures = self.captures.as_mut().filter(|captures| captures.watch_out(port));
        let Some(captures) = captures else { return };
        for frame in frames {
            if let Some(handle) = captures.begin(frame, port, Direction::Out) {
                captures.end(handle, dropped);
            }
        }
    }

    /// A burst is through.
    #[inline]
    pub(crate) fn end_burst(&mut self) {
        if let Some(captures) = &mut self.captures {
            captures.end_burst();
        }
    }

    /// As [`send`](Self::send), where something may be captured.
    #[inline]
    pub(crate) fn send_apart(&mut self, frames: Burst<'_, '_>, source: &Source<'_>) {
        match self.watches_marked() {
            true => self.send_watched(frames, source),
            false => self.send(frames, source),
        }
    }

    #[inline(never)]
    fn send_watched(&mut self, frames: Burst<'_, '_>, source: &Source<'_>) {
        let frames = frames.measured();
        let Self { all, marked, unflushed, room, captures, .. } = self;
        let Some(captures) = captures else { return };
        for port in marked.drain(..) {
            let Some(Some(output)) = all.get_mut(usize::from(port)) else { continue };
            output.is_ready(source.now);
            if captures.watch_out(port) {
                send_captured(output, port, &frames, captures, room, source);
            } else {
                let mask = output.marks.frames();
                if !output.send_marked(frames, room) {
                    source.stats.count_drops(DropReason::LinkDown, mask.count_ones() as usize);
                }
            }
            if output.is_first_use() {
                unflushed.push(port);
            }
        }
    }

    /// Lets the devices finish what was sent. To be called after a round over the inputs that found
    /// frames, and again after every further one as long as it returns that a device has not taken
    /// all.
    #[inline]
    pub(crate) fn flush(&mut self) -> bool {
        let outputs = &mut self.all;
        self.unflushed.retain(|port| {
            let output = outputs.get_mut(usize::from(*port)).and_then(Option::as_mut);
            output.is_some_and(Output::flush)
        });
        !self.unflushed.is_empty()
    }
}

/// Sends those frames of a burst that are marked at `output`, the way to `port`, and forgets the
/// marks. Frames that are captured are sent by themselves, so that the counters tell what has
/// become of them.
fn send_captured(
    output: &mut Output,
    port: u16,
    frames: &[Frame<'_>],
    captures: &mut Captures,
    room: &mut EditRoom,
    source: &Source<'_>,
) {
    let wanted = output.marks.frames().count_ones() as usize;
    let mut editing = room.begin();
    let mut edited = Edited::default();
    output.marks.apply(Burst::new(frames), &mut editing, &mut edited);
    output.marks.clear();
    let edited = edited.known();
    let uneditable = wanted.saturating_sub(edited.len());
    if uneditable != 0 {
        output.drop_count(DropReason::TooLong, u32::try_from(uneditable).unwrap_or_default());
    }
    let send = |output: &mut Output, mask: u32| {
        let has_queue = mask == 0 || output.send(edited, mask);
        if !has_queue {
            source.stats.count_drops(DropReason::LinkDown, mask.count_ones() as usize);
        }
        has_queue
    };
    // Those that are not captured go together.
    let mut others = 0;
    let mut drops = Drops::new(output.drops());
    let mut bit = 1_u32;
    for frame in edited.as_slice() {
        captures.see(frame, port);
        match captures.begin(frame, port, Direction::Out) {
            None => others |= bit,
            Some(handle) => {
                if others != 0 {
                    send(output, std::mem::take(&mut others));
                    drops.moved(output.dropped(), || output.drops());
                }
                let dropped = match send(output, bit) {
                    true => drops.moved(output.dropped(), || output.drops()),
                    false => Some(DropReason::LinkDown),
                };
                captures.end(handle, dropped);
            }
        }
        bit = bit.wrapping_shl(1);
    }
    send(output, others);
}
