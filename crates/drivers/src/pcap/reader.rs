//! Reading capture files: pcap in all its byte orders and time units, and pcapng.
//!
//! Files are not trusted: what cannot be read ends the file with one message, and no length in
//! a file leads to more than the buffer made here.
//!
//! Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::fmt;
use std::io::Read;

use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// The largest record that can be read, with all that belongs to it.
const BUFFER: usize = 1 << 18;

/// Interfaces in one section of a pcapng file: many more than any capture has.
const MAX_INTERFACES: usize = 1024;

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

/// A capture file that is being read.
pub(crate) struct CaptureReader {
    parser: Box<dyn PcapReaderIterator + Send>,
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
        let parser = create_reader(BUFFER, file).map_err(|error| match error {
            PcapError::Eof => "the file is empty".to_owned(),
            PcapError::ReadError => "the file cannot be read".to_owned(),
            PcapError::Incomplete(_) => "the file ends within its header".to_owned(),
            _ => "this is no capture file (neither pcap nor pcapng)".to_owned(),
        })?;
        let mut reader =
            Self { parser, ethernet: Vec::new(), name: name.to_owned(), records: 0, ended: false };
        reader.read_pcap_header()?;
        Ok(reader)
    }

    /// A pcap file has one header, which must say Ethernet; a pcapng file may mix.
    fn read_pcap_header(&mut self) -> Result<(), String> {
        let (offset, link_type) = match self.parser.next() {
            Ok((offset, PcapBlockOwned::LegacyHeader(header))) => (offset, header.network),
            _ => return Ok(()),
        };
        if !is_ethernet(link_type) {
            return Err(format!("its frames are no Ethernet frames (link type {})", link_type.0));
        }
        self.parser.consume(offset);
        self.ethernet.push(true);
        Ok(())
    }

    /// Reads on: a frame goes to `to`, anything else is told. Costs little where it reads from
    /// the buffer, and a read of up to 256 KiB otherwise.
    pub(crate) fn step(&mut self, to: &mut [u8]) -> Step {
        // A record that is not yet complete may need several reads.
        for _ in 0..BUFFER {
            if self.ended {
                break;
            }
            match self.parser.next() {
                Ok((0, _)) => return self.end("it has a record without length"),
                Ok((offset, block)) => {
                    let step = take(&block, &mut self.ethernet, to);
                    drop(block);
                    self.parser.consume(offset);
                    self.records = self.records.wrapping_add(1);
                    return step;
                }
                Err(PcapError::Incomplete(_)) => {
                    let before = self.parser.data().len();
                    if self.parser.refill().is_err() {
                        return self.end("it cannot be read any further");
                    }
                    if self.parser.data().len() == before && !self.parser.reader_exhausted() {
                        return self.end("the next record is too long to be one");
                    }
                }
                Err(PcapError::Eof) => self.ended = true,
                Err(error) => {
                    let reason = explain(&error);
                    return self.end(reason);
                }
            }
        }
        self.ended = true;
        Step::End
    }

    fn end(&mut self, reason: &str) -> Step {
        let (name, records) = (&self.name, self.records);
        tracing::error!("capture file '{name}' ends after record {records}: {reason}");
        self.ended = true;
        Step::End
    }
}

fn explain<I>(error: &PcapError<I>) -> &'static str {
    match error {
        PcapError::UnexpectedEof => "the next record is cut off",
        PcapError::BufferTooSmall => "the next record is too long to be one",
        PcapError::ReadError => "it cannot be read any further",
        _ => "the next record makes no sense",
    }
}

/// The link type, without the flags that a pcap header keeps in the upper half.
const fn is_ethernet(link_type: Linktype) -> bool {
    link_type.0 & 0xFFFF == Linktype::ETHERNET.0
}

/// Takes the frame, or what is told about interfaces, out of a record.
fn take(block: &PcapBlockOwned<'_>, ethernet: &mut Vec<bool>, to: &mut [u8]) -> Step {
    let (interface, data, len) = match block {
        PcapBlockOwned::Legacy(record) => (0, record.data, record.caplen),
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            (packet.if_id as usize, packet.data, packet.caplen)
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => (0, packet.data, packet.origlen),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            ethernet.clear();
            return Step::Other;
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            if ethernet.len() < MAX_INTERFACES {
                ethernet.push(is_ethernet(interface.linktype));
            }
            return Step::Other;
        }
        _ => return Step::Other,
    };
    if ethernet.get(interface) != Some(&true) {
        return Step::Other;
    }
    // The data may be padded, and a simple packet may be cut short.
    let len = data.len().min(len as usize);
    match (to.get_mut(..len), data.get(..len)) {
        (Some(to), Some(data)) => {
            to.copy_from_slice(data);
            Step::Frame(len)
        }
        _ => Step::TooLong,
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
