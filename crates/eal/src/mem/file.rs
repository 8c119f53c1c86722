//! Files of memory, which another process may map.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

/// Where every system has files of memory.
pub(crate) const TMPFS: &str = "/dev/shm";

/// From `linux/magic.h`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What failed.
pub(super) type Failure = (&'static str, Errno);

/// A file of `bytes` zeroes in memory, which has no name in any folder and goes with its last
/// descriptor. Nobody can change its size, except where memfd_create(2) is refused, as some
/// containers do: then it is a file in `/dev/shm`, and a peer that has it may cut it short.
///
/// `name` shows up in `/proc/PID/maps`.
///
/// # Errors
/// The system call that failed, with its reason.
pub(super) fn create(name: &CStr, bytes: u64) -> Result<OwnedFd, Failure> {
    #[cfg(miri)]
    return super::interpreted::create(bytes).map_err(|errno| ("memfd_create", errno));
    #[cfg(not(miri))]
    match rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
        Ok(fd) => {
            rustix::fs::ftruncate(&fd, bytes).map_err(|errno| ("ftruncate", errno))?;
            seal(&fd).map_err(|errno| ("fcntl(F_ADD_SEALS)", errno))?;
            Ok(fd)
        }
        Err(errno) if says_refused(errno) => create_in_tmpfs(bytes)
            .map_err(|()| ("memfd_create, and making a file in /dev/shm,", errno)),
        Err(errno) => Err(("memfd_create", errno)),
    }
}

/// Whether this process may not call memfd_create(2), and so needs [`TMPFS`].
pub(crate) fn is_memfd_refused() -> bool {
    rustix::fs::memfd_create(c"probe", MemfdFlags::CLOEXEC).is_err_and(says_refused)
}

const fn says_refused(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSYS)
}

/// The same in `/dev/shm`, all of it present, since that may be smaller than memory.
fn create_in_tmpfs(bytes: u64) -> Result<OwnedFd, ()> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(TMPFS, flags, Mode::RUSR | Mode::WUSR).map_err(drop)?;
    let system = rustix::fs::fstatfs(&fd).map_err(drop)?;
    // Nothing that is written to a disk.
    if system.f_type != TMPFS_MAGIC {
        return Err(());
    }
    rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes).map_err(drop)?;
    Ok(fd)
}

/// Has nobody change the size of a memfd any more.
pub(super) fn seal(fd: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_tmpfs_does_as_well() {
        let fd = create_in_tmpfs(10_000).unwrap();
        let stat = rustix::fs::fstat(&fd).unwrap();
        assert_eq!((stat.st_size, stat.st_nlink), (10_000, 0));
        assert!(stat.st_blocks * 512 >= 10_000, "it is all there");
        let mut bytes = [1; 4];
        assert_eq!(rustix::io::pread(&fd, &mut bytes, 9_996), Ok(4));
        assert_eq!(bytes, [0; 4]);
        // More than there is, and nothing is left of it.
        create_in_tmpfs(1 << 50).unwrap_err();
    }

    #[test]
    fn a_memfd_keeps_its_size() {
        let fd = create(c"test", 4096).unwrap();
        assert_eq!(rustix::fs::ftruncate(&fd, 0), Err(Errno::PERM));
    }
}
