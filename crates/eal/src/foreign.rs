//! Memory of a peer process: a guest's RAM, mapped from the file descriptor that it sent.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::fs::FileType;
use rustix::mm::Advice;

use crate::closer::Closer;
use crate::mem::{Map, MemError};
use crate::sigbus;

/// `f_type` of hugetlbfs (Linux `include/uapi/linux/magic.h`).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// What the kernel calls the memory of its own that it shares over VDUSE.
const VDUSE_DOMAIN: &str = "anon_inode:[vduse-domain]";

/// What the kernel calls a device of VFIO.
const VFIO_DEVICE: &str = "anon_inode:[vfio-device]";

/// Longest name of a file in a message, in characters.
const MAX_NAME: usize = 120;

/// A region of a peer's memory, mapped shared, for reading and writing.
///
/// The peer may change any byte at any time, and may truncate the file: then an access replaces
/// what is missing there by private zeroes instead of killing the process, and
/// [`poisoned`](Self::poisoned) tells from then on. Whoever goes on writes to memory of this
/// process, so nobody should, for long: see [`sigbus::poisonings`](crate::sigbus::poisonings). It is left out of core dumps. Dropping it
/// unmaps it.
#[derive(Debug)]
pub struct Mapping {
    map: ManuallyDrop<Map>,
    /// What unmaps it; without one, whoever drops it.
    closer: Option<Closer>,
    /// Offset of the region in `map`: what was asked for need not begin at a page.
    skip: usize,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes from `offset` of the memory behind `fd`: a memfd, or a file on tmpfs or
    /// hugetlbfs. Neither this nor an access to the mapping can wait for another process. The
    /// descriptor may be closed afterwards.
    ///
    /// Neither number needs to be a multiple of a page: QEMU announces regions of a hugetlbfs file
    /// that begin in the middle of a huge page, and the whole pages around them are mapped.
    ///
    /// # Errors
    ///
    /// When the descriptor is anything else, the region is empty or does not fit the file as it is
    /// now, or the kernel does not let us map it for writing.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemError> {
        // Before anything is asked of the file itself, which may be served by the peer.
        if !is_memory(fd) {
            return Err(MemError::NotMemory { found: file_name(fd) });
        }
        Self::map_file(fd, offset, len)
    }

    /// As [`map`](Self::map), of any regular file. Whoever serves its file system can make this
    /// and every access to the mapping wait for as long as it likes.
    ///
    /// # Errors
    ///
    /// As there, when the descriptor is no regular file.
    pub fn map_file(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemError> {
        #[cfg(miri)]
        if let Some(file_len) = crate::mem::interpreted::len(fd) {
            return Self::map_within(fd, offset, len, file_len);
        }
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

    /// As [`map`](Self::map), of what the kernel hands out for a VDUSE device: memory of its own,
    /// which has no size and of which pages may come and go, or the memory of the VMM that has the
    /// device. Memory that is not there is taken for memory that was taken away.
    ///
    /// # Errors
    ///
    /// When it is neither, the region is empty or longer than an address space, or the kernel does
    /// not let us map it for writing.
    pub fn map_object(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemError> {
        // A file of the VMM's is whatever the VMM has mapped. No file has the kernel's name: those
        // in file systems begin with a slash or a bracket.
        if !is_memory(fd) && file_name(fd) != VDUSE_DOMAIN {
            return Err(MemError::NotMemory { found: file_name(fd) });
        }
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
        let map = Map::of_peer(fd, start, map_len, page).map_err(|e| failed("mmap", e))?;
        let map = map.ok_or(MemError::TooMuch { len })?;
        // A core dump with every guest's RAM helps nobody; a kernel that refuses does no harm.
        let _ = map.advise(Advice::LinuxDontDump);
        let len = usize::try_from(len).map_err(|_| MemError::Range { offset, len, file_len })?;
        Ok(Self { map: ManuallyDrop::new(map), closer: None, skip, len })
    }

    /// The mapping, to be removed by `closer`: that takes as long as there are pages to be freed, and
    /// whoever drops it may have no time for that.
    #[must_use]
    pub fn closed_by(mut self, closer: &Closer) -> Self {
        self.closer = Some(closer.clone());
        self
    }

    /// The region's first byte. Valid for [`len`](Self::len) bytes while the mapping lives; to
    /// be accessed only by pointer, since the peer writes to it at any time.
    #[must_use]
    #[inline]
    pub fn ptr(&self) -> NonNull<u8> {
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

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the value is not used after its drop, so the map is taken once.
        let map = unsafe { ManuallyDrop::take(&mut self.map) };
        if let Some(closer) = &self.closer {
            closer.unmap(map);
        }
    }
}

/// Whether an access to a mapping of the file can wait for no other process: whether it is a memfd,
/// or a file on tmpfs or hugetlbfs. These are the kinds that have seals. It is asked of the kernel
/// and not of the file, and no peer can change the answer.
fn is_memory(fd: BorrowedFd<'_>) -> bool {
    #[cfg(miri)]
    return crate::mem::interpreted::len(fd).is_some();
    #[cfg(not(miri))]
    rustix::fs::fcntl_get_seals(fd).is_ok()
}

/// Whether an access to a mapping of the file can wait for no other process, as with a device that
/// the kernel hands out over VFIO; or with memory, which stands for one in tests and emulators.
#[must_use]
pub fn is_device_memory(fd: BorrowedFd<'_>) -> bool {
    is_memory(fd) || file_name(fd) == VFIO_DEVICE
}

/// What the kernel calls the file behind `fd`, for a message: its path, or its kind where it has
/// none. Characters that would disturb a line are escaped. It asks nothing of the file itself, so
/// it does not wait.
#[must_use]
pub fn file_name(fd: BorrowedFd<'_>) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let Ok(name) = link else { return "something unknown".to_owned() };
    name.to_string_lossy().escape_debug().take(MAX_NAME).collect()
}

/// The pages around a region: their offset in the file, the region's offset in them, and their
/// length. `None` when the region is empty, outside of the file or too large to map.
pub(crate) fn surrounding_pages(
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
pub(crate) fn page_size(fd: BorrowedFd<'_>) -> Result<u64, rustix::io::Errno> {
    if cfg!(miri) {
        return Ok(rustix::param::page_size() as u64);
    }
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
#[cfg(not(loom))]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::mem::MAX_PEER_MEMORY;

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
    fn peers_cannot_fill_the_address_space() {
        let len = MAX_PEER_MEMORY / 2 + (1 << 40);
        let file = memfd(len);
        let first = Mapping::map(file.as_fd(), 0, len).unwrap();
        let error = Mapping::map(file.as_fd(), 0, len).unwrap_err();
        assert!(matches!(error, MemError::TooMuch { .. }), "{error}");
        drop(first);
        drop(Mapping::map(file.as_fd(), 0, len).unwrap());
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
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let kinds = [
            (event.as_fd(), "'anon_inode:[eventfd]'", "anonymous inode"),
            (socket.as_fd(), "'socket:[", "a socket"),
            (null.as_fd(), "'/dev/null'", "a character device"),
        ];
        for (fd, name, kind) in kinds {
            let error = Mapping::map(fd, 0, 4096).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("memfd"), "{error}");
            let error = Mapping::map_object(fd, 0, 4096).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            let error = Mapping::map_file(fd, 0, 4096).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
    }

    /// A file that is on a disk, as the folder of temporary files need not be: this program.
    fn on_disk() -> File {
        File::open(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn files_whose_pages_somebody_has_to_fetch_are_refused() {
        let error = Mapping::map(on_disk().as_fd(), 0, 4096).unwrap_err();
        assert!(matches!(error, MemError::NotMemory { .. }), "{error}");
        assert!(error.to_string().contains("memory=any"), "{error}");
        let mut shared = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        shared.write_all(&[0; 4096]).unwrap();
        Mapping::map(shared.as_file().as_fd(), 0, 4096).unwrap();
        drop(Mapping::map_file(shared.as_file().as_fd(), 0, 4096).unwrap());
    }

    #[test]
    fn names_of_files_do_not_disturb_a_line() {
        let fd = rustix::fs::memfd_create("a\nb", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(file_name(fd.as_fd()), "/memfd:a\\nb (deleted)");
        let fd = rustix::fs::memfd_create("x".repeat(200), MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(file_name(fd.as_fd()).len(), MAX_NAME);
    }

    #[test]
    fn a_read_only_file_is_refused_with_the_reason() {
        let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
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
