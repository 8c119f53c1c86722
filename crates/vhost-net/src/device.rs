//! The network device behind one vhost-user socket: its control side.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use arrayvec::ArrayVec;
use eal::{EventFd, PeerEvent};
use packet::Capabilities;
use virtio::iotlb::Translation;
use virtio::{DirtyLog, Features, GuestMemory};

use super::command::Command;
use super::control_ring::ControlRing;
use super::dirty::Logs;
use super::filter::ReceiveFilter;
use super::iommu::{ASKS, FIRST_BUFFERS, Iommu};
use super::postcopy::{self, Postcopy};
use super::ring::{Ring, RingSlot};
use super::state::State;
use super::{NetReceiver, NetTransmitter};
use vhost::backend::{Backend, BackendError, MemoryKinds, RegionFile, RingSetup};
use vhost::call::Call;
use vhost::control::{SharedLimit, Watch, Watcher};
use vhost::protocol::{BackendMessage, MAX_TABLE_REGIONS, ProtocolFeatures};

/// Most queue pairs of a device: with a control queue they make the 256 rings that vhost-user
/// can name.
pub const MAX_QUEUE_PAIRS: u16 = 127;

/// What a device offers unless it is told not to.
const OFFLOADS: Features =
    Features::HOST_OFFLOADS.union(Features::GUEST_OFFLOADS).union(Features::CTRL_GUEST_OFFLOADS);

/// What every device offers. STATUS is not among them: the link's state is in the configuration,
/// which is the front-end's. QEMU offers it to its guests all the same; User Mode Linux would read
/// that there is no carrier.
const FEATURES: Features = Features::VERSION_1
    .union(Features::VHOST_USER_PROTOCOL)
    .union(Features::VHOST_LOG_ALL)
    .union(Features::ANY_LAYOUT)
    .union(Features::MRG_RXBUF)
    .union(Features::INDIRECT_DESC)
    .union(Features::EVENT_IDX)
    .union(Features::RING_PACKED)
    .union(Features::IN_ORDER)
    .union(Features::MTU)
    .union(Features::GUEST_ANNOUNCE)
    .union(Features::CTRL_VQ)
    .union(Features::CTRL_RX)
    .union(Features::CTRL_RX_EXTRA)
    .union(Features::CTRL_VLAN)
    .union(Features::CTRL_MAC_ADDR);

/// What the control thread tells the port about the guest.
#[derive(Debug)]
pub struct GuestState {
    mtu: AtomicU16,
    queue_pairs: AtomicU16,
}

impl GuestState {
    /// The MTU that the guest was told, if it was told one.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        Some(self.mtu.load(Ordering::Relaxed)).filter(|mtu| *mtu != 0)
    }

    /// Queue pairs that the guest uses, where it has said so over the control queue.
    #[must_use]
    pub fn queue_pairs(&self) -> u16 {
        self.queue_pairs.load(Ordering::Relaxed)
    }
}

/// The control side of a network device: starts and stops rings as its session says, and serves
/// the control queue.
#[derive(Debug)]
pub struct NetDevice {
    pub(super) name: String,
    pub(super) slots: Vec<Arc<RingSlot>>,
    /// Wakes workers to look at their rings again, and the control thread for its own.
    pub(super) wake: Arc<EventFd>,
    /// What the front-end has enabled, by ring.
    pub(super) enabled: Vec<bool>,
    pub(super) control: Option<ControlRing>,
    pub(super) watcher: Option<Watcher>,
    /// The control queue's kick file, and `wake`.
    watches: Vec<Watch>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) logs: Logs,
    pub(super) negotiated: Features,
    pub(super) filter: ReceiveFilter,
    state: Arc<GuestState>,
    status: u8,
    offloads: bool,
    /// Whether notifications may be messages.
    inband: bool,
    memory_kinds: MemoryKinds,
    /// Where the device may be behind one.
    pub(super) iommu: Option<Box<Iommu>>,
    /// Offloads that the driver wants to have left to it now, where it has said so.
    wanted: Option<Features>,
    /// For log lines that a front-end can cause.
    pub(super) limit: SharedLimit,
    /// Where post-copy migration is offered.
    pub(super) postcopy: Option<Postcopy>,
}

/// Whether the guest sends in ring `index`, and does not receive. In its receive rings nobody waits
/// for buffers, so their kick files are closed: files are what a switch runs out of first.
pub(super) const fn is_sent(index: u16) -> bool {
    index % 2 == 1
}

