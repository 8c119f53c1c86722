//! Packets that go to controllers.

use super::flow_mod::{NO_BUFFER, nx_match};
use super::nicira::PacketInFormat;
use super::{Form, Message, Raw};
use crate::action::wire::{property, unknown_property};
use crate::error::ErrorCode;
use crate::field::Field;
use crate::matching::oxm::Strictness;
use crate::matching::{Match, oxm, v10, v11};
use crate::packet_in::Reason;
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The number of Nicira's first form, and that of its second, which consists of properties, as what a
/// controller gives back does.
const NXT_PACKET_IN: u32 = 17;
const NXT_PACKET_IN2: u32 = 30;
const NXT_RESUME: u32 = 28;

/// Properties of the second form.
const PACKET: u16 = 0;
const FULL_LEN: u16 = 1;
const BUFFER_ID: u16 = 2;
const TABLE_ID: u16 = 3;
const COOKIE: u16 = 4;
const REASON: u16 = 5;
const METADATA: u16 = 6;
const USERDATA: u16 = 7;
const CONTINUATION: u16 = 8;

/// The most bytes of a message of the second form, whose length is a multiple of 8, and those of a property's
/// head.
const LONGEST_NX2: usize = 65_528;
const PROPERTY_HEAD: usize = 4;

/// The bytes of the property that tells the size of the whole packet.
const FULL_LEN_SIZE: usize = 8;

/// A packet that goes to a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketIn {
    /// The packet, or its begin.
    pub packet: Vec<u8>,
    /// The size of the whole packet, in bytes.
    pub full_len: u32,
    /// The number under which the switch keeps it, if it does.
    pub buffer: Option<u32>,
    /// The table that it has come from; OpenFlow 1.0 does not say it.
    pub table: u8,
    /// The cookie of the flow that has sent it, if there is one.
    pub cookie: Option<u64>,
    /// Why it was sent.
    pub reason: Reason,
    /// What travels with it: at least the port that it has come in on ([`Field::InPort`]).
    pub metadata: Match,
    /// What the action that has sent it passes along; only in Nicira's second form.
    pub userdata: Vec<u8>,
    /// What the switch needs to go on with it, as it is; only in Nicira's second form.
    pub continuation: Vec<u8>,
}

/// By whom one is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Which is told of packets, empty ones, too, by properties that it may not know.
    Controller,
    /// Which is given back what is to go on, as it had told it; nothing goes on that is empty.
    Switch,
    /// By which Open vSwitch shows what either has been sent.
    Printer,
}

impl PacketIn {
    /// A whole packet that has come in on `in_port`.
    #[must_use]
    pub fn new(packet: Vec<u8>, in_port: PortNo, reason: Reason) -> Self {
        Self {
            full_len: u32::try_from(packet.len()).unwrap_or(u32::MAX),
            packet,
            buffer: None,
            table: 0,
            cookie: None,
            reason,
            metadata: Match::new().with(Field::InPortOxm, in_port.0.into()),
            userdata: Vec::new(),
            continuation: Vec::new(),
        }
    }

    /// The port that it has come in on.
    #[must_use]
    pub fn in_port(&self) -> PortNo {
        let port = self.metadata.exact(Field::InPortOxm);
        port.and_then(|port| u32::try_from(port).ok()).map_or(PortNo::ANY, PortNo)
    }

    /// The reason as a version has it, which may know less of them.
    fn reason_of(&self, version: Version) -> u8 {
        let is_new = self.reason.0 > Reason::INVALID_TTL.0 && version < Version::V14;
        if is_new { Reason::ACTION.0 } else { self.reason.0 }
    }

