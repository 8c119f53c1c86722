//! Into a tunnel.

use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use eal::clock;
use ethdev::DropReason;
use packet::checksum::Checksum;
use packet::headers::{EtherType, Ethernet, ethernet};
use packet::{BURST, Editing, Frame, Open};
use tunnel::{Inner, Meta, Mode, Outer};

use super::hop::{End, NoHop, question};
use super::words::wish;
use super::{TunnelPort, Tunnels};
use crate::flows::Flows;
use flow::TunnelWords;

/// The lowest port of UDP that flows are told apart by (RFC 7348, section 5), of which there are as many as
/// the mask has values.
const FIRST_PORT: u16 = 0xC000;

/// The frames of a burst that go into one tunnel, to one next hop.
pub(crate) struct Pushed<'t, 'e> {
    pub(crate) end: &'t End,
    pub(crate) open: ArrayVec<Open<'e>, BURST>,
    /// Those for which there was no room in a frame.
    pub(crate) lost: usize,
}

/// Type of service and time to live of a frame's IP packet.
pub(crate) fn inner(frame: &Frame<'_>) -> Option<(u8, u8)> {
    let ethernet = Ethernet::parse(frame.head())?;
    let (kind, payload) = ethernet.inner()?;
    let byte = |at: usize| payload.get(at).copied();
    match kind {
        EtherType::IPV4 => Some((byte(1)?, byte(8)?)),
        EtherType::IPV6 => Some((byte(0)? << 4 | byte(1)? >> 4, byte(7)?)),
        _ => None,
    }
}

/// The least EtherType (IEEE 802.3, section 3.2.6).
const LEAST_ETHER_TYPE: u16 = 0x600;

/// What of frames goes into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All of them.
    Frames,
    /// What they carry behind a header of Ethernet and up to two tags.
    Carried,
    /// What is behind the place of a header of Ethernet, of this kind, which may be that of a tag.
    Bare(EtherType),
}

impl Taken {
    /// By what a port is set to, and what packets begin with.
    pub(crate) fn new(mode: Mode, packet_type: u32) -> Self {
        match (packet_type, mode) {
            (0, Mode::Packets) => Self::Carried,
            (0, _) => Self::Frames,
            _ => Self::Bare(EtherType(u16::try_from(packet_type & 0xFFFF).unwrap_or_default())),
        }
    }

    /// Whether a header of Ethernet stays behind.
    pub(crate) fn is_bare(self) -> bool {
        self != Self::Frames
    }

    /// What that is of a frame which is not taken as it is, and where it begins; `None` if it has no type, or is
    /// not there.
    pub(crate) fn of(self, head: &[u8]) -> Option<(EtherType, usize)> {
        let (kind, at) = match self {
            Self::Frames => return None,
            Self::Bare(kind) => (kind, ethernet::HEADER_LEN),
            Self::Carried => {
                let (kind, payload) = Ethernet::parse(head)?.inner()?;
                (kind, head.len().saturating_sub(payload.len()))
            }
        };
        (kind.0 >= LEAST_ETHER_TYPE).then_some((kind, at))
    }
}

