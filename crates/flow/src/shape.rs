//! Frames of ordinary shapes, which are told apart by their own bytes, without a key.
//!
//! Of a frame whose headers are of known kinds, [`extract`] copies bits to places of the key, whatever these
//! bits are. So what a way depends on is a mask of the frame's first bytes, one for each [`Shape`]. It is
//! found out by asking `extract` itself: a bit counts if the key of a frame that differs in it alone differs
//! in what is relevant. What decides the shape counts always.
//!
//! Lengths are looked at only to see that headers are all there, as `extract` does: packets of one flow have
//! any.

use packet::{Burst, Frame};

use crate::extract::{Depth, FIRST_ETHER_TYPE, IPV4, IPV6, QINQ, VLAN, extract};
use crate::key::{Key, PACKET_WORDS, slot};
use crate::kinds::KINDS;

/// So many bytes of a frame are compared.
const SEEN: usize = 60;

/// The first bytes of a frame.
type Seen = [u8; SEEN];

/// Words of a line.
pub(crate) const LINE: usize = 8;

/// What of a frame its way depends on, and where it came in: frames that are alike have the same.
pub(crate) type Line = [u64; LINE];

/// Where the words of a line are in a frame. The last two overlap the one before, in whose place is the port:
/// the lower half of the first of them.
const PLACES: [usize; LINE] = [0, 8, 16, 24, 32, 40, 44, 52];
const PORT_WORD: usize = 6;

/// Which headers a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape(u8);

const SHAPES: u8 = 16;

/// What is behind tags: nothing that is looked at, or one of these in IPv4, or in IPv6.
const LINK: u8 = 0;
const TCP: u8 = 1;
const UDP: u8 = 2;
const ICMP: u8 = 3;
const SIX: u8 = 4;

/// There is a tag.
const TAGGED: u8 = 8;

impl Shape {
    /// That of a frame of `len` bytes of which `head` are the first, and `seen` those that are compared, if it
    /// is an ordinary one.
    #[inline(always)]
    fn of(seen: &Seen, head: &[u8], len: usize, depth: Depth) -> Option<Self> {
        let frame = Headers { seen, head, len };
        match frame.network(14, depth) {
            Some(number) => Some(Self(number)),
            None if matches!(frame.be16(12), VLAN | QINQ) => {
                Some(Self(frame.network(18, depth)? | TAGGED))
            }
            None => None,
        }
    }

    /// What it carries, as one of the kinds whose needs are known apart.
    fn kind(self) -> Option<usize> {
        let carried = usize::from(self.0 & (SIX - 1)).checked_sub(1)?;
        Some(if self.0 & SIX == 0 { carried } else { carried + 3 })
    }

    /// Where the network header is.
    const fn network(self) -> usize {
        if self.0 & TAGGED == 0 { 14 } else { 18 }
    }

    /// Where there are bytes of this header that tell it from others.
    fn telling(self) -> impl Iterator<Item = usize> {
        let at = self.network();
        let proto = match self.0 & !TAGGED {
            LINK => None,
            SIX.. => Some(at + 6),
            _ => Some(at + 9),
        };
        (12..14).chain(at - 2..at).chain(proto)
    }

    /// Where there are bytes that [`of`](Self::of) looks at, if all of them are seen.
    fn looked_at(self) -> Option<impl Iterator<Item = usize>> {
        let at = self.network();
        let network: &[usize] = match self.0 & !TAGGED {
            LINK => &[],
            // The length of its header of TCP is farther behind.
            number if number == TCP | SIX => return None,
            SIX.. => &[4, 5, 6, 40],
            _ => &[0, 2, 3, 6, 7, 9, 32],
        };
        Some((12..14).chain(at - 2..at).chain(network.iter().map(move |byte| at + byte)))
    }
}

struct Headers<'h> {
    seen: &'h Seen,
    /// The same, and what is known beyond.
    head: &'h [u8],
    /// The length of all of it.
    len: usize,
}

