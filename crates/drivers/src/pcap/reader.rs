//! Reading capture files: pcap in all its byte orders and time units, and pcapng.
//!
//! Files are not trusted: what cannot be read ends the file with one message, and no length in
//! a file leads to more than the buffer made here.
//!
//! Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::fmt;
use std::io::{ErrorKind, Read};

/// The largest record that can be read, with all that belongs to it.
const BUFFER: usize = 1 << 18;

/// Interfaces in one section of a pcapng file: many more than any capture has.
const MAX_INTERFACES: usize = 1024;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

/// How a pcap file begins: with times in microseconds, in nanoseconds, and with more to each record.
const PCAP: [u32; 3] = [0xA1B2_C3D4, 0xA1B2_3C4D, PCAP_MORE];
const PCAP_MORE: u32 = 0xA1B2_CD34;

/// Bytes of a pcap file's header, and where the link type is there.
const PCAP_HEADER: usize = 24;
const LINK_TYPE: usize = 20;

/// Kinds of pcapng's blocks; that of a section is the same in either byte order.
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

/// Says which byte order a section has.
const BYTE_ORDER: u32 = 0x1A2B_3C4D;

/// Kind and length at a block's start, and the length once more at its end.
const BLOCK_HEAD: usize = 8;
const BLOCK_TAIL: usize = 4;

/// One step through a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame, of so many bytes.
    Frame(usize),
    /// A frame that is longer than the room for it.
    TooLong,
    /// Something that is no Ethernet frame.
    Other,
    /// The end of the file, or of what can be read of it.
    End,
}

/// How a file says what it has.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// pcap: a frame follows so many bytes about it.
    Pcap(usize),
    Pcapng,
}

/// A capture file that is being read.
pub(crate) struct CaptureReader {
    window: Window,
    format: Format,
    numbers: Numbers,
    /// For each interface of the section, whether its frames are Ethernet frames; one for all
    /// in a pcap file.
    ethernet: Vec<bool>,
    /// For messages.
    name: String,
    /// Records so far, for messages.
    records: u64,
    ended: bool,
}

impl CaptureReader {
    /// Starts reading; `name` is for messages. The error is the reason, for people.
    pub(crate) fn new(name: &str, file: impl Read + Send + 'static) -> Result<Self, String> {
        let mut window = Window { file: Box::new(file), bytes: vec![0; BUFFER], start: 0, end: 0 };
        let header = window.ahead(PCAP_HEADER).map_err(|_| "the file cannot be read")?;
        if header.is_empty() {
            return Err("the file is empty".to_owned());
        }
        let name = name.to_owned();
        let mut reader = Self {
            window,
            format: Format::Pcapng,
            numbers: Numbers::LITTLE,
            ethernet: Vec::new(),
            name,
            records: 0,
            ended: false,
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// A pcap file has one header, which must say Ethernet; a pcapng file may mix.
    fn read_header(&mut self) -> Result<(), String> {
        let header = self.window.ahead(PCAP_HEADER).unwrap_or_default();
        let short = || "the file ends within its header".to_owned();
        if self.numbers.u32_at(header, 0).ok_or_else(short)? == SECTION {
            return Ok(());
        }
        let is_pcap = |magic: &u32| PCAP.contains(magic);
        let begins = |order: Numbers| Some((order, order.u32_at(header, 0).filter(is_pcap)?));
        let begun = Numbers::BOTH.into_iter().find_map(begins);
        let (numbers, magic) = begun.ok_or("this is no capture file (neither pcap nor pcapng)")?;
        let link_type = numbers.u32_at(header, LINK_TYPE).ok_or_else(short)?;
        if !is_ethernet(link_type) {
            return Err(format!("its frames are no Ethernet frames (link type {link_type})"));
        }
        self.window.skip(PCAP_HEADER);
        self.format = Format::Pcap(if magic == PCAP_MORE { 24 } else { 16 });
        (self.numbers, self.ethernet) = (numbers, vec![true]);
        Ok(())
    }

    /// Reads on: a frame goes to `to`, anything else is told. Costs little where it reads from
    /// the buffer, and a read of up to 256 KiB otherwise.
    pub(crate) fn step(&mut self, to: &mut [u8]) -> Step {
        if self.ended {
            return Step::End;
        }
        let step = match self.format {
            Format::Pcap(header) => self.record(header, to),
            Format::Pcapng => self.block(to),
        };
        match step {
            Ok(Some(step)) => {
                self.records = self.records.wrapping_add(1);
                step
            }
            Ok(None) => {
                self.ended = true;
                Step::End
            }
            Err(reason) => self.end(reason),
        }
    }

    /// The next record of a pcap file; `None` at its end.
    fn record(&mut self, header: usize, to: &mut [u8]) -> Result<Option<Step>, &'static str> {
        let head = self.window.ahead(header)?;
        if head.is_empty() {
            return Ok(None);
        }
        let len = self.numbers.u32_at(head, 8).ok_or(CUT_OFF)?;
        let len = usize::try_from(len).map_err(|_| TOO_LONG)?;
        let size = len.checked_add(header).ok_or(TOO_LONG)?;
        let record = whole(self.window.ahead(size)?, size)?;
        let step = take(record.get(header..).unwrap_or_default(), len, to);
        self.window.skip(size);
        Ok(Some(step))
    }

    /// The next block of a pcapng file; `None` at its end.
    fn block(&mut self, to: &mut [u8]) -> Result<Option<Step>, &'static str> {
        let head = self.window.ahead(BLOCK_HEAD + BLOCK_TAIL)?;
        if head.is_empty() {
            return Ok(None);
        }
        if self.numbers.u32_at(head, 0) == Some(SECTION) {
            let is_right = |order: &Numbers| order.u32_at(head, BLOCK_HEAD) == Some(BYTE_ORDER);
            self.numbers = Numbers::BOTH.into_iter().find(is_right).ok_or(SENSELESS)?;
            self.ethernet.clear();
        }
        let kind = self.numbers.u32_at(head, 0).ok_or(CUT_OFF)?;
        let size = self.numbers.u32_at(head, 4).ok_or(CUT_OFF)?;
        let len = usize::try_from(size).map_err(|_| TOO_LONG)?;
        let block = whole(self.window.ahead(len)?, len)?;
        let body = block.get(BLOCK_HEAD..len.saturating_sub(BLOCK_TAIL)).ok_or(SENSELESS)?;
        let tail = self.numbers.u32_at(block, len.saturating_sub(BLOCK_TAIL));
        if !len.is_multiple_of(4) || tail != Some(size) {
            return Err(SENSELESS);
        }
        let step = take_block(kind, body, self.numbers, &mut self.ethernet, to).ok_or(SENSELESS)?;
        self.window.skip(len);
        Ok(Some(step))
    }

