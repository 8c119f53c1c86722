//! A device that records what its session asks of it, and checks that the session keeps its
//! promises; and the files that a front-end sends. For tests, here and in other crates.
//!
//! - [`faults`]: a front-end that brings in pages late
//! - [`kernel`]: the kernel's side of VDUSE

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

pub mod faults;
pub mod kernel;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendError, MemoryKinds, RegionFile, RingSetup};
use crate::control::{Watch, Watcher};
use crate::protocol::{BackendMessage, MAX_TABLE_REGIONS, ProtocolFeatures};
use arrayvec::ArrayVec;
use eal::PeerEvent;
use rustix::fs::MemfdFlags;
use virtio::iotlb::Translation;
use virtio::{DirtyLog, Features, GuestMemory};

/// What the device offers.
pub const FEATURES: u64 = Features::VERSION_1
    .union(Features::MQ)
    .union(Features::MTU)
    .union(Features::EVENT_IDX)
    .union(Features::RING_PACKED)
    .union(Features::VHOST_USER_PROTOCOL)
    .union(Features::VHOST_LOG_ALL)
    .bits();

/// The device's configuration space.
pub const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// The bit that says that it is behind an IOMMU.
pub const TRANSLATED: u64 = Features::ACCESS_PLATFORM.bits();
/// Of the features, the bit that switches logging.
pub const LOG_ALL: u64 = Features::VHOST_LOG_ALL.bits();

/// How far every ring gets before it is stopped.
pub const PROGRESS: u32 = 5;

/// Where the first region of memory with missing pages lies, as the front-end is told.
pub const PLACED: u64 = 0x4000_0000_0000;

/// The size of every memory file.
pub const MEMORY: u64 = 1 << 16;

/// Something that the device was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Connected,
    Disconnected,
    Features(u64),
    /// Guest address, user address and size of every region.
    Memory(Vec<(u64, u64, u64)>),
    Start(Start),
    Drain(u16),
    /// The ring that starts next has a place for records of as many chains.
    Inflight(u16, u16),
    Stop(u16),
    Enabled(u16, bool),
    Kick(u16, bool),
    RingKicked(u16),
    Interrupt(u16, bool),
    Err(u16, bool),
    /// Size of the log in bytes.
    Log(Option<usize>),
    RingLog(u16, Option<u64>),
    Mtu(u16),
    Status(u8),
    Reset,
    Kicked(u16),
    /// Offset, bytes, and whether a migration wrote them.
    Config(u32, Vec<u8>, bool),
    Announce([u8; 6]),
    Translation(Translation),
    /// First address and length of what is to be forgotten.
    Forget(u64, u64),
    /// The front-end has answered a miss.
    Answered,
    /// Ring, and whether its doorbell is used.
    Notifier(u8, bool),
    Advise,
    /// The memory before lacks pages.
    Missing,
    Acknowledged,
    EndPostcopy,
    Dropped,
}

/// A [`RingSetup`] that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub index: u16,
    pub size: u16,
    pub addrs: [u64; 3],
    pub log: Option<u64>,
    pub base: u32,
    pub features: u64,
    pub enabled: bool,
    /// Whether there is a kick, a call and an error file.
    pub files: [bool; 3],
}

/// What was recorded so far.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<(Mutex<Vec<Call>>, Condvar)>);

impl Recorder {
    fn push(&self, call: Call) {
        self.0.0.lock().unwrap().push(call);
        self.0.1.notify_all();
    }

    /// Takes what was recorded.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.0.lock().unwrap())
    }

    /// Waits until `call` was recorded; takes everything up to it.
    #[track_caller]
    pub fn wait_for(&self, call: &Call) -> Vec<Call> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut calls = self.0.0.lock().unwrap();
        loop {
            if let Some(at) = calls.iter().position(|seen| seen == call) {
                let rest = calls.split_off(at + 1);
                return std::mem::replace(&mut *calls, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {call:?} in {calls:?}");
            calls = self.0.1.wait_timeout(calls, left).unwrap().0;
        }
    }
}