impl Headers<'_> {
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.seen.get(at).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.byte(at), self.byte(at + 1)])
    }

    /// Whether so many bytes are known.
    #[inline(always)]
    const fn has(&self, bytes: usize) -> bool {
        bytes <= self.head.len()
    }

    /// The number of a shape whose network header begins `at` so many bytes.
    #[inline(always)]
    fn network(&self, at: usize, depth: Depth) -> Option<u8> {
        let kind = self.be16(at - 2);
        match (depth, kind) {
            (Depth::All, IPV4) => self.ipv4(at),
            (Depth::All, IPV6) => self.ipv6(at),
            // Two tags are for those who look closer, and so are lengths.
            (Depth::Link, FIRST_ETHER_TYPE..) if !matches!(kind, VLAN | QINQ) => {
                self.has(at).then_some(LINK)
            }
            _ => None,
        }
    }

    /// Without options, and no fragment.
    #[inline(always)]
    fn ipv4(&self, at: usize) -> Option<u8> {
        if self.byte(at) != 0x45 || self.be16(at + 6) & 0x3FFF != 0 {
            return None;
        }
        let (carried, header, least) = match self.byte(at + 9) {
            6 => (TCP, 20, tcp_len(self.byte(at + 32))?),
            17 => (UDP, 8, 8),
            1 => (ICMP, 8, 8),
            _ => return None,
        };
        let total = usize::from(self.be16(at + 2));
        let is_whole = self.has(at + 20 + header) && 20 + least <= total && at + total <= self.len;
        is_whole.then_some(carried)
    }

    /// Without extension headers, and no neighbour discovery.
    #[inline(always)]
    fn ipv6(&self, at: usize) -> Option<u8> {
        let (carried, header, least) = match self.byte(at + 6) {
            6 => (TCP, 20, tcp_len(*self.head.get(at + 52)?)?),
            17 => (UDP, 8, 8),
            58 if !matches!(self.byte(at + 40), 135 | 136) => (ICMP, 8, 8),
            _ => return None,
        };
        let payload = usize::from(self.be16(at + 4));
        let is_whole =
            self.has(at + 40 + header) && least <= payload && at + 40 + payload <= self.len;
        is_whole.then_some(carried | SIX)
    }
}

/// The length of a header of TCP, from the byte that says it.
#[inline(always)]
fn tcp_len(byte: u8) -> Option<usize> {
    let len = usize::from(byte >> 4) * 4;
    (len >= 20).then_some(len)
}

/// What a frame has to have to be of the same line as one before, without another look at its shape: it is
/// as long, and the bytes that say the shape are the same, with lengths, beside those of the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Twin {
    mask: [u128; WIDE_PLACES.len()],
    words: [u128; WIDE_PLACES.len()],
    len: usize,
    head_len: usize,
    /// What is relevant of the port.
    port: u32,
}

impl Twin {
    /// How long they are.
    #[inline(always)]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How many of these frames, from the first on, are such. They come in at the port that shapes are at.
    #[inline]
    pub(crate) fn count(&self, frames: Burst<'_, '_>, shapes: &Shapes) -> usize {
        if self.are_all(frames, shapes) { frames.len() } else { self.count_each(&frames, shapes) }
    }

