//! The log of written pages, which a front-end shares while it migrates a guest (vhost-user,
//! chapter "Migration").
//!
//! While the guest still runs, the front-end copies its memory away; what a device writes
//! meanwhile has to be copied again. The log has one bit for every 4 KiB page of guest-physical
//! addresses, from address 0 on. Devices set bits, and the front-end takes them out.
//!
//! A page is marked *after* it was written: the front-end takes a bit out and then reads the page,
//! so a bit set before the write could be gone before the write is there.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Relaxed, Release, SeqCst},
    fence,
};

use eal::{Mapping, PeerEvent};

/// Bytes of guest memory that one bit stands for (`VHOST_LOG_PAGE`).
pub const LOG_PAGE: u64 = 4096;

/// A log of written pages. Any number of threads may mark pages in it, while the front-end takes
/// marks out of it.
#[derive(Debug)]
pub struct DirtyLog {
    map: Arc<Mapping>,
    /// By which the front-end wants to hear of new marks.
    event: Option<PeerEvent>,
    missed: AtomicU64,
}

impl DirtyLog {
    /// The log in `map`, of which every byte stands for eight pages. `event`, if there is one, is
    /// signalled when [`Marks`] end that have set bits.
    #[must_use]
    pub const fn new(map: Arc<Mapping>, event: Option<PeerEvent>) -> Self {
        Self { map, event, missed: AtomicU64::new(0) }
    }

    /// The same log with another file by which the front-end wants to hear of marks.
    #[must_use]
    pub fn with_event(&self, event: Option<PeerEvent>) -> Self {
        Self::new(Arc::clone(&self.map), event)
    }

    /// Bytes of the log; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Pages that the log has bits for.
    fn pages(&self) -> u64 {
        8 * self.map.len() as u64
    }

    /// Whether the log has a bit for every address below `end`.
    #[must_use]
    pub fn covers(&self, end: u64) -> bool {
        end.div_ceil(LOG_PAGE) <= self.pages()
    }

    /// Marks the `len` bytes at guest-physical address `addr`, which were written before this
    /// call, and tells the front-end. For many pieces of memory [`after_writes`](Self::after_writes)
    /// is cheaper.
    pub fn mark(&self, addr: u64, len: u64) {
        self.after_writes().mark(addr, len);
    }

    /// Starts to mark what this thread, or a device that it has heard of, has written until now.
    #[must_use]
    pub fn after_writes(&self) -> Marks<'_> {
        // A bit that is set already is only read. Without the fence that could happen before the
        // writes are visible: the front-end could take the bit out and read an old page.
        fence(SeqCst);
        Marks { log: self, any_new: false }
    }

    /// Tells the front-end that there are new marks.
    pub fn signal(&self) {
        if let Some(event) = &self.event {
            // The front-end cannot make it fail.
            let _ = event.signal();
        }
    }

    /// Counts a write that cannot be marked.
    pub fn miss(&self) {
        self.missed.fetch_add(1, Relaxed);
    }

    /// Writes that could not be marked, mostly since the log ends before them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Whether the front-end has truncated the log's file: marks lead nowhere then.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.map.poisoned()
    }

    /// Sets the bits `mask` of the byte at `index`; returns whether one of them is new.
    #[inline]
    fn set(&self, index: usize, mask: u8) -> bool {
        if index >= self.map.len() {
            return false;
        }
        // SAFETY: the index is inside the mapping, as was just checked. The front-end changes the
        // byte at any time, which is what atomics are for.
        let byte = unsafe { AtomicU8::from_ptr(self.map.ptr().add(index).as_ptr()) };
        // Release: whoever sees the bit sees what was written to the page.
        byte.load(Relaxed) & mask != mask && byte.fetch_or(mask, Release) & mask != mask
    }
}

/// Marks of writes that all happened before [`DirtyLog::after_writes`]. Dropping them tells the
/// front-end, if there are new ones and it wants to hear of them.
#[derive(Debug)]
pub struct Marks<'l> {
    log: &'l DirtyLog,
    any_new: bool,
}

