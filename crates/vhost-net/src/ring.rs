//! A running ring and the slot in which it passes between the control thread and its worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use eal::handover::{Guard, Loan};
use eal::{Counter, Epoll, EventFd, Handover, PeerEvent, sigbus};
use packet::{Capabilities, RawSegment};
use virtio::device::{Buffers, Chain, ChainError, DeviceQueue, RingError};
use virtio::memory::Miss;
use virtio::{Features, GuestMemory};

use super::filter::ReceiveFilter;
use super::gate::Gate;
use vhost::call::Call;
use vhost::control::SharedLimit;

/// A started ring of a network device with all that its worker needs.
#[derive(Debug)]
pub struct Ring {
    /// The virtqueue.
    pub queue: DeviceQueue,
    /// Bytes of the net header.
    pub header_len: usize,
    /// Whether a frame may span several of the guest's buffers.
    pub mergeable: bool,
    /// Whether the front-end has enabled the ring: a disabled one is drained and fed nothing.
    pub enabled: bool,
    /// Whether it is left alone while it is disabled: the front-end has not said yet what it is.
    pub pending: bool,
    /// Whether it can be used at all.
    pub health: Health,
    /// [`sigbus::poisonings`] when its memory was last looked at.
    poisonings: usize,
    /// What the guest may leave to us in the frames that it sends.
    pub sends: Capabilities,
    /// What we may leave to the guest in the frames that it receives.
    pub takes: Capabilities,
    /// What the guest wants to receive, while it filters anything.
    pub filter: Option<Arc<ReceiveFilter>>,
    /// What may be touched, while pages of the guest's memory are missing.
    pub gate: Option<Box<Gate>>,
    /// The guest's address, while it is to be announced: with the next burst that has no frame.
    pub announce: Option<[u8; 6]>,
    /// How the guest tells us of new buffers.
    pub kick: Option<PeerEvent>,
    /// The guest's VMM tells us so, of which the control thread hears.
    pub inband: bool,
    /// How we tell the guest of used buffers.
    pub call: Option<Call>,
    /// How we tell the front-end that the ring is broken.
    pub err: Option<Call>,
    /// Wakes the control thread to ask for the translation that the ring waits for.
    pub asks: Option<Arc<EventFd>>,
    /// The control thread has been woken to look for buffers whose translations are missing, and
    /// has not found the last one yet.
    pub looks_ahead: bool,
}

/// Whether a ring can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Sound,
    /// Behind a virtual IOMMU, it is not known now where it lies: it is left alone until it is.
    Lost,
    /// It has stopped making sense and is left alone.
    Broken,
}

impl Health {
    /// What it is after `queue` was moved to `memory`, if it lies there.
    pub(super) fn after_move(self, queue: &mut DeviceQueue, memory: &Arc<GuestMemory>) -> Self {
        match self {
            Self::Broken => Self::Broken,
            _ if queue.set_memory(Arc::clone(memory)).is_ok() => Self::Sound,
            _ => Self::Lost,
        }
    }

    /// The translation without which `queue` does not go on in `memory`.
    pub(super) fn awaited(self, queue: &DeviceQueue, memory: &GuestMemory) -> Option<Miss> {
        match self {
            Self::Sound => queue.awaited(),
            Self::Lost => DeviceQueue::missing_part(memory, queue.setup()),
            Self::Broken => None,
        }
    }
}

impl Ring {
    /// A ring on `queue`, which was made with `features`.
    #[must_use]
    pub fn new(queue: DeviceQueue, features: Features) -> Self {
        Self {
            queue,
            header_len: features.net_header_len(),
            mergeable: features.contains(Features::MRG_RXBUF),
            sends: features.host_takes(),
            takes: features.guest_takes(),
            enabled: false,
            pending: false,
            health: Health::Sound,
            poisonings: sigbus::poisonings().wrapping_sub(1),
            filter: None,
            gate: None,
            announce: None,
            kick: None,
            inband: false,
            call: None,
            err: None,
            asks: None,
            looks_ahead: false,
        }
    }

