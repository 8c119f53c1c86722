//! Bundles: changes that are collected and then made together.

use super::{Form, Kind, Message};
use crate::error::ErrorCode;
use crate::framing::{HEADER, Header};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// All or nothing.
pub const ATOMIC: u16 = 1 << 0;

/// In the order in which they were added.
pub const ORDERED: u16 = 1 << 1;

/// What is to become of a bundle, and the answers to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum BundleStep {
    /// Begins one.
    OpenRequest = 0,
    /// It has begun.
    OpenReply = 1,
    /// Nothing more is added.
    CloseRequest = 2,
    /// It is closed.
    CloseReply = 3,
    /// Makes all of it.
    CommitRequest = 4,
    /// It is made.
    CommitReply = 5,
    /// Forgets it.
    DiscardRequest = 6,
    /// It is forgotten.
    DiscardReply = 7,
}

impl BundleStep {
    const ALL: [Self; 8] = [
        Self::OpenRequest,
        Self::OpenReply,
        Self::CloseRequest,
        Self::CloseReply,
        Self::CommitRequest,
        Self::CommitReply,
        Self::DiscardRequest,
        Self::DiscardReply,
    ];

    /// The answer to a request.
    #[must_use]
    pub const fn reply(self) -> Option<Self> {
        match self {
            Self::OpenRequest => Some(Self::OpenReply),
            Self::CloseRequest => Some(Self::CloseReply),
            Self::CommitRequest => Some(Self::CommitReply),
            Self::DiscardRequest => Some(Self::DiscardReply),
            _ => None,
        }
    }
}

/// What is to become of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleControl {
    /// Which one, of those of the connection.
    pub id: u32,
    /// What is to become of it.
    pub step: BundleStep,
    /// [`ATOMIC`], [`ORDERED`].
    pub flags: u16,
}

impl BundleControl {
    /// Reads it.
    ///
    /// # Errors
    /// `OFPBFC_BAD_TYPE`, `OFPBFC_BAD_FLAGS`, `OFPBRC_BAD_LEN`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let (id, step, flags) = (reader.u32()?, reader.u16()?, reader.u16()?);
        let step = BundleStep::ALL.get(usize::from(step)).copied();
        let step = step.ok_or(ErrorCode::BfcBadType)?;
        Ok(Self { id, step, flags: known_flags(flags)? })
    }

    /// The whole message, as an answer to one of this form.
    #[must_use]
    pub fn encode(self, version: Version, form: Form, xid: u32) -> Vec<u8> {
        let mut message = Message::of_form(version, Kind::BundleControl, form, xid);
        let out = message.body();
        out.u32(self.id);
        out.u16(self.step as u16);
        out.u16(self.flags);
        message.finish()
    }
}

fn known_flags(flags: u16) -> Result<u16, ErrorCode> {
    if flags & !(ATOMIC | ORDERED) == 0 { Ok(flags) } else { Err(ErrorCode::BfcBadFlags) }
}

/// A message that is added to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleAdd<'a> {
    /// Which one.
    pub id: u32,
    /// As in [`BundleControl`].
    pub flags: u16,
    /// The message, with its header.
    pub message: &'a [u8],
}

impl<'a> BundleAdd<'a> {
    /// Reads it, of a message with this `xid`.
    ///
    /// # Errors
    /// `OFPBFC_BAD_FLAGS`; `OFPBFC_MSG_BAD_LEN` if the message inside is no whole one;
    /// `OFPBFC_MSG_BAD_XID` if it has another `xid`; `OFPBFC_BAD_VERSION` if it is of another
    /// version.
    pub fn decode(version: Version, xid: u32, body: &'a [u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let id = reader.u32()?;
        reader.skip(2)?;
        let flags = known_flags(reader.u16()?)?;
        let header = Header::read(reader.peek()).map_err(|_| ErrorCode::BfcMsgBadLen)?;
        let length = usize::from(header.length);
        if length < HEADER {
            return Err(ErrorCode::BfcMsgBadLen);
        }
        let message = reader.take(length).map_err(|_| ErrorCode::BfcMsgBadLen)?;
        if header.version != version.wire() {
            return Err(ErrorCode::BfcBadVersion);
        }
        if header.xid != xid {
            return Err(ErrorCode::BfcMsgBadXid);
        }
        Ok(Self { id, flags, message })
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::BundleAdd, xid);
        let out = message.body();
        out.u32(self.id);
        out.u16(0);
        out.u16(self.flags);
        out.bytes(self.message);
        message.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        for (at, step) in BundleStep::ALL.into_iter().enumerate() {
            let control = BundleControl { id: 7, step, flags: ATOMIC };
            let bytes = control.encode(Version::V14, Form::Of, 1);
            assert_eq!(BundleControl::decode(&bytes[8..]), Ok(control));
            assert_eq!(usize::from(bytes[13]), at);
            let is_request = at % 2 == 0;
            assert_eq!(step.reply().map(|reply| reply as usize), is_request.then_some(at + 1));
        }
        assert_eq!(BundleControl::decode(&[0, 0, 0, 1, 0, 8, 0, 0]), Err(ErrorCode::BfcBadType));
        assert_eq!(BundleControl::decode(&[0, 0, 0, 1, 0, 0, 0, 4]), Err(ErrorCode::BfcBadFlags));
    }

    #[test]
    fn what_is_added_is_one_message_of_the_same_number() {
        let (version, xid) = (Version::V13, 5);
        let inner = Message::new(version, Kind::BarrierRequest, xid).finish();
        let add = BundleAdd { id: 1, flags: ORDERED, message: &inner };
        let bytes = add.encode(version, xid);
        let body = &bytes[16..];
        assert_eq!(BundleAdd::decode(version, xid, body), Ok(add));
        assert_eq!(BundleAdd::decode(version, 6, body), Err(ErrorCode::BfcMsgBadXid));
        assert_eq!(BundleAdd::decode(Version::V14, 5, body), Err(ErrorCode::BfcBadVersion));
        let cut = &body[..body.len() - 1];
        assert_eq!(BundleAdd::decode(version, xid, cut), Err(ErrorCode::BfcMsgBadLen));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = BundleControl::decode(&body);
            let _ = BundleAdd::decode(Version::V14, 0, &body);
        }
    }
}
