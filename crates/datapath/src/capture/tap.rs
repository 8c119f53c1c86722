//! A worker's part in captures: which frames are wanted, and writing them down.

use std::sync::Arc;

use ::capture::bpf::{Outcome, Program};
use arrayvec::ArrayVec;
use eal::{Counter, clock};
use ethdev::DropReason;
use packet::{EditRoom, Frame, MAX_FRAME_LEN};

use super::room::{Draft, Room, append, records, set_reason, withdraw};
use super::{Capture, Direction, MAX_CAPTURES};
use crate::marks::{Marks, bits};
use crate::port_set::PortSet;
use crate::sample::Seen;

/// Bytes that a worker writes before it hands them over: a burst of large segments and more of all
/// else.
const STAGE: usize = 512 << 10;

/// From so many on it hands them over although the burst goes on.
const MUCH: usize = STAGE / 2;

/// A port of a capture, as one worker knows it.
#[derive(Clone, Debug)]
pub struct TapPort {
    /// Its number in the capture.
    pub port: u32,
    /// Frames of it that found no room.
    pub missed: Arc<Counter>,
}

/// A capture, as one worker knows it.
#[derive(Debug)]
pub struct Tap {
    /// By the numbers of ports.
    ports: Vec<Option<TapPort>>,
    direction: Option<Direction>,
    dropped: bool,
    snaplen: usize,
    filter: Option<Arc<Program>>,
    room: Arc<Room>,
    /// What was written since something was handed over.
    staged: Vec<u8>,
}

/// A frame that was written down, and of which it is not known yet what becomes of it: for each
/// capture the place where it is.
#[derive(Debug)]
#[must_use]
pub(crate) struct Handle(ArrayVec<(u8, u32), MAX_CAPTURES>);

/// All captures of a worker.
#[derive(Debug)]
pub struct Captures {
    taps: Vec<Tap>,
    /// Ports of which what comes in is captured, and what goes out.
    ports_in: PortSet,
    ports_out: PortSet,
    /// A copy of a frame that a filter wants to see more of.
    copy: Box<[u8]>,
    /// Frames that something is still to be said of.
    open: usize,
    /// When the present burst began.
    cycles: Option<u64>,
    /// Where the one frame at hand goes, while it is sampled.
    seen: Option<Seen>,
}

impl Tap {
    /// A capture of these ports, by number.
    pub fn new(capture: &Capture, ports: Vec<Option<TapPort>>, room: Arc<Room>) -> Self {
        let Capture { direction, dropped, snaplen, filter, .. } = capture;
        // Touched now, so that no page is missing later.
        let mut staged = vec![1; STAGE];
        staged.clear();
        Self {
            ports,
            direction: *direction,
            dropped: *dropped,
            snaplen: *snaplen,
            filter: filter.clone(),
            room,
            staged,
        }
    }

    /// The ports of which it captures what goes one way.
    fn ports(&self, direction: Direction) -> impl Iterator<Item = u16> {
        let is_wanted = self.direction.is_none_or(|wanted| wanted == direction);
        let ports = (0..).zip(&self.ports).filter(move |_| is_wanted);
        ports.filter(|(_, port)| port.is_some()).map(|(port, _)| port)
    }

    /// Hands over what was written.
    fn hand_over(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        if !self.room.put(&self.staged) {
            self.miss_staged();
        }
        self.staged.clear();
    }

    #[cold]
    fn miss_staged(&self) {
        for record in records(&self.staged) {
            let of_port = |port: &&TapPort| usize::try_from(port.port) == Ok(record.port);
            if let Some(port) = self.ports.iter().flatten().find(of_port) {
                port.missed.add(1);
            }
        }
    }
}

impl Captures {
    /// These captures, [`MAX_CAPTURES`] at most.
    pub fn new(taps: Vec<Tap>) -> Self {
        let ports = |direction| taps.iter().flat_map(move |tap| tap.ports(direction)).collect();
        let (ports_in, ports_out) = (ports(Direction::In), ports(Direction::Out));
        let copy = vec![1; MAX_FRAME_LEN].into_boxed_slice();
        Self { taps, ports_in, ports_out, copy, open: 0, cycles: None, seen: None }
    }

    /// None, to see where a frame goes that is sampled.
    pub(crate) fn none() -> Self {
        let (taps, ports_in, ports_out, copy) = Default::default();
        Self { taps, ports_in, ports_out, copy, open: 0, cycles: None, seen: None }
    }

    /// Whether nothing is captured.
    pub(crate) const fn is_none(&self) -> bool {
        self.taps.is_empty()
    }

