//! Indirect tables, which both ring formats have (virtio 1.3 sections 2.7.5.3 and 2.8.8).

use packet::RawSegment;

use super::{ChainError, MAX_CHAIN};
use crate::memory::Translator;
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, read_desc};

/// How the entries of a table follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainWalk {
    /// By `next`, as in split rings.
    Linked,
    /// All of them, one after the other, as in packed rings; their flags say which of them the
    /// device writes.
    Sequential,
    /// As `Sequential`, in a queue of which the device only reads, whatever the flags say: DPDK's
    /// driver (seen in 22.11) leaves WRITE on the net header of the tables that it sends.
    SequentialRead,
}

/// Where a table lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indirect {
    pub(super) addr: u64,
    pub(super) len: u32,
}

impl Indirect {
    /// Visits the buffers of the table: each with whether the device is to write it. `allowed`
    /// says whether there may be a table here at all.
    pub(super) fn follow(
        self,
        allowed: bool,
        memory: &mut Translator,
        walk: ChainWalk,
        mut visit: impl FnMut(RawSegment, bool) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        const ENTRY: u32 = 16;
        let entries = self.len / ENTRY;
        if !allowed || entries == 0 || !self.len.is_multiple_of(ENTRY) {
            return Err(ChainError::BadIndirect);
        }
        let table = memory.whole(self.addr, self.len, false)?;
        if !table.as_ptr().as_ptr().addr().is_multiple_of(8) {
            return Err(ChainError::Unmapped { addr: self.addr, len: self.len });
        }
        let mut index = 0;
        for _ in 0..MAX_CHAIN {
            // SAFETY: `index` is less than `entries`, so the 16 bytes lie in the translated
            // `self.len`, and their start is as aligned as the table, to 8 bytes.
            let desc = unsafe { read_desc(table.as_ptr().add(16 * index as usize)) };
            // A packed descriptor has its flags where a split one has `next`; of these only
            // WRITE means anything in a table (section 2.8.8).
            let flags = match walk {
                ChainWalk::Linked => desc.flags,
                ChainWalk::Sequential => desc.next & DESC_WRITE,
                ChainWalk::SequentialRead => 0,
            };
            if flags & DESC_INDIRECT != 0 {
                return Err(ChainError::BadIndirect);
            }
            let writable = flags & DESC_WRITE != 0;
            memory.pieces(desc.addr, desc.len, writable, |piece| visit(piece, writable))?;
            let next = u32::from(desc.next);
            index = match walk {
                ChainWalk::Linked if flags & DESC_NEXT == 0 => return Ok(()),
                ChainWalk::Linked if next >= entries => {
                    return Err(ChainError::NextOutOfRange(desc.next));
                }
                ChainWalk::Linked => next,
                _ if index + 1 == entries => return Ok(()),
                _ => index + 1,
            };
        }
        Err(ChainError::TooLong)
    }
}