impl Marks<'_> {
    /// Marks all pages that the `len` bytes at guest-physical address `addr` touch. Where the log
    /// ends before them they are counted as [missed](DirtyLog::missed).
    pub fn mark(&mut self, addr: u64, len: u64) {
        let Some(beyond_first) = len.checked_sub(1) else { return };
        let pages = self.log.pages();
        let first = addr / LOG_PAGE;
        let mut last = addr.saturating_add(beyond_first) / LOG_PAGE;
        if last >= pages {
            self.log.miss();
            last = pages.saturating_sub(1);
        }
        let mut page = first;
        while page <= last {
            // As many bits as there are in this byte of the log.
            let end = last.min(page | 7);
            let mask = (0xff_u8 >> (7 - end % 8)) & (0xff << (page % 8));
            let index = usize::try_from(page / 8).unwrap_or(usize::MAX);
            self.any_new |= self.log.set(index, mask);
            page = end + 1;
        }
    }

    /// Ends without telling the front-end; returns whether there is something to
    /// [tell](DirtyLog::signal).
    #[must_use]
    pub fn keep_quiet(mut self) -> bool {
        std::mem::take(&mut self.any_new)
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        if self.any_new {
            self.log.signal();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use proptest::prelude::*;
    use rustix::fs::MemfdFlags;

    use super::*;

    fn file(len: u64) -> OwnedFd {
        let fd = rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len).unwrap();
        fd
    }

    fn map(file: &OwnedFd, offset: u64, len: u64) -> Arc<Mapping> {
        Arc::new(Mapping::map(file.as_fd(), offset, len).unwrap())
    }

    fn bytes(file: &OwnedFd, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rustix::io::pread(file, &mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_page_has_the_bit_that_the_chapter_says() {
        let file = file(100);
        let log = DirtyLog::new(map(&file, 4, 96), None);
        log.mark(0, 1);
        log.mark(9 * LOG_PAGE + 4095, 2);
        log.mark(31 * LOG_PAGE, 0);
        let bytes = bytes(&file, 100);
        assert_eq!(bytes[..8], [0, 0, 0, 0, 1, 0b110, 0, 0]);
        assert!(bytes[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_the_log_does_not_cover_is_counted() {
        let file = file(3);
        let log = DirtyLog::new(map(&file, 0, 2), None);
        assert!(log.covers(16 * LOG_PAGE) && !log.covers(16 * LOG_PAGE + 1));
        log.mark(15 * LOG_PAGE, 4096);
        assert_eq!(log.missed(), 0);
        for (addr, len) in [(15 * LOG_PAGE, 4097), (16 * LOG_PAGE, 1), (u64::MAX, u64::MAX)] {
            log.mark(addr, len);
        }
        assert_eq!((log.missed(), bytes(&file, 3)), (3, vec![0, 0x80, 0]));
        log.mark(0, u64::MAX);
        assert_eq!((log.missed(), bytes(&file, 3)), (4, vec![0xff, 0xff, 0]));
    }

    #[test]
    fn the_front_end_hears_of_new_marks_once_per_burst() {
        let event = PeerEvent::new().unwrap();
        let log = DirtyLog::new(map(&file(8), 0, 8), Some(event.clone()));
        let told = || {
            let mut count = [0; 8];
            rustix::io::read(event.as_fd(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
        };
        let mut marks = log.after_writes();
        (0..20).for_each(|page| marks.mark(page * LOG_PAGE, 1));
        assert_eq!(told(), 0);
        drop(marks);
        assert_eq!(told(), 1);
        log.mark(5 * LOG_PAGE, 1);
        assert_eq!(told(), 0, "nothing is new");
        let mut marks = log.after_writes();
        marks.mark(40 * LOG_PAGE, 1);
        assert!(marks.keep_quiet());
        assert_eq!(told(), 0);
    }

    #[test]
    fn a_truncated_log_costs_its_marks_only() {
        let file = file(4096);
        let log = DirtyLog::new(map(&file, 0, 4096), None);
        rustix::fs::ftruncate(&file, 0).unwrap();
        log.mark(0, 1 << 20);
        assert!(log.poisoned());
    }

    /// The front-end's way: take the bit out, then copy the page. Whatever was written last must
    /// be copied in the end.
    #[test]
    fn no_write_is_lost_to_a_front_end_that_takes_marks_out() {
        let file = file(8);
        let (map, page, done) = (map(&file, 0, 8), AtomicU32::new(0), AtomicBool::new(false));
        let log = DirtyLog::new(Arc::clone(&map), None);
        // SAFETY: the byte is inside the mapping.
        let bits = unsafe { AtomicU8::from_ptr(map.ptr().as_ptr()) };
        let mut copy = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 1..=200_000 {
                    page.store(value, Relaxed);
                    log.mark(0, 4);
                }
                done.store(true, Release);
            });
            loop {
                let last = done.load(SeqCst);
                if bits.swap(0, SeqCst) != 0 {
                    copy = page.load(Relaxed);
                }
                if last {
                    break;
                }
            }
        });
        assert_eq!(copy, 200_000);
    }

    proptest! {
        #[test]
        fn exactly_the_touched_pages_are_marked(
            pieces in prop::collection::vec((0..40 * LOG_PAGE, 0..6 * LOG_PAGE), 0..8),
        ) {
            let file = file(6);
            let log = DirtyLog::new(map(&file, 0, 6), None);
            for (addr, len) in &pieces {
                log.mark(*addr, *len);
            }
            let bytes = bytes(&file, 6);
            for page in 0..48_u64 {
                let (start, end) = (page * LOG_PAGE, (page + 1) * LOG_PAGE);
                let touched = pieces.iter().any(|(addr, len)| {
                    *len > 0 && *addr < end && addr + len > start
                });
                let marked = bytes[(page / 8) as usize] >> (page % 8) & 1 == 1;
                prop_assert_eq!(marked, touched, "page {}", page);
            }
        }
    }
}
