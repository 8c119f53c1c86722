//! The memory that a front-end shares. The back-end has it, too, and so has the thread that
//! changes it meanwhile: every access is atomic.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use anyhow::Result;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memfd of `bytes` that nobody has mapped, and that can be sealed.
pub fn memfd(bytes: u64) -> Result<File> {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, bytes)?;
    Ok(fd.into())
}

/// A memfd that is mapped here.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping lives as long as the value, and all accesses are atomic.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of `len` bytes, all of them zero.
    pub fn new(len: usize) -> Result<Self> {
        let fd: OwnedFd = memfd(len as u64)?.into();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses where the new mapping lies.
        let start =
            unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, &fd, 0)? };
        let start = NonNull::new(start.cast()).unwrap_or(NonNull::dangling());
        Ok(Self { start, len, fd })
    }

    fn bytes(&self, at: usize, len: usize) -> &[AtomicU8] {
        assert!(at <= self.len && len <= self.len - at, "{at:#x} of {:#x}", self.len);
        // SAFETY: inside the mapping by the check above; what others change meanwhile is what
        // atomics are for, and an AtomicU8 has no invalid values.
        unsafe { std::slice::from_raw_parts(self.start.add(at).as_ptr().cast(), len) }
    }

    fn word(&self, at: usize) -> &AtomicU16 {
        assert!(at.is_multiple_of(2));
        let bytes = self.bytes(at, 2);
        // SAFETY: two bytes inside the mapping, aligned since the mapping is and `at` is even.
        unsafe { &*bytes.as_ptr().cast::<AtomicU16>() }
    }

    /// Copies `bytes` to offset `at`.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        for (to, from) in self.bytes(at, bytes.len()).iter().zip(bytes) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    /// The `len` bytes at offset `at`.
    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        self.bytes(at, len).iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Writes 16 bits after all that was written before.
    pub fn publish(&self, at: usize, value: u16) {
        self.word(at).store(value, Ordering::SeqCst);
    }

    /// Reads 16 bits before all that is read after.
    pub fn look(&self, at: usize) -> u16 {
        self.word(at).load(Ordering::SeqCst)
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and no reference into it outlives the value.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let memory = Memory::new(1 << 16).unwrap();
        memory.write(0xfffd, b"end");
        assert_eq!(memory.read(0xfffd, 3), b"end");
        memory.publish(2, 0x1234);
        assert_eq!(memory.look(2), 0x1234);
    }
}
