//! What a device does behind a session with a front-end (vhost-user) or with the kernel (VDUSE).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::PeerEvent;
use virtio::device;
use virtio::iotlb::Translation;
use virtio::{DirtyLog, Features, GuestMemory, InflightArea};

use crate::call::Call;
use crate::control::Watcher;
use crate::protocol::{BackendMessage, MAX_TABLE_REGIONS, ProtocolFeatures};

/// Why a device refuses something; its text completes "SET_FEATURES: the device refuses: ...".
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// A ring that is to start, with everything that the front-end told about it.
///
/// Sizes, addresses and base are as the front-end sent them, apart from the checks named here.
#[derive(Debug)]
pub struct RingSetup {
    /// Number of descriptors: 1 to 32768, and a power of two unless rings are packed.
    pub size: u16,
    /// Address of the descriptor table (packed: of the ring) in the front-end's address space.
    pub desc: u64,
    /// Address of the available ring (packed: of the driver's event suppression area).
    pub avail: u64,
    /// Address of the used ring (packed: of the device's event suppression area).
    pub used: u64,
    /// Guest-physical address to log writes to the used ring at, if they are to be logged.
    pub log: Option<u64>,
    /// Where to go on. Split: the next index in the available ring, 16 bits. Packed: bits 0-14
    /// the next available index, bit 15 its wrap counter, bits 16-30 the next used index, bit 31
    /// its wrap counter.
    pub base: u32,
    /// The negotiated feature bits, without the one that switches logging.
    pub features: u64,
    /// Whether the ring is enabled. One that is not is started nevertheless: what the driver
    /// offers is consumed and discarded, and nothing is delivered.
    pub enabled: bool,
    /// The ring is not enabled, but only because the front-end has not said yet what it is: what
    /// the driver offers stays in the ring until [`Backend::set_ring_enabled`] or
    /// [`Backend::drain_ring`].
    pub pending: bool,
    /// The memory looks as if nobody had ever written to it: perhaps what the front-end shares is
    /// not the guest's. Told once for each memory table.
    pub blank: bool,
    /// Where the front-end keeps records of the chains in flight in this ring; only where
    /// [`Backend::protocol_features`] have INFLIGHT_SHMFD. What is in there goes before `base`.
    pub inflight: Option<InflightArea>,
    /// By which the driver notifies the device; `None` asks for polling, unless `inband`.
    pub kick: Option<PeerEvent>,
    /// The driver notifies the device through [`Backend::kick_ring`].
    pub inband: bool,
    /// By which the device notifies the driver.
    pub call: Option<Call>,
    /// By which the device tells that the ring is broken.
    pub err: Option<Call>,
}

impl RingSetup {
    /// A ring in this place, enabled, and without anything else.
    #[must_use]
    pub const fn at(place: device::RingSetup) -> Self {
        let device::RingSetup { size, desc, avail, used, base, features } = place;
        Self {
            size,
            desc,
            avail,
            used,
            log: None,
            base,
            features: features.bits(),
            enabled: true,
            pending: false,
            blank: false,
            inflight: None,
            kick: None,
            inband: false,
            call: None,
            err: None,
        }
    }

    /// Where the ring lies and where to begin in it.
    #[must_use]
    pub const fn place(&self) -> device::RingSetup {
        let &Self { size, desc, avail, used, base, features, .. } = self;
        let features = Features::from_bits_truncate(features);
        device::RingSetup { size, desc, avail, used, base, features }
    }
}

/// Where a region of the guest's memory comes from.
#[derive(Clone, Copy, Debug)]
pub struct RegionFile<'f> {
    /// Guest-physical address of its first byte.
    pub guest_addr: u64,
    /// The file.
    pub fd: BorrowedFd<'f>,
    /// Where it starts in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// In which kinds of files a front-end may share memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryKinds {
    /// Those of which no page has to be fetched: memfds, and files on tmpfs or hugetlbfs.
    #[default]
    Lasting,
    /// All regular files. Whoever serves a file's pages can stop every thread that touches one of
    /// them for as long as it likes, and with a worker all ports that it serves.
    Any,
}

/// The device behind a socket.
///
/// All methods are called on the control thread, one at a time, and must not wait for a peer;
/// they may wait for a worker to finish its burst. A session calls them in this order:
/// [`connected`](Self::connected), whatever the front-end asks for,
/// [`stop_ring`](Self::stop_ring) for every ring that still runs,
/// [`disconnected`](Self::disconnected); and again from the start with the next connection.
pub trait Backend: Send {
    /// The device was added to a control thread. `watcher` makes that thread call
    /// [`kicked`](Self::kicked) for files of the device's choice, such as the kick file of a
    /// control queue.
    fn attached(&mut self, watcher: Watcher) {
        let _ = watcher;
    }

    /// The virtio feature bits that the device offers, with bit 30
    /// (`VHOST_USER_F_PROTOCOL_FEATURES`).
    fn features(&self) -> u64;

    /// The protocol features that the device offers. A session takes those away that it does not
    /// implement.
    fn protocol_features(&self) -> ProtocolFeatures;

