//! Memory whose pages come late: pagers that are this test program, and a front-end that serves
//! faults.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::ioctl::{Updater, opcode};

use crate::postcopy::Pagers;
use crate::postcopy::process::serve;

const PAGE: u64 = 4096;
const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Pagers of this program. `test` names one of its tests, with `#[ignore]`, that calls
/// [`serve_pager`].
pub fn pagers(test: &str) -> Arc<Pagers> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    Arc::new(Pagers::start(command).unwrap())
}

/// Does the work of a process of [`pagers`]; comes back at once in any other.
pub fn serve_pager() {
    serve();
}

/// A file with this many pages, none of which is there.
pub fn file(pages: u64) -> File {
    let file = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, pages * PAGE).unwrap();
    file.into()
}

/// Waits until `file` is readable.
///
/// # Panics
/// When that takes a minute.
pub fn wait_readable(file: impl AsFd) {
    let mut set = [PollFd::new(&file, PollFlags::IN)];
    assert_eq!(poll(&mut set, Some(&LIMIT)).unwrap(), 1, "nothing comes");
}

/// A front-end, which brings pages in when they are touched.
#[derive(Debug)]
pub struct FaultServer {
    userfault: OwnedFd,
    memory: File,
    /// Where the file lies in the pager.
    at: u64,
}

impl FaultServer {
    /// One for the memory that lies `at` this address of the pager that has this `userfault`.
    pub fn new(userfault: OwnedFd, memory: &File, at: u64) -> Self {
        Self { userfault, memory: memory.try_clone().unwrap(), at }
    }

    /// Waits for a fault; gives the page's number.
    pub fn next(&self) -> u64 {
        wait_readable(&self.userfault);
        let mut message = [0; 32];
        assert_eq!(rustix::io::read(&self.userfault, &mut message).unwrap(), 32);
        (u64::from_ne_bytes(message[16..24].try_into().unwrap()) - self.at) / PAGE
    }

    /// Brings a page in.
    pub fn bring(&self, page: u64, content: &[u8]) {
        self.memory.write_all_at(content, page * PAGE).unwrap();
        let mut range = [self.at + page * PAGE, PAGE];
        // SAFETY: UFFDIO_WAKE reads a `struct uffdio_range`.
        unsafe {
            const CODE: rustix::ioctl::Opcode = opcode::read::<[u64; 2]>(0xaa, 2);
            rustix::ioctl::ioctl(&self.userfault, Updater::<CODE, _>::new(&mut range)).unwrap();
        }
    }
}
