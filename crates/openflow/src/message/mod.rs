//! Messages: what they are, and what they say.
//!
//! A message is read in two steps: [`Raw`] finds out what it is, whatever its version, and takes
//! the headers of extensions and statistics away; what is left is read by the type that stands for
//! its body.
//!
//! ```
//! use openflow::message::{Kind, Message, Raw};
//! use openflow::{ErrorCode, Version};
//!
//! let request = Message::new(Version::V13, Kind::DescRequest, 7).finish();
//! let raw = Raw::read(&request)?;
//! assert_eq!((raw.kind, raw.xid, raw.body), (Kind::DescRequest, 7, &[][..]));
//! # Ok::<(), ErrorCode>(())
//! ```
//!
//! - [`asynchronous`]: which messages a controller wants unasked
//! - [`bundle`]: changes that are made together
//! - [`config`]: settings of a connection
//! - [`continuation`]: what it takes to go on with a packet that was stopped
//! - [`features`]: what a switch can do
//! - [`flow_mod`]: changes of flows
//! - [`flow_monitor`]: controllers that are told how flows change
//! - [`flow_removed`]: that a flow has ended
//! - [`flow_stats`]: flows and their statistics
//! - `flow_text`: flows and changes of them as ovs-ofctl shows them
//! - [`flow_update`]: what such a controller is told, as he reads it
//! - [`group`]: groups: changes of them, what they are, and what they have done
//! - [`hello`]: the first message of both
//! - [`meter`]: meters: the same
//! - [`nicira`]: short messages of Open vSwitch's own
//! - `oxs`: statistics of flows as OpenFlow 1.5 has them
//! - [`packet_in`]: packets that go to controllers
//! - [`packet_out`]: packets that a controller has a switch send
//! - [`port`]: descriptions and settings of ports
//! - [`role`]: which of several controllers decides
//! - [`stats`]: what a switch tells on request
//! - [`table_mod`]: settings of tables
//! - [`ct_flush`]: connections that are to end
//! - [`tlv_table`]: options of tunnels as fields

pub mod asynchronous;
pub mod bundle;
pub mod config;
pub mod continuation;
pub mod ct_flush;
pub mod features;
pub mod flow_mod;
pub mod flow_monitor;
pub mod flow_removed;
pub mod flow_stats;
pub(crate) mod flow_text;
pub mod flow_update;
pub mod group;
pub mod hello;
mod kind;
pub mod meter;
pub mod nicira;
mod oxs;
pub mod packet_in;
pub mod packet_out;
pub mod port;
pub mod role;
pub mod stats;
pub mod table_mod;
pub mod tlv_table;
mod write;

pub use kind::Kind;
pub use write::{Message, Replies};

use crate::error::ErrorCode;
use crate::experimenter::{NICIRA, ONF};
use crate::framing::Header;
use crate::version::Version;
use crate::wire::Reader;

/// The type of extensions' messages.
const OFPT_VENDOR: u8 = 4;

/// The number of extensions among statistics.
const OFPST_VENDOR: u16 = 0xffff;

/// That more of the same request or answer follows.
const MORE: u16 = 1;

/// How a message is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// One of the specification's.
    Of,
    /// One of Nicira's.
    Nx,
    /// One of the Open Networking Foundation's.
    Onf,
    /// A request for statistics (multipart) of the specification's.
    Request,
    /// An answer to that.
    Reply,
    /// A request for statistics of Nicira's.
    NxRequest,
    /// An answer to that.
    NxReply,
    /// A request for statistics of the Open Networking Foundation's.
    OnfRequest,
    /// An answer to that.
    OnfReply,
}

/// The type of statistics of a version: of requests, or of answers to them.
const fn stats_type(version: Version, replies: bool) -> u8 {
    let request = if matches!(version, Version::V10) { 16 } else { 18 };
    if replies { request + 1 } else { request }
}

impl Form {
    /// Whether it is a request for statistics, or an answer to that.
    #[must_use]
    pub const fn is_stats(self) -> bool {
        !matches!(self, Self::Of | Self::Nx | Self::Onf)
    }

    /// Whose extension it is.
    #[must_use]
    pub const fn experimenter(self) -> Option<u32> {
        match self {
            Self::Of | Self::Request | Self::Reply => None,
            Self::Nx | Self::NxRequest | Self::NxReply => Some(NICIRA),
            Self::Onf | Self::OnfRequest | Self::OnfReply => Some(ONF),
        }
    }

    const fn is_reply(self) -> bool {
        matches!(self, Self::Reply | Self::NxReply | Self::OnfReply)
    }

    const fn of_stats(experimenter: Option<u32>, is_reply: bool) -> Option<Self> {
        Some(match (experimenter, is_reply) {
            (None, false) => Self::Request,
            (None, true) => Self::Reply,
            (Some(NICIRA), false) => Self::NxRequest,
            (Some(NICIRA), true) => Self::NxReply,
            (Some(ONF), false) => Self::OnfRequest,
            (Some(ONF), true) => Self::OnfReply,
            _ => return None,
        })
    }
}

/// A message of which it is known what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Its version.
    pub version: Version,
    /// By which an answer is known to belong to it.
    pub xid: u32,
    /// What it is.
    pub kind: Kind,
    /// How it is numbered: of some kinds there are several forms in one version.
    pub form: Form,
    /// Its number among those of this form: of some kinds there are several even there.
    pub number: u32,
    /// Whether more of the same request or answer follows.
    pub more: bool,
    /// What it says, without headers.
    pub body: &'a [u8],
}

