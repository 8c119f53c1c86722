//! Actions as messages have them: which numbers stand for which, in which versions, and how long they
//! may be.

use crate::error::ErrorCode;
use crate::experimenter::{NICIRA, ONF};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The number that says that somebody's extension follows.
const VENDOR: u16 = 0xFFFF;

/// Whose an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Of,
    Nx,
    Onf,
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    kind: Kind,
    owner: Owner,
    number: u16,
    from: Version,
    to: Version,
    /// The least and the largest size in bytes.
    len: (u16, u16),
}

/// Makes the kinds and the table.
macro_rules! kinds {
    ($($kind:ident $([$owner:ident $number:literal $from:ident $to:ident $len:literal $more:tt])+;)*) => {
        /// An action as it is in a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($kind,)*
        }

        static ROWS: &[Row] = &[$($(Row {
            kind: Kind::$kind,
            owner: Owner::$owner,
            number: $number,
            from: Version::$from,
            to: Version::$to,
            len: ($len, kinds!(@most $len $more)),
        },)+)*];
    };
    (@most $len:literal fixed) => { $len };
    (@most $len:literal more) => { 0xFFF8 };
}

// Who has it, its number, from which version to which, its size, and whether it may be larger.
kinds! {
    Output10 [Of 0 V10 V10 8 fixed];
    Output11 [Of 0 V11 V15 16 fixed];
    SetVlanVid10 [Of 1 V10 V10 8 fixed];
    SetVlanPcp10 [Of 2 V10 V10 8 fixed];
    SetVlanVid11 [Of 1 V11 V15 8 fixed];
    SetVlanPcp11 [Of 2 V11 V15 8 fixed];
    PushVlan [Of 17 V11 V15 8 fixed];
    StripVlan [Of 3 V10 V10 8 fixed];
    PopVlan [Of 18 V11 V15 8 fixed];
    SetDlSrc [Of 4 V10 V10 16 fixed] [Of 3 V11 V15 16 fixed];
    SetDlDst [Of 5 V10 V10 16 fixed] [Of 4 V11 V15 16 fixed];
    SetNwSrc [Of 6 V10 V10 8 fixed] [Of 5 V11 V15 8 fixed];
    SetNwDst [Of 7 V10 V10 8 fixed] [Of 6 V11 V15 8 fixed];
    SetNwTos [Of 8 V10 V10 8 fixed] [Of 7 V11 V15 8 fixed];
    SetNwEcn [Of 8 V11 V15 8 fixed];
    SetTpSrc [Of 9 V10 V15 8 fixed];
    SetTpDst [Of 10 V10 V15 8 fixed];
    Enqueue [Of 11 V10 V10 16 fixed];
    SetMplsLabel [Nx 30 V10 V10 16 fixed] [Of 13 V11 V15 8 fixed];
    SetMplsTc [Nx 31 V10 V10 16 fixed] [Of 14 V11 V15 8 fixed];
    SetMplsTtl [Nx 25 V10 V10 16 fixed] [Of 15 V11 V15 8 fixed];
    DecMplsTtl [Nx 26 V10 V10 16 fixed] [Of 16 V11 V15 8 fixed];
    PushMpls [Nx 23 V10 V10 16 fixed] [Of 19 V11 V15 8 fixed];
    PopMpls [Nx 24 V10 V10 16 fixed] [Of 20 V11 V15 8 fixed];
    SetQueue [Nx 4 V10 V10 16 fixed] [Of 21 V11 V15 8 fixed];
    Group [Nx 40 V10 V10 16 fixed] [Of 22 V11 V15 8 fixed];
    SetNwTtl [Of 23 V11 V15 8 fixed];
    DecNwTtl [Nx 18 V10 V10 16 fixed] [Of 24 V11 V15 8 fixed];
    DecTtlCntIds [Nx 21 V10 V15 16 more];
    SetField12 [Of 25 V12 V14 8 more];
    SetField15 [Of 25 V15 V15 8 more];
    RegLoad [Nx 7 V10 V14 24 fixed];
    RegLoad2 [Nx 33 V10 V14 16 more];
    CopyField15 [Of 28 V15 V15 16 more];
    CopyField13 [Onf 3200 V13 V14 24 more];
    RegMove [Nx 6 V10 V14 16 more];
    Meter15 [Of 29 V15 V15 8 fixed];
    Resubmit [Nx 1 V10 V15 16 fixed];
    ResubmitTable [Nx 14 V10 V15 16 fixed];
    ResubmitTableCt [Nx 44 V10 V15 16 fixed];
    SetTunnel [Nx 2 V10 V15 16 fixed];
    SetTunnel64 [Nx 9 V10 V15 24 fixed];
    PopQueue [Nx 5 V10 V15 16 fixed];
    Note [Nx 8 V10 V15 16 more];
    Multipath [Nx 10 V10 V15 32 fixed];
    Bundle [Nx 12 V10 V15 32 more];
    BundleLoad [Nx 13 V10 V15 32 more];
    OutputReg [Nx 15 V10 V15 24 fixed];
    OutputReg2 [Nx 32 V10 V15 24 fixed];
    Learn [Nx 16 V10 V15 32 more];
    Learn2 [Nx 45 V10 V15 40 more];
    Exit [Nx 17 V10 V15 16 fixed];
    FinTimeout [Nx 19 V10 V15 16 fixed];
    Controller [Nx 20 V10 V15 16 fixed];
    Controller2 [Nx 37 V10 V15 16 more];
    WriteMetadata [Nx 22 V10 V15 32 fixed];
    StackPush [Nx 27 V10 V15 24 fixed];
    StackPop [Nx 28 V10 V15 24 fixed];
    Sample [Nx 29 V10 V15 24 fixed];
    Sample2 [Nx 38 V10 V15 32 fixed];
    Sample3 [Nx 41 V10 V15 32 fixed];
    Conjunction [Nx 34 V10 V15 16 fixed];
    Ct [Nx 35 V10 V15 24 more];
    Nat [Nx 36 V10 V15 16 more];
    OutputTrunc [Nx 39 V10 V15 16 fixed];
    Clone [Nx 42 V10 V15 16 more];
    CtClear [Nx 43 V10 V15 16 fixed];
    Encap [Nx 46 V13 V15 16 more];
    Decap [Nx 47 V13 V15 16 more];
    DecNshTtl [Nx 48 V13 V15 16 fixed];
    CheckPktLarger [Nx 49 V10 V15 24 more];
    DeleteField [Nx 50 V10 V15 24 fixed];
    DebugSlow [Nx 254 V10 V15 16 fixed];
    DebugRecirc [Nx 255 V10 V15 16 fixed];
}