impl NetDevice {
    /// A device with `queue_pairs` pairs, at least 1 and at most [`MAX_QUEUE_PAIRS`]; `name` is
    /// for log lines.
    ///
    /// # Errors
    /// When the process has no file descriptors left, or the system has no asynchronous I/O, by
    /// which alone a guest can be notified without waiting for it.
    pub fn new(name: &str, queue_pairs: u16) -> io::Result<Self> {
        let queue_pairs = queue_pairs.clamp(1, MAX_QUEUE_PAIRS);
        PeerEvent::check_support()?;
        let wake = Arc::new(EventFd::new()?);
        let limit = SharedLimit::default();
        let slot = |index| {
            let (name, wake) = (format!("{name} ring {index}"), Arc::clone(&wake));
            let sends = is_sent(index);
            let slot =
                if sends { RingSlot::new(name, wake)? } else { RingSlot::unwaited(name, wake) };
            Ok(Arc::new(slot.within(&limit)))
        };
        let slots = (0..2 * queue_pairs).map(slot).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            name: name.to_owned(),
            enabled: vec![false; slots.len()],
            slots,
            wake,
            control: None,
            watcher: None,
            watches: Vec::new(),
            memory: Arc::default(),
            limit,
            logs: Logs::default(),
            negotiated: Features::empty(),
            filter: ReceiveFilter::default(),
            state: Arc::new(GuestState {
                mtu: AtomicU16::new(0),
                queue_pairs: AtomicU16::new(queue_pairs),
            }),
            status: 0,
            offloads: true,
            inband: false,
            memory_kinds: MemoryKinds::default(),
            iommu: None,
            wanted: None,
            postcopy: None,
        })
    }

    /// The device without any offload offered: frames are complete in both directions.
    #[must_use]
    pub const fn without_offloads(mut self) -> Self {
        self.offloads = false;
        self
    }

    /// The device with notifications as messages, for front-ends that want them.
    #[must_use]
    pub const fn with_inband_notifications(mut self) -> Self {
        self.inband = true;
        self
    }

    /// The device with the guest's memory in files of `kinds`.
    #[must_use]
    pub const fn with_memory_of(mut self, kinds: MemoryKinds) -> Self {
        self.memory_kinds = kinds;
        self
    }

    /// The receive side of every pair: polls the guest's transmit rings.
    #[must_use]
    pub fn receivers(&self) -> Vec<NetReceiver> {
        self.slots.iter().skip(1).step_by(2).map(|slot| NetReceiver::new(slot.clone())).collect()
    }

    /// The transmit side of every pair: fills the guest's receive rings.
    #[must_use]
    pub fn transmitters(&self) -> Vec<NetTransmitter> {
        self.slots.iter().step_by(2).map(|slot| NetTransmitter::new(slot.clone())).collect()
    }

    /// The slots of all rings, for their counters.
    #[must_use]
    pub fn slots(&self) -> &[Arc<RingSlot>] {
        &self.slots
    }

    /// What the guest has said about itself.
    #[must_use]
    pub fn state(&self) -> &Arc<GuestState> {
        &self.state
    }

    pub(super) fn pairs(&self) -> u16 {
        u16::try_from(self.slots.len() / 2).unwrap_or(MAX_QUEUE_PAIRS)
    }

    /// Index of the control queue: behind the last pair (virtio 1.3 section 5.1.2).
    fn control_index(&self) -> u16 {
        if self.negotiated.contains(Features::MQ) { 2 * self.pairs() } else { 2 }
    }

    /// What the front-end has told of ring `index`, if that waits for its pages, or until it is known
    /// where it lies.
    fn waiting(&mut self, index: u16) -> Option<&mut RingSetup> {
        let missing = self.postcopy.as_mut().and_then(|postcopy| postcopy.find_waiting(index));
        missing.or_else(|| self.iommu.as_mut()?.waiting(index))
    }

    pub(super) fn is_control(&self, index: u16) -> bool {
        self.negotiated.contains(Features::CTRL_VQ) && index == self.control_index()
    }

    /// Whether ring `index` carries frames: the front-end has enabled it, and the guest uses
    /// its pair.
    pub(super) fn effective(&self, index: u16) -> bool {
        self.enabled.get(usize::from(index)).is_some_and(|enabled| *enabled)
            && index / 2 < self.state.queue_pairs()
    }

    /// What may be left to the driver now.
    pub(super) fn guest_takes(&self) -> Capabilities {
        match self.wanted {
            None => self.negotiated.guest_takes(),
            Some(wanted) => (wanted & self.negotiated).guest_takes(),
        }
    }

    /// Changes ring `index`, if it runs.
    pub(super) fn edit(&self, index: u16, change: impl FnOnce(&mut Ring)) {
        if let Some(slot) = self.slots.get(usize::from(index)) {
            slot.edit(|ring| ring.as_mut().map(|ring| change(ring)));
        }
    }

    /// Brings every ring up to what is enabled and filtered now.
    fn refresh(&self) {
        let filter = self.filter.is_active().then(|| Arc::new(self.filter.clone()));
        let takes = self.guest_takes();
        for (index, slot) in (0..).zip(&self.slots) {
            let enabled = self.effective(index);
            slot.edit_unnoticed(|ring| {
                if let Some(ring) = ring {
                    ring.enabled = enabled;
                    ring.takes = takes;
                    ring.filter.clone_from(&filter);
                }
            });
        }
        self.wake();
    }

    /// Wakes the workers of all rings, and this thread for the control queue.
    fn wake(&self) {
        // It is ours and cannot fail.
        let _ = self.wake.signal();
    }

    /// Has ring `index`, if it runs, log what it is to log now.
    fn update_log(&mut self, index: u16) {
        let log = self.logs.ring(index);
        if self.is_control(index) {
            if let Some(ring) = &mut self.control {
                ring.queue.set_log(log);
            }
        } else {
            self.edit(index, |ring| ring.queue.set_log(log));
        }
    }

    /// Stops ring `index`; returns its base.
    fn halt(&mut self, index: u16) -> u32 {
        if let Some(ring) = self.postcopy.as_mut().and_then(|it| it.take_waiting(index)) {
            return ring.base;
        }
        if let Some(iommu) = &mut self.iommu {
            iommu.unwatch(index);
            if let Some(ring) = iommu.take_waiting(index) {
                return ring.base;
            }
        }
        if self.is_control(index) {
            self.watches.clear();
            return self.control.take().map_or(0, |ring| ring.queue.base());
        }
        let Some(slot) = self.slots.get(usize::from(index)) else { return 0 };
        slot.edit(Option::take).map_or(0, |ring| ring.queue.base())
    }

    /// Has the control thread call us when the driver kicks the control queue, and once now: it
    /// may have kicked before.
    pub(super) fn watch_control(&mut self) {
        self.watches.clear();
        let Some(watcher) = &self.watcher else { return };
        let Some(kick) = self.control.as_ref().and_then(|ring| ring.kick.clone()) else { return };
        let wake = watcher.watch_edges(Arc::clone(&self.wake), 0);
        match wake.and_then(|wake| Ok([wake, watcher.watch_edges(kick, 0)?])) {
            Ok(watches) => self.watches.extend(watches),
            Err(error) => {
                if let Some(suppressed) = self.limit.admit_line() {
                    let port = self.name.as_str();
                    tracing::warn!(port, %error, suppressed, "cannot watch the control queue");
                }
            }
        }
        self.wake();
    }

    /// Carries out the commands in the control queue.
    fn serve_control(&mut self) {
        let Some(mut ring) = self.control.take() else { return };
        let again = ring.serve(|command| {
            let done = self.execute(command);
            // Before the answer: what the driver was promised holds from then on.
            self.refresh();
            done
        });
        if let Some(error) = ring.take_fault()
            && let Some(suppressed) = self.limit.admit_line()
        {
            let (port, ring) = (self.name.as_str(), self.control_index());
            tracing::warn!(port, ring, %error, suppressed, "the guest broke its control queue; it is stopped");
        }
        self.control = Some(ring);
        if again {
            self.wake();
        }
    }

    /// Carries out a command; returns whether it could.
    pub(crate) fn execute(&mut self, command: Command) -> bool {
        match command {
            Command::Mode(mode, on) => self.filter.set_mode(mode, on),
            Command::Mac(mac) => self.filter.set_mac(mac),
            Command::MacTables(unicast, multicast) => self.filter.set_tables(unicast, multicast),
            Command::Vlan(vlan, on) => return self.filter.set_vlan(vlan, on),
            Command::AnnounceAck => {}
            Command::QueuePairs(pairs) if pairs == 0 || pairs > self.pairs() => return false,
            Command::GuestOffloads(wanted) => {
                let may = self.negotiated & Features::GUEST_OFFLOADS;
                if !self.negotiated.contains(Features::CTRL_GUEST_OFFLOADS) || !may.contains(wanted)
                {
                    return false;
                }
                self.wanted = Some(wanted);
            }
            Command::QueuePairs(pairs) => self.state.queue_pairs.store(pairs, Ordering::Relaxed),
        }
        true
    }

    fn forget_driver(&mut self) {
        self.filter = ReceiveFilter::default();
        self.wanted = None;
        self.state.queue_pairs.store(self.pairs(), Ordering::Relaxed);
        self.status = 0;
    }
}

