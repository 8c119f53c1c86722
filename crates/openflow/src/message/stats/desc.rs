//! What kind of switch it is.

use crate::error::ErrorCode;
use crate::wire::{Reader, Writer as _, text};

/// In words for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Who has made it.
    pub manufacturer: String,
    /// What hardware it is.
    pub hardware: String,
    /// What software it runs.
    pub software: String,
    /// Which one of its kind it is.
    pub serial: String,
    /// What it is for.
    pub datapath: String,
}

/// Bytes of each field.
const WIDTHS: [usize; 5] = [256, 256, 256, 32, 256];

impl Desc {
    /// Reads it.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let mut desc = Self::default();
        let Self { manufacturer, hardware, software, serial, datapath } = &mut desc;
        let fields = [manufacturer, hardware, software, serial, datapath];
        for (field, width) in fields.into_iter().zip(WIDTHS) {
            *field = text(reader.take(width)?);
        }
        Ok(desc)
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { manufacturer, hardware, software, serial, datapath } = self;
        let fields = [manufacturer, hardware, software, serial, datapath];
        for (field, width) in fields.into_iter().zip(WIDTHS) {
            out.text(field, width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let desc = Desc {
            manufacturer: "nobody".to_owned(),
            hardware: "x".repeat(255),
            serial: "7".to_owned(),
            ..Desc::default()
        };
        let mut bytes = Vec::new();
        desc.encode(&mut bytes);
        assert_eq!(bytes.len(), 1_056);
        assert_eq!(Desc::decode(&bytes), Ok(desc));
        assert_eq!(Desc::decode(&bytes[1..]), Err(ErrorCode::BrcBadLen));
    }
}