impl Tunnels {
    /// Puts what is `taken` of frames into a tunnel, which are alike in [`inner`], and in what that is. `ask` is
    /// called with a question to a neighbour, and the end by which it goes.
    pub(crate) fn push<'t, 'e>(
        &'t self,
        port: &TunnelPort,
        (words, flows): (&TunnelWords, Option<&Flows>),
        (frames, taken): (&[Frame<'e>], Taken),
        (editing, now): (&mut Editing<'e>, u64),
        ask: &mut dyn FnMut(&End, &[u8]),
    ) -> Result<Pushed<'t, 'e>, DropReason> {
        let meta = self.wanted(port, words, flows, frames).ok_or(DropReason::NoRoute)?;
        let inner = match taken {
            Taken::Frames => Inner::Ethernet,
            _ => {
                let first = frames.first().and_then(|frame| taken.of(frame.head()));
                Inner::Bare(first.ok_or(DropReason::FlowPacketType)?.0)
            }
        };
        let meta = Meta { inner, ..meta };
        let mut ask_for = |end: &End, source, next| {
            let frame = self.asked.may(next, now).then(|| question(end, source, next));
            frame.flatten().iter().for_each(|frame| ask(end, frame));
        };
        let hop = match self.ways.hop(&meta, port.settings.mark) {
            Ok((hop, next)) => {
                if hop.asks {
                    ask_for(hop.end, hop.source, next);
                }
                hop
            }
            Err(NoHop::Lost(reason)) => return Err(reason),
            Err(NoHop::Ask(end, source, next)) => {
                ask_for(end, source, next);
                return Err(DropReason::NoNeighbour);
            }
        };
        let settings = &port.settings;
        let meta = Meta { source: hop.source, ..meta };
        let Some(outer) = Outer::new(settings.kind, &meta, hop.link, settings.port) else {
            return Err(if taken.is_bare() {
                DropReason::FlowPacketType
            } else {
                DropReason::NoRoute
            });
        };
        // Numbers of all of them are taken at once; others may be sent between them.
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let first = match settings.has_numbers() {
            true => port.numbers.fetch_add(count, Ordering::Relaxed),
            false => 0,
        };
        let time = if settings.has_numbers() { time(now) } else { 0 };
        let numbers = (0..).map(|place| (first.wrapping_add(place), time));
        let open: ArrayVec<Open<'e>, BURST> = frames
            .iter()
            .zip(numbers)
            .filter_map(|(frame, number)| put((&outer, number), (frame, taken), editing))
            .take(BURST)
            .collect();
        let lost = frames.len().saturating_sub(open.len());
        Ok(Pushed { end: hop.end, open, lost })
    }

    /// What is to go around frames.
    fn wanted(
        &self,
        port: &TunnelPort,
        words: &TunnelWords,
        flows: Option<&Flows>,
        frames: &[Frame<'_>],
    ) -> Option<Meta> {
        let pipeline = flows.map(Flows::pipeline);
        let fields = pipeline.as_ref().map_or(&[][..], |pipeline| &pipeline.tunnels.options);
        let (wish, options, oam) = wish(words, fields);
        let meta = port.settings.meta(&wish, frames.first().and_then(inner))?;
        Some(Meta { options, oam, ..meta })
    }
}

/// A time in clock cycles, in units of 100 microseconds.
fn time(now: u64) -> u32 {
    const UNITS: u64 = 10_000;
    let time = now / (clock::hz() / UNITS).max(1);
    u32::try_from(time & u64::from(u32::MAX)).unwrap_or_default()
}

/// A frame with an outer header, and its number if it has one.
fn put<'e>(
    (outer, (number, time)): (&Outer, (u32, u32)),
    (frame, taken): (&Frame<'e>, Taken),
    editing: &mut Editing<'e>,
) -> Option<Open<'e>> {
    // A begun checksum may be behind the head.
    let mut open = match outer.has_checksum() {
        true => editing.open_deep(frame)?,
        false => editing.open(frame)?,
    };
    let flow = packet::flow::hash(open.head());
    if outer.is_bare() {
        let (_, at) = taken.of(open.head())?;
        open.remove(0, at).then_some(())?;
    }
    let inner = open.len();
    let sum = outer.has_checksum().then(|| sum(&open)).flatten();
    let [.., high, low] = (flow ^ flow >> 16).to_be_bytes();
    if !open.encapsulate(outer.as_bytes()) {
        return None;
    }
    let is_large = open.offload().gso().is_some();
    let head = open.head_mut();
    outer.fit(head, inner, FIRST_PORT | u16::from_be_bytes([high, low]));
    outer.number(head, number, time);
    match sum {
        Some(sum) if !is_large => outer.seal(head, inner, sum),
        Some(_) => outer.ask(head),
        None if outer.has_checksum() => return None,
        None => {}
    }
    Some(open)
}

/// The sum of all bytes of a frame as they will be when its checksum is complete: what is under that sums
/// up to what it was begun with, inverted.
fn sum(open: &Open<'_>) -> Option<Checksum> {
    let mut sum = Checksum::new();
    match open.offload().csum() {
        None => open.frame()?.add_to(&mut sum, 0),
        Some((start, offset)) => {
            let (headers, covered) = open.head().split_at_checked(start.into())?;
            let begun = covered.get(usize::from(offset)..)?.first_chunk()?;
            sum.add(headers);
            sum.add_u16(!u16::from_be_bytes(*begun));
        }
    }
    Some(sum)
}