    /// Reads one, in all forms, or NXT_RESUME, by which a controller has it go on.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBAC_BAD_OUT_PORT`, and those of matches and properties.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let by = if raw.number == NXT_RESUME { By::Switch } else { By::Controller };
        Self::decode_by(raw, by)
    }

    /// Reads one to be shown in words, of which Open vSwitch refuses to show an empty packet in Nicira's
    /// second form.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub(crate) fn decode_to_show(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        Self::decode_by(raw, By::Printer)
    }

    fn decode_by(raw: &Raw<'_>, by: By) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        if raw.form == Form::Nx && matches!(raw.number, NXT_PACKET_IN2 | NXT_RESUME) {
            return Self::decode_nx2(&mut reader, by);
        }
        let mut packet = Self::new(Vec::new(), PortNo::ANY, Reason::ACTION);
        packet.buffer = Some(reader.u32()?).filter(|buffer| *buffer != NO_BUFFER);
        match (raw.version, raw.form) {
            (_, Form::Nx) => {
                packet.head(&mut reader)?;
                packet.cookie = Some(reader.u64()?).filter(|cookie| *cookie != u64::MAX);
                let len = reader.u16()?;
                reader.skip(6)?;
                packet.metadata = nx_match(&mut reader, len, Strictness::Loose)?.0;
                reader.skip(2)?;
            }
            (Version::V10, _) => {
                packet.full_len = reader.u16()?.into();
                packet.metadata = Match::new().with(Field::InPort, reader.u16()?.into());
                packet.reason = Reason(reader.u8()?);
                reader.skip(1)?;
            }
            (Version::V11, _) => {
                let port = PortNo(reader.u32()?);
                reader.skip(4)?;
                packet.head(&mut reader)?;
                v10::port(port.0).ok_or(ErrorCode::BacBadOutPort)?;
                packet.metadata = Match::new().with(Field::InPortOxm, port.0.into());
            }
            (version, _) => {
                packet.head(&mut reader)?;
                if version >= Version::V13 {
                    packet.cookie = Some(reader.u64()?).filter(|cookie| *cookie != u64::MAX);
                }
                packet.metadata = v11::decode(&mut reader, Strictness::Loose)?;
                reader.skip(2)?;
            }
        }
        packet.packet = reader.rest().to_vec();
        Ok(packet)
    }

    /// Reads the size, the reason and the table.
    fn head(&mut self, reader: &mut Reader<'_>) -> Result<(), ErrorCode> {
        self.full_len = reader.u16()?.into();
        self.reason = Reason(reader.u8()?);
        self.table = reader.u8()?;
        Ok(())
    }

    /// Reads the second form, in which there has to be a packet.
    fn decode_nx2(reader: &mut Reader<'_>, by: By) -> Result<Self, ErrorCode> {
        let bad_len = |_| ErrorCode::BpcBadLen;
        let mut is_there = false;
        let mut packet = Self::new(Vec::new(), PortNo::ANY, Reason::NO_MATCH);
        packet.metadata = Match::new();
        while !reader.is_empty() {
            let (kind, mut value) = property(reader)?;
            match kind {
                PACKET => {
                    packet.packet = value.rest().to_vec();
                    is_there = by == By::Controller || !packet.packet.is_empty();
                }
                FULL_LEN => packet.full_len = value.u32().map_err(bad_len)?,
                BUFFER_ID => packet.buffer = Some(value.u32().map_err(bad_len)?),
                TABLE_ID => packet.table = value.u8().map_err(bad_len)?,
                COOKIE => {
                    value.skip(4).map_err(bad_len)?;
                    packet.cookie = Some(value.u64().map_err(bad_len)?);
                }
                REASON => packet.reason = Reason(value.u8().map_err(bad_len)?),
                METADATA => packet.metadata = oxm::decode(value.rest(), Strictness::Loose)?,
                USERDATA => packet.userdata = value.rest().to_vec(),
                CONTINUATION => {
                    // It consists of properties itself, behind zeroes.
                    value.skip(4).map_err(bad_len)?;
                    packet.continuation = value.rest().to_vec();
                }
                _ if by == By::Switch => return Err(unknown_property(kind)),
                _ => {}
            }
        }
        let len = u32::try_from(packet.packet.len()).unwrap_or(u32::MAX);
        if packet.full_len == 0 {
            packet.full_len = len;
        }
        let is_right = is_there && packet.full_len >= len;
        if is_right { Ok(packet) } else { Err(ErrorCode::BrcBadLen) }
    }

    /// The whole message, in this form.
    #[must_use]
    pub fn encode(&self, version: Version, form: PacketInFormat) -> Vec<u8> {
        match form {
            PacketInFormat::Nxt2 => self.encode_nx2(version),
            PacketInFormat::Nxt => {
                let mut message = Message::numbered(version, Form::Nx, NXT_PACKET_IN, 0);
                let out = message.body();
                self.put_head(version, out);
                out.u64(self.cookie.unwrap_or(u64::MAX));
                let list = oxm::encode(&self.metadata, Version::V10, None);
                out.u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
                out.zeroes(6);
                let start = out.position();
                out.bytes(&list);
                out.pad8(start);
                out.zeroes(2);
                out.bytes(&self.packet);
                message.finish()
            }
            PacketInFormat::Standard => self.encode_standard(version),
        }
    }

    /// Writes the buffer, the size, the reason and the table.
    fn put_head(&self, version: Version, out: &mut Vec<u8>) {
        out.u32(self.buffer.unwrap_or(NO_BUFFER));
        out.u16(u16::try_from(self.full_len).unwrap_or(u16::MAX));
        out.u8(self.reason_of(version));
        out.u8(self.table);
    }

    fn encode_standard(&self, version: Version) -> Vec<u8> {
        let mut message = Message::new(version, super::Kind::PacketIn, 0);
        let out = message.body();
        let port = self.in_port();
        match version {
            Version::V10 => {
                out.u32(self.buffer.unwrap_or(NO_BUFFER));
                out.u16(u16::try_from(self.full_len).unwrap_or(u16::MAX));
                out.u16(port.v10().unwrap_or(u16::MAX));
                out.u8(self.reason_of(version));
                out.zeroes(1);
            }
            Version::V11 => {
                out.u32(self.buffer.unwrap_or(NO_BUFFER));
                out.u32(port.0);
                out.u32(port.0);
                out.u16(u16::try_from(self.full_len).unwrap_or(u16::MAX));
                out.u8(self.reason_of(version));
                out.u8(self.table);
            }
            _ => {
                self.put_head(version, out);
                if version >= Version::V13 {
                    out.u64(self.cookie.unwrap_or(u64::MAX));
                }
                v11::encode(&self.metadata, version, out);
                out.zeroes(2);
            }
        }
        out.bytes(&self.packet);
        message.finish()
    }

    fn encode_nx2(&self, version: Version) -> Vec<u8> {
        let mut message = Message::numbered(version, Form::Nx, NXT_PACKET_IN2, 0);
        let (out, rest) = (message.body(), self.rest_of_nx2(version));
        // Of a packet that does not fit, its begin goes: what else there is has to come along.
        let taken = out.len().saturating_add(rest.len()).saturating_add(FULL_LEN_SIZE);
        let room = LONGEST_NX2.saturating_sub(taken).saturating_sub(PROPERTY_HEAD);
        let begin = self.packet.get(..room).unwrap_or(&self.packet);
        put_property(out, PACKET, begin);
        if usize::try_from(self.full_len) != Ok(begin.len()) {
            put_property(out, FULL_LEN, &self.full_len.to_be_bytes());
        }
        out.bytes(&rest);
        message.finish()
    }

    /// The properties of the second form that are not of the packet itself.
    fn rest_of_nx2(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(buffer) = self.buffer {
            put_property(&mut out, BUFFER_ID, &buffer.to_be_bytes());
        }
        put_property(&mut out, TABLE_ID, &[self.table]);
        if let Some(cookie) = self.cookie {
            put_property(&mut out, COOKIE, &[&[0; 4][..], &cookie.to_be_bytes()].concat());
        }
        put_property(&mut out, REASON, &[self.reason_of(version)]);
        put_property(&mut out, METADATA, &oxm::encode(&self.metadata, version, None));
        if !self.continuation.is_empty() {
            put_property(&mut out, CONTINUATION, &[&[0; 4][..], &self.continuation].concat());
        }
        if !self.userdata.is_empty() {
            put_property(&mut out, USERDATA, &self.userdata);
        }
        out
    }
}

