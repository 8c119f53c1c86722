use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};
use rustix::io::Errno;

/// What the kernel calls the file, so that it is found among those that QEMU has open.
pub(crate) const NAME: &str = "guest-memory";

const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// Bytes that are copied at once: few enough for a cache of the processor.
const CHUNK: usize = 64 * PAGE;

/// A file that is to be the memory of a guest: zeros, or what the file `from` holds. Nobody can make
/// it shorter, as with one that QEMU makes itself.
///
/// # Errors
/// When there is not enough memory, or `from` cannot be read.
pub(crate) fn new(mib: u32, from: Option<&Path>) -> Result<File> {
    let memory = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    memory.set_len(u64::from(mib) << 20)?;
    if let Some(path) = from {
        let kept = File::open(path).with_context(|| path.display().to_string())?;
        copy(&kept, &memory).with_context(|| path.display().to_string())?;
    }
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memory)
}

/// The path by which a process finds a file that it has inherited.
pub(crate) fn path(memory: &File) -> String {
    format!("/proc/self/fd/{}", memory.as_raw_fd())
}

/// Copies what is in `from`, which may have holes, to the same places of `to`, which has zeros: pages
/// of zeros become holes.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some(start) = next(from, SeekFrom::Data(at))? {
        let end = next(from, SeekFrom::Hole(start))?.unwrap_or(start);
        at = start;
        while at < end {
            let len = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
            let chunk = buffer.get_mut(..len).unwrap_or_default();
            from.read_exact_at(chunk, at)?;
            for (page, at) in chunk.chunks(PAGE).zip((at..).step_by(PAGE)) {
                if !ZEROS.starts_with(page) {
                    to.write_all_at(page, at)?;
                }
            }
            at += len as u64;
        }
    }
    Ok(())
}

/// Where the next data or the next hole begins, if there is any.
fn next(file: &File, what: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, what) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_is_kept_with_its_holes_and_filled_again() {
        let memory = new(4, None).unwrap();
        memory.write_all_at(&[7; 3 * PAGE], 5 * PAGE as u64).unwrap();
        memory.write_all_at(&[0; PAGE], 6 * PAGE as u64).unwrap();
        memory.write_all_at(&[9; 2 * CHUNK], 2 << 20).unwrap();
        memory.write_all_at(&[1], (4 << 20) - 1).unwrap();
        let kept = tempfile::NamedTempFile::new().unwrap();
        copy(&memory, kept.as_file()).unwrap();
        let again = new(4, Some(kept.path())).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![0; 4 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&memory) == read(&again));
        assert_eq!(next(&again, SeekFrom::Data(0)).unwrap(), Some(5 * PAGE as u64));
        assert_eq!(next(&again, SeekFrom::Hole(5 * PAGE as u64)).unwrap(), Some(6 * PAGE as u64));
        assert!(again.set_len(0).is_err(), "its length is sealed");
    }
}
