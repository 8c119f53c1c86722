//! Which memory a device reaches.

use std::io;

use rustix::process::Resource;

use super::abi::IOTLB_BATCH;
use super::calls::{Calls, GUEST_SPACE, Iotlb, Piece};
use super::offer::Offer;
use crate::device::DeviceError;

/// What is mapped for a device, so that all of it can be unmapped again.
#[derive(Debug, Default)]
pub(super) struct Mappings(Vec<(u32, Piece)>);

impl Mappings {
    /// Maps `pieces` in an address space, all or none.
    pub(super) fn map(
        &mut self,
        calls: &dyn Calls,
        offer: &Offer,
        space: u32,
        pieces: &[Piece],
    ) -> Result<(), DeviceError> {
        let batch = offer.has(IOTLB_BATCH);
        let failed = |error: &io::Error| DeviceError(format!("mapping memory failed: {error}"));
        if batch {
            calls.iotlb(space, Iotlb::BatchBegin).map_err(|error| failed(&error))?;
        }
        let before = self.0.len();
        let mapped = pieces.iter().try_for_each(|piece| {
            calls
                .iotlb(space, Iotlb::Update(piece.clone()))
                .map_err(|error| DeviceError(map_error(piece, &error)))?;
            self.0.push((space, piece.clone()));
            Ok(())
        });
        let ended = if batch { calls.iotlb(space, Iotlb::BatchEnd) } else { Ok(()) };
        let done = mapped.and_then(|()| ended.map_err(|error| failed(&error)));
        if done.is_err() {
            let those = self.0.split_off(before);
            unmap(calls, offer, &those);
        }
        done
    }

    /// Unmaps everything.
    pub(super) fn unmap(&mut self, calls: &dyn Calls, offer: &Offer) {
        unmap(calls, offer, &std::mem::take(&mut self.0));
    }

    /// Bytes that are mapped.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, piece)| piece.len).fold(0, u64::saturating_add)
    }
}

/// Has the device of a file that was just opened, where nothing is mapped, hear of that. The kernel
/// does not tell it when a file is closed: VDUSE would keep the memory of whoever had the device
/// before, if that crashed, until other memory is mapped.
pub(super) fn forget_others(calls: &dyn Calls, offer: &Offer) {
    if offer.has(IOTLB_BATCH) && calls.iotlb(GUEST_SPACE, Iotlb::BatchBegin).is_ok() {
        let _ = calls.iotlb(GUEST_SPACE, Iotlb::BatchEnd);
    }
}

/// Unmaps pieces, those of one address space at once.
fn unmap(calls: &dyn Calls, offer: &Offer, pieces: &[(u32, Piece)]) {
    let warn = |what: &str, error: &io::Error| {
        // The kernel drops all mappings with the last handle of its file.
        tracing::warn!(%error, "unmapping memory of a vDPA device failed: {what}");
    };
    for group in pieces.chunk_by(|(first, _), (second, _)| first == second) {
        let Some((space, _)) = group.first() else { continue };
        let batch = offer.has(IOTLB_BATCH)
            && calls
                .iotlb(*space, Iotlb::BatchBegin)
                .inspect_err(|error| warn("the start of a batch", error))
                .is_ok();
        for (_, Piece { iova, len, .. }) in group {
            let change = Iotlb::Invalidate { iova: *iova, len: *len };
            if let Err(error) = calls.iotlb(*space, change) {
                warn(&format!("{len} bytes at {iova:#x}"), &error);
            }
        }
        if batch && let Err(error) = calls.iotlb(*space, Iotlb::BatchEnd) {
            warn("the end of a batch", &error);
        }
    }
}

fn map_error(piece: &Piece, error: &io::Error) -> String {
    let Piece { iova, len, .. } = piece;
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    match (error.raw_os_error(), limit) {
        (Some(libc::ENOMEM), Some(limit)) => format!(
            "memory of {} KiB at {iova:#x} cannot be mapped: the limit of locked memory is {} KiB; \
             raise it with 'ulimit -l unlimited' or systemd's LimitMEMLOCK=infinity",
            len >> 10,
            limit >> 10
        ),
        _ => format!("memory of {} KiB at {iova:#x} cannot be mapped: {error}", len >> 10),
    }
}