/// An action of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawAction<'a> {
    pub(super) kind: Kind,
    /// What follows its number.
    pub(super) body: Reader<'a>,
    /// Whether it is an extension, whose body begins at byte 10 instead of 4.
    pub(super) is_extension: bool,
}

/// Takes the next action of a list.
///
/// # Errors
/// It is not known, or its size is not right.
pub(super) fn pull<'a>(
    list: &mut Reader<'a>,
    version: Version,
) -> Result<RawAction<'a>, ErrorCode> {
    let bad_len = |_| ErrorCode::BacBadLen;
    if list.len() < 8 {
        return Err(ErrorCode::BacBadLen);
    }
    let mut header = *list;
    let (number, len) = (header.u16().map_err(bad_len)?, header.u16().map_err(bad_len)?);
    let (owner, number) = if number == VENDOR {
        let owner = match header.u32().map_err(bad_len)? {
            NICIRA => Owner::Nx,
            ONF => Owner::Onf,
            _ => return Err(ErrorCode::BacBadVendor),
        };
        if list.len() < 16 {
            return Err(ErrorCode::BacBadLen);
        }
        (owner, header.u16().map_err(bad_len)?)
    } else {
        (Owner::Of, number)
    };
    let is_it = |row: &&Row| {
        row.owner == owner && row.number == number && (row.from..=row.to).contains(&version)
    };
    let is_extension = owner != Owner::Of;
    let unknown = if is_extension { ErrorCode::BacBadVendorType } else { ErrorCode::BacBadType };
    let row = ROWS.iter().find(is_it).ok_or(unknown)?;
    if len < row.len.0 || len > row.len.1 || !len.is_multiple_of(8) {
        return Err(ErrorCode::BacBadLen);
    }
    let mut body = list.sub(len.into()).map_err(bad_len)?;
    body.skip(if is_extension { 10 } else { 4 }).map_err(bad_len)?;
    Ok(RawAction { kind: row.kind, body, is_extension })
}