    /// Whether the next chain waits for pages that were asked for: the worker is woken when they
    /// come.
    pub(super) fn waits_for_pages(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.is_waiting())
    }

    /// Goes on in another memory, or waits for one in which it lies.
    pub(super) fn move_to(&mut self, memory: &Arc<GuestMemory>) {
        self.health = self.health.after_move(&mut self.queue, memory);
        self.poisonings = sigbus::poisonings().wrapping_sub(1);
    }

    /// The translation without which the ring does not go on in `memory`.
    pub(super) fn awaited(&self, memory: &GuestMemory) -> Option<Miss> {
        self.health.awaited(&self.queue, memory)
    }

    /// For the worker, after a burst: has translations asked for that the next buffers lack, before
    /// there are frames for them.
    #[cold]
    #[inline(never)]
    pub(super) fn look_ahead(&mut self, buffers: &mut Buffers, scratch: &mut Vec<RawSegment>) {
        if self.looks_ahead || self.queue.miss_ahead::<true>(buffers, scratch).is_none() {
            return;
        }
        if let Some(asks) = &self.asks {
            self.looks_ahead = true;
            // It is ours and cannot fail.
            let _ = asks.signal();
        }
    }

    /// For the control thread: the translation that the next buffers lack, if any.
    pub(super) fn miss_ahead(&mut self) -> Option<Miss> {
        let miss = self.queue.miss_ahead::<true>(&mut Buffers::default(), &mut Vec::new());
        self.looks_ahead = miss.is_some();
        miss
    }

    /// As [`DeviceQueue::walk`]; the first time that an address is not known, it is asked for.
    pub(super) fn walk<const WRITE: bool>(
        &mut self,
        chain: Chain,
        segments: &mut Vec<RawSegment>,
    ) -> Result<(), ChainError> {
        let waited = self.queue.awaited().is_some();
        let walked = self.queue.walk::<WRITE>(chain, segments);
        if walked == Err(ChainError::Untranslated)
            && !waited
            && let Some(asks) = &self.asks
        {
            // It is ours and cannot fail.
            let _ = asks.signal();
        }
        walked
    }

    /// Replaces the file by which the front-end hears that the ring is broken, which it does at
    /// once if it is: nobody may have been told until now.
    pub(super) fn set_err(&mut self, err: Option<Call>) {
        self.err = err;
        if self.health == Health::Broken {
            self.tell_broken();
        }
    }

    fn tell_broken(&self) {
        if let Some(err) = &self.err {
            let _ = err.signal();
        }
    }
}

/// Where the ring of one queue lies when no burst is going on.
///
/// The control thread gets at it between bursts, with [`edit`](Self::edit), and wakes the
/// worker afterwards, so that nothing that it changed is slept over.
#[derive(Debug)]
pub struct RingSlot {
    ring: Handover<Box<Ring>>,
    /// Readable when the guest kicks, and when the worker is woken, until
    /// [`take_kicks`](Self::take_kicks): stays the same while kick files come and go. Of both it
    /// has the edges, so that nobody reads the file that the guest's VMM has, too.
    /// `None` where nobody waits: for room in a guest's receive ring.
    kicks: Option<Epoll>,
    /// Wakes the workers of all slots of a device: the kick file is not ours to signal.
    wake: Arc<EventFd>,
    /// Whether the ring takes frames: a hint for choosing queues, which bursts check again.
    ready: AtomicBool,
    /// What the guest takes, bits of [`Capabilities`]: a hint, as is `ready`.
    takes: AtomicU8,
    /// Large segments that passed uncut.
    pub large_segments: Counter,
    /// Notifications sent to the guest.
    pub calls: Counter,
    /// Notifications that the guest did not want.
    pub calls_suppressed: Counter,
    /// Chains that broke a rule.
    pub bad_chains: Counter,
    name: String,
    /// For log lines that a front-end or a guest can cause.
    limit: SharedLimit,
}