/// Checks that a device can have `piece`: whole pages at addresses that it has.
pub(super) fn check(piece: &Piece, offer: &Offer) -> Result<(), DeviceError> {
    let Piece { iova, len, .. } = *piece;
    let (first, last) = offer.range;
    let inside = iova >= first && piece.last().is_some_and(|end| end <= last);
    if !inside {
        return Err(DeviceError(format!(
            "guest memory of {len:#x} bytes at {iova:#x} is outside of what the device reaches, \
             {first:#x} to {last:#x}; give the guest less memory, or use another device"
        )));
    }
    let page = rustix::param::page_size() as u64;
    let whole = [iova, len, piece.host_address()].iter().all(|part| part.is_multiple_of(page));
    if !whole {
        return Err(DeviceError(format!(
            "guest memory of {len:#x} bytes at {iova:#x} is not made of whole pages of {page} \
             bytes"
        )));
    }
    Ok(())
}

/// Where `len` bytes, whole pages, can be mapped beside `pieces`, which are in ascending order.
pub(super) fn free_place(pieces: &[Piece], offer: &Offer, len: u64) -> Option<u64> {
    let page = rustix::param::page_size() as u64;
    let (first, last) = offer.range;
    let ends = pieces.iter().filter_map(|piece| piece.last()?.checked_add(1));
    // Behind the guest's memory first, where nobody looks for anything.
    let starts: Vec<u64> = std::iter::once(first.max(page)).chain(ends).collect();
    starts.into_iter().rev().find_map(|start| {
        let iova = start.max(first).checked_next_multiple_of(page)?;
        let end = iova.checked_add(len.checked_sub(1)?)?;
        let free = |piece: &Piece| piece.last().is_some_and(|l| l < iova) || piece.iova > end;
        (end <= last && pieces.iter().all(free)).then_some(iova)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eal::SharedMemory;
    use eal::dma::DmaBacking;

    use super::*;

    fn offer(first: u64, last: u64) -> Offer {
        Offer { range: (first, last), ..Offer::default() }
    }

    fn memory() -> Arc<DmaBacking> {
        Arc::new(DmaBacking::Shared(SharedMemory::allocate("test", 8192).unwrap(), 0))
    }

    #[test]
    fn a_free_place_is_beside_the_guest_and_in_range() {
        let memory = memory();
        let pieces = [Piece::own(&memory, 0), Piece::own(&memory, 0x10_0000)];
        let place = |first, last| free_place(&pieces, &offer(first, last), 4096);
        assert_eq!(place(0, u64::MAX), Some(0x10_2000));
        assert_eq!(place(0, 0x10_2fff), Some(0x10_2000));
        assert_eq!(place(0, 0x10_2ffe), Some(0x2000), "between the two");
        assert_eq!(place(0, 0x1fff), None);
        assert_eq!(place(0x20_0000, u64::MAX), Some(0x20_0000));
        assert_eq!(place(0x2001, 0x4fff), Some(0x3000));
        assert_eq!(free_place(&[], &offer(0, u64::MAX), 4096), Some(4096), "not at 0");
        let high = [Piece::own(&memory, u64::MAX - 8191)];
        assert_eq!(free_place(&high, &offer(0, u64::MAX), 4096), Some(4096));
        assert_eq!(free_place(&pieces, &offer(0, u64::MAX), 0), None);
    }

    #[test]
    fn what_the_device_does_not_reach_is_refused() {
        let memory = memory();
        let check = |iova, first, last| check(&Piece::own(&memory, iova), &offer(first, last));
        assert!(check(0x1000, 0x1000, 0x2fff).is_ok());
        assert!(check(0x1000, 0x1000, 0x2ffe).unwrap_err().0.contains("outside"));
        assert!(check(0x1000, 0x1001, u64::MAX).is_err());
        assert!(check(u64::MAX - 4095, 0, u64::MAX).is_err());
        assert!(check(0x1800, 0, u64::MAX).unwrap_err().0.contains("whole pages"));
    }
}
