//! Which options of tunnels the fields `tun_metadata0` to `63` stand for: Open vSwitch's tables of TLVs
//! (NXT_TLV_TABLE_MOD, _REQUEST and _REPLY).

use std::fmt::{self, Display, Formatter};

use super::{Kind, Message, Raw};
use crate::error::ErrorCode;
use crate::field::text::Hex;
use crate::wire::{Reader, Writer as _};

/// How many fields there are for options.
pub const FIELDS: u16 = 64;

/// The largest value of an option, in bytes.
pub const MAX_LEN: u8 = 124;

/// Bytes of an option in a message.
const ENTRY: usize = 8;

/// An option of a tunnel's header, and the field that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvOption {
    /// Whose types it is of.
    pub class: u16,
    /// Which of these.
    pub kind: u8,
    /// How many bytes its value has, a multiple of 4.
    pub len: u8,
    /// The number of the field: 3 for `tun_metadata3`.
    pub index: u16,
}

impl TlvOption {
    fn read(reader: &mut Reader<'_>, fields: u16) -> Result<Self, ErrorCode> {
        let option = Self {
            class: reader.u16()?,
            kind: reader.u8()?,
            len: reader.u8()?,
            index: reader.u16()?,
        };
        reader.skip(2)?;
        if !option.len.is_multiple_of(4) || option.len > MAX_LEN {
            return Err(ErrorCode::NxttmfcBadOptLen);
        }
        if option.index >= fields {
            return Err(ErrorCode::NxttmfcBadFieldIdx);
        }
        Ok(option)
    }

    fn read_all(mut reader: Reader<'_>, fields: u16) -> Result<Vec<Self>, ErrorCode> {
        let mut all = Vec::with_capacity(reader.len() / ENTRY);
        while !reader.is_empty() {
            all.push(Self::read(&mut reader, fields)?);
        }
        Ok(all)
    }

    fn write(self, out: &mut Vec<u8>) {
        out.u16(self.class);
        out.u8(self.kind);
        out.u8(self.len);
        out.u16(self.index);
        out.zeroes(2);
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum TlvCommand {
    /// Fields stand for options.
    Add = 0,
    /// These fields stand for none any more.
    Delete = 1,
    /// No field stands for any.
    Clear = 2,
}

impl TlvCommand {
    fn from_wire(number: u16) -> Result<Self, ErrorCode> {
        let all = [Self::Add, Self::Delete, Self::Clear];
        all.get(usize::from(number)).copied().ok_or(ErrorCode::NxttmfcBadCommand)
    }
}

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvTableMod {
    /// What is done.
    pub command: TlvCommand,
    /// With what.
    pub options: Vec<TlvOption>,
}

impl TlvTableMod {
    /// Reads one.
    ///
    /// # Errors
    /// `NXTTMFC_BAD_COMMAND`, `NXTTMFC_BAD_OPT_LEN`, `NXTTMFC_BAD_FIELD_IDX`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let command = TlvCommand::from_wire(reader.u16()?)?;
        reader.skip(6)?;
        Ok(Self { command, options: TlvOption::read_all(reader, FIELDS)? })
    }

    /// Writes it as a message.
    #[must_use]
    pub fn encode(&self, raw: &Raw<'_>) -> Vec<u8> {
        let mut message = Message::new(raw.version, Kind::TlvTableMod, raw.xid);
        message.body().u16(self.command as u16);
        message.body().zeroes(6);
        self.options.iter().for_each(|option| option.write(message.body()));
        message.finish()
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvTable {
    /// Room for values of options, in bytes.
    pub room: u32,
    /// How many fields there are.
    pub fields: u16,
    /// What they stand for.
    pub options: Vec<TlvOption>,
}

impl TlvTable {
    /// Reads one, whose fields may be more than are known here.
    ///
    /// # Errors
    /// `NXTTMFC_BAD_OPT_LEN`, `NXTTMFC_BAD_FIELD_IDX`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let (room, fields) = (reader.u32()?, reader.u16()?);
        reader.skip(10)?;
        Ok(Self { room, fields, options: TlvOption::read_all(reader, fields)? })
    }

    /// Writes it as the answer to a message.
    #[must_use]
    pub fn encode(&self, asked: &Raw<'_>) -> Vec<u8> {
        let mut message = Message::new(asked.version, Kind::TlvTableReply, asked.xid);
        let out = message.body();
        out.u32(self.room);
        out.u16(self.fields);
        out.zeroes(10);
        self.options.iter().for_each(|option| option.write(out));
        message.finish()
    }
}

/// Options as ovs-ofctl lists them.
fn list(f: &mut Formatter<'_>, options: &[TlvOption]) -> fmt::Result {
    f.write_str(" mapping table:\n")?;
    f.write_str("  class  type  length  match field\n")?;
    f.write_str(" ------  ----  ------  --------------")?;
    for TlvOption { class, kind, len, index } in options {
        let (class, kind) = (Hex((*class).into()).to_string(), Hex((*kind).into()).to_string());
        write!(f, "\n {class:>6}  {kind:>4}  {len:>6}  tun_metadata{index}")?;
    }
    Ok(())
}

impl Display for TlvTableMod {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.command {
            TlvCommand::Add => "ADD",
            TlvCommand::Delete => "DEL",
            TlvCommand::Clear => return f.write_str("CLEAR"),
        })?;
        list(f, &self.options)
    }
}

