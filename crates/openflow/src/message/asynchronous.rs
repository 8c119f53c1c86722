//! Which messages a controller wants unasked, by their reasons.

use super::{Form, Kind, Message, Raw};
use crate::action::wire::property;
use crate::error::ErrorCode;
use crate::packet_in::Reason;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Kinds of messages that come unasked, in the order of the specification's properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Packets.
    PacketIn = 0,
    /// Changes of ports.
    PortStatus = 1,
    /// Rules that are gone.
    FlowRemoved = 2,
    /// Changes of the controller's role.
    RoleStatus = 3,
    /// Changes of tables.
    TableStatus = 4,
    /// Changes of groups and meters by others.
    RequestForward = 5,
}

const KINDS: usize = 6;

/// NXT_SET_ASYNC_CONFIG2.
const SET_ASYNC_CONFIG2: u32 = 27;

/// Packets go to the controller because no rule is for them.
pub const NO_MATCH: u32 = 0;

/// No rule is for them, and none says that they go there.
const EXPLICIT_MISS: u32 = 6;

/// As before, with tables that send what they have no rule for.
const IMPLICIT_MISS: u32 = 7;

/// Bits of reasons that a version has, by kind.
const fn allowed(kind: Unasked, version: Version) -> u32 {
    match kind {
        Unasked::PacketIn if matches!(version, Version::V14 | Version::V15) => 0x3f,
        Unasked::PacketIn | Unasked::PortStatus | Unasked::RoleStatus => 0x07,
        Unasked::FlowRemoved => 0x3f,
        Unasked::TableStatus => 0x18,
        Unasked::RequestForward => 0x03,
    }
}

impl Unasked {
    /// All of them.
    pub const ALL: [Self; KINDS] = [
        Self::PacketIn,
        Self::PortStatus,
        Self::FlowRemoved,
        Self::RoleStatus,
        Self::TableStatus,
        Self::RequestForward,
    ];
}

/// The three that messages of OpenFlow 1.3 and Nicira's have.
const LEGACY: [Unasked; 3] = [Unasked::PacketIn, Unasked::PortStatus, Unasked::FlowRemoved];

/// What a controller wants: bits of reasons for each kind, as primary or equal, and as secondary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsyncConfig {
    primary: [u32; KINDS],
    secondary: [u32; KINDS],
}

impl AsyncConfig {
    /// What a controller gets that has asked for nothing else.
    #[must_use]
    pub fn default_of(version: Version) -> Self {
        let mut config = Self::default();
        let misses = match version {
            Version::V10 | Version::V11 | Version::V12 => 1 << EXPLICIT_MISS | 1 << IMPLICIT_MISS,
            _ => 1 << EXPLICIT_MISS,
        };
        // All but packets whose time has run out.
        config.set(Unasked::PacketIn, true, 0x3b | misses);
        config.set(Unasked::PortStatus, true, 0x07);
        config.set(Unasked::PortStatus, false, 0x07);
        config.set(
            Unasked::FlowRemoved,
            true,
            match version {
                Version::V10 | Version::V11 | Version::V12 => 0x07,
                Version::V13 => 0x0f,
                Version::V14 | Version::V15 => 0x3f,
            },
        );
        config
    }

    /// Whether messages of this kind are wanted for this reason.
    #[must_use]
    pub fn wants(&self, kind: Unasked, is_secondary: bool, reason: u32) -> bool {
        let masks = if is_secondary { &self.secondary } else { &self.primary };
        let mask = masks.get(kind as usize).copied().unwrap_or(0);
        mask.checked_shr(reason).is_some_and(|mask| mask & 1 != 0)
    }

    /// Whether packets whose time has run out are wanted, as versions before 1.3 say by a flag of the
    /// configuration.
    pub fn set_invalid_ttl(&mut self, wanted: bool) {
        let bit = 1 << u32::from(Reason::INVALID_TTL.0);
        let mask = self.get(Unasked::PacketIn, true) & !bit;
        self.set(Unasked::PacketIn, true, if wanted { mask | bit } else { mask });
    }

