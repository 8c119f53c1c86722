//! Blocks, added to bytes that somebody else writes.

use super::{
    BYTE_ORDER, Direction, EPB_DROPCOUNT, EPB_FLAGS, ETHERNET, IF_DESCRIPTION, IF_FILTER, IF_NAME,
    IF_TSRESOL, INTERFACE, ISB_ENDTIME, ISB_IFDROP, ISB_USRDELIV, OPT_COMMENT, PACKET, Packet,
    SECTION, SHB_USERAPPL, STATISTICS, Statistics,
};

/// The longest value of an option here, in bytes; texts are cut.
const MAX_VALUE: usize = 1024;

/// An interface of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface<'i> {
    /// Its name.
    pub name: &'i str,
    /// What it is.
    pub description: &'i str,
    /// The filter that its frames have passed, as text.
    pub filter: Option<&'i str>,
    /// The most bytes of a frame that are kept.
    pub snaplen: u32,
}

/// A block that is being written: its length is known when it is finished.
struct Open<'b> {
    bytes: &'b mut Vec<u8>,
    start: usize,
}

impl<'b> Open<'b> {
    fn new(bytes: &'b mut Vec<u8>, kind: u32) -> Self {
        let start = bytes.len();
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        Self { bytes, start }
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    /// A time, its high half first.
    fn time(&mut self, time: u64) {
        self.bytes.extend(halves(time));
    }

    /// Bytes, filled up to a multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let pad = bytes.len().wrapping_neg() % 4;
        self.bytes.extend([0; 3].iter().take(pad));
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        self.u16(code);
        self.u16(u16::try_from(value.len()).unwrap_or_default());
        self.padded(value);
    }

    fn text(&mut self, code: u16, text: &str) {
        let room = text.len().min(MAX_VALUE);
        // Where it is cut, a character ends.
        let kept = (0..=room).rev().find_map(|end| text.get(..end)).unwrap_or_default();
        if !kept.is_empty() {
            self.option(code, kept.as_bytes());
        }
    }

    /// Writes the end of the options where there are any (`has_options`), and the length, which is
    /// that of a frame and some options at most.
    fn finish(mut self, has_options: bool) {
        if has_options {
            self.u32(0);
        }
        let len = self.bytes.len().saturating_sub(self.start).saturating_add(4);
        let len = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let place = self.bytes.get_mut(self.start.saturating_add(4)..);
        if let Some(place) = place.and_then(|rest| rest.first_chunk_mut()) {
            *place = len;
        }
        self.bytes.extend(len);
    }
}

fn halves(value: u64) -> impl Iterator<Item = u8> {
    let [a, b, c, d, low @ ..] = value.to_be_bytes();
    let (mut high, mut low) = ([a, b, c, d], low);
    high.reverse();
    low.reverse();
    high.into_iter().chain(low)
}

/// Begins a file, or a part of one with interfaces of its own, written by `program`.
pub fn section(bytes: &mut Vec<u8>, program: &str) {
    let mut block = Open::new(bytes, SECTION);
    block.u32(BYTE_ORDER);
    // Version 1.0, and a length that nobody knows yet.
    block.u16(1);
    block.u16(0);
    block.u32(u32::MAX);
    block.u32(u32::MAX);
    block.text(SHB_USERAPPL, program);
    block.finish(true);
}

/// Tells of an interface; the first of a section has number 0.
pub fn interface(bytes: &mut Vec<u8>, interface: &Interface<'_>) {
    let mut block = Open::new(bytes, INTERFACE);
    block.u16(ETHERNET);
    block.u16(0);
    block.u32(interface.snaplen);
    block.text(IF_NAME, interface.name);
    block.text(IF_DESCRIPTION, interface.description);
    // 10^-9 seconds.
    block.option(IF_TSRESOL, &[9]);
    if let Some(filter) = interface.filter {
        // 0: it is the text of a libpcap filter.
        block.text(IF_FILTER, &format!("\0{filter}"));
    }
    block.finish(true);
}

/// Adds a frame.
pub fn packet(bytes: &mut Vec<u8>, packet: &Packet<'_>) {
    let mut block = Open::new(bytes, PACKET);
    block.u32(packet.interface);
    block.time(packet.time);
    block.u32(u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX));
    block.u32(packet.len);
    block.padded(packet.bytes);
    if let Some(direction) = packet.direction {
        let flags = match direction {
            Direction::In => 1_u32,
            Direction::Out => 2,
        };
        block.option(EPB_FLAGS, &flags.to_le_bytes());
    }
    if packet.lost > 0 {
        block.option(EPB_DROPCOUNT, &packet.lost.to_le_bytes());
    }
    block.text(OPT_COMMENT, packet.comment.unwrap_or_default());
    block.finish(packet.direction.is_some() || packet.lost > 0 || packet.comment.is_some());
}

/// Tells what was counted of an interface.
pub fn statistics(bytes: &mut Vec<u8>, statistics: &Statistics) {
    let mut block = Open::new(bytes, STATISTICS);
    block.u32(statistics.interface);
    block.time(statistics.time);
    let time: Vec<u8> = halves(statistics.time).collect();
    block.option(ISB_ENDTIME, &time);
    block.option(ISB_IFDROP, &statistics.missed.to_le_bytes());
    block.option(ISB_USRDELIV, &statistics.captured.to_le_bytes());
    block.finish(true);
}
