//! Short messages of Open vSwitch's own, by which a connection is set (nicira-ext.h).

use crate::error::ErrorCode;
use crate::wire::{Reader, Writer as _};

/// Which messages about rules a controller of OpenFlow 1.0 wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowFormat {
    /// Those of OpenFlow 1.0.
    #[default]
    OpenFlow10,
    /// Those with Nicira's extensible match.
    Nxm,
}

impl FlowFormat {
    /// Reads NXT_SET_FLOW_FORMAT.
    ///
    /// # Errors
    /// `OFPBRC_EPERM` if there is no such format, as Open vSwitch answers.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        match Reader::new(body).u32()? {
            0 => Ok(Self::OpenFlow10),
            2 => Ok(Self::Nxm),
            _ => Err(ErrorCode::BrcEperm),
        }
    }

    /// Appends it.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.u32(match self {
            Self::OpenFlow10 => 0,
            Self::Nxm => 2,
        });
    }
}

/// How packets come to a controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketInFormat {
    /// As the version of the connection has it.
    #[default]
    Standard,
    /// NXT_PACKET_IN.
    Nxt,
    /// NXT_PACKET_IN2.
    Nxt2,
}

impl PacketInFormat {
    /// Reads NXT_SET_PACKET_IN_FORMAT.
    ///
    /// # Errors
    /// `OFPBRC_EPERM` if there is no such format, as Open vSwitch answers.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        match Reader::new(body).u32()? {
            0 => Ok(Self::Standard),
            1 => Ok(Self::Nxt),
            2 => Ok(Self::Nxt2),
            _ => Err(ErrorCode::BrcEperm),
        }
    }

    /// Appends it.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.u32(match self {
            Self::Standard => 0,
            Self::Nxt => 1,
            Self::Nxt2 => 2,
        });
    }
}

/// Reads NXT_FLOW_MOD_TABLE_ID: whether changes of rules have a table's number in the upper half of
/// their command.
///
/// # Errors
/// `OFPBRC_BAD_LEN`.
pub fn decode_flow_mod_table_id(body: &[u8]) -> Result<bool, ErrorCode> {
    Ok(Reader::new(body).u8()? != 0)
}

/// Reads NXT_SET_CONTROLLER_ID: by which number rules send packets to this controller.
///
/// # Errors
/// `NXBRC_MUST_BE_ZERO` if there is more in it, `OFPBRC_BAD_LEN`.
pub fn decode_controller_id(body: &[u8]) -> Result<u16, ErrorCode> {
    let mut reader = Reader::new(body);
    if reader.bytes::<6>()? != [0; 6] {
        return Err(ErrorCode::NxbrcMustBeZero);
    }
    Ok(reader.u16()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_they_are_written() {
        for format in [FlowFormat::OpenFlow10, FlowFormat::Nxm] {
            let mut bytes = Vec::new();
            format.encode(&mut bytes);
            assert_eq!(FlowFormat::decode(&bytes), Ok(format));
        }
        for format in [PacketInFormat::Standard, PacketInFormat::Nxt, PacketInFormat::Nxt2] {
            let mut bytes = Vec::new();
            format.encode(&mut bytes);
            assert_eq!(PacketInFormat::decode(&bytes), Ok(format));
        }
    }

    #[test]
    fn formats_have_numbers() {
        assert_eq!(FlowFormat::decode(&[0, 0, 0, 2]), Ok(FlowFormat::Nxm));
        assert_eq!(FlowFormat::decode(&[0, 0, 0, 1]), Err(ErrorCode::BrcEperm));
        assert_eq!(PacketInFormat::decode(&[0, 0, 0, 2]), Ok(PacketInFormat::Nxt2));
        assert_eq!(PacketInFormat::decode(&[0, 0, 0, 3]), Err(ErrorCode::BrcEperm));
        assert_eq!(decode_flow_mod_table_id(&[1, 0, 0, 0, 0, 0, 0, 0]), Ok(true));
    }

    #[test]
    fn a_controllers_number_is_behind_zeroes() {
        assert_eq!(decode_controller_id(&[0, 0, 0, 0, 0, 0, 1, 2]), Ok(0x0102));
        let wrong = decode_controller_id(&[0, 1, 0, 0, 0, 0, 1, 2]);
        assert_eq!(wrong, Err(ErrorCode::NxbrcMustBeZero));
        assert_eq!(decode_controller_id(&[0; 7]), Err(ErrorCode::BrcBadLen));
    }
}