    fn end(&mut self, reason: &str) -> Step {
        let (name, records) = (&self.name, self.records);
        tracing::error!("capture file '{name}' ends after record {records}: {reason}");
        self.ended = true;
        Step::End
    }
}

/// Why a file ends before its time.
const CUT_OFF: &str = "the next record is cut off";
const TOO_LONG: &str = "the next record is too long to be one";
const SENSELESS: &str = "the next record makes no sense";

/// All of a record, if it is there.
fn whole(bytes: &[u8], len: usize) -> Result<&[u8], &'static str> {
    if bytes.len() == len { Ok(bytes) } else { Err(CUT_OFF) }
}

/// The link type, without the flags that a pcap header keeps in the upper half.
const fn is_ethernet(link_type: u32) -> bool {
    link_type & 0xFFFF == ETHERNET
}

/// Takes the frame, or what is told about interfaces, out of a block; `None` where it makes no sense.
fn take_block(
    kind: u32,
    body: &[u8],
    numbers: Numbers,
    ethernet: &mut Vec<bool>,
    to: &mut [u8],
) -> Option<Step> {
    let (interface, len, data) = match kind {
        PACKET => (numbers.u32_at(body, 0)?, numbers.u32_at(body, 12)?, body.get(20..)?),
        SIMPLE_PACKET => (0, numbers.u32_at(body, 0)?, body.get(4..)?),
        INTERFACE => {
            if ethernet.len() < MAX_INTERFACES {
                ethernet.push(is_ethernet(numbers.u16_at(body, 0)?.into()));
            }
            return Some(Step::Other);
        }
        _ => return Some(Step::Other),
    };
    let len = usize::try_from(len).ok()?;
    if kind == PACKET && len > data.len() {
        return None;
    }
    if ethernet.get(usize::try_from(interface).ok()?) != Some(&true) {
        return Some(Step::Other);
    }
    // The data may be padded, and a simple packet may be cut short.
    Some(take(data, len.min(data.len()), to))
}

/// Takes a frame of `len` bytes, where there is room for it.
fn take(data: &[u8], len: usize, to: &mut [u8]) -> Step {
    match (to.get_mut(..len), data.get(..len)) {
        (Some(to), Some(data)) => {
            to.copy_from_slice(data);
            Step::Frame(len)
        }
        _ => Step::TooLong,
    }
}

/// How numbers are written.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    is_big_endian: bool,
}

impl Numbers {
    const LITTLE: Self = Self { is_big_endian: false };
    const BOTH: [Self; 2] = [Self::LITTLE, Self { is_big_endian: true }];

    fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        let number = *bytes.get(at..)?.first_chunk()?;
        let is_big_endian = self.is_big_endian;
        Some(if is_big_endian { u32::from_be_bytes(number) } else { u32::from_le_bytes(number) })
    }

    fn u16_at(self, bytes: &[u8], at: usize) -> Option<u16> {
        let number = *bytes.get(at..)?.first_chunk()?;
        let is_big_endian = self.is_big_endian;
        Some(if is_big_endian { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) })
    }
}

/// The part of a file that is being looked at.
struct Window {
    file: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    /// Which of them have been read and not been skipped.
    start: usize,
    end: usize,
}

impl Window {
    /// The next `len` bytes, or as many as there are before the end of the file.
    fn ahead(&mut self, len: usize) -> Result<&[u8], &'static str> {
        if self.end - self.start < len {
            self.fill(len)?;
        }
        let there = self.bytes.get(self.start..self.end).unwrap_or_default();
        Ok(there.get(..len).unwrap_or(there))
    }

    /// Reads until `len` bytes are there, if so many come.
    fn fill(&mut self, len: usize) -> Result<(), &'static str> {
        if len > self.bytes.len() {
            return Err(TOO_LONG);
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < len {
            match self.file.read(self.bytes.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err("it cannot be read any further"),
            }
        }
        Ok(())
    }

    /// Goes on behind `len` bytes that are there.
    fn skip(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
    }
}

impl fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureReader")
            .field("name", &self.name)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}