/// The device.
#[derive(Debug)]
pub struct Recording {
    pub recorder: Recorder,
    pub rings: Vec<Option<RingSetup>>,
    pub pairs: u16,
    /// Calls that are refused from now on, by the name of the method.
    pub refuse: Option<&'static str>,
    /// Whether it offers post-copy migration.
    pub postcopy: bool,
    pub inband: bool,
    /// Whether it offers to be behind an IOMMU.
    pub translated: bool,
    /// In which kinds of files it takes memory.
    pub kinds: MemoryKinds,
    /// What the front-end is to be told.
    pub to_tell: VecDeque<BackendMessage<OwnedFd>>,
    /// Whether `kicked` watches the kick file of ring 2 and panics when it comes with "panic".
    watcher: Option<Watcher>,
    watch: Option<Watch>,
    memory: Option<Arc<GuestMemory>>,
    log: Option<Arc<DirtyLog>>,
    connected: bool,
    advised: bool,
    /// Whether what is missing in the memory may be touched.
    ready_for_faults: bool,
    status: u8,
}

impl Recording {
    /// A device with two queue pairs and a control queue.
    pub fn new() -> (Self, Recorder) {
        let recorder = Recorder::default();
        let device = Self {
            recorder: recorder.clone(),
            rings: (0..5).map(|_| None).collect(),
            pairs: 2,
            refuse: None,
            postcopy: false,
            inband: false,
            translated: false,
            kinds: MemoryKinds::default(),
            to_tell: VecDeque::new(),
            watcher: None,
            watch: None,
            memory: None,
            log: None,
            connected: false,
            advised: false,
            ready_for_faults: true,
            status: 0,
        };
        (device, recorder)
    }

    fn refused(&self, method: &'static str) -> Result<(), BackendError> {
        match self.refuse {
            Some(refused) if refused == method => Err("as the test wants it".into()),
            _ => Ok(()),
        }
    }

    fn running(&mut self, index: u16) -> &mut RingSetup {
        assert!(self.connected);
        self.rings[usize::from(index)].as_mut().expect("the ring runs")
    }

    /// Everything that a device may write must be covered.
    fn assert_log_covers(&self) {
        if let (Some(log), Some(memory)) = (&self.log, &self.memory) {
            for region in memory.regions() {
                assert!(log.covers(region.guest_addr + region.mapping.len() as u64));
            }
        }
    }

    fn assert_all_stopped(&self) {
        assert!(self.rings.iter().all(Option::is_none), "a ring still runs");
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.recorder.push(Call::Dropped);
    }
}

