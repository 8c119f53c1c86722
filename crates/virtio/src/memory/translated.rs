//! A guest's memory by I/O virtual addresses.

use super::{Region, Window, find_in};
use crate::iotlb::{Access, Iotlb, Translation};

/// What lies at I/O virtual addresses, for devices that read and for those that write.
///
/// Translations that continue each other in memory, too, are one window: most buffers lie in one
/// piece then, whatever the size of a page is.
#[derive(Debug)]
pub(super) struct Translated {
    readable: Box<[Window]>,
    writable: Box<[Window]>,
}

impl Translated {
    /// The translations of `iotlb` into `regions`, of which `windows` are; those that lead
    /// elsewhere are left out.
    pub(super) fn new(windows: &[Window], regions: &[Region], iotlb: &Iotlb) -> Self {
        debug_assert_eq!(windows.len(), regions.len());
        let build = |needed| {
            let mut built = Builder::default();
            let wanted = iotlb.iter().filter(|entry| entry.access.contains(needed));
            wanted.for_each(|entry| built.add(windows, entry));
            built.windows.into_boxed_slice()
        };
        Self { readable: build(Access::READ), writable: build(Access::WRITE) }
    }

    /// The window that `iova` may lie in.
    pub(super) fn find(&self, iova: u64, write: bool) -> Option<Window> {
        find_in(if write { &self.writable } else { &self.readable }, iova)
    }
}

#[derive(Default)]
struct Builder {
    windows: Vec<Window>,
    /// The region of the last one.
    region: usize,
}

impl Builder {
    /// Adds a translation, which starts behind all those before.
    fn add(&mut self, regions: &[Window], entry: &Translation) {
        let found = regions.iter().enumerate().find_map(|(index, region)| {
            Some((index, region.host_of(region.user_addr, entry.user_addr, entry.len)?))
        });
        let Some((region, host)) = found else { return };
        let (same, next) = (region == self.region, host.as_ptr().addr());
        self.region = region;
        if let Some(last) = self.windows.last_mut().filter(|_| same)
            && last.guest_addr.checked_add(last.len) == Some(entry.iova)
            && last.host.as_ptr().addr() as u64 + last.len == next as u64
        {
            last.len += entry.len;
            return;
        }
        self.windows.push(Window { guest_addr: entry.iova, user_addr: 0, len: entry.len, host });
    }
}
