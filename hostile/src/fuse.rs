//! A file system of one file whose reader waits for ever (FUSE, `linux/fuse.h`): whoever maps the
//! file waits in a page fault, and whoever closes it waits for its flush. It is mounted in a mount
//! namespace of the attacker's own, and served by a process of its own: when that ends, everybody
//! goes on. It would end too late inside the attacker, which has to close the file to end.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use tempfile::TempDir;

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FLUSH: u32 = 25;
const INIT: u32 = 26;

/// Bytes of the file.
const BYTES: u64 = 8 << 20;
/// The number of the one file; the folder has number 1.
const FILE: u64 = 2;
/// What the kernel answers to whom does not know a request.
const UNKNOWN: i32 = -libc::ENOSYS;

/// How long anybody waits at most, should this program fail.
const LONGEST: Duration = Duration::from_secs(25);

/// The mounted file system.
#[derive(Debug)]
pub struct Waiting {
    server: Child,
    folder: TempDir,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A file that everybody waits for but this process.
///
/// # Errors
/// When this process may not mount, or there is no FUSE.
pub fn file() -> Result<(OwnedFd, Waiting)> {
    let folder = tempfile::tempdir()?;
    let device = File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
    mount(&device, folder.path())?;
    let server = Command::new(std::env::current_exe()?)
        .args(["serve-fuse", "--owner", &std::process::id().to_string()])
        .stdin(device)
        .spawn()?;
    let waiting = Waiting { server, folder };
    let path = waiting.folder.path().join("file");
    let file = File::options().read(true).write(true).open(path)?;
    Ok((file.into(), waiting))
}

/// Pages that never come: who touches one waits.
#[derive(Debug)]
pub struct Never {
    start: usize,
    _server: Waiting,
}

impl Never {
    /// A file full of them, mapped.
    ///
    /// # Errors
    /// As [`file`].
    pub fn new() -> Result<Self> {
        let (file, server) = file()?;
        let bytes = usize::try_from(BYTES)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses where the new mapping lies.
        let start =
            unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &file, 0)? };
        Ok(Self { start: start.expose_provenance(), _server: server })
    }

    /// The address of one of them; it stays mapped.
    pub const fn page(&self, number: usize) -> usize {
        self.start + number * 4096
    }
}

/// Serves the file system behind standard input until `owner` has ended.
///
/// # Errors
/// When standard input cannot be had.
pub fn serve_for(owner: u32) -> Result<()> {
    let device = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    std::thread::spawn(move || serve(device, owner));
    let end = Instant::now() + LONGEST;
    let lives = || {
        let status = std::fs::read_to_string(format!("/proc/{owner}/status"));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    };
    while Instant::now() < end && lives() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Mounts the file system behind `device` where only this thread and its children see it.
fn mount(device: &File, at: &Path) -> Result<()> {
    let text = |text: &str| CString::new(text);
    let (none, fuse, root) = (text("none")?, text("fuse")?, text("/")?);
    let at = text(&at.display().to_string())?;
    let options = text(&format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    ))?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the strings live until the calls are over, and unshare takes no pointers.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                none.as_ptr(),
                root.as_ptr(),
                std::ptr::null(),
                private,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                fuse.as_ptr(),
                at.as_ptr(),
                fuse.as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            ) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()).context("cannot mount FUSE") }
}

/// Answers everything but reads, and flushes by others than `owner`.
fn serve(mut device: File, owner: u32) {
    let mut request = vec![0; 1 << 17];
    while let Ok(len) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| request[at + i]));
        if len < 40 {
            return;
        }
        let unique = &request[8..16];
        let (error, payload) = match word(4) {
            READ => continue,
            FLUSH if !Path::new(&format!("/proc/{owner}/task/{}", word(32))).exists() => continue,
            FLUSH => (0, Vec::new()),
            INIT => (0, init()),
            LOOKUP => (0, [numbers(&[FILE, 0, 3600, 3600, 0]), attributes(FILE)].concat()),
            GETATTR => {
                let node = u64::from(word(16));
                (0, [numbers(&[3600, 0]), attributes(node)].concat())
            }
            OPEN => (0, numbers(&[0, 0])),
            _ => (UNKNOWN, Vec::new()),
        };
        let total = u32::try_from(16 + payload.len()).unwrap_or(0);
        let answer = [&total.to_ne_bytes()[..], &error.to_ne_bytes(), unique, &payload].concat();
        // Requests that the kernel has given up meanwhile are refused.
        let _ = device.write(&answer);
    }
}

fn numbers(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// `struct fuse_init_out`: version 7.31, nothing special.
fn init() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[0..4].copy_from_slice(&7_u32.to_ne_bytes());
    bytes[4..8].copy_from_slice(&31_u32.to_ne_bytes());
    bytes[8..12].copy_from_slice(&65_536_u32.to_ne_bytes());
    bytes[20..24].copy_from_slice(&65_536_u32.to_ne_bytes());
    bytes
}

/// `struct fuse_attr` of a node.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == FILE { 0o100_666_u32 } else { 0o040_777 };
    let size = if node == FILE { BYTES } else { 0 };
    let words = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
    let words = words.iter().flat_map(|word: &u32| word.to_ne_bytes());
    numbers(&[node, size, size / 512, 0, 0, 0]).into_iter().chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernel_has_them() {
        assert_eq!((init().len(), attributes(FILE).len()), (64, 88));
    }
}