impl Display for TlvTable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let used: u32 = self.options.iter().map(|option| u32::from(option.len)).sum();
        writeln!(f, " max option space={} max fields={}", self.room, self.fields)?;
        writeln!(f, " allocated option space={used}\n")?;
        list(f, &self.options)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::version::Version;

    fn option() -> impl Strategy<Value = TlvOption> {
        (any::<u16>(), any::<u8>(), 0..=31_u8, 0..FIELDS).prop_map(|(class, kind, words, index)| {
            TlvOption { class, kind, len: words * 4, index }
        })
    }

    const ASKED: Raw<'static> = Raw {
        version: Version::V13,
        xid: 7,
        kind: Kind::TlvTableRequest,
        form: super::super::Form::Nx,
        number: 25,
        more: false,
        body: &[],
    };

    #[test]
    fn what_no_field_can_be_is_refused() {
        let read = |kind: &[u8]| TlvTableMod::decode(kind).unwrap_err();
        let with = |option: [u8; 8]| [[0_u8; 8], option].concat();
        assert_eq!(read(&[0, 3, 0, 0, 0, 0, 0, 0]), ErrorCode::NxttmfcBadCommand);
        assert_eq!(read(&with([0, 1, 2, 5, 0, 0, 0, 0])), ErrorCode::NxttmfcBadOptLen);
        assert_eq!(read(&with([0, 1, 2, 128, 0, 0, 0, 0])), ErrorCode::NxttmfcBadOptLen);
        assert_eq!(read(&with([0, 1, 2, 4, 0, 64, 0, 0])), ErrorCode::NxttmfcBadFieldIdx);
    }

    #[test]
    fn tables_are_shown_as_ovs_ofctl_shows_them() {
        let options = vec![TlvOption { class: 0xFFFF, kind: 0, len: 4, index: 0 }];
        let added = TlvTableMod { command: TlvCommand::Add, options: options.clone() };
        let lines = "ADD mapping table:\n  class  type  length  match field\n \
                     ------  ----  ------  --------------\n 0xffff     0       4  tun_metadata0";
        assert_eq!(added.to_string(), lines);
        let table = TlvTable { room: 256, fields: 64, options };
        assert!(table.to_string().starts_with(" max option space=256 max fields=64\n allocated"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(options in prop::collection::vec(option(), 0..20), number in 0..3_u16) {
            let command = TlvCommand::from_wire(number).unwrap();
            let change = TlvTableMod { command, options: options.clone() };
            let message = change.encode(&ASKED);
            prop_assert_eq!(TlvTableMod::decode(Raw::read(&message).unwrap().body), Ok(change));
            let table = TlvTable { room: 32, fields: FIELDS, options };
            let message = table.encode(&ASKED);
            prop_assert_eq!(TlvTable::decode(Raw::read(&message).unwrap().body), Ok(table));
        }

        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = TlvTableMod::decode(&bytes);
            let _ = TlvTable::decode(&bytes);
        }
    }
}
