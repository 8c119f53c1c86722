//! A kernel with a VDUSE device that does what the test wants.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use eal::{EventFd, PeerEvent};
use rustix::fs::MemfdFlags;
use virtio::Features;

use crate::call::Call;
use crate::vduse::message::{Answer, Kind, Request};
use crate::vduse::{Extent, Kernel, RingInfo};

/// Where the rings lie in the device's address space.
pub const RINGS: u64 = 0x10_0000;
/// Where buffers can lie.
pub const BUFFERS: u64 = 0x1000;
/// Bytes of each of the two.
pub const LEN: u64 = 0x10000;
/// Bytes from one ring to the next.
pub const RING_BYTES: u64 = 0x1000;
/// Descriptors of each ring.
pub const SIZE: u32 = 8;
/// Where in a ring its available ring is.
pub const AVAIL: u64 = 0x200;
/// Where its used ring is.
pub const USED: u64 = 0x400;
/// Where in either the index is.
pub const INDEX: u64 = 2;
/// The features that the driver has accepted.
pub const ACCEPTED: u64 =
    Features::VERSION_1.union(Features::ACCESS_PLATFORM).union(Features::MAC).bits();

/// What the kernel knows.
#[derive(Debug)]
pub struct State {
    /// What is to be asked.
    pub requests: VecDeque<Request>,
    /// What was answered.
    pub answers: Vec<Answer>,
    pub features: u64,
    pub rings: Vec<RingInfo>,
    /// What is shared, in the order of its addresses.
    pub memory: Vec<(Extent, OwnedFd)>,
    /// `DRIVER_OK` is noted down.
    pub accepted: bool,
    /// The device was given up.
    pub given_up: bool,
    /// The state of the link, once it was told.
    pub link: Option<bool>,
    pub kicks: Vec<Option<PeerEvent>>,
}

/// A kernel in which a test can look.
#[derive(Clone, Debug)]
pub struct Fake(Arc<Mutex<State>>, Arc<EventFd>);

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// A device with five rings, of which the first two are ready, in memory of their own.
    pub fn new() -> Self {
        let ring = |index: u64| {
            let at = RINGS + index * RING_BYTES;
            let ready = index < 2;
            RingInfo { size: SIZE, desc: at, driver: at + AVAIL, device: at + USED, base: 0, ready }
        };
        let state = State {
            requests: VecDeque::new(),
            answers: Vec::new(),
            features: ACCEPTED,
            rings: (0..5).map(ring).collect(),
            memory: Vec::new(),
            accepted: false,
            given_up: false,
            link: None,
            kicks: (0..5).map(|_| None).collect(),
        };
        let fake = Self(Arc::new(Mutex::new(state)), Arc::new(EventFd::new().unwrap()));
        fake.share(RINGS, true);
        fake
    }

    /// What it knows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Shares [`LEN`] bytes of a new file at this address.
    pub fn share(&self, start: u64, writable: bool) {
        let file = rustix::fs::memfd_create("vduse", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, LEN).unwrap();
        let extent = Extent { start, last: start + LEN - 1, offset: 0, writable };
        let memory = &mut self.state().memory;
        memory.push((extent, file));
        memory.sort_by_key(|(extent, _)| extent.start);
    }

    /// Writes a number into the memory of the rings.
    pub fn write(&self, ring: u64, at: u64, number: u16) {
        let state = self.state();
        let (_, file) = state.memory.iter().find(|(extent, _)| extent.start == RINGS).unwrap();
        rustix::io::pwrite(file, &number.to_le_bytes(), ring * RING_BYTES + at).unwrap();
    }

    fn check(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.given_up { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(state) }
    }

    /// Makes the file readable.
    pub fn signal(&self) {
        self.1.signal().unwrap();
    }

    /// Asks something by way of the file.
    pub fn ask(&self, id: u32, kind: Kind) {
        self.state().requests.push_back(Request { id, kind });
        self.signal();
    }
}

impl AsFd for Fake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}

fn invalid<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

impl Kernel for Fake {
    fn receive(&self) -> io::Result<Option<Request>> {
        let mut state = self.state();
        if state.requests.len() <= 1 && !state.given_up {
            self.1.drain().unwrap();
        }
        Ok(state.requests.pop_front())
    }

    fn answer(&self, answer: &Answer) -> io::Result<()> {
        self.state().answers.push(*answer);
        Ok(())
    }

    fn features(&self) -> io::Result<u64> {
        Ok(self.check()?.features)
    }

    fn ring(&self, index: u16) -> io::Result<RingInfo> {
        self.check()?.rings.get(usize::from(index)).copied().map_or_else(invalid, Ok)
    }

    fn set_kick(&self, index: u16, kick: &PeerEvent) -> io::Result<()> {
        self.check()?.kicks[usize::from(index)] = Some(kick.clone());
        Ok(())
    }

    fn call(&self, _index: u16) -> Call {
        PeerEvent::new().unwrap().into()
    }

    fn lookup(&self, start: u64, last: u64) -> io::Result<Option<(Extent, OwnedFd)>> {
        let state = self.check()?;
        let mut found =
            state.memory.iter().filter(|(extent, _)| extent.last >= start && extent.start <= last);
        Ok(found.next().map(|(extent, file)| (*extent, file.try_clone().unwrap())))
    }

    fn set_link(&self, up: bool) -> io::Result<()> {
        self.check()?.link = Some(up);
        Ok(())
    }

    fn inject_config_irq(&self) -> io::Result<()> {
        if self.check()?.accepted { Ok(()) } else { invalid() }
    }
}