impl Backend for Recording {
    fn attached(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    fn features(&self) -> u64 {
        if self.translated { FEATURES | TRANSLATED } else { FEATURES }
    }

    fn protocol_features(&self) -> ProtocolFeatures {
        let mut features = ProtocolFeatures::all();
        features.set(ProtocolFeatures::PAGEFAULT, self.postcopy);
        features.set(ProtocolFeatures::INBAND_NOTIFICATIONS, self.inband);
        features
    }

    fn queue_pairs(&self) -> u16 {
        self.pairs
    }

    fn ring_count(&self) -> u16 {
        self.rings.len().try_into().unwrap()
    }

    fn memory_kinds(&self) -> MemoryKinds {
        self.kinds
    }

    fn connected(&mut self) {
        assert!(!std::mem::replace(&mut self.connected, true));
        self.recorder.push(Call::Connected);
    }

    fn disconnected(&mut self) {
        assert!(std::mem::replace(&mut self.connected, false));
        self.assert_all_stopped();
        assert!(self.log.is_none(), "the log is still in use");
        self.memory = None;
        (self.advised, self.ready_for_faults) = (false, true);
        self.recorder.push(Call::Disconnected);
    }

    fn set_features(&mut self, features: u64) -> Result<(), BackendError> {
        self.refused("set_features")?;
        assert_eq!(features & !(self.features() & !LOG_ALL), 0);
        self.recorder.push(Call::Features(features));
        Ok(())
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), BackendError> {
        self.refused("set_memory")?;
        let regions = memory.regions().iter();
        let regions = regions.map(|r| (r.guest_addr, r.user_addr, r.mapping.len() as u64));
        self.recorder.push(Call::Memory(regions.collect()));
        self.memory = Some(memory);
        self.assert_log_covers();
        Ok(())
    }

    fn advise_postcopy(&mut self) -> Result<OwnedFd, BackendError> {
        self.refused("advise_postcopy")?;
        assert!(self.postcopy && !std::mem::replace(&mut self.advised, true));
        self.recorder.push(Call::Advise);
        Ok(event())
    }

    fn set_missing_memory(
        &mut self,
        memory: Arc<GuestMemory>,
        files: &[RegionFile<'_>],
    ) -> Result<ArrayVec<u64, MAX_TABLE_REGIONS>, BackendError> {
        assert!(self.advised && memory.regions().len() == files.len());
        for file in files {
            let size = rustix::fs::fstat(file.fd)?.st_size;
            assert!(file.offset + file.len <= u64::try_from(size)?);
        }
        self.set_memory(memory)?;
        self.ready_for_faults = false;
        self.recorder.push(Call::Missing);
        Ok(files.iter().map(|file| PLACED + file.guest_addr).collect())
    }

    fn postcopy_acknowledged(&mut self) {
        assert!(self.advised && !std::mem::replace(&mut self.ready_for_faults, true));
        self.recorder.push(Call::Acknowledged);
    }

    fn end_postcopy(&mut self) {
        assert!(std::mem::replace(&mut self.advised, false));
        self.ready_for_faults = true;
        self.recorder.push(Call::EndPostcopy);
    }

    fn start_ring(&mut self, index: u16, setup: RingSetup) -> Result<(), BackendError> {
        self.refused("start_ring")?;
        assert!(self.connected && self.memory.is_some() && self.ready_for_faults);
        let packed = setup.features & Features::RING_PACKED.bits() != 0;
        assert!((1..=32_768).contains(&setup.size));
        assert!(packed || (setup.size.is_power_of_two() && setup.base < 65_536));
        if let Some(area) = &setup.inflight {
            self.recorder.push(Call::Inflight(index, area.entries()));
        }
        self.recorder.push(Call::Start(Start {
            index,
            size: setup.size,
            addrs: [setup.desc, setup.avail, setup.used],
            log: setup.log,
            base: setup.base,
            features: setup.features,
            enabled: setup.enabled,
            files: [setup.kick.is_some(), setup.call.is_some(), setup.err.is_some()],
        }));
        assert!(!(setup.pending && setup.enabled));
        if index == 4
            && let (Some(watcher), Some(kick)) = (&self.watcher, &setup.kick)
        {
            self.watch = Some(watcher.watch(kick, 4)?);
        }
        let slot = &mut self.rings[usize::from(index)];
        assert!(slot.is_none(), "started twice");
        *slot = Some(setup);
        Ok(())
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        self.recorder.push(Call::Stop(index));
        if index == 4 {
            self.watch = None;
        }
        let setup = self.rings[usize::from(index)].take().expect("the ring runs");
        (setup.base + PROGRESS) & 0xffff
    }

    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), BackendError> {
        self.refused("set_ring_enabled")?;
        let ring = self.running(index);
        (ring.enabled, ring.pending) = (enabled, false);
        self.recorder.push(Call::Enabled(index, enabled));
        Ok(())
    }

    fn drain_ring(&mut self, index: u16) {
        assert!(std::mem::replace(&mut self.running(index).pending, false));
        self.recorder.push(Call::Drain(index));
    }

    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) {
        self.recorder.push(Call::Kick(index, kick.is_some()));
        self.running(index).kick = kick;
    }