impl Backend for NetDevice {
    fn attached(&mut self, watcher: Watcher) {
        let attached = self.iommu.as_mut().map_or(Ok(()), |iommu| iommu.attach(&watcher));
        if let Err(error) = attached {
            tracing::warn!(port = %self.name, %error, "cannot hear of the IOMMU's misses");
        }
        self.watcher = Some(watcher);
    }

    fn features(&self) -> u64 {
        let multi_queue = if self.pairs() > 1 { Features::MQ } else { Features::empty() };
        let offloads = if self.offloads { OFFLOADS } else { Features::empty() };
        let iommu = self.iommu.as_ref().map_or(Features::empty(), |_| Features::ACCESS_PLATFORM);
        (FEATURES | multi_queue | offloads | iommu).bits()
    }

    fn protocol_features(&self) -> ProtocolFeatures {
        // Its configuration is the front-end's, and it has no doorbells. It has nothing to say of
        // its own either, but User Mode Linux has no interrupts without a channel for that.
        let foreign = ProtocolFeatures::CONFIG
            | ProtocolFeatures::BACKEND_SEND_FD
            | ProtocolFeatures::HOST_NOTIFIER;
        let postcopy = match self.postcopy {
            Some(_) => ProtocolFeatures::empty(),
            None => ProtocolFeatures::PAGEFAULT,
        };
        // A message for each kick costs a front-end far more than an eventfd.
        let inband = match self.inband {
            true => ProtocolFeatures::empty(),
            false => ProtocolFeatures::INBAND_NOTIFICATIONS,
        };
        ProtocolFeatures::all() - foreign - postcopy - inband
    }

