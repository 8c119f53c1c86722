//! Whole messages as people read them: as `ovs-ofctl ofp-print` shows them.
//!
//! ```
//! use openflow::message::{Kind, Message};
//! use openflow::{Version, print};
//!
//! let message = Message::new(Version::V13, Kind::BarrierRequest, 7).finish();
//! assert_eq!(print::message(&message), "OFPT_BARRIER_REQUEST (OF1.3) (xid=0x7):");
//! ```
//!
//! - `bits`: bits that have names
//! - `body`: what messages say
//! - `dump`: bytes
//! - `group`: groups and meters
//! - `limits`: how many of these there may be
//! - `name`: what messages are called
//! - `names`: names in short
//! - `port`: switches and their ports
//! - `queue`: queues, and what collectors of IPFIX are told
//! - `said`: what switches say in words
//! - `session`: settings of connections
//! - `table`: settings of tables
//! - `table_features`: what tables can do, and what they count

mod bits;
mod body;
mod dump;
mod group;
mod limits;
mod name;
mod names;
mod port;
mod queue;
mod said;
mod session;
mod table;
mod table_features;

use std::fmt::Write as _;

use bits::{Bits, Names};

use crate::framing::Header;
use crate::message::Raw;
use crate::version::Version;

/// How many bytes of a message are shown where nothing is known of it.
const SHOWN: usize = 4_096;

/// How deep messages are shown in messages: in errors about what is in bundles.
const DEEPEST: u8 = 4;

/// How much deeper it may go.
#[derive(Clone, Copy, Debug)]
struct Depth(u8);

impl Depth {
    fn deeper(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

/// A message with its header: a line, and more where it says more, without an end of the last line. Any bytes
/// are shown somehow.
#[must_use]
pub fn message(bytes: &[u8]) -> String {
    nested(bytes, Depth(DEEPEST))
}

/// The same, of a message in a message.
fn nested(bytes: &[u8], depth: Depth) -> String {
    let text = match Header::read(bytes) {
        Err(_) => {
            let about = format!("OpenFlow packet too short (only {} bytes):\n", bytes.len());
            about + &dumped(bytes)
        }
        Ok(header) if usize::from(header.length) != bytes.len() => partial(bytes, header),
        Ok(header) => whole(bytes, header, depth),
    };
    text.trim_end_matches('\n').to_owned()
}

/// A message of which there is more or less than it says.
fn partial(bytes: &[u8], header: Header) -> String {
    let (len, said) = (bytes.len(), usize::from(header.length));
    if said < len {
        return format!("(***only uses {said} bytes out of {len}***)\n") + &dumped(bytes);
    }
    let title = Raw::read_begin(bytes).map(|raw| head(&raw) + "\n").unwrap_or_default();
    format!("{title}(***truncated to {len} bytes from {said}***)\n") + &dumped(bytes)
}

fn whole(bytes: &[u8], header: Header, depth: Depth) -> String {
    let raw = match Raw::read(bytes) {
        Ok(raw) => raw,
        Err(code) => return format!("***decode error: {code}***\n") + &dumped(bytes),
    };
    let head = head(&raw);
    let mut text = String::new();
    match body::show(&mut text, &raw, header.version, depth) {
        Ok(()) => head + text.trim_end_matches(' '),
        Err(code) => {
            let text = text.trim_end_matches(' ');
            let between = if text.is_empty() { " " } else { "\n" };
            format!("{head}{text}{between}***decode error: {code}***\n") + &dumped(bytes)
        }
    }
}

/// What a message is called, its version and its number.
fn head(raw: &Raw<'_>) -> String {
    let version = match raw.version {
        Version::V10 => "",
        Version::V11 => " (OF1.1)",
        Version::V12 => " (OF1.2)",
        Version::V13 => " (OF1.3)",
        Version::V14 => " (OF1.4)",
        Version::V15 => " (OF1.5)",
    };
    let mut head = format!("{}{version} (xid={:#x}):", name::of(raw), raw.xid);
    if raw.form.is_stats() && raw.more {
        head += " flags=[more]";
    }
    head
}

/// A figure, which may not be known.
fn figure(count: u64) -> String {
    if count == u64::MAX { "?".to_owned() } else { count.to_string() }
}

/// Bytes, of which there may be many.
fn dumped(bytes: &[u8]) -> String {
    let mut text = dump::hex(bytes.get(..SHOWN).unwrap_or(bytes));
    if let Some(more) = bytes.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "(and {more} bytes more)");
    }
    text
}

#[cfg(test)]
mod tests;