impl<'a> Raw<'a> {
    /// Finds out what `message` is, which has its header.
    ///
    /// # Errors
    /// What is to be answered where there is no such message: `OFPBRC_BAD_VERSION`, `_BAD_TYPE`,
    /// `_BAD_STAT`, `_BAD_VENDOR` or `_BAD_SUBTYPE`; `_BAD_LEN` where its body cannot be as long.
    pub fn read(message: &'a [u8]) -> Result<Self, ErrorCode> {
        let (raw, row) = Self::find(message)?;
        if row.allows(raw.body.len()) { Ok(raw) } else { Err(ErrorCode::BrcBadLen) }
    }

    /// The same, of a message of which only the begin may be there.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), but for the length of its body.
    pub fn read_begin(message: &'a [u8]) -> Result<Self, ErrorCode> {
        Ok(Self::find(message)?.0)
    }

    fn find(message: &'a [u8]) -> Result<(Self, &'static kind::Row), ErrorCode> {
        let header = Header::read(message)?;
        let version = Version::from_wire(header.version).ok_or(ErrorCode::BrcBadVersion)?;
        let mut reader = Reader::new(message);
        reader.skip(crate::framing::HEADER)?;
        let (form, number, more) = numbering(version, header.kind, &mut reader)?;
        let is_it =
            |row: &kind::Row| (row.form, row.number) == (form, number) && row.is_in(version);
        let found = Kind::ALL
            .iter()
            .find_map(|kind| kind.rows().iter().find(|row| is_it(row)).map(|row| (*kind, row)));
        let unknown = match form {
            _ if form.experimenter().is_some() => ErrorCode::BrcBadSubtype,
            Form::Request | Form::Reply => ErrorCode::BrcBadStat,
            _ => ErrorCode::BrcBadType,
        };
        let (kind, row) = found.ok_or(unknown)?;
        let body = reader.rest();
        Ok((Self { version, xid: header.xid, kind, form, number, more, body }, row))
    }
}

/// Reads the headers behind the first one: gives the form, its number, and whether more follows.
fn numbering(
    version: Version,
    kind: u8,
    reader: &mut Reader<'_>,
) -> Result<(Form, u32, bool), ErrorCode> {
    if kind == OFPT_VENDOR {
        let form = match reader.u32()? {
            NICIRA => Form::Nx,
            ONF => Form::Onf,
            _ => return Err(ErrorCode::BrcBadVendor),
        };
        return Ok((form, reader.u32()?, false));
    }
    let is_reply = kind == stats_type(version, true);
    if !is_reply && kind != stats_type(version, false) {
        return Ok((Form::Of, u32::from(kind), false));
    }
    let (number, flags) = (reader.u16()?, reader.u16()?);
    if version > Version::V10 {
        reader.skip(4)?;
    }
    let more = flags & MORE != 0;
    if number != OFPST_VENDOR {
        let form = if is_reply { Form::Reply } else { Form::Request };
        return Ok((form, u32::from(number), more));
    }
    let experimenter = Some(reader.u32()?);
    let form = Form::of_stats(experimenter, is_reply).ok_or(ErrorCode::BrcBadVendor)?;
    let number = reader.u32()?;
    if form.experimenter() == Some(NICIRA) && version == Version::V10 {
        reader.skip(4)?;
    }
    Ok((form, number, more))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_kinds_are_found_by_what_is_written() {
        for kind in Kind::ALL.iter().copied() {
            for row in kind.rows() {
                for version in Version::ALL.into_iter().filter(|version| row.is_in(*version)) {
                    let mut message = Message::numbered(version, row.form, row.number, 0x1234);
                    message.body().extend(vec![0; row.least]);
                    let bytes = message.finish();
                    let raw = Raw::read(&bytes).unwrap_or_else(|error| {
                        panic!("{kind:?} {row:?} in {version}: {error}");
                    });
                    assert_eq!((raw.kind, raw.form), (kind, row.form), "{row:?} in {version}");
                    assert_eq!((raw.xid, raw.body.len()), (0x1234, row.least));
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_is_said_as_exactly_as_can_be() {
        let read = |bytes: &[u8]| Raw::read(bytes).unwrap_err();
        assert_eq!(read(&[9, 0, 0, 8, 0, 0, 0, 1]), ErrorCode::BrcBadVersion);
        assert_eq!(read(&[1, 99, 0, 8, 0, 0, 0, 1]), ErrorCode::BrcBadType);
        assert_eq!(read(&[1, 16, 0, 12, 0, 0, 0, 1, 0, 99, 0, 0]), ErrorCode::BrcBadStat);
        assert_eq!(read(&[1, 4, 0, 12, 0, 0, 0, 1, 1, 2, 3, 4]), ErrorCode::BrcBadVendor);
        let nicira = [1, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 9, 9];
        assert_eq!(read(&nicira), ErrorCode::BrcBadSubtype);
        assert_eq!(read(&nicira[..14]), ErrorCode::BrcBadLen);
        assert_eq!(read(&[1, 5, 0, 9, 0, 0, 0, 1, 0]), ErrorCode::BrcBadLen);
        assert_eq!(read(&[1, 0, 0]), ErrorCode::BrcBadLen);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..64), version in 1..7_u8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            let _ = Raw::read(&bytes);
        }
    }
}