    /// Number of queue pairs, the answer to GET_QUEUE_NUM.
    fn queue_pairs(&self) -> u16;

    /// Number of rings including a control queue; at most 256 can be used.
    fn ring_count(&self) -> u16;

    /// In which kinds of files it takes the guest's memory.
    fn memory_kinds(&self) -> MemoryKinds {
        MemoryKinds::default()
    }

    /// A front-end has connected.
    fn connected(&mut self) {}

    /// What to look at where front-ends leave as soon as they have seen what is offered.
    fn advice(&self) -> Option<&'static str> {
        None
    }

    /// The front-end has gone. All rings were stopped; let go of the guest's memory.
    fn disconnected(&mut self);

    /// The front-end accepted these protocol features, a subset of those that were offered. It
    /// tells before it starts the first ring, if it knows of them at all.
    fn set_protocol_features(&mut self, features: ProtocolFeatures) {
        let _ = features;
    }

    /// The driver accepted `features`, a subset of [`features`](Self::features). No ring runs
    /// unless they are the same as before. The bit that switches logging is not among them: see
    /// [`set_log`](Self::set_log).
    ///
    /// # Errors
    /// Where the device cannot work with them.
    fn set_features(&mut self, features: u64) -> Result<(), BackendError>;

    /// The guest's memory is now `memory`. Rings that run go on in it from their next burst;
    /// what the device still holds of the old one keeps that mapped.
    ///
    /// # Errors
    /// Where a running ring does not lie in it. The session then keeps the old memory.
    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), BackendError>;

    /// A post-copy migration towards this device is about to start: gives the userfaultfd over
    /// which the front-end is to serve the device's page faults. Called only where
    /// [`protocol_features`](Self::protocol_features) have PAGEFAULT.
    ///
    /// Whoever has this file rules over the address space that it was made in (`UFFDIO_REGISTER`
    /// and `UFFDIO_COPY` work on any part of it), so it must not be this process's.
    ///
    /// # Errors
    /// Where there is none.
    fn advise_postcopy(&mut self) -> Result<OwnedFd, BackendError> {
        Err("it knows no post-copy migration".into())
    }

    /// As [`set_memory`](Self::set_memory), where pages of the memory are still missing: whoever
    /// touches one of them waits for the front-end, or gets zeroes and makes that the page is
    /// lost. `files` are the regions again, in the front-end's order. Gives for each the address
    /// where it lies in the address space that [`advise_postcopy`](Self::advise_postcopy) has
    /// told of; nothing there is touched before
    /// [`postcopy_acknowledged`](Self::postcopy_acknowledged).
    ///
    /// # Errors
    /// As there, and where the regions cannot be placed.
    fn set_missing_memory(
        &mut self,
        memory: Arc<GuestMemory>,
        files: &[RegionFile<'_>],
    ) -> Result<ArrayVec<u64, MAX_TABLE_REGIONS>, BackendError> {
        let _ = (memory, files);
        Err("it knows no post-copy migration".into())
    }

    /// The front-end serves faults at the addresses that it was told.
    fn postcopy_acknowledged(&mut self) {}

    /// No page is missing any more; or the migration that the front-end announced does not take
    /// place.
    fn end_postcopy(&mut self) {}

    /// Starts ring `index`, which does not run and is below
    /// [`ring_count`](Self::ring_count).
    ///
    /// # Errors
    /// Where the ring does not lie in guest memory, or its size or base is not possible.
    fn start_ring(&mut self, index: u16, setup: RingSetup) -> Result<(), BackendError>;

    /// Stops ring `index`, which runs, and returns its base in the form of [`RingSetup::base`].
    /// Once this returns, nobody touches the ring or notifies the driver any more.
    fn stop_ring(&mut self, index: u16) -> u32;

    /// Enables or disables ring `index`, which runs.
    ///
    /// # Errors
    /// Where the device cannot; it remains as it was.
    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), BackendError>;

    /// Ring `index`, which runs, is no longer [pending](RingSetup::pending) but disabled: the
    /// front-end has said nothing of it in time.
    fn drain_ring(&mut self, index: u16) {
        let _ = index;
    }

    /// Replaces the kick file of ring `index`, which runs.
    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>);

    /// The driver notifies the device of ring `index`, which runs, in a message
    /// (INBAND_NOTIFICATIONS).
    fn kick_ring(&mut self, index: u16) {
        let _ = index;
    }

    /// Replaces the call file of ring `index`, which runs. The driver may have missed calls by
    /// the old one, so the new one is to be signalled.
    fn set_ring_call(&mut self, index: u16, call: Option<Call>);

    /// Replaces the error file of ring `index`, which runs.
    fn set_ring_err(&mut self, index: u16, err: Option<Call>);

    /// From the next burst on, every write to the guest's memory is marked in `log`, after it was
    /// done; or no writes are marked any more. Rings may run. It is called only where
    /// [`features`](Self::features) has bit 26 (`VHOST_F_LOG_ALL`): a device that offers it must
    /// do this.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        drop(log);
    }

    /// Replaces [`RingSetup::log`] of ring `index`, which runs.
    fn set_ring_log(&mut self, index: u16, used: Option<u64>) {
        let _ = (index, used);
    }

    /// The guest was told this MTU: 68 to 65535 bytes.
    fn set_mtu(&mut self, mtu: u16) {
        let _ = mtu;
    }

    /// The driver wrote the device status byte (virtio 1.3 section 2.1). On 0, which resets the
    /// device, all rings were stopped before.
    ///
    /// # Errors
    /// Where the device does not start when the driver says that it is ready.
    fn set_status(&mut self, status: u8) -> Result<(), BackendError>;

    /// The device status byte.
    fn status(&self) -> u8;

    /// Back to the state after power-on; all rings were stopped. Guest memory stays.
    fn reset_device(&mut self);

    /// Reads the device's configuration space: `bytes.len()` bytes from `offset` on, at most 256.
    /// Called only where [`protocol_features`](Self::protocol_features) have CONFIG.
    ///
    /// # Errors
    /// Where there is no such part.
    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), BackendError> {
        let _ = (offset, bytes);
        Err("it has no configuration space of its own".into())
    }

    /// Writes the device's configuration space, as [`read_config`](Self::read_config) reads it;
    /// if `migration`, with what the space was on another host.
    ///
    /// # Errors
    /// Where there is no such part, or it is read only.
    fn write_config(
        &mut self,
        offset: u32,
        bytes: &[u8],
        migration: bool,
    ) -> Result<(), BackendError> {
        let _ = (offset, bytes, migration);
        Err("it has no configuration space of its own".into())
    }

    /// The state of the device that is neither in the guest's memory nor in what a front-end tells
    /// the back-end where the guest arrives, as bytes for [`load_state`](Self::load_state). No ring
    /// runs. Called only where [`protocol_features`](Self::protocol_features) have DEVICE_STATE.
    ///
    /// # Errors
    /// Where it cannot be had.
    fn save_state(&self) -> Result<Vec<u8>, BackendError> {
        Err("it has no state of its own".into())
    }

    /// Takes over the state that another device has saved, or says that it has. `bytes` may go on
    /// after it, with zeroes. No ring runs.
    ///
    /// # Errors
    /// Where it is no state, or not one of such a device. The device's own is as before.
    fn load_state(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        let _ = bytes;
        Err("it has no state of its own".into())
    }

    /// The guest, whose address is `mac`, runs here now, after a migration, and does not tell the
    /// network itself. Called only where [`protocol_features`](Self::protocol_features) have RARP.
    fn announce_guest(&mut self, mac: [u8; 6]) {
        let _ = mac;
    }

    /// The front-end says what lies at a range of I/O virtual addresses. Called only where
    /// `ACCESS_PLATFORM` was negotiated: then the addresses in [`RingSetup`] and those in
    /// descriptors are such ones, and mean nothing before the front-end has told of them, which it
    /// does when it is [asked](BackendMessage::Iotlb).
    ///
    /// # Errors
    /// Where the range makes no sense, or nothing that is shared lies there.
    fn update_translation(&mut self, translation: Translation) -> Result<(), BackendError> {
        let _ = translation;
        Err("it is not behind an IOMMU".into())
    }

    /// What was said about the `len` bytes at I/O virtual address `iova`, 0 meaning all that
    /// follow, does not hold any more. Once this returns, nobody uses it.
    fn forget_translations(&mut self, iova: u64, len: u64) {
        let _ = (iova, len);
    }

    /// The front-end has done what it can about the translation that was asked for last.
    fn translation_answered(&mut self) {}

    /// There is another channel for messages of the back-end, or none any more: what was asked for
    /// over the last one is not answered.
    fn channel_changed(&mut self) {}

    /// The next message for the front-end. It is asked for after each message of the front-end
    /// and after [`kicked`](Self::kicked), but only while the front-end reads and answers its
    /// channel: what cannot be told yet is kept by the device. A message whose protocol features
    /// were not negotiated is not sent.
    fn next_message(&mut self) -> Option<BackendMessage<OwnedFd>> {
        None
    }

    /// The front-end has answered whether it uses the doorbell of ring `index` that it was
    /// offered.
    fn notifier_answered(&mut self, index: u8, used: bool) {
        let _ = (index, used);
    }

    /// A file that the device watches under `token` is readable, or was a moment ago. One that
    /// stays readable makes this be called again and again.
    fn kicked(&mut self, token: u16) {
        let _ = token;
    }
}

/// What happens at a socket, for the application. Events of one socket come in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A front-end has connected.
    Connected,
    /// The first two rings run and are enabled, and the driver is ready where the front-end
    /// tells: frames can be exchanged.
    Ready,
    /// What [`Ready`](Self::Ready) told is over; the front-end is still connected.
    Suspended,
    /// A ring has changed its state.
    RingState {
        /// Index of the ring.
        index: u16,
        /// Whether it is enabled.
        enabled: bool,
        /// Whether it is started.
        started: bool,
    },
    /// The front-end has gone; all rings are stopped.
    Gone,
}

/// Where events of a socket go. It is called on the control thread, so it should be quick, and
/// must not remove the socket and wait for that.
pub type EventSink = Box<dyn FnMut(Event) + Send>;