    fn queue_pairs(&self) -> u16 {
        self.pairs()
    }

    fn ring_count(&self) -> u16 {
        2 * self.pairs() + 1
    }

    fn memory_kinds(&self) -> MemoryKinds {
        self.memory_kinds
    }

    fn advice(&self) -> Option<&'static str> {
        // QEMU ends without a word where it does not find the feature.
        let advice = "a device with iommu_platform=on needs iommu=on at this port";
        self.iommu.is_none().then_some(advice)
    }

    fn disconnected(&mut self) {
        self.forget_driver();
        if let Some(postcopy) = &mut self.postcopy {
            postcopy.forget();
        }
        self.memory = Arc::default();
        self.state.mtu.store(0, Ordering::Relaxed);
        self.negotiated = Features::empty();
        self.share(&Arc::default());
        self.follow_features();
        self.channel_changed();
    }

    fn set_features(&mut self, features: u64) -> Result<(), BackendError> {
        let before = self.negotiated;
        self.negotiated = Features::from_bits_truncate(features);
        if (before ^ self.negotiated).contains(Features::ACCESS_PLATFORM) {
            self.follow_features();
        }
        Ok(())
    }

    fn update_translation(&mut self, translation: Translation) -> Result<(), BackendError> {
        self.add_translation(translation)
    }

    fn forget_translations(&mut self, iova: u64, len: u64) {
        self.remove_translations(iova, len);
    }

    fn translation_answered(&mut self) {
        self.miss_answered();
    }

    fn channel_changed(&mut self) {
        if let Some(iommu) = &mut self.iommu {
            iommu.forget_asked();
        }
    }

    fn next_message(&mut self) -> Option<BackendMessage<OwnedFd>> {
        self.next_miss().map(BackendMessage::Iotlb)
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), BackendError> {
        if self.share(&memory) {
            return Ok(());
        }
        // All rings move or none: with half of them in the old table, neither table would do.
        for slot in &self.slots {
            let check =
                |ring: Option<&Ring>| ring.map_or(Ok(()), |ring| ring.queue.check_memory(&memory));
            slot.inspect(check)?;
        }
        if let Some(ring) = &mut self.control {
            ring.queue.set_memory(Arc::clone(&memory))?;
        }
        for slot in &self.slots {
            let go_on = |ring: &mut Option<Box<Ring>>| match ring {
                Some(ring) => ring.queue.set_memory(Arc::clone(&memory)),
                None => Ok(()),
            };
            // It was checked, so it does not fail.
            slot.edit_unnoticed(go_on)?;
        }
        self.wake();
        self.memory = memory;
        Ok(())
    }

    fn advise_postcopy(&mut self) -> Result<OwnedFd, BackendError> {
        self.announce_postcopy()
    }

    fn set_missing_memory(
        &mut self,
        memory: Arc<GuestMemory>,
        files: &[RegionFile<'_>],
    ) -> Result<ArrayVec<u64, MAX_TABLE_REGIONS>, BackendError> {
        self.place_memory(memory, files)
    }

    fn postcopy_acknowledged(&mut self) {
        self.expect_pages();
    }

    fn end_postcopy(&mut self) {
        self.finish_postcopy();
    }

    fn start_ring(&mut self, index: u16, setup: RingSetup) -> Result<(), BackendError> {
        if self.has_missing_pages() {
            return self.start_later(index, setup);
        }
        self.put_off(index, setup).map_or(Ok(()), |setup| self.launch(index, setup, None))
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        let base = self.halt(index);
        self.forget_when_idle();
        base
    }

    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), BackendError> {
        if let Some(place) = self.enabled.get_mut(usize::from(index)) {
            *place = enabled;
        }
        if let Some(ring) = self.waiting(index) {
            (ring.enabled, ring.pending) = (enabled, false);
            return Ok(());
        }
        let enabled = self.effective(index);
        self.edit(index, |ring| (ring.enabled, ring.pending) = (enabled, false));
        Ok(())
    }

    fn drain_ring(&mut self, index: u16) {
        match self.waiting(index) {
            Some(ring) => ring.pending = false,
            None => self.edit(index, |ring| ring.pending = false),
        }
    }

    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) {
        if let Some(ring) = self.waiting(index) {
            ring.kick = kick;
        } else if self.is_control(index) {
            if let Some(ring) = &mut self.control {
                ring.kick = kick;
            }
            self.watch_control();
        } else {
            self.edit(index, |ring| ring.kick = kick.clone().filter(|_| is_sent(index)));
            self.await_buffers(index, kick);
        }
    }

    fn kick_ring(&mut self, index: u16) {
        if self.is_control(index) {
            self.serve_control();
        } else if is_sent(index) {
            self.wake();
        }
    }

    fn set_ring_call(&mut self, index: u16, call: Option<Call>) {
        // Whatever the old file was told may have been lost with it.
        if let Some(call) = &call {
            let _ = call.signal();
        }
        if let Some(ring) = self.waiting(index) {
            ring.call = call;
        } else if self.is_control(index) {
            if let Some(ring) = &mut self.control {
                ring.call = call;
            }
        } else {
            self.edit(index, |ring| ring.call = call);
        }
    }

    fn set_ring_err(&mut self, index: u16, err: Option<Call>) {
        if let Some(ring) = self.waiting(index) {
            ring.err = err;
        } else if self.is_control(index) {
            if let Some(ring) = &mut self.control {
                ring.set_err(err);
            }
        } else {
            self.edit(index, |ring| ring.set_err(err));
        }
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.logs.replace(&self.name, &self.limit, log);
        (0..self.ring_count()).for_each(|index| self.update_log(index));
    }

    fn set_ring_log(&mut self, index: u16, used: Option<u64>) {
        if let Some(ring) = self.waiting(index) {
            ring.log = used;
            return;
        }
        self.logs.set_used(index, used);
        self.update_log(index);
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.state.mtu.store(mtu, Ordering::Relaxed);
    }

    fn set_status(&mut self, status: u8) -> Result<(), BackendError> {
        if status == 0 {
            self.forget_driver();
        }
        self.status = status;
        Ok(())
    }

    fn status(&self) -> u8 {
        self.status
    }

    fn reset_device(&mut self) {
        self.forget_driver();
    }

    fn save_state(&self) -> Result<Vec<u8>, BackendError> {
        let (queue_pairs, wanted) = (self.state.queue_pairs(), self.wanted);
        Ok(State { queue_pairs, wanted, filter: self.filter.clone() }.encode())
    }

    fn load_state(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        let State { queue_pairs, wanted, filter } = State::decode(bytes, self.pairs())?;
        self.state.queue_pairs.store(queue_pairs, Ordering::Relaxed);
        (self.wanted, self.filter) = (wanted, filter);
        Ok(())
    }

    fn announce_guest(&mut self, mac: [u8; 6]) {
        // As a frame that the guest has sent on its first queue, so that switches learn of it.
        self.edit(1, |ring| ring.announce = Some(mac));
    }

    fn kicked(&mut self, token: u16) {
        if token == postcopy::TOKEN {
            return self.take_reports();
        }
        // What is to be asked for is found by the next message.
        if token == ASKS {
            return;
        }
        if let Some(index) = token.checked_sub(FIRST_BUFFERS) {
            return self.buffers_offered(index);
        }
        self.serve_control();
    }
}