    /// Notes from now on where the one frame at hand goes, or no more; returns what was noted before.
    pub(crate) const fn set_seen(&mut self, seen: Option<Seen>) -> Option<Seen> {
        std::mem::replace(&mut self.seen, seen)
    }

    /// Notes a frame that goes out on `port`, where that is to be known.
    pub(crate) fn see(&mut self, frame: &Frame<'_>, port: u16) {
        if let Some(seen) = &mut self.seen {
            seen.note(port, frame);
        }
    }

    /// Whether something that comes in on `port` may be captured.
    #[inline]
    pub(crate) fn watch_in(&self, port: u16) -> bool {
        self.ports_in.contains(port)
    }

    /// Whether something that goes out on `port` may be captured.
    #[inline]
    pub(crate) fn watch_out(&self, port: u16) -> bool {
        self.ports_out.contains(port) || self.seen.is_some()
    }

    /// Writes a frame down where it is wanted; `None` where it is not, or there is no room.
    pub(crate) fn begin(
        &mut self,
        frame: &Frame<'_>,
        port: u16,
        direction: Direction,
    ) -> Option<Handle> {
        if self.taps.is_empty() {
            return None;
        }
        let cycles = *self.cycles.get_or_insert_with(clock::now);
        let mut handle = Handle(ArrayVec::new());
        let mut copied = None;
        for (index, tap) in (0..).zip(&mut self.taps) {
            let Tap { ports, direction: way, snaplen, filter, staged, .. } = tap;
            let of_port = ports.get(usize::from(port)).and_then(Option::as_ref);
            let of_port = of_port.filter(|_| way.is_none_or(|way| way == direction));
            let Some(of_port) = of_port else { continue };
            if let Some(filter) = filter {
                let outcome = match copied {
                    None => filter.run(frame.head(), frame.len()),
                    Some(_) => Outcome::Unknown,
                };
                let is_taken = match outcome {
                    // Whatever is decided upon is what is kept: the guest could change the rest.
                    Outcome::Unknown => {
                        let count = *copied.get_or_insert_with(|| frame.copy_to(&mut self.copy));
                        let copy = self.copy.get(..count).unwrap_or_default();
                        filter.run(copy, copy.len()) == Outcome::Taken
                    }
                    known => known == Outcome::Taken,
                };
                if !is_taken {
                    continue;
                }
            }
            let draft = Draft {
                port: of_port.port,
                cycles,
                direction,
                missed: low(of_port.missed.get()),
                snaplen: *snaplen,
                copy: copied.and_then(|count| self.copy.get(..count)),
            };
            match append(staged, frame, &draft) {
                // There are no more captures than room.
                Some(at) => _ = handle.0.try_push((index, u32::try_from(at).unwrap_or(u32::MAX))),
                None => of_port.missed.add(1),
            }
        }
        if handle.0.is_empty() {
            return None;
        }
        self.open += 1;
        Some(handle)
    }

    /// Tells what has become of a frame.
    pub(crate) fn end(&mut self, handle: Handle, dropped: Option<DropReason>) {
        for (index, at) in handle.0 {
            let Some(tap) = self.taps.get_mut(usize::from(index)) else { continue };
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            match dropped {
                Some(reason) => set_reason(&mut tap.staged, at, reason),
                None if tap.dropped => withdraw(&mut tap.staged, at),
                None => {}
            }
        }
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            let full = self.taps.iter_mut().filter(|tap| tap.staged.len() >= MUCH);
            full.for_each(Tap::hand_over);
        }
    }

    /// Writes down frames that were to go out on `port` and do not.
    #[cold]
    pub(crate) fn note_dropped(
        &mut self,
        frames: &[Frame<'_>],
        mask: u32,
        port: (u16, &Marks),
        room: &mut EditRoom,
        reason: DropReason,
    ) {
        let (port, marks) = port;
        if !self.watch_out(port) {
            return;
        }
        let mut editing = room.begin();
        for bit in bits(mask) {
            let Some(frame) = frames.get(bit as usize) else { continue };
            let edit = marks.edit_of(1_u32.wrapping_shl(bit));
            let frame = if edit.is_none() { Some(*frame) } else { editing.edit(frame, edit) };
            if let Some(frame) = frame
                && let Some(handle) = self.begin(&frame, port, Direction::Out)
            {
                self.end(handle, Some(reason));
            }
        }
    }

    /// The burst is through: hands over what was written of it.
    #[inline]
    pub(crate) fn end_burst(&mut self) {
        // A burst that goes on as another is not through yet.
        if self.open == 0 && self.cycles.take().is_some() {
            self.taps.iter_mut().for_each(Tap::hand_over);
        }
    }
}

/// The low half of a counter.
pub(crate) const fn low(count: u64) -> u32 {
    let [a, b, c, d, ..] = count.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
