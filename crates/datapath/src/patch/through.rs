//! The way of a burst through tunnels.

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use flow::{Cause, TunnelWords};
use packet::{BURST, Burst, EditRoom, Edited, Frame, Open};
use tunnel::{Inner, Meta, Mode, Options};

use super::{MAX_PASSES, Step, Walk, count_packets};
use crate::bridge::Bridge;
use crate::datapath::{Beside, Source, place};
use crate::flows::Flows;
use crate::marks::Marks;
use crate::output::pick;
use crate::outputs::Outputs;
use crate::segments::{self, is_large};
use crate::tunnel::hop::End;
use crate::tunnel::{Place, Popped, Pushed, Taken, TunnelPort, inner};

/// Memory for frames on their way through a tunnel.
pub(super) struct Rooms<'r> {
    /// For the heads of those that were edited before.
    pub(super) edited: &'r mut EditRoom,
    /// For those of frames that go into tunnels or come out.
    pub(super) tunnelled: &'r mut EditRoom,
    /// For parts of large segments.
    pub(super) parts: &'r mut Vec<u8>,
}

impl Walk<'_, '_> {
    /// Takes the frames of `marks` into a tunnel, or out of theirs.
    #[inline(never)]
    pub(super) fn tunnel(
        &mut self,
        place: &Place<'_>,
        marks: &Marks,
        rooms: Rooms<'_>,
        rest: &mut [Step],
        outputs: &mut Outputs,
        frames: &[Frame<'_>],
    ) {
        let Some(tunnels) = self.tunnels else { return };
        let stats = match place {
            Place::Port(port) => &port.tx,
            Place::End => &tunnels.lost,
        };
        let Rooms { edited, tunnelled, parts } = rooms;
        let mut editing = edited.begin();
        let mut passed = Edited::default();
        marks.apply(Burst::new(frames), &mut editing, &mut passed);
        let passed = passed.known();
        let wanted = marks.frames().count_ones() as usize;
        stats.count_drops(DropReason::TooLong, wanted.saturating_sub(passed.len()));
        if self.passes >= MAX_PASSES {
            return stats.count_drops(DropReason::PatchLoop, passed.len());
        }
        self.passes += 1;
        match place {
            Place::Port(port) if port.settings.cuts_segments() && passed.iter().any(is_large) => {
                self.push_parts(port, &passed, (tunnelled, parts), rest, outputs);
            }
            Place::Port(port) => self.push(port, &passed, tunnelled, rest, outputs),
            Place::End => self.pop(&passed, tunnelled, rest, outputs),
        }
    }

    /// Counts frames that do not get through a tunnel.
    #[cold]
    pub(super) fn drop_tunnelled(&self, port: u16, reason: DropReason, count: usize) {
        let Some(tunnels) = self.tunnels else { return };
        match tunnels.place(port) {
            Some(Place::Port(port)) => port.tx.count_drops(reason, count),
            Some(Place::End) => tunnels.lost.count_drops(reason, count),
            None => {}
        }
    }

    /// Takes frames into a tunnel whose packets have numbers: of large segments, each part has its own, so they
    /// are cut before.
    #[cold]
    #[inline(never)]
    fn push_parts(
        &mut self,
        port: &TunnelPort,
        frames: &[Frame<'_>],
        (room, memory): (&mut EditRoom, &mut Vec<u8>),
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        for frame in frames {
            let push = |parts: &[Frame<'_>]| self.push(port, parts, room, rest, outputs);
            if !segments::cut(frame, memory, push) {
                port.tx.count_drops(DropReason::BadHeader, 1);
            }
        }
    }

    /// Takes frames into the tunnel of a port.
    fn push(
        &mut self,
        port: &TunnelPort,
        frames: &[Frame<'_>],
        room: &mut EditRoom,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        let Some(tunnels) = self.tunnels else { return };
        let (words, packet_type) = (outputs.tunnel(), outputs.packet_type());
        let taken = Taken::new(port.settings.mode, packet_type);
        let flows = self.bridge(port.bridge).and_then(Bridge::flows);
        let (mut editing, mut left) = (room.begin(), u32::MAX);
        while let Some(first) = next(frames, left) {
            let alike = alike(port, taken, frames, left, first);
            left &= !alike;
            let group = pick(frames, alike);
            let mut questions = ArrayVec::<(&End, Vec<u8>), 1>::new();
            let mut ask = |end: &End, frame: &[u8]| {
                let end = tunnels.end(end.port);
                end.map(|end| questions.try_push((end, frame.to_vec())));
            };
            let ways = (&mut editing, self.now);
            let pushed = tunnels.push(port, (&words, flows), (&group, taken), ways, &mut ask);
            // A question goes its own way: it is not what a sample is about.
            let seen = outputs.pause_sampling();
            for (end, question) in questions {
                let question = [Frame::from_bytes(&question)];
                self.leave((end, &port.tx), &question, rest, outputs);
            }
            outputs.go_on_sampling(seen);
            match pushed {
                Err(reason) => {
                    port.tx.count_drops(reason, group.len());
                    outputs.note_out(&group, port.port, Some(reason));
                }
                Ok(Pushed { end, open, lost }) => {
                    port.tx.count_drops(DropReason::TooLong, lost);
                    count_packets(&port.tx, &group, place(taken.is_bare()));
                    outputs.note_out(&group, port.port, None);
                    let outer = frames_of(&open);
                    self.leave((end, &port.tx), &outer, rest, outputs);
                }
            }
        }
    }

    /// Sends frames by the bridge of an end, as if the host had.
    fn leave(
        &mut self,
        (end, stats): (&End, &QueueStats),
        frames: &[Frame<'_>],
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        let source = Source::new((end.bridge, end.port), stats, self.now);
        match self.bridge(end.bridge) {
            Some(bridge) => self.come_in(Some(bridge), frames, &source, rest, outputs),
            None => stats.count_drops(DropReason::LinkDown, frames.len()),
        }
    }

    /// Takes frames that have come to the host out of their tunnels.
    fn pop(
        &mut self,
        frames: &[Frame<'_>],
        room: &mut EditRoom,
        rest: &mut [Step],
        outputs: &mut Outputs,
    ) {
        let Some(tunnels) = self.tunnels else { return };
        let (mut editing, lost) = (room.begin(), &tunnels.lost);
        let popped = tunnels.pop(frames, &mut editing, |reason| lost.count_drops(reason, 1));
        let mut left = popped.as_slice();
        while let Some(first) = left.first() {
            let count = left.iter().take_while(|one| one.is_like(first)).count();
            let (group, others) = left.split_at(count);
            left = others;
            self.arrive(group, rest, outputs);
        }
    }

    /// Has frames that have come by one tunnel come in at its port.
    fn arrive(&mut self, group: &[Popped<'_, '_>], rest: &mut [Step], outputs: &mut Outputs) {
        let Some(Popped { port, meta, .. }) = group.first() else { return };
        let open = group.iter().filter_map(|one| one.open.frame());
        let frames: ArrayVec<Frame<'_>, BURST> = open.take(BURST).collect();
        let Some(bridge) = self.bridge(port.bridge) else {
            return port.rx.count_drops(DropReason::LinkDown, frames.len());
        };
        let words = match bridge.flows() {
            Some(flows) => flows.tunnel_words(meta),
            // Without rules, nothing looks at options.
            None => crate::tunnel::words(&Meta { options: Options::NONE, ..*meta }, &[]),
        };
        let Some(words) = words else {
            return port.rx.count_drops(DropReason::Malformed, frames.len());
        };
        let is_bare = meta.inner.is_bare();
        count_packets(&port.rx, &frames, place(is_bare));
        let packet_type = match meta.inner {
            // Whoever knows frames of Ethernet alone gets one with an empty header.
            Inner::Bare(kind) if port.settings.mode == Mode::Any => 1 << 16 | u32::from(kind.0),
            _ => 0,
        };
        let beside = Beside { tunnel: words, packet_type, is_bare, mark: 0 };
        let source = Source::new((port.bridge, port.port), &port.rx, self.now);
        let source = Source { beside: Some(&beside), ..source };
        let cause = outputs.set_cause(Cause::Rule);
        self.come_in(Some(bridge), &frames, &source, rest, outputs);
        outputs.set_cause(cause);
    }
}

impl Flows {
    /// What rules see of a tunnel that frames have come by with this outer header; `None` if it has an
    /// option that must not be passed over.
    fn tunnel_words(&self, meta: &Meta) -> Option<TunnelWords> {
        crate::tunnel::words(meta, &self.pipeline().tunnels.options)
    }
}

/// The place of the first frame that is left.
fn next(frames: &[Frame<'_>], left: u32) -> Option<usize> {
    let first = left.trailing_zeros() as usize;
    (first < frames.len().min(BURST)).then_some(first)
}

/// Those frames that are left and whose outer headers, as this port has them, are the same as that of one of them,
/// where so much of them is taken.
fn alike(port: &TunnelPort, taken: Taken, frames: &[Frame<'_>], left: u32, first: usize) -> u32 {
    let key = |frame: &Frame<'_>| {
        (
            taken.of(frame.head()).map(|(kind, _)| kind),
            inner(frame).map(|own| port.settings.inherits(own)),
        )
    };
    let wanted = frames.get(first).map(key);
    let is_alike = |(index, frame): &(usize, &Frame<'_>)| {
        left & 1_u32 << *index != 0 && Some(key(frame)) == wanted
    };
    let own = frames.iter().enumerate().take(BURST).filter(is_alike);
    own.fold(0, |alike, (index, _)| alike | 1_u32 << index)
}

fn frames_of<'o>(open: &'o [Open<'_>]) -> ArrayVec<Frame<'o>, BURST> {
    open.iter().filter_map(Open::frame).take(BURST).collect()
}