    /// Has it be told of messages of this kind for these reasons, a bit for each: as primary or equal, or as
    /// secondary.
    pub fn set(&mut self, kind: Unasked, primary: bool, mask: u32) {
        let masks = if primary { &mut self.primary } else { &mut self.secondary };
        if let Some(place) = masks.get_mut(kind as usize) {
            *place = mask;
        }
    }

    /// The reasons for which it is told of messages of this kind, a bit for each.
    #[must_use]
    pub fn get(&self, kind: Unasked, primary: bool) -> u32 {
        let masks = if primary { &self.primary } else { &self.secondary };
        masks.get(kind as usize).copied().unwrap_or(0)
    }

    /// Takes a mask of a message.
    fn take(&mut self, version: Version, kind: Unasked, primary: bool, mask: u32) {
        let mut mask = mask & allowed(kind, version);
        if kind == Unasked::PacketIn && mask & (1 << NO_MATCH) != 0 {
            mask |= 1 << EXPLICIT_MISS;
            if version < Version::V13 {
                mask |= 1 << IMPLICIT_MISS;
            }
        }
        self.set(kind, primary, mask);
    }

    /// Versions that know no other reasons of rules mean all of them.
    fn take_kindred(&mut self, version: Version) {
        for primary in [true, false] {
            let mask = self.get(Unasked::PacketIn, primary);
            if version < Version::V14 && mask & (1 << Reason::ACTION.0) != 0 {
                let kindred = [Reason::ACTION_SET, Reason::GROUP, Reason::PACKET_OUT];
                let all = kindred.iter().fold(mask, |mask, reason| mask | 1 << reason.0);
                self.set(Unasked::PacketIn, primary, all);
            }
        }
    }

    /// Changes it as a message asks for that sets it.
    ///
    /// # Errors
    /// `OFPACFC_INVALID` if a version does not have such a reason, `OFPACFC_UNSUPPORTED` if there
    /// is no such kind; `OFPBPC_BAD_LEN`, `OFPBRC_BAD_LEN`. Then nothing is changed.
    pub fn change(&mut self, message: &Raw<'_>) -> Result<(), ErrorCode> {
        let mut made = self.with(message)?;
        made.take_kindred(message.version);
        *self = made;
        Ok(())
    }

    /// What a message says that sets it, or that answers how it is set.
    ///
    /// # Errors
    /// Those of [`change`](Self::change); in an answer, what is not known is passed over.
    pub fn decode(message: &Raw<'_>) -> Result<Self, ErrorCode> {
        Self::default().with(message)
    }

    /// This one, as a message changes it.
    fn with(self, message: &Raw<'_>) -> Result<Self, ErrorCode> {
        let (version, mut reader) = (message.version, Reader::new(message.body));
        if !Self::has_properties(message) {
            let mut made = Self::default();
            for kind in LEGACY {
                made.take(version, kind, true, reader.u32()?);
                made.take(version, kind, false, reader.u32()?);
            }
            return Ok(made);
        }
        let (mut made, is_answer) = (self, message.kind == Kind::GetAsyncReply);
        while !reader.is_empty() {
            let (number, mut value) = property(&mut reader)?;
            let Some(kind) = Unasked::ALL.get(usize::from(number / 2)) else {
                if is_answer {
                    continue;
                }
                return Err(ErrorCode::AcfcUnsupported);
            };
            let mask = value.u32().map_err(|_| ErrorCode::BpcBadLen)?;
            if !value.is_empty() {
                return Err(ErrorCode::BpcBadLen);
            }
            if mask & !allowed(*kind, version) != 0 && !is_answer {
                return Err(ErrorCode::AcfcInvalid);
            }
            made.take(version, *kind, number % 2 == 1, mask);
        }
        Ok(made)
    }

