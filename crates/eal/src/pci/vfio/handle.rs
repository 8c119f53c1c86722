//! The file of a device and what depends on it, all of which can be given back to the kernel while
//! values still refer to it.
//!
//! A device that is unplugged or taken from its driver waits in the kernel until its file is closed
//! and nothing of it is mapped. The values that have those are spread over a driver, so
//! instead of taking them back one by one what they refer to is exchanged: an event that nobody
//! signals takes the place of the file, memory with ones the place of registers.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::{MapFlags, MremapFlags, ProtFlags};

use super::container::GroupHandle;
use crate::event::EventFd;
use crate::pci::bar::{Bar, Owner};

/// A device's file, its group behind it, and the mappings of its registers, which keep it.
#[derive(Debug)]
pub(super) struct Handle {
    fd: OwnedFd,
    /// Given up after the file.
    group: Mutex<Option<GroupHandle>>,
    mapped: Mutex<Mapped>,
}

/// The mappings that there are: first byte and length.
#[derive(Debug, Default)]
struct Mapped {
    ranges: Vec<(usize, usize)>,
    revoked: bool,
}

impl Handle {
    pub(super) fn new(fd: OwnedFd, group: GroupHandle) -> Self {
        Self { fd, group: Mutex::new(Some(group)), mapped: Mutex::default() }
    }

    /// The device's file, or what has taken its place: that takes no command, and cannot be read
    /// or written at a position.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Maps registers; see [`Bar::map`].
    pub(super) fn map(
        self: &Arc<Self>,
        offset: u64,
        len: usize,
        areas: &[(usize, usize)],
    ) -> io::Result<Bar> {
        let owner: Arc<dyn Owner> = Arc::<Self>::clone(self);
        // Without the lock, which a mapping that fails takes when it is undone.
        let bar = Bar::map(self.fd(), offset, 0, len, areas, Some(owner))?;
        let mut mapped = self.lock();
        let (base, len) = bar.range();
        if mapped.revoked {
            // SAFETY: the range is that of a mapping that is there.
            unsafe { fill_with_ones(base, len)? };
        }
        mapped.ranges.push((base, len));
        Ok(bar)
    }

    /// Gives the device back to the kernel.
    ///
    /// # Errors
    /// When there is no memory or file descriptor left. Part of it may be done by then.
    pub(super) fn revoke(&self) -> io::Result<()> {
        let mut mapped = self.lock();
        if std::mem::replace(&mut mapped.revoked, true) {
            return Ok(());
        }
        for (base, len) in &mapped.ranges {
            // SAFETY: the range is that of a mapping that is there, since its owner tells before it
            // unmaps it, and waits for this lock.
            unsafe { fill_with_ones(*base, *len)? };
        }
        drop(mapped);
        let nobody = EventFd::new()?;
        // SAFETY: both are files of this process, and the second one is this value's own: who has
        // borrowed it finds another file there, as if the device were gone.
        if unsafe { libc::dup3(nobody.as_fd().as_raw_fd(), self.fd.as_raw_fd(), libc::O_CLOEXEC) }
            < 0
        {
            return Err(io::Error::last_os_error());
        }
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(group);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Mapped> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner for Handle {
    fn unmaps(&self, base: usize) {
        self.lock().ranges.retain(|(other, _)| *other != base);
    }
}

/// Puts private memory with ones in the place of a mapping, at once.
///
/// # Safety
///
/// The bytes must be those of a mapping of registers, whole pages of it, which is accessed by
/// volatile words only.
unsafe fn fill_with_ones(base: usize, len: usize) -> io::Result<()> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    let nowhere = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory, and
    // has `len` bytes to be written.
    let ones = unsafe {
        let ones = rustix::mm::mmap_anonymous(nowhere, len, prot, MapFlags::PRIVATE)?;
        ones.cast::<u8>().write_bytes(0xFF, len);
        ones
    };
    let at = std::ptr::with_exposed_provenance_mut(base);
    // SAFETY: the caller vouches for the range, whose users see other values from now on and
    // nothing else.
    let moved = unsafe { rustix::mm::mremap_fixed(ones, len, len, MremapFlags::MAYMOVE, at) };
    if let Err(error) = moved {
        // SAFETY: made above, and still nobody else's.
        let _ = unsafe { rustix::mm::munmap(ones, len) };
        return Err(error.into());
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Ranges(Mutex<Vec<usize>>);

    impl Owner for Ranges {
        fn unmaps(&self, base: usize) {
            self.0.lock().unwrap().push(base);
        }
    }

    #[test]
    fn registers_turn_into_ones_and_are_unmapped_as_ever() {
        let page = rustix::param::page_size();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 2 * page]).unwrap();
        let owner = Arc::new(Ranges(Mutex::default()));
        let kept: Arc<dyn Owner> = Arc::<Ranges>::clone(&owner);
        let areas = [(0, 2 * page)];
        let bar = Bar::map(file.as_fd(), 0, 0, 2 * page, &areas, Some(kept)).unwrap();
        assert_eq!((bar.read32(0), bar.read8(2 * page - 1)), (0x0707_0707, 7));
        let (base, len) = bar.range();
        assert_eq!(len, 2 * page);
        // SAFETY: it is the mapping of `bar`.
        unsafe { fill_with_ones(base, len).unwrap() };
        assert_eq!((bar.read32(0), bar.read8(2 * page - 1)), (u32::MAX, 0xFF));
        bar.write32(0, 5);
        drop(bar);
        assert_eq!(*owner.0.lock().unwrap(), [base]);
        let mut bytes = vec![0; 4];
        rustix::io::pread(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 4], "what is written afterwards goes nowhere");
    }
}