impl RingSlot {
    /// An empty slot of a ring that the guest fills; `name` is for log lines, `wake` wakes its worker
    /// and may be that of other slots, too.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(name: String, wake: Arc<EventFd>) -> io::Result<Self> {
        let kicks = Epoll::new()?;
        kicks.add_edge(&*wake, 0)?;
        Ok(Self { kicks: Some(kicks), ..Self::unwaited(name, wake) })
    }

    /// As [`new`](Self::new), of a ring that nobody waits for: one that the guest has filled before.
    #[must_use]
    pub fn unwaited(name: String, wake: Arc<EventFd>) -> Self {
        Self {
            ring: Handover::empty(),
            kicks: None,
            wake,
            ready: AtomicBool::new(false),
            takes: AtomicU8::new(0),
            large_segments: Counter::default(),
            calls: Counter::default(),
            calls_suppressed: Counter::default(),
            bad_chains: Counter::default(),
            name,
            limit: SharedLimit::default(),
        }
    }

    /// The slot with a limit of log lines that it shares with the device's others.
    pub(super) fn within(mut self, limit: &SharedLimit) -> Self {
        self.limit = limit.clone();
        self
    }

    /// For the control thread: changes the ring between two bursts, and wakes the worker to look.
    pub fn edit<R>(&self, change: impl FnOnce(&mut Option<Box<Ring>>) -> R) -> R {
        let (result, runs) = self.edit_unnoticed(|ring| (change(ring), ring.is_some()));
        if runs {
            // It is ours and cannot fail.
            let _ = self.wake.signal();
        }
        result
    }

    /// As [`edit`](Self::edit), without waking the worker: for changes of all rings of a device,
    /// which share what wakes them.
    pub(super) fn edit_unnoticed<R>(&self, change: impl FnOnce(&mut Option<Box<Ring>>) -> R) -> R {
        let mut guard = self.ring.lock();
        let kick_before = guard.as_ref().and_then(|ring| ring.kick.clone());
        let result = change(&mut guard);
        self.adopt(&guard, kick_before.as_ref());
        result
    }

    /// For the control thread: looks at the ring between two bursts.
    pub fn inspect<R>(&self, look: impl FnOnce(Option<&Ring>) -> R) -> R {
        look(self.ring.lock().as_deref())
    }

    /// For the control thread: works on the ring between two bursts, without a change that
    /// concerns its worker.
    pub(super) fn work<R>(&self, work: impl FnOnce(Option<&mut Ring>) -> R) -> R {
        work(self.ring.lock().as_deref_mut())
    }

    /// Makes the outside of the slot match the ring in it.
    fn adopt(&self, guard: &Guard<'_, Box<Ring>>, kick_before: Option<&PeerEvent>) {
        let ring = guard.as_ref();
        let ready = ring.is_some_and(|ring| ring.enabled && ring.health != Health::Broken);
        self.ready.store(ready, Ordering::Relaxed);
        let takes = ring.map_or(0, |ring| ring.takes.bits());
        self.takes.store(takes, Ordering::Relaxed);
        self.listen(kick_before, ring.and_then(|ring| ring.kick.as_ref()));
    }

    /// Listens to another kick file.
    fn listen(&self, before: Option<&PeerEvent>, now: Option<&PeerEvent>) {
        match (before, now) {
            (None, None) => return,
            (Some(before), Some(now)) if before.is_same(now) => return,
            _ => {}
        }
        let Some(kicks) = &self.kicks else { return };
        if let Some(before) = before {
            // It fails only for a file that is not in the set.
            let _ = kicks.remove(before);
        }
        if let Some(now) = now
            && let Err(error) = kicks.add_edge(now, 0)
            && let Some(suppressed) = self.limit.admit_line()
        {
            let ring = self.name.as_str();
            tracing::warn!(ring, %error, suppressed, "cannot wait for the guest's kicks");
        }
    }

    /// For the worker: has [`wait_fd`](Self::wait_fd) tell only of what comes from now on.
    pub(super) fn take_kicks(&self) {
        if let Some(kicks) = &self.kicks {
            // It is ours and cannot fail.
            let _ = kicks.take_edges();
        }
    }

    /// For the worker: takes the ring for one burst, unless there is none that can be used.
    #[inline]
    pub(super) fn check_out(&self) -> Option<Loan<Box<Ring>>> {
        let mut ring = self.ring.check_out()?;
        if ring.poisonings != sigbus::poisonings() {
            self.look_at_memory(&mut ring);
        }
        if ring.health != Health::Sound {
            self.ring.check_in(ring);
            return None;
        }
        Some(ring)
    }

    /// Breaks the ring if some of its memory was taken away: a guest whose ring goes on would have
    /// us write to memory of our own in its place, as much as it likes.
    #[cold]
    fn look_at_memory(&self, ring: &mut Ring) {
        ring.poisonings = sigbus::poisonings();
        if ring.health == Health::Sound {
            self.check_memory(ring);
        }
    }

    /// For the worker: how many buffers the guest has offered that were not taken yet.
    pub(super) fn depth(&self) -> Option<u32> {
        let ring = self.check_out()?;
        let depth = ring.queue.depth();
        self.check_in(ring);
        Some(depth.into())
    }

    /// For the worker: ends the burst.
    #[inline]
    pub(super) fn check_in(&self, ring: Loan<Box<Ring>>) {
        self.ring.check_in(ring);
    }

    /// For the worker: tells the guest of used buffers if it wants to hear of them.
    #[inline]
    pub(super) fn call(&self, ring: &mut Ring) {
        if !ring.queue.needs_call() {
            self.calls_suppressed.add(1);
            return;
        }
        if let Some(call) = &ring.call
            && call.signal().is_ok()
        {
            self.calls.add(1);
        }
    }

    /// For the worker: stops using a ring that makes no sense, and says so once.
    #[cold]
    pub(super) fn break_ring(&self, ring: &mut Ring, error: RingError) {
        let error = if ring.queue.memory().poisoned() { RingError::MemoryGone } else { error };
        // A front-end may start and break it as often as it likes.
        if let Some(suppressed) = self.limit.admit_line() {
            let ring = self.name.as_str();
            tracing::warn!(ring, %error, suppressed, "the guest broke its ring; it is stopped");
        }
        ring.health = Health::Broken;
        self.ready.store(false, Ordering::Relaxed);
        ring.tell_broken();
    }

    /// For the worker, where the ring has nothing for it: one whose memory was taken away looks
    /// empty for ever.
    pub(super) fn check_memory(&self, ring: &mut Ring) {
        if ring.queue.memory().poisoned() {
            self.break_ring(ring, RingError::MemoryGone);
        }
    }

    /// Whether the ring takes frames.
    #[must_use]
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// What the guest takes of frames that are not complete, until the control thread changes
    /// the ring.
    #[must_use]
    pub fn takes(&self) -> Capabilities {
        Capabilities::from_bits_truncate(self.takes.load(Ordering::Relaxed))
    }

    /// Readable when the guest has kicked or the ring was changed; `None` of a slot that nobody
    /// waits for.
    #[must_use]
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kicks.as_ref().map(AsFd::as_fd)
    }
}
