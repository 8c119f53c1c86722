//! Memory for tests that Miri interprets: it knows no files of memory, so what stands in for one is
//! memory on the heap, and a descriptor by which it is found.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

const PAGE: usize = 4096;

/// The files by their descriptors. One that was closed stays until its number is used again.
static FILES: Mutex<BTreeMap<RawFd, Arc<Pages>>> = Mutex::new(BTreeMap::new());

/// The pages behind mappings, by address: each as often as it is mapped there.
static MAPPINGS: Mutex<BTreeMap<usize, Vec<Arc<Pages>>>> = Mutex::new(BTreeMap::new());

/// The pages of a file, which every mapping of it shares.
#[derive(Debug)]
struct Pages {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is memory that nobody borrows, and that goes with the last handle.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(bytes: usize) -> Result<Self, Errno> {
        let layout = Layout::from_size_align(bytes.max(PAGE), PAGE).map_err(|_| Errno::NOMEM)?;
        // SAFETY: the layout is not empty.
        let first = unsafe { alloc_zeroed(layout) };
        Ok(Self { first: NonNull::new(first).ok_or(Errno::NOMEM)?, layout })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: it comes from `new`, and no mapping is left.
        unsafe { dealloc(self.first.as_ptr(), self.layout) };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file of `bytes` zeroes.
pub(super) fn create(bytes: u64) -> Result<OwnedFd, Errno> {
    let bytes = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
    let pages = Pages::new(bytes.next_multiple_of(PAGE))?;
    let file = crate::EventFd::new().map_err(|_| Errno::MFILE)?;
    lock(&FILES).insert(file.as_fd().as_raw_fd(), Arc::new(pages));
    Ok(file.into())
}

fn pages(fd: BorrowedFd<'_>) -> Result<Arc<Pages>, Errno> {
    lock(&FILES).get(&fd.as_raw_fd()).cloned().ok_or(Errno::NODEV)
}

/// Length of the file behind `fd` in bytes, if it is one.
pub(crate) fn len(fd: BorrowedFd<'_>) -> Option<u64> {
    Some(pages(fd).ok()?.layout.size() as u64)
}

/// As the other one, of a file that begins inside: whoever touches what lies behind its end is told
/// by Miri.
pub(super) fn map_shared(
    fd: BorrowedFd<'_>,
    offset: u64,
    _len: usize,
) -> Result<NonNull<u8>, Errno> {
    let pages = pages(fd)?;
    let offset = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
    if offset > pages.layout.size() {
        return Err(Errno::INVAL);
    }
    // SAFETY: it is inside, as was just checked.
    let ptr = unsafe { pages.first.add(offset) };
    lock(&MAPPINGS).entry(ptr.addr().get()).or_default().push(pages);
    Ok(ptr)
}

/// Undoes [`map_shared`].
///
/// # Safety
///
/// As of the other one.
pub(super) unsafe fn unmap(ptr: NonNull<u8>, _len: usize) {
    if let Some(pages) = lock(&MAPPINGS).get_mut(&ptr.addr().get()) {
        pages.pop();
    }
}