    /// Whether a message that sets it has properties: from OpenFlow 1.4, and Nicira's second one.
    #[must_use]
    pub const fn has_properties(message: &Raw<'_>) -> bool {
        match message.form {
            Form::Nx => message.number == SET_ASYNC_CONFIG2,
            _ => matches!(message.version, Version::V14 | Version::V15),
        }
    }

    /// The answer to GET_ASYNC_REQUEST.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::GetAsyncReply, xid);
        self.encode_body(version, version >= Version::V14, message.body());
        message.finish()
    }

    /// Appends what an answer says, or a message that sets it, which may have properties.
    pub fn encode_body(&self, version: Version, has_properties: bool, out: &mut Vec<u8>) {
        let mask = |kind, primary| self.get(kind, primary) & allowed(kind, version);
        if !has_properties {
            for kind in LEGACY {
                out.u32(mask(kind, true));
                out.u32(mask(kind, false));
            }
            return;
        }
        for (kind, number) in Unasked::ALL.into_iter().zip((0..).step_by(2)) {
            for (primary, number) in [(false, number), (true, number + 1)] {
                out.u16(number);
                out.u16(8);
                out.u32(mask(kind, primary));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Debian's Open vSwitch answers who has asked for nothing.
    #[test]
    fn defaults_are_those_of_open_vswitch() {
        let bytes = AsyncConfig::default_of(Version::V14).encode(Version::V14, 7);
        let masks: Vec<u8> = bytes[8..].chunks(8).map(|property| property[7]).collect();
        assert_eq!(masks, [0, 0x3b, 7, 7, 0, 0x3f, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes.len(), 0x68);
    }

    fn raw(version: Version, form: Form, number: u32, body: &[u8]) -> Raw<'_> {
        Raw { version, xid: 1, kind: Kind::SetAsyncConfig, form, number, more: false, body }
    }

    #[test]
    fn what_is_written_sets_the_same() {
        for version in [Version::V13, Version::V14, Version::V15] {
            let config = AsyncConfig::default_of(version);
            let bytes = config.encode(version, 1);
            let mut read = AsyncConfig::default();
            read.change(&raw(version, Form::Of, 28, &bytes[8..])).unwrap();
            assert_eq!(read.encode(version, 1), bytes);
            assert!(read.wants(Unasked::FlowRemoved, false, 2));
            assert!(!read.wants(Unasked::FlowRemoved, true, 2));
            assert!(!read.wants(Unasked::PacketIn, false, 99));
        }
    }

    #[test]
    fn versions_with_fewer_reasons_mean_all_that_they_stand_for() {
        let mut body = [0; 24];
        body[3] = 1 << Reason::ACTION.0;
        for version in [Version::V10, Version::V13] {
            let mut config = AsyncConfig::default_of(version);
            config.change(&raw(version, Form::Nx, 19, &body)).unwrap();
            for reason in [Reason::ACTION_SET, Reason::GROUP, Reason::PACKET_OUT] {
                assert!(config.wants(Unasked::PacketIn, false, reason.0.into()), "{version}");
            }
            assert!(!config.wants(Unasked::PacketIn, false, Reason::NO_MATCH.0.into()));
        }
    }

    #[test]
    fn what_is_unknown_changes_nothing() {
        let mut config = AsyncConfig::default_of(Version::V14);
        let before = config;
        for (last, error) in [
            ([0, 12, 0, 8, 0, 0, 0, 0], ErrorCode::AcfcUnsupported),
            ([0, 2, 0, 8, 0, 0, 0, 8], ErrorCode::AcfcInvalid),
            ([0, 2, 0, 6, 0, 0, 0, 0], ErrorCode::BpcBadLen),
        ] {
            let body = [[0, 1, 0, 8, 0, 0, 0, 1], last].concat();
            assert_eq!(config.change(&raw(Version::V14, Form::Of, 28, &body)), Err(error));
        }
        assert_eq!(config, before);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..40), second: bool) {
            let number = if second { SET_ASYNC_CONFIG2 } else { 19 };
            let _ = AsyncConfig::default().change(&raw(Version::V10, Form::Nx, number, &body));
        }
    }
}
