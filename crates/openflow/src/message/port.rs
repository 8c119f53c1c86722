//! Ports: what they are, that they have changed, and what of them is to be changed.

use packet::MacAddr;

use super::{Kind, Message};
use crate::action::wire::{property, unknown_property};
use crate::error::ErrorCode;
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{self, Reader, Writer as _};

/// Bytes of a port's name, of which the last is zero.
const NAME: usize = 16;

/// The property of a port, from OpenFlow 1.4, that is about Ethernet.
const ETHERNET: u16 = 0;

/// Reads a number as messages of `version` have it.
///
/// # Errors
/// `OFPBRC_BAD_LEN` if bytes are missing; `OFPBRC_BAD_PORT` if it is above those of 16 bits and not
/// reserved: no port has it.
pub fn decode_number(version: Version, reader: &mut Reader<'_>) -> Result<PortNo, ErrorCode> {
    if version == Version::V10 {
        return Ok(PortNo::from_v10(reader.u16()?));
    }
    let number = PortNo(reader.u32()?);
    number.v10().map(|_| number).ok_or(ErrorCode::BrcBadPort)
}

/// Writes a number as messages of `version` have it.
pub fn encode_number(version: Version, number: PortNo, out: &mut Vec<u8>) {
    match version {
        Version::V10 => out.u16(number.v10().unwrap_or(u16::MAX)),
        _ => out.u32(number.0),
    }
}

/// Bits of a port's settings.
pub mod config {
    /// It is down by its administrator's will.
    pub const PORT_DOWN: u32 = 1 << 0;
    /// Without spanning tree; OpenFlow 1.0 only.
    pub const NO_STP: u32 = 1 << 1;
    /// What comes in on it is dropped.
    pub const NO_RECV: u32 = 1 << 2;
    /// BPDUs are dropped; OpenFlow 1.0 only.
    pub const NO_RECV_STP: u32 = 1 << 3;
    /// Nothing is flooded to it; OpenFlow 1.0 only.
    pub const NO_FLOOD: u32 = 1 << 4;
    /// What would go out is dropped.
    pub const NO_FWD: u32 = 1 << 5;
    /// Nothing of it goes to the controller unasked.
    pub const NO_PACKET_IN: u32 = 1 << 6;

    /// Those that OpenFlow 1.0 has.
    pub const ALL_V10: u32 = 0x7f;
    /// Those by which a port does less with packets than ports do.
    pub const LIMITS: u32 = NO_RECV | NO_RECV_STP | NO_FLOOD | NO_FWD;
    /// Those that later versions have.
    pub const ALL_V11: u32 = PORT_DOWN | NO_RECV | NO_FWD | NO_PACKET_IN;
}

/// Bits of a port's state.
pub mod state {
    /// Its link is down.
    pub const LINK_DOWN: u32 = 1 << 0;
    /// It is blocked; from OpenFlow 1.1.
    pub const BLOCKED: u32 = 1 << 1;
    /// It can be used by a group; from OpenFlow 1.1.
    pub const LIVE: u32 = 1 << 2;
}

/// Bits of what a link can do, as OpenFlow 1.1 has them.
pub mod feature {
    /// 10 Mb/s, full duplex.
    pub const MB_10_FD: u32 = 1 << 1;
    /// 100 Mb/s, full duplex.
    pub const MB_100_FD: u32 = 1 << 3;
    /// 1 Gb/s, full duplex.
    pub const GB_1_FD: u32 = 1 << 5;
    /// 10 Gb/s, full duplex.
    pub const GB_10_FD: u32 = 1 << 6;
    /// 40 Gb/s, full duplex.
    pub const GB_40_FD: u32 = 1 << 7;
    /// 100 Gb/s, full duplex.
    pub const GB_100_FD: u32 = 1 << 8;
    /// 1 Tb/s, full duplex.
    pub const TB_1_FD: u32 = 1 << 9;
    /// Another speed.
    pub const OTHER: u32 = 1 << 10;
    /// Copper.
    pub const COPPER: u32 = 1 << 11;
    /// Fibre.
    pub const FIBER: u32 = 1 << 12;
    /// Speed is negotiated.
    pub const AUTONEG: u32 = 1 << 13;
    /// Pause frames.
    pub const PAUSE: u32 = 1 << 14;
    /// Pause frames in one direction.
    pub const PAUSE_ASYM: u32 = 1 << 15;
}

