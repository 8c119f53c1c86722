//! Memory of a peer process: a guest's RAM, mapped from the file descriptor that it sent.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::fs::FileType;
use rustix::mm::Advice;

use crate::mem::{Map, MemError};
use crate::sigbus;

/// `f_type` of hugetlbfs (Linux `include/uapi/linux/magic.h`).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// A region of a peer's memory, mapped shared, for reading and writing.
///
/// The peer may change any byte at any time, and may truncate the file: then the first access
/// replaces the whole mapping by private zeroes instead of killing the process, and
/// [`poisoned`](Self::poisoned) tells from then on. It is left out of core dumps. Dropping it
/// unmaps it.
#[derive(Debug)]
pub struct Mapping {
    map: Map,
    /// Offset of the region in `map`: what was asked for need not begin at a page.
    skip: usize,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes from `offset` of the file behind `fd`. The descriptor may be closed
    /// afterwards.
    ///
    /// Neither needs to be a multiple of a page: QEMU announces regions of a hugetlbfs file
    /// that begin in the middle of a huge page, and the whole pages around them are mapped.
    ///
    /// # Errors
    ///
    /// When the region is empty or does not fit the file as it is now, when the descriptor is
    /// no regular file, or when the kernel does not let us map it for writing.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemError> {
        sigbus::install().map_err(MemError::Guard)?;
        let stat = rustix::fs::fstat(fd).map_err(|errno| MemError::Map {
            offset,
            len,
            step: "fstat",
            source: errno.into(),
        })?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type != FileType::RegularFile {
            return Err(MemError::NotAFile { found: describe(file_type) });
        }
        Self::map_within(fd, offset, len, u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// As [`map`](Self::map), of an object of the kernel that stands for memory and has no size:
    /// what can be accessed of it may come and go. Memory that is not there is taken for memory
    /// that was taken away.
    ///
    /// # Errors
    ///
    /// When the region is empty or longer than an address space, or the kernel does not let us
    /// map it for writing.
    pub fn map_object(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemError> {
        sigbus::install().map_err(MemError::Guard)?;
        Self::map_within(fd, offset, len, isize::MAX.unsigned_abs() as u64)
    }

    fn map_within(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        file_len: u64,
    ) -> Result<Self, MemError> {
        let failed = |step, errno: rustix::io::Errno| MemError::Map {
            offset,
            len,
            step,
            source: errno.into(),
        };
        let page = page_size(fd).map_err(|e| failed("fstatfs", e))?;
        let (start, skip, map_len) = surrounding_pages(offset, len, file_len, page)
            .ok_or(MemError::Range { offset, len, file_len })?;
        let map = Map::new(fd, start, map_len).map_err(|e| failed("mmap", e))?;
        // A core dump with every guest's RAM helps nobody; a kernel that refuses does no harm.
        let _ = map.advise(Advice::LinuxDontDump);
        let len = usize::try_from(len).map_err(|_| MemError::Range { offset, len, file_len })?;
        Ok(Self { map, skip, len })
    }

    /// The region's first byte. Valid for [`len`](Self::len) bytes while the mapping lives; to
    /// be accessed only by pointer, since the peer writes to it at any time.
    #[must_use]
    #[inline]
    pub const fn ptr(&self) -> NonNull<u8> {
        // SAFETY: `skip` is less than the mapped length (`surrounding_pages`).
        unsafe { self.map.ptr().add(self.skip) }
    }

    /// Length of the region in bytes; never 0.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are only zeroes in `len` bytes from `offset` on, as far as they lie inside.
    #[must_use]
    pub fn is_blank(&self, offset: usize, len: usize) -> bool {
        let end = offset.saturating_add(len).min(self.len);
        (offset..end).all(|at| {
            // SAFETY: `at` is less than the region's length.
            unsafe { self.ptr().add(at).read_volatile() == 0 }
        })
    }

    /// Whether the peer took the memory away, so that we now read zeroes of our own.
    #[must_use]
    #[inline]
    pub fn poisoned(&self) -> bool {
        self.map.poisoned()
    }
}

/// The pages around a region: their offset in the file, the region's offset in them, and their
/// length. `None` when the region is empty, outside of the file or too large to map.
fn surrounding_pages(
    offset: u64,
    len: u64,
    file_len: u64,
    page: u64,
) -> Option<(u64, usize, usize)> {
    let end = offset.checked_add(len).filter(|end| len > 0 && *end <= file_len)?;
    let skip = offset.checked_rem(page)?;
    let start = offset - skip;
    let map_len = end.checked_next_multiple_of(page)? - start;
    let map_len = usize::try_from(map_len).ok().filter(|len| isize::try_from(*len).is_ok())?;
    Some((start, usize::try_from(skip).ok()?, map_len))
}

/// The unit in which the file can be mapped: its huge pages' size on hugetlbfs, else a page.
fn page_size(fd: BorrowedFd<'_>) -> Result<u64, rustix::io::Errno> {
    let stat = rustix::fs::fstatfs(fd)?;
    // The field's type differs between architectures; the magic number fits in each.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "compared as 32 bits")]
    let huge = stat.f_type as u64 & 0xffff_ffff == HUGETLBFS_MAGIC;
    let ordinary = rustix::param::page_size() as u64;
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let block = u64::try_from(stat.f_bsize).unwrap_or(ordinary);
    Ok(if huge { block.max(ordinary) } else { ordinary })
}

const fn describe(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Symlink => "a symbolic link",
        _ => "an anonymous inode (an eventfd, perhaps)",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::fs::MemfdFlags;

    use super::*;

    fn memfd(len: u64) -> File {
        let fd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len).unwrap();
        fd.into()
    }

    #[test]
    fn an_unaligned_region_begins_at_its_offset() {
        let mut file = memfd(3 * 4096);
        file.seek(SeekFrom::Start(4096 + 100)).unwrap();
        file.write_all(b"guest").unwrap();
        let mapping = Mapping::map(file.as_fd(), 4096 + 100, 5).unwrap();
        drop(file);
        // SAFETY: the region is five bytes long, and nobody writes to it any more.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.ptr().as_ptr(), mapping.len()) };
        assert_eq!((bytes, mapping.poisoned()), (&b"guest"[..], false));
    }

    #[test]
    fn blank_memory_is_told_from_other() {
        let mut file = memfd(2 * 4096);
        let mapping = Mapping::map(file.as_fd(), 100, 4096).unwrap();
        assert!(mapping.is_blank(0, usize::MAX) && mapping.is_blank(usize::MAX, 1));
        file.seek(SeekFrom::Start(100 + 4095)).unwrap();
        file.write_all(&[1, 1]).unwrap();
        assert!(mapping.is_blank(0, 4095) && mapping.is_blank(4096, 1));
        assert!(!mapping.is_blank(0, 4096) && !mapping.is_blank(4095, usize::MAX));
    }

    #[test]
    fn regions_outside_of_the_file_are_refused() {
        let file = memfd(8192);
        let bad = [(0, 0), (0, 8193), (8192, 1), (1, 8192), (u64::MAX, 1), (1, u64::MAX)];
        for (offset, len) in bad {
            let error = Mapping::map(file.as_fd(), offset, len).unwrap_err();
            assert!(matches!(error, MemError::Range { file_len: 8192, .. }), "{error}");
        }
    }

    #[test]
    fn an_object_has_no_size_and_what_is_not_there_counts_as_taken_away() {
        let file = memfd(4096);
        let mapping = Mapping::map_object(file.as_fd(), 0, 8192).unwrap();
        // SAFETY: both bytes are inside the mapping; the guard makes the second one readable.
        let bytes = unsafe { [mapping.ptr().read(), mapping.ptr().add(4096).read()] };
        assert_eq!((bytes, mapping.poisoned()), ([0, 0], true));
        assert!(Mapping::map_object(file.as_fd(), 0, 0).is_err());
        assert!(Mapping::map_object(file.as_fd(), u64::MAX, 2).is_err());
    }

    #[test]
    fn descriptors_that_are_no_memory_are_refused_by_kind() {
        let event = crate::EventFd::new().unwrap();
        let error = Mapping::map(event.as_fd(), 0, 4096).unwrap_err().to_string();
        assert!(error.contains("anonymous inode"), "{error}");
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = Mapping::map(socket.as_fd(), 0, 4096).unwrap_err().to_string();
        assert!(error.contains("a socket"), "{error}");
        let null = File::open("/dev/null").unwrap();
        let error = Mapping::map(null.as_fd(), 0, 4096).unwrap_err().to_string();
        assert!(error.contains("a character device"), "{error}");
    }

    #[test]
    fn a_read_only_file_is_refused_with_the_reason() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 4096]).unwrap();
        let read_only = File::open(file.path()).unwrap();
        let error = Mapping::map(read_only.as_fd(), 0, 4096).unwrap_err().to_string();
        assert!(error.contains("mmap failed") && error.contains("reading and writing"), "{error}");
    }

    proptest! {
        #[test]
        fn the_pages_around_a_region_contain_it(
            offset in any::<u64>(), len in any::<u64>(), file_len in any::<u64>(), huge: bool,
        ) {
            let page = if huge { 2 << 20 } else { 4096 };
            let inside = u128::from(offset) + u128::from(len) <= u128::from(file_len);
            match surrounding_pages(offset, len, file_len, page) {
                Some((start, skip, map_len)) => {
                    prop_assert!(inside && len > 0);
                    prop_assert_eq!(start % page, 0);
                    prop_assert_eq!(map_len as u64 % page, 0);
                    prop_assert!((skip as u64) < page);
                    prop_assert_eq!(start + skip as u64, offset);
                    prop_assert!(start + map_len as u64 >= offset + len);
                }
                None => prop_assert!(!inside || len == 0 || file_len > i64::MAX as u64 - page),
            }
        }
    }
}