    /// The same, where each is looked at.
    #[inline(never)]
    fn count_each(&self, frames: &[Frame<'_>], shapes: &Shapes) -> usize {
        if !self.is_at(shapes) {
            return 0;
        }
        // A copy, which stays in registers.
        let twin = *self;
        frames.iter().take_while(|frame| twin.is_of(frame)).count()
    }

    /// Whether frames can be such where shapes are now, and what is compared of them is seen.
    #[inline(always)]
    const fn is_at(&self, shapes: &Shapes) -> bool {
        self.port == shapes.relevant_port && self.head_len >= SEEN
    }

    /// Whether this is one.
    #[inline(always)]
    fn is_of(&self, frame: &Frame<'_>) -> bool {
        let head = frame.head();
        if frame.len() != self.len || head.len() != self.head_len {
            return false;
        }
        let Some(seen) = head.first_chunk() else { return false };
        let wanted = self.mask.iter().zip(self.words);
        let parts = WIDE_PLACES.iter().zip(wanted);
        parts.fold(0, |differs, (at, (bits, word))| differs | wide_at(seen, *at) & bits ^ word) == 0
    }

    /// Whether all of these are surely such.
    #[inline]
    pub(crate) fn are_all(&self, frames: Burst<'_, '_>, shapes: &Shapes) -> bool {
        // Where it has begun to be something else, or does so, all are not.
        let (Some(alike), Some(last)) = (frames.alike(), frames.last()) else { return false };
        if (alike.len(), alike.head_len()) != (self.len, self.head_len)
            || !self.is_at(shapes)
            || !self.is_of(last)
        {
            return false;
        }
        let [first_bits, ..] = self.mask;
        if alike.differences() & first_bits != 0 {
            return false;
        }
        // Of many, the last bytes that are seen do not count.
        match self.mask {
            [.., 0] => self.agrees(frames, MIDDLE_PLACES),
            _ => self.agrees(frames, FAR_PLACES),
        }
    }

    /// Whether of none of these frames what counts differs in these places, which are those behind the first.
    #[inline(always)]
    fn agrees<const N: usize>(&self, frames: Burst<'_, '_>, places: [usize; N]) -> bool {
        let ([_, words @ ..], [_, mask @ ..]) = (&self.words, &self.mask);
        let Some(words) = words.first_chunk() else { return false };
        let Some(differences) = frames.differences(places, *words) else { return false };
        let mut counted = differences.iter().zip(mask);
        counted.all(|(differences, bits)| differences & bits == 0)
    }
}

/// The mask of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    /// None was asked for yet.
    Unknown,
    /// More than is seen of a frame counts.
    TooLong,
    /// These bits count.
    Bits(Line),
}

/// What of frames counts, by shape.
#[derive(Debug)]
pub(crate) struct Shapes {
    masks: [Mask; SHAPES as usize],
    /// The bytes by which a shape is known, where it is known by what is seen.
    looked_at: [Option<Line>; SHAPES as usize],
    /// What is relevant of a key, for packets of each kind, and for all; how deep one is read, and behind how
    /// many tags.
    kinds: [Key; KINDS.len()],
    relevant: Key,
    depth: Depth,
    vlans: u8,
    /// Where frames come in, and what of that is relevant.
    port: u32,
    relevant_port: u32,
}

impl Shapes {
    /// Where a way depends on these bits of a key, of packets of known kinds and of any, which is read this
    /// deep, behind so many tags.
    pub(crate) fn new(
        (kinds, relevant): ([Key; KINDS.len()], Key),
        depth: Depth,
        vlans: u8,
    ) -> Self {
        let masks = [Mask::Unknown; SHAPES as usize];
        let of_packet = |mut key: Key| {
            key.0.iter_mut().skip(PACKET_WORDS).for_each(|word| *word = 0);
            key
        };
        let (kinds, relevant) = (kinds.map(of_packet), of_packet(relevant));
        let looked_at = std::array::from_fn(|number| looked_at(u8::try_from(number).ok()?));
        Self { masks, looked_at, kinds, relevant, depth, vlans, port: 0, relevant_port: 0 }
    }

