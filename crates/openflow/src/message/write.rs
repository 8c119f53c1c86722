//! Messages that are written.

use super::{Form, Kind, MORE, OFPST_VENDOR, OFPT_VENDOR, kind::Row, stats_type};
use crate::version::Version;
use crate::wire::Writer as _;

/// The most bytes of a message: its length has 16 bits.
const LONGEST: usize = 65_535;

/// A message that is being written.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// One without a body, in the first of its forms that the version has. Whether it has one, says
    /// [`Kind::is_in`]; otherwise it is written as in another version, and the peer will not know
    /// it.
    #[must_use]
    pub fn new(version: Version, kind: Kind, xid: u32) -> Self {
        let row = kind.rows().iter().find(|row| row.is_in(version));
        Self::of_row(version, row.or(kind.rows().first()), xid)
    }

    /// One of this form.
    #[must_use]
    pub fn of_form(version: Version, kind: Kind, form: Form, xid: u32) -> Self {
        let is_it = |row: &&Row| row.form == form;
        let rows = kind.rows().iter();
        let row = rows.clone().find(|row| is_it(row) && row.is_in(version));
        Self::of_row(version, row.or_else(|| rows.clone().find(is_it)), xid)
    }

    fn of_row(version: Version, row: Option<&Row>, xid: u32) -> Self {
        let (form, number) = row.map_or((Form::Of, 0), |row| (row.form, row.number));
        Self::numbered(version, form, number, xid)
    }

    /// One by its number, where there are several of one form in a version.
    #[must_use]
    pub fn numbered(version: Version, form: Form, number: u32, xid: u32) -> Self {
        let mut bytes = Vec::with_capacity(64);
        // Standard types have 8 bits, those of statistics 16.
        let [.., high, low] = number.to_be_bytes();
        bytes.u8(version.wire());
        bytes.u8(match form {
            Form::Of => low,
            Form::Nx | Form::Onf => OFPT_VENDOR,
            _ => stats_type(version, form.is_reply()),
        });
        bytes.u16(0);
        bytes.u32(xid);
        if form.is_stats() {
            let experimenter = form.experimenter().is_some();
            bytes.u16(if experimenter { OFPST_VENDOR } else { u16::from_be_bytes([high, low]) });
            bytes.u16(0);
            if version > Version::V10 {
                bytes.u32(0);
            }
        }
        if let Some(experimenter) = form.experimenter() {
            bytes.u32(experimenter);
            bytes.u32(number);
            let is_padded = matches!(form, Form::NxRequest | Form::NxReply);
            if is_padded && version == Version::V10 {
                bytes.u32(0);
            }
        }
        Self { bytes }
    }

    /// Where its body is appended.
    pub const fn body(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The whole message, with its length; cut where it would be longer than a message can be.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(LONGEST);
        self.bytes.patch_length(2, 0);
        self.bytes
    }
}

/// Answers to a request for statistics, of which there are as many as it takes.
///
/// ```
/// use openflow::Version;
/// use openflow::message::{Form, Kind, Replies};
/// use openflow::wire::Writer as _;
///
/// let mut replies = Replies::new(Version::V13, Kind::TableStatsReply, Form::Reply, 1);
/// for table in 0..255 {
///     replies.entry(|out| {
///         out.u8(table);
///         out.zeroes(23);
///     });
/// }
/// assert_eq!(replies.finish().len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Replies {
    head: Vec<u8>,
    open: Vec<u8>,
    full: Vec<Vec<u8>>,
}

impl Replies {
    /// Answers to the request of this version and number.
    #[must_use]
    pub fn new(version: Version, kind: Kind, form: Form, xid: u32) -> Self {
        let head = Message::of_form(version, kind, form, xid).bytes;
        Self { open: head.clone(), head, full: Vec::new() }
    }

    /// Appends an entry, which is all in one message; one that fits into none is left out. Returns whether
    /// it is there.
    pub fn entry(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = self.open.len();
        write(&mut self.open);
        if self.open.len() <= LONGEST {
            return true;
        }
        let entry = self.open.split_off(start);
        if self.head.len().saturating_add(entry.len()) > LONGEST {
            return false;
        }
        let mut full = std::mem::replace(&mut self.open, self.head.clone());
        self.open.extend(entry);
        full.patch(10, &MORE.to_be_bytes());
        full.patch_length(2, 0);
        self.full.push(full);
        true
    }

    /// All answers. There is at least one.
    #[must_use]
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        self.open.patch_length(2, 0);
        self.full.push(self.open);
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Raw;

    #[test]
    fn answers_are_divided_between_entries() {
        for version in [Version::V10, Version::V13] {
            let mut replies = Replies::new(version, Kind::FlowStatsReply, Form::Reply, 3);
            for at in 0..70_u8 {
                assert!(replies.entry(|out| out.extend(vec![at; 1_000])));
            }
            assert!(!replies.entry(|out| out.extend(vec![0; 70_000])));
            let all = replies.finish();
            let read: Vec<Raw<'_>> = all.iter().map(|bytes| Raw::read(bytes).unwrap()).collect();
            assert_eq!(read.iter().map(|raw| raw.more).collect::<Vec<_>>(), [true, false]);
            let bodies = read.iter().map(|raw| raw.body).collect::<Vec<_>>().concat();
            assert_eq!(bodies, (0..70_u8).flat_map(|at| vec![at; 1_000]).collect::<Vec<_>>());
            assert!(
                all.iter()
                    .all(|bytes| bytes[2..4] == u16::try_from(bytes.len()).unwrap().to_be_bytes())
            );
        }
    }
}