/// The bits of settings and state that a version has.
const fn known_bits(version: Version) -> (u32, u32) {
    match version {
        Version::V10 => (config::ALL_V10, state::LINK_DOWN),
        _ => (config::ALL_V11, state::LINK_DOWN | state::BLOCKED | state::LIVE),
    }
}

/// Those that both versions have at the same places.
const COMMON: u32 = 0x7f;

/// Those that OpenFlow 1.0 has 4 places lower.
const SHIFTED: u32 = 0xf800;

const fn features_to_v10(features: u32) -> u32 {
    (features & COMMON) | ((features & SHIFTED) >> 4)
}

const fn features_of_v10(features: u32) -> u32 {
    (features & COMMON) | ((features << 4) & SHIFTED)
}

/// What a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDesc {
    /// Its number.
    pub number: PortNo,
    /// Its address.
    pub mac: MacAddr,
    /// Its name, of which messages have 15 bytes.
    pub name: String,
    /// Bits of [`config`].
    pub config: u32,
    /// Bits of [`mod@state`].
    pub state: u32,
    /// Bits of [`feature`]: what its link does.
    pub current: u32,
    /// What it tells its peer that it can do.
    pub advertised: u32,
    /// What it can do.
    pub supported: u32,
    /// What its peer says.
    pub peer: u32,
    /// Speed in kbit/s; not in OpenFlow 1.0.
    pub current_speed: u32,
    /// Greatest speed in kbit/s; not in OpenFlow 1.0.
    pub max_speed: u32,
}

impl PortDesc {
    /// The most bytes of one.
    pub const LONGEST: usize = 72;