    /// Whether frames are looked at in the same way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.kinds, &self.relevant, self.depth, self.vlans)
            == (&other.kinds, &other.relevant, other.depth, other.vlans)
    }

    /// The next frames come in at the port of this OpenFlow number.
    #[inline]
    pub(crate) fn set_port(&mut self, port: u32) {
        self.port = port;
        self.relevant_port = port & self.relevant.get_u32(slot::IN_PORT);
    }

    /// Where they come in.
    #[inline]
    pub(crate) const fn port(&self) -> u32 {
        self.port
    }

    /// How deep frames are looked at.
    #[inline]
    pub(crate) const fn depth(&self) -> Depth {
        self.depth
    }

    /// The line of a frame of `len` bytes of which `head` are the first, if it has an ordinary shape; `depth`
    /// is that of all of them.
    #[inline(always)]
    pub(crate) fn line(&mut self, head: &[u8], len: usize, depth: Depth) -> Option<Line> {
        match head.first_chunk() {
            Some(seen) => self.line_of(seen, head, len, depth),
            None => self.short_line(head, len, depth),
        }
    }

    /// The same of a frame of fewer bytes: all headers may be there.
    #[inline(never)]
    fn short_line(&mut self, head: &[u8], len: usize, depth: Depth) -> Option<Line> {
        let mut seen = [0; SEEN];
        seen.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
        self.line_of(&seen, head, len, depth)
    }

    #[inline(always)]
    fn line_of(&mut self, seen: &Seen, head: &[u8], len: usize, depth: Depth) -> Option<Line> {
        let shape = Shape::of(seen, head, len, depth)?;
        let port = u64::from(self.relevant_port);
        let mask = match self.masks.get(usize::from(shape.0)) {
            Some(Mask::Bits(mask)) => mask,
            _ => self.learn(shape)?,
        };
        let mut line = [0; LINE];
        for ((word, place), bits) in line.iter_mut().zip(PLACES).zip(mask) {
            *word = word_at(seen, place) & bits;
        }
        line[PORT_WORD] |= port;
        Some(line)
    }

    /// What others have to have to be alike, as far as that is easily seen.
    #[inline(never)]
    pub(crate) fn twin(&self, frame: &Frame<'_>, depth: Depth) -> Option<Twin> {
        let (head, len) = (frame.head(), frame.len());
        let seen = head.first_chunk()?;
        let shape = Shape::of(seen, head, len, depth)?;
        let Some(Mask::Bits(line)) = self.masks.get(usize::from(shape.0)) else { return None };
        let looked_at = self.looked_at.get(usize::from(shape.0))?.as_ref()?;
        let mut mask = wide(line);
        mask.iter_mut().zip(wide(looked_at)).for_each(|(bits, looked_at)| *bits |= looked_at);
        // These are among the ones before, too: mostly nothing else of the last place counts.
        let [.., last] = &mut mask;
        *last &= !u128::from(OVERLAP);
        let mut words = mask;
        words.iter_mut().zip(WIDE_PLACES).for_each(|(word, at)| *word &= wide_at(seen, at));
        Some(Twin { mask, words, len, head_len: head.len(), port: self.relevant_port })
    }

    /// The key of a frame of `len` bytes of which `head` are the first.
    pub(crate) fn key(&self, head: &[u8], len: usize) -> Key {
        let mut key = Key::default();
        key.set(slot::IN_PORT, self.port.into());
        extract(&mut key, head, len, self.vlans, self.depth);
        key
    }

    /// The mask of a shape that frames begin to have.
    #[cold]
    fn learn(&mut self, shape: Shape) -> Option<&Line> {
        let found = self.find_mask(shape);
        let mask = self.masks.get_mut(usize::from(shape.0))?;
        if *mask == Mask::Unknown {
            *mask = found.map_or(Mask::TooLong, Mask::Bits);
        }
        if let Mask::Bits(mask) = mask { Some(mask) } else { None }
    }

    /// Which bits of frames of a shape count, if they are all among those that are seen.
    fn find_mask(&self, shape: Shape) -> Option<Line> {
        let frame = sample(shape);
        let relevant = shape.kind().and_then(|kind| self.kinds.get(kind)).unwrap_or(&self.relevant);
        let relevant_of = |frame: &[u8]| {
            let mut key = self.key(frame, frame.len());
            key.0.iter_mut().zip(&relevant.0).for_each(|(word, bits)| *word &= bits);
            key
        };
        let own = relevant_of(&frame);
        // Whether a frame of which these bits are others has another key; `None`: it has another shape.
        let differs = |at: usize, bits: u8| {
            let mut other = frame;
            *other.get_mut(at)? ^= bits;
            let found = Shape::of(other.first_chunk()?, &other, SAMPLE, self.depth)?;
            (found == shape).then(|| relevant_of(&other) != own)
        };
        let mut counts = [0; SAMPLE];
        for (at, byte) in counts.iter_mut().enumerate() {
            // Where all bits together make no difference, none does.
            if differs(at, u8::MAX) != Some(false) {
                let bits = (0..8).map(|bit| 1 << bit);
                *byte = bits.filter(|bit| differs(at, *bit) == Some(true)).sum();
            }
        }
        for at in shape.telling() {
            *counts.get_mut(at)? = u8::MAX;
        }
        let (seen, beyond) = counts.split_first_chunk()?;
        let mut mask = PLACES.map(|place| word_at(seen, place));
        mask[PORT_WORD] &= !u64::from(u32::MAX);
        beyond.iter().all(|byte| *byte == 0).then_some(mask)
    }
}