impl RawAction<'_> {
    /// The only value that there is, behind zeroes that have it begin at a multiple of its size.
    pub(super) fn value<const N: usize>(mut self) -> Result<u64, ErrorCode> {
        let start = if self.is_extension { 10_usize } else { 4 };
        self.body.skip(start.next_multiple_of(N) - start)?;
        let bytes = self.body.bytes::<N>()?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// Writes one action.
#[derive(Debug)]
pub(super) struct Put<'a> {
    pub(super) out: &'a mut Vec<u8>,
    start: usize,
    least: usize,
}

impl<'a> Put<'a> {
    /// Writes the header of an action of `version`; nothing, if it has no such action.
    pub(super) fn begin(out: &'a mut Vec<u8>, kind: Kind, version: Version) -> Option<Self> {
        let is_it = |row: &&Row| row.kind == kind && (row.from..=row.to).contains(&version);
        let row = ROWS.iter().find(is_it)?;
        let start = out.position();
        let extension = match row.owner {
            Owner::Of => None,
            Owner::Nx => Some(NICIRA),
            Owner::Onf => Some(ONF),
        };
        out.u16(if extension.is_some() { VENDOR } else { row.number });
        out.u16(0);
        if let Some(vendor) = extension {
            out.u32(vendor);
            out.u16(row.number);
        }
        Some(Self { out, start, least: row.len.0.into() })
    }

    /// Writes zeroes up to what the action is to have, and its size.
    pub(super) fn end(self) {
        let written = self.out.position().saturating_sub(self.start);
        self.out.zeroes(self.least.saturating_sub(written));
        self.out.pad8(self.start);
        self.out.patch_length(self.start.saturating_add(2), self.start);
    }

    /// Writes the only value that there is, as [`RawAction::value`] reads it.
    pub(super) fn value<const N: usize>(self, value: u64) {
        let start = self.out.position().saturating_sub(self.start);
        self.out.zeroes(start.next_multiple_of(N) - start);
        let bytes = value.to_be_bytes();
        self.out.bytes(bytes.get(bytes.len().saturating_sub(N)..).unwrap_or_default());
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of the guide that lists actions, which must be true.
    const PAGE: &str = include_str!("../../../../../docs/openflow-fields.md");

    /// An action's line.
    fn line(kind: Kind) -> String {
        let numbers = ROWS.iter().filter(|row| row.kind == kind).map(|row| {
            let owner = match row.owner {
                Owner::Of => "",
                Owner::Nx => " of Nicira",
                Owner::Onf => " of ONF",
            };
            let versions = match (row.from.short(), row.to.short()) {
                (from, to) if from == to => from.to_owned(),
                (from, to) => format!("{from} to {to}"),
            };
            format!("{}{owner} ({versions})", row.number)
        });
        format!("| {kind:?} | {} |", numbers.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn the_page_lists_all_actions() {
        let mut kinds: Vec<Kind> = ROWS.iter().map(|row| row.kind).collect();
        kinds.dedup();
        let lines: Vec<String> = kinds.into_iter().map(line).collect();
        let missing: Vec<&String> =
            lines.iter().filter(|line| !PAGE.lines().any(|known| known == *line)).collect();
        assert!(missing.is_empty(), "docs/openflow-fields.md lacks:\n{missing:#?}");
    }

    #[test]
    fn numbers_are_of_one_action_each() {
        for (at, row) in ROWS.iter().enumerate() {
            let same = |other: &Row| {
                (other.owner, other.number) == (row.owner, row.number)
                    && other.from <= row.to
                    && row.from <= other.to
            };
            assert_eq!(ROWS.iter().position(same), Some(at), "{row:?}");
            assert!(row.len.0.is_multiple_of(8) && row.len.0 <= row.len.1, "{row:?}");
        }
    }
}