    /// One of this number of which nothing else is known.
    #[must_use]
    pub const fn new(number: PortNo) -> Self {
        Self {
            number,
            mac: MacAddr([0; 6]),
            name: String::new(),
            config: 0,
            state: 0,
            current: 0,
            advertised: 0,
            supported: 0,
            peer: 0,
            current_speed: 0,
            max_speed: 0,
        }
    }

    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
        encode_number(version, self.number, out);
        // From OpenFlow 1.4, the length is there.
        if version > Version::V10 {
            out.zeroes(4);
        }
        out.bytes(&self.mac.0);
        if version > Version::V10 {
            out.zeroes(2);
        }
        out.text(&self.name, NAME);
        let (config, state) = known_bits(version);
        out.u32(self.config & config);
        out.u32(self.state & state);
        if version >= Version::V14 {
            out.u16(ETHERNET);
            out.u16(32);
            out.zeroes(4);
        }
        for features in [self.current, self.advertised, self.supported, self.peer] {
            out.u32(if version == Version::V10 { features_to_v10(features) } else { features });
        }
        if version > Version::V10 {
            out.u32(self.current_speed);
            out.u32(self.max_speed);
        }
        if version >= Version::V14 {
            out.patch_length(start.saturating_add(4), start);
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBRC_BAD_PORT`; from OpenFlow 1.4 `OFPBPC_BAD_LEN` if a property is as
    /// long as it cannot be.
    pub fn decode(version: Version, reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let whole = *reader;
        let mut port = Self::new(decode_number(version, reader)?);
        let mut properties = None;
        if version >= Version::V14 {
            let length = usize::from(reader.u16()?);
            let mut own = whole;
            let mut own = own.sub(length)?;
            own.skip(6)?;
            *reader = whole;
            reader.skip(length)?;
            properties = Some(own);
        }
        let fields = properties.as_mut().unwrap_or(reader);
        if version > Version::V10 {
            fields.skip(if version >= Version::V14 { 2 } else { 4 })?;
        }
        port.mac = MacAddr(fields.bytes()?);
        if version > Version::V10 {
            fields.skip(2)?;
        }
        port.name = wire::text(fields.take(NAME)?);
        port.config = fields.u32()?;
        port.state = fields.u32()?;
        match properties {
            None => port.decode_features(version, reader)?,
            Some(properties) => port.decode_properties(properties)?,
        }
        Ok(port)
    }

    fn decode_properties(&mut self, mut properties: Reader<'_>) -> Result<(), ErrorCode> {
        while !properties.is_empty() {
            let (kind, mut value) = property(&mut properties)?;
            if kind == ETHERNET {
                value.skip(4).map_err(|_| ErrorCode::BpcBadLen)?;
                let read = self.decode_features(Version::V14, &mut value);
                read.map_err(|_| ErrorCode::BpcBadLen)?;
            }
        }
        Ok(())
    }

    fn decode_features(
        &mut self,
        version: Version,
        reader: &mut Reader<'_>,
    ) -> Result<(), ErrorCode> {
        let fields = [&mut self.current, &mut self.advertised, &mut self.supported, &mut self.peer];
        for field in fields {
            let features = reader.u32()?;
            *field = if version == Version::V10 { features_of_v10(features) } else { features };
        }
        if version > Version::V10 {
            self.current_speed = reader.u32()?;
            self.max_speed = reader.u32()?;
        }
        Ok(())
    }

    /// Reads all that there are in `bytes`.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_all(version: Version, bytes: &[u8]) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(bytes);
        let mut ports = Vec::new();
        while !reader.is_empty() {
            ports.push(Self::decode(version, &mut reader)?);
        }
        Ok(ports)
    }
}

/// Why a port's status is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortReason {
    /// It is new.
    Add,
    /// It is gone.
    Delete,
    /// Something of it is different.
    Modify,
}

/// That a port has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// What has changed.
    pub reason: PortReason,
    /// The port as it is now, or was last.
    pub port: PortDesc,
}

impl PortStatus {
    /// Reads it.
    ///
    /// # Errors
    /// `NXBRC_BAD_REASON`, or those of [`PortDesc::decode`].
    pub fn decode(version: Version, body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let reason = match reader.u8()? {
            0 => PortReason::Add,
            1 => PortReason::Delete,
            2 => PortReason::Modify,
            _ => return Err(ErrorCode::NxbrcBadReason),
        };
        reader.skip(7)?;
        Ok(Self { reason, port: PortDesc::decode(version, &mut reader)? })
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::PortStatus, xid);
        let out = message.body();
        out.u8(match self.reason {
            PortReason::Add => 0,
            PortReason::Delete => 1,
            PortReason::Modify => 2,
        });
        out.zeroes(7);
        self.port.encode(version, out);
        message.finish()
    }
}

/// What of a port is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMod {
    /// Its number.
    pub number: PortNo,
    /// Its address, which has to be right.
    pub mac: MacAddr,
    /// Bits of [`config`].
    pub config: u32,
    /// Which of them are to be as in `config`.
    pub mask: u32,
    /// Bits of [`feature`] that it is to advertise; 0: as it does.
    pub advertise: u32,
}

impl PortMod {
    /// Reads it. Bits that the version does not have are left out.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBRC_BAD_PORT`; from OpenFlow 1.4 `OFPBPC_BAD_LEN`, `OFPBPC_BAD_TYPE`
    /// for properties.
    pub fn decode(version: Version, body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let number = decode_number(version, &mut reader)?;
        if version > Version::V10 {
            reader.skip(4)?;
        }
        let mac = MacAddr(reader.bytes()?);
        if version > Version::V10 {
            reader.skip(2)?;
        }
        let known = if version == Version::V10 { config::ALL_V10 } else { config::ALL_V11 };
        let (config, mask) = (reader.u32()? & known, reader.u32()? & known);
        let mut made = Self { number, mac, config, mask, advertise: 0 };
        if version >= Version::V14 {
            made.decode_properties(reader)?;
        } else {
            let advertise = reader.u32()?;
            let is_v10 = version == Version::V10;
            made.advertise = if is_v10 { features_of_v10(advertise) } else { advertise };
        }
        Ok(made)
    }

    fn decode_properties(&mut self, mut properties: Reader<'_>) -> Result<(), ErrorCode> {
        while !properties.is_empty() {
            let (kind, mut value) = property(&mut properties)?;
            if kind != ETHERNET {
                return Err(unknown_property(kind));
            }
            self.advertise = value.u32().map_err(|_| ErrorCode::BpcBadLen)?;
        }
        Ok(())
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::PortMod, xid);
        let out = message.body();
        encode_number(version, self.number, out);
        if version > Version::V10 {
            out.zeroes(4);
        }
        out.bytes(&self.mac.0);
        if version > Version::V10 {
            out.zeroes(2);
        }
        out.u32(self.config);
        out.u32(self.mask);
        match version {
            Version::V10 => {
                out.u32(features_to_v10(self.advertise));
                out.zeroes(4);
            }
            Version::V11 | Version::V12 | Version::V13 => {
                out.u32(self.advertise);
                out.zeroes(4);
            }
            Version::V14 | Version::V15 if self.advertise == 0 => {}
            Version::V14 | Version::V15 => {
                out.u16(ETHERNET);
                out.u16(8);
                out.u32(self.advertise);
            }
        }
        message.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(version: Version) -> PortDesc {
        let is_v10 = version == Version::V10;
        PortDesc {
            number: PortNo::LOCAL,
            mac: MacAddr([2, 0, 0, 0, 0, 9]),
            name: "br0".to_owned(),
            config: config::PORT_DOWN,
            state: state::LINK_DOWN,
            current: feature::GB_10_FD | feature::COPPER,
            advertised: feature::AUTONEG,
            supported: feature::MB_10_FD | feature::PAUSE_ASYM,
            peer: feature::FIBER,
            current_speed: if is_v10 { 0 } else { 10_000_000 },
            max_speed: if is_v10 { 0 } else { 40_000_000 },
        }
    }

    #[test]
    fn ports_are_read_as_they_are_written() {
        for version in Version::ALL {
            let mut bytes = Vec::new();
            let ports = vec![port(version), PortDesc { number: PortNo(7), ..port(version) }];
            for port in &ports {
                port.encode(version, &mut bytes);
            }
            let length = match version {
                Version::V10 => 48,
                Version::V11 | Version::V12 | Version::V13 => 64,
                Version::V14 | Version::V15 => 72,
            };
            assert_eq!(bytes.len(), 2 * length, "{version}");
            assert_eq!(PortDesc::decode_all(version, &bytes), Ok(ports.clone()), "{version}");
            assert!(PortDesc::decode_all(version, &bytes[1..]).is_err());
            for reason in [PortReason::Add, PortReason::Delete, PortReason::Modify] {
                let status = PortStatus { reason, port: ports[0].clone() };
                let message = status.encode(version, 1);
                assert_eq!(PortStatus::decode(version, &message[8..]), Ok(status));
            }
        }
    }

    #[test]
    fn changes_are_read_as_they_are_written() {
        for version in Version::ALL {
            for advertise in [0, feature::COPPER] {
                let mac = MacAddr([2, 0, 0, 0, 0, 1]);
                let (config, mask) = (config::PORT_DOWN, config::PORT_DOWN | config::NO_FWD);
                let made = PortMod { number: PortNo(3), mac, config, mask, advertise };
                let bytes = made.encode(version, 1);
                assert_eq!(PortMod::decode(version, &bytes[8..]), Ok(made), "{version}");
            }
        }
    }

    #[test]
    fn reserved_numbers_are_those_of_32_bits() {
        let read = |version, bytes: &[u8]| decode_number(version, &mut Reader::new(bytes));
        assert_eq!(read(Version::V10, &[0xff, 0xfe]), Ok(PortNo::LOCAL));
        assert_eq!(read(Version::V10, &[0xfe, 0xff]), Ok(PortNo(0xfeff)));
        assert_eq!(read(Version::V13, &[0xff, 0xff, 0xff, 0xfd]), Ok(PortNo::CONTROLLER));
        assert_eq!(read(Version::V13, &[0, 1, 0, 0]), Err(ErrorCode::BrcBadPort));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..120), at in 0..6_usize) {
            let version = Version::ALL[at];
            let _ = PortDesc::decode_all(version, &body);
            let _ = PortStatus::decode(version, &body);
            let _ = PortMod::decode(version, &body);
        }
    }
}