/// Writes a property and the zeroes behind it.
fn put_property(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = out.position();
    out.u16(kind);
    out.u16(u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX));
    out.bytes(value);
    out.pad8(start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read_as_written() {
        let mut packet = PacketIn::new(vec![1; 20], PortNo(3), Reason::INVALID_TTL);
        packet.full_len = 60;
        for version in Version::ALL {
            for form in [PacketInFormat::Standard, PacketInFormat::Nxt, PacketInFormat::Nxt2] {
                let is_standard = form == PacketInFormat::Standard;
                let mut sent = packet.clone();
                sent.buffer = Some(9);
                if !is_standard || version > Version::V10 {
                    sent.table = 4;
                }
                if !is_standard || version >= Version::V13 {
                    sent.cookie = Some(5);
                }
                if !is_standard || version >= Version::V12 {
                    sent.metadata.set(Field::Reg1, 7);
                }
                if form == PacketInFormat::Nxt2 {
                    (sent.userdata, sent.continuation) = (vec![1, 2, 3], vec![0, 1, 0, 4]);
                }
                let message = sent.encode(version, form);
                let raw = Raw::read(&message).unwrap();
                assert_eq!(PacketIn::decode(&raw), Ok(sent), "{version} {form:?}");
                for cut in 0..raw.body.len() {
                    let _ = PacketIn::decode(&Raw { body: &raw.body[..cut], ..raw });
                }
            }
        }
    }

    #[test]
    fn an_empty_packet_is_read_in_all_forms() {
        // Of what was cut to nothing, the size is known all the same.
        for full_len in [0, 60] {
            let packet = PacketIn::new(Vec::new(), PortNo(3), Reason::ACTION);
            let sent = PacketIn { full_len, ..packet };
            for version in Version::ALL {
                for form in [PacketInFormat::Standard, PacketInFormat::Nxt, PacketInFormat::Nxt2] {
                    let message = sent.encode(version, form);
                    let read = PacketIn::decode(&Raw::read(&message).unwrap()).unwrap();
                    assert_eq!(read.packet, [], "{version} {form:?}");
                    assert_eq!((read.full_len, read.in_port()), (full_len, PortNo(3)));
                }
            }
        }
    }

    #[test]
    fn the_second_form_has_a_packet_and_what_goes_on_is_not_empty() {
        let read = |number, body: &[u8]| {
            let mut message = Message::numbered(Version::V15, Form::Nx, number, 0);
            message.body().bytes(body);
            let message = message.finish();
            PacketIn::decode(&Raw::read(&message).unwrap()).map(|read| read.packet)
        };
        let (empty, one) = (&[0, 0, 0, 4, 0, 0, 0, 0], &[0, 0, 0, 5, 9, 0, 0, 0]);
        assert_eq!(read(NXT_PACKET_IN2, empty), Ok(Vec::new()));
        assert_eq!(read(NXT_PACKET_IN2, &[]), Err(ErrorCode::BrcBadLen));
        assert_eq!(read(NXT_RESUME, empty), Err(ErrorCode::BrcBadLen));
        assert_eq!(read(NXT_RESUME, one), Ok(vec![9]));
        // Of what is told, not all needs to be known.
        let more = &[&one[..], &[0x12, 0x34, 0, 4, 0, 0, 0, 0]].concat();
        assert_eq!(read(NXT_PACKET_IN2, more), Ok(vec![9]));
        assert_eq!(read(NXT_RESUME, more), Err(ErrorCode::BpcBadType));
    }

    #[test]
    fn a_large_segment_is_cut_and_the_rest_is_told() {
        for len in [65_400, 65_500, 65_531, 65_549] {
            let mut packet = PacketIn::new(vec![1; len], PortNo(3), Reason::ACTION);
            (packet.userdata, packet.continuation) = (vec![1, 2, 3], vec![0, 1, 0, 4]);
            packet.metadata.set(Field::Reg1, 7);
            let message = packet.encode(Version::V15, PacketInFormat::Nxt2);
            let raw = Raw::read(&message).unwrap();
            let read = PacketIn::decode(&raw).unwrap();
            assert_eq!((read.in_port(), read.full_len as usize), (PortNo(3), len));
            assert_eq!((read.userdata, read.continuation), (packet.userdata, packet.continuation));
            // No more of it is cut than has to be.
            assert!(read.packet.len() == len || message.len() == LONGEST_NX2);
        }
    }

    #[test]
    fn old_versions_are_told_reasons_that_they_know() {
        let packet = PacketIn::new(vec![1; 20], PortNo(3), Reason::GROUP);
        let told = |version| {
            let message = packet.encode(version, PacketInFormat::Standard);
            PacketIn::decode(&Raw::read(&message).unwrap()).unwrap().reason
        };
        assert_eq!((told(Version::V13), told(Version::V14)), (Reason::ACTION, Reason::GROUP));
    }
}
