//! The blocks of a file.

use std::io::{self, ErrorKind, Read};

use super::{
    Direction, EPB_DROPCOUNT, EPB_FLAGS, IF_NAME, INTERFACE, ISB_IFDROP, ISB_USRDELIV, OPT_COMMENT,
    PACKET, Packet, SECTION, STATISTICS, Statistics,
};

/// The longest block that is read: a frame and all that can be said of it.
const MAX_BLOCK: usize = 1 << 20;

/// Kind and length at a block's start, and the length once more at its end.
const HEAD: usize = 8;
const TAIL: usize = 4;

/// A file that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum BrokenFile {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ends within a block.
    #[error("it ends within a block")]
    Truncated,
    /// A block's length is none.
    #[error("a block of {0} bytes")]
    Length(u32),
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block<'b> {
    /// The start of a section.
    Section,
    /// An interface, with its name.
    Interface(&'b str),
    /// A frame.
    Packet(Packet<'b>),
    /// What was counted of an interface.
    Statistics(Statistics),
    /// Anything else.
    Other,
}

/// Reads a file block by block.
#[derive(Debug)]
pub struct Blocks<R> {
    file: R,
    block: Vec<u8>,
}

impl<R: Read> Blocks<R> {
    /// Begins with the next byte of `file`.
    pub const fn new(file: R) -> Self {
        Self { file, block: Vec::new() }
    }

    /// The file itself.
    pub const fn get_ref(&self) -> &R {
        &self.file
    }

    /// Reads the next block; returns its bytes, and what they mean. `None` at the end.
    ///
    /// # Errors
    /// When there is no block.
    pub fn next_block(&mut self) -> Result<Option<(&[u8], Block<'_>)>, BrokenFile> {
        let mut head = [0; HEAD];
        if !fill(&mut self.file, &mut head)? {
            return Ok(None);
        }
        let [a, b, c, d, len @ ..] = head;
        let len = u32::from_le_bytes(len);
        let size = usize::try_from(len)
            .ok()
            .filter(|size| (HEAD + TAIL..=MAX_BLOCK).contains(size) && size.is_multiple_of(4));
        let size = size.ok_or(BrokenFile::Length(len))?;
        self.block.clear();
        self.block.extend(head);
        self.block.resize(size, 0);
        let rest = self.block.get_mut(HEAD..).unwrap_or_default();
        if !fill(&mut self.file, rest)? {
            return Err(BrokenFile::Truncated);
        }
        let body = self.block.get(HEAD..size.saturating_sub(TAIL)).unwrap_or_default();
        let block = parse(u32::from_le_bytes([a, b, c, d]), body).unwrap_or(Block::Other);
        Ok(Some((&self.block, block)))
    }
}

/// Reads as many bytes as there is room for; returns `false` at the end of the file.
fn fill(file: &mut impl Read, mut room: &mut [u8]) -> Result<bool, BrokenFile> {
    let wanted = room.len();
    while !room.is_empty() {
        match file.read(room) {
            Ok(0) if room.len() == wanted => return Ok(false),
            Ok(0) => return Err(BrokenFile::Truncated),
            Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn parse(kind: u32, body: &[u8]) -> Option<Block<'_>> {
    Some(match kind {
        SECTION => Block::Section,
        INTERFACE => {
            let name = options(body.get(8..)?).find(|(code, _)| *code == IF_NAME);
            Block::Interface(name.map_or("", |(_, name)| text(name)))
        }
        PACKET => Block::Packet(packet(body)?),
        STATISTICS => {
            let mut statistics = Statistics {
                interface: u32_at(body, 0)?,
                time: time_at(body, 4)?,
                ..Statistics::default()
            };
            for (code, value) in options(body.get(12..)?) {
                match code {
                    ISB_IFDROP => statistics.missed = number(value),
                    ISB_USRDELIV => statistics.captured = number(value),
                    _ => {}
                }
            }
            Block::Statistics(statistics)
        }
        _ => return None,
    })
}

fn packet(body: &[u8]) -> Option<Packet<'_>> {
    let kept = usize::try_from(u32_at(body, 12)?).ok()?;
    let bytes = body.get(20..)?.get(..kept)?;
    let mut packet = Packet {
        interface: u32_at(body, 0)?,
        time: time_at(body, 4)?,
        bytes,
        len: u32_at(body, 16)?,
        direction: None,
        lost: 0,
        comment: None,
    };
    let padded = kept.checked_next_multiple_of(4)?;
    for (code, value) in options(body.get(20..)?.get(padded..)?) {
        match code {
            EPB_FLAGS => {
                packet.direction = match number(value) & 3 {
                    1 => Some(Direction::In),
                    2 => Some(Direction::Out),
                    _ => None,
                }
            }
            EPB_DROPCOUNT => packet.lost = number(value),
            OPT_COMMENT => packet.comment = Some(text(value)),
            _ => {}
        }
    }
    Some(packet)
}

fn u32_at(body: &[u8], at: usize) -> Option<u32> {
    body.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn time_at(body: &[u8], at: usize) -> Option<u64> {
    let (high, low) = (u32_at(body, at)?, u32_at(body, at.checked_add(4)?)?);
    Some(u64::from(high) << 32 | u64::from(low))
}

/// The options at the end of a block.
fn options(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let ([a, b, c, d], behind) = rest.split_first_chunk()?;
        let code = u16::from_le_bytes([*a, *b]);
        let len = usize::from(u16::from_le_bytes([*c, *d]));
        let value = behind.get(..len).filter(|_| code != 0)?;
        rest = behind.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    })
}

/// A number of up to eight bytes.
fn number(value: &[u8]) -> u64 {
    let digits = value.iter().take(8).rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn text(value: &[u8]) -> &str {
    str::from_utf8(value).unwrap_or_default()
}