    fn set_ring_call(&mut self, index: u16, call: Option<crate::Call>) {
        self.recorder.push(Call::Interrupt(index, call.is_some()));
        self.running(index).call = call;
    }

    fn kick_ring(&mut self, index: u16) {
        self.recorder.push(Call::RingKicked(index));
        // As if it had used all that is there.
        if let Some(call) = &self.running(index).call {
            call.signal().unwrap();
        }
    }

    fn set_ring_err(&mut self, index: u16, err: Option<crate::Call>) {
        self.recorder.push(Call::Err(index, err.is_some()));
        self.running(index).err = err;
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        assert!(self.log.is_some() || log.is_some(), "there was no log");
        self.recorder.push(Call::Log(log.as_ref().map(|log| log.len())));
        // As a device does: it may be at the end of a burst.
        for log in [&self.log, &log].into_iter().flatten() {
            log.mark(0, 1);
        }
        self.log = log;
        self.assert_log_covers();
    }

    fn set_ring_log(&mut self, index: u16, used: Option<u64>) {
        self.running(index).log = used;
        self.recorder.push(Call::RingLog(index, used));
    }

    fn set_mtu(&mut self, mtu: u16) {
        assert!(mtu >= 68);
        self.recorder.push(Call::Mtu(mtu));
    }

    fn set_status(&mut self, status: u8) -> Result<(), BackendError> {
        self.refused("set_status")?;
        if status == 0 {
            self.assert_all_stopped();
        }
        self.status = status;
        self.recorder.push(Call::Status(status));
        Ok(())
    }

    fn status(&self) -> u8 {
        self.status
    }

    fn reset_device(&mut self) {
        self.assert_all_stopped();
        self.status = 0;
        self.recorder.push(Call::Reset);
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.refused("read_config")?;
        let offset = usize::try_from(offset)?;
        let part = offset.checked_add(bytes.len()).and_then(|end| CONFIG.get(offset..end));
        bytes.copy_from_slice(part.ok_or("there is no such part")?);
        Ok(())
    }

    fn write_config(
        &mut self,
        offset: u32,
        bytes: &[u8],
        migration: bool,
    ) -> Result<(), BackendError> {
        self.refused("write_config")?;
        self.recorder.push(Call::Config(offset, bytes.to_vec(), migration));
        Ok(())
    }

    fn update_translation(&mut self, translation: Translation) -> Result<(), BackendError> {
        self.refused("update_translation")?;
        assert!(self.translated);
        self.recorder.push(Call::Translation(translation));
        Ok(())
    }

    fn forget_translations(&mut self, iova: u64, len: u64) {
        assert!(self.translated);
        self.recorder.push(Call::Forget(iova, len));
    }

    fn translation_answered(&mut self) {
        self.recorder.push(Call::Answered);
    }

    fn announce_guest(&mut self, mac: [u8; 6]) {
        self.recorder.push(Call::Announce(mac));
    }

    fn next_message(&mut self) -> Option<BackendMessage<OwnedFd>> {
        self.to_tell.pop_front()
    }

    fn notifier_answered(&mut self, index: u8, used: bool) {
        self.recorder.push(Call::Notifier(index, used));
    }

    fn kicked(&mut self, token: u16) {
        assert!(self.refuse != Some("kicked"), "as the test wants it");
        if let Some(kick) = self.rings[4].as_ref().and_then(|ring| ring.kick.as_ref()) {
            kick.drain().unwrap();
        }
        self.recorder.push(Call::Kicked(token));
    }
}

/// An eventfd.
pub fn event() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

/// A memory file of [`MEMORY`] bytes.
pub fn memory() -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, MEMORY).unwrap();
    fd
}

/// A file for a log of written pages, of `bytes`.
pub fn log(bytes: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest log", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    fd
}

/// A file that is neither.
pub fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}
