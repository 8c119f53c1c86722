//! Packets that a controller has a switch send.

use super::flow_mod::NO_BUFFER;
use super::{Form, Kind, Message, Raw};
use crate::action::{Action, wire};
use crate::error::ErrorCode;
use crate::field::Field;
use crate::matching::oxm::Strictness;
use crate::matching::{Match, v11};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// A packet to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// The packet that the switch has kept, if it is not `packet`.
    pub buffer: Option<u32>,
    /// What travels with it: the port that it is said to have come in on ([`Field::InPort`]), and from
    /// OpenFlow 1.5 on more.
    pub metadata: Match,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// The packet, if the switch has not kept it.
    pub packet: Vec<u8>,
}

impl PacketOut {
    /// One that is said to have come in on `in_port`.
    #[must_use]
    pub fn new(in_port: PortNo, actions: Vec<Action>, packet: Vec<u8>) -> Self {
        let metadata = Match::new().with(Field::InPortOxm, in_port.0.into());
        Self { buffer: None, metadata, actions, packet }
    }

    /// The port that it is said to have come in on.
    #[must_use]
    pub fn in_port(&self) -> PortNo {
        let port = self.metadata.exact(Field::InPortOxm);
        port.and_then(|port| u32::try_from(port).ok()).map_or(PortNo::ANY, PortNo)
    }

    /// Reads one.
    ///
    /// # Errors
    /// `OFPBRC_BAD_PORT`, `OFPBRC_BAD_LEN`, `OFPBRC_PIPELINE_FIELDS_ONLY`, and those of actions.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let buffer = Some(reader.u32()?).filter(|buffer| *buffer != NO_BUFFER);
        let mut metadata = Match::new();
        let len = match raw.version {
            Version::V10 => {
                metadata.set(Field::InPort, reader.u16()?.into());
                reader.u16()?
            }
            Version::V15 => {
                let len = reader.u16()?;
                reader.skip(2)?;
                metadata = v11::decode(&mut reader, Strictness::Pipeline)?;
                len
            }
            _ => {
                let port = PortNo(reader.u32()?);
                if port.v10().is_none() {
                    return Err(ErrorCode::BacBadOutPort);
                }
                metadata.set(Field::InPortOxm, port.0.into());
                let len = reader.u16()?;
                reader.skip(6)?;
                len
            }
        };
        if metadata.get(Field::InPortOxm).is_none() {
            return Err(ErrorCode::BrcBadPort);
        }
        if !len.is_multiple_of(8) {
            return Err(ErrorCode::BrcBadLen);
        }
        let actions = wire::decode(reader.take(len.into())?, raw.version)?;
        let packet = if buffer.is_some() { Vec::new() } else { reader.rest().to_vec() };
        let out = Self { buffer, metadata, actions, packet };
        let port = out.in_port();
        let is_reserved = [PortNo::LOCAL, PortNo::ANY, PortNo::CONTROLLER].contains(&port);
        if port < PortNo::MAX || is_reserved { Ok(out) } else { Err(ErrorCode::BrcBadPort) }
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::of_form(version, Kind::PacketOut, Form::Of, xid);
        let out = message.body();
        out.u32(self.buffer.unwrap_or(NO_BUFFER));
        let place = match version {
            Version::V10 => {
                out.u16(self.in_port().v10().unwrap_or(u16::MAX));
                out.u16(0);
                out.position().saturating_sub(2)
            }
            Version::V15 => {
                let place = out.position();
                out.u32(0);
                v11::encode(&self.metadata, version, out);
                place
            }
            _ => {
                out.u32(self.in_port().0);
                let place = out.position();
                out.zeroes(8);
                place
            }
        };
        let start = out.position();
        wire::encode(&self.actions, version, out);
        out.patch_length(place, start);
        if self.buffer.is_none() {
            out.bytes(&self.packet);
        }
        message.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_versions_are_read_as_written() {
        for version in Version::ALL {
            let actions = vec![Action::output(PortNo(3)), Action::Exit];
            let out = PacketOut::new(PortNo::CONTROLLER, actions, vec![1, 2, 3]);
            let message = out.encode(version, 1);
            let raw = Raw::read(&message).unwrap();
            assert_eq!(PacketOut::decode(&raw), Ok(out.clone()), "{version}");
            for cut in 0..raw.body.len() {
                let _ = PacketOut::decode(&Raw { body: &raw.body[..cut], ..raw });
            }
            let kept = PacketOut { buffer: Some(7), packet: Vec::new(), ..out };
            let message = kept.encode(version, 1);
            assert_eq!(PacketOut::decode(&Raw::read(&message).unwrap()), Ok(kept));
        }
    }

    #[test]
    fn ports_that_nothing_comes_in_on_are_refused() {
        for version in Version::ALL {
            for port in [PortNo::FLOOD, PortNo::MAX, PortNo::NORMAL, PortNo::IN_PORT] {
                let message = PacketOut::new(port, Vec::new(), vec![0; 14]).encode(version, 1);
                let read = PacketOut::decode(&Raw::read(&message).unwrap());
                assert_eq!(read, Err(ErrorCode::BrcBadPort), "{version} {port}");
            }
        }
    }
}