/// The bytes by which a frame is known to be of the shape of a number, if all of them are seen.
fn looked_at(shape: u8) -> Option<Line> {
    let mut seen = [0; SEEN];
    for at in Shape(shape).looked_at()? {
        *seen.get_mut(at)? = u8::MAX;
    }
    Some(PLACES.map(|place| word_at(&seen, place)))
}

/// Pairs of words of a line, as they lie in a frame.
const WIDE_PLACES: [usize; LINE / 2] = [PLACES[0], PLACES[2], PLACES[4], PLACES[6]];

/// The same without the first, of which it is known of a burst whether it is the same in all frames.
const FAR_PLACES: [usize; LINE / 2 - 1] = [PLACES[2], PLACES[4], PLACES[6]];

/// The same without the last, either.
const MIDDLE_PLACES: [usize; LINE / 2 - 2] = [PLACES[2], PLACES[4]];

/// The bytes of the last of them that are in the one before.
const OVERLAP: u32 = u32::MAX;
const _: () = assert!(WIDE_PLACES[3] + 4 == WIDE_PLACES[2] + 16);

fn wide(line: &Line) -> [u128; LINE / 2] {
    let (pairs, _) = line.as_chunks();
    std::array::from_fn(|at| {
        let [low, high] = pairs.get(at).copied().unwrap_or_default();
        u128::from(high) << 64 | u128::from(low)
    })
}

#[inline(always)]
fn wide_at(seen: &Seen, place: usize) -> u128 {
    let bytes = seen.get(place..).and_then(|rest| rest.first_chunk());
    u128::from_le_bytes(bytes.copied().unwrap_or_default())
}

#[inline(always)]
fn word_at(seen: &Seen, place: usize) -> u64 {
    let bytes = seen.get(place..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(bytes.copied().unwrap_or_default())
}

/// As long as all headers of any shape, and options that bits of lengths may speak of.
const SAMPLE: usize = 128;

/// A frame of a shape of which all else is zero.
fn sample(shape: Shape) -> [u8; SAMPLE] {
    let at = shape.network();
    let mut frame = [0; SAMPLE];
    let mut put = |at: usize, bytes: &[u8]| {
        frame.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    if shape.0 & TAGGED != 0 {
        put(12, &VLAN.to_be_bytes());
    }
    let carried = shape.0 & !TAGGED;
    let rest = |header: usize| u16::try_from(SAMPLE - at - header).unwrap_or_default();
    let proto = match carried & !SIX {
        TCP => 6,
        UDP => 17,
        _ if carried & SIX != 0 => 58,
        _ => 1,
    };
    match carried {
        // For local experiments.
        LINK => put(at - 2, &[0x88, 0xB5]),
        SIX.. => {
            put(at - 2, &IPV6.to_be_bytes());
            put(at + 4, &rest(40).to_be_bytes());
            put(at + 6, &[proto]);
            put(at + 52, if proto == 6 { &[0x50] } else { &[] });
        }
        _ => {
            put(at - 2, &IPV4.to_be_bytes());
            put(at, &[0x45]);
            put(at + 2, &rest(0).to_be_bytes());
            put(at + 9, &[proto]);
            put(at + 32, if proto == 6 { &[0x50] } else { &[] });
        }
    }
    frame
}

#[cfg(test)]
mod tests;
