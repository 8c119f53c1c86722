//! Receive and transmit queues.
//!
//! A queue is a value. It is moved into the worker that polls it, and polling needs exclusive
//! access, so that two cores can never use one queue at the same time; no lock is needed for
//! that, and none is taken per packet.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;
use packet::{BURST, Burst, Capabilities, Frame, FrameBatch, Offload, Packet, PoolCache};

use crate::drop_reason::DropReason;
use crate::offload::Completer;
use crate::pressure::Asked;
use crate::shared::SharedTxQueue;
use crate::stats::QueueStats;

/// What a driver does for one receive queue.
///
/// Applications use [`RxQueue`], which adds the statistics.
pub trait RxDriver: Send {
    /// Gives the frames of the burst before back, then takes up to `max` frames (at most
    /// [`BURST`]) from the device into the batch.
    ///
    /// Malformed frames are counted in `stats` by reason and left out.
    fn receive(&mut self, max: usize, stats: &QueueStats);

    /// The frames of the last burst.
    fn batch(&self) -> &FrameBatch;

    /// The same, for heads to be rewritten in place.
    fn batch_mut(&mut self) -> &mut FrameBatch;

    /// Gives all frames of the last burst back to the device and empties the batch.
    fn release(&mut self);

    /// Whether frames lie in packet buffers, which [`take_packets`](Self::take_packets) gives away
    /// without a copy.
    fn gives_packets(&self) -> bool {
        false
    }

    /// Makes packets of the frames of the last burst, adds them to `packets` in order, and empties
    /// the batch. A frame that no buffer can be had for is counted in `stats` as dropped.
    ///
    /// As it is, it copies frames into buffers of `cache`. A driver that receives into packet
    /// buffers gives those away instead and puts others into its ring; then `cache` is not
    /// touched.
    fn take_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        copy_packets(self.batch().frames(), packets, cache, stats);
        self.release();
    }

    /// How many buffers with frames wait in the ring, as the peer has it; `None` where the device
    /// does not tell, or has no ring now. Frames of a burst before are given back.
    fn depth(&mut self) -> Option<u32> {
        None
    }

    /// A file that becomes readable when frames arrive while notifications are armed, or `None`
    /// when this kind of port can only be polled. It stays the same for the queue's life.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Asks the device to announce the next frame on [`wait_fd`](Self::wait_fd), and returns
    /// `false` if frames are already waiting, so that the caller must poll instead of sleeping.
    fn arm(&mut self) -> bool {
        false
    }

    /// Stops announcements and clears those that came; the caller polls again.
    fn disarm(&mut self) {}
}

/// Adds copies of `frames`, in buffers of `cache`, to `packets`. Those that no buffer can be had
/// for, or that there is no room for, are counted in `stats` as dropped.
pub fn copy_packets(
    frames: &[Frame<'_>],
    packets: &mut ArrayVec<Packet, BURST>,
    cache: &mut PoolCache,
    stats: &QueueStats,
) {
    for frame in frames {
        let added = cache.copy_frame(frame).is_some_and(|copy| packets.try_push(copy).is_ok());
        if !added {
            stats.count_drops(DropReason::NoBuffer, 1);
        }
    }
}

/// What a driver does for one transmit queue.
///
/// Applications use [`TxQueue`], which adds the statistics.
pub trait TxDriver: Send {
    /// Transmits up to [`BURST`] frames in order and tells how many the device has dealt with.
    /// All of them are complete: no checksum is missing, nothing is to be cut.
    ///
    /// Frames from [`Sent::consumed`] on found no room and may be tried again. A frame that can
    /// never be sent is dealt with by a drop, which the driver counts in `stats` by reason and
    /// marks in [`Sent::dropped`]; [`Sent::add_dropped`] does both. The driver counts nothing
    /// else: the queue counts what was sent.
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent;

    /// As [`transmit`](Self::transmit), where it is known what the frames have in common, if they are alike:
    /// for drivers that then need not look at each of them for it.
    fn transmit_known(&mut self, frames: Burst<'_, '_>, stats: &QueueStats) -> Sent {
        self.transmit(&frames, stats)
    }

    /// What frames this device can have that are not complete. It may change between two
    /// bursts.
    fn takes(&self) -> Capabilities {
        Capabilities::empty()
    }

    /// As [`transmit`](Self::transmit), for frames of which some have an
    /// [`Offload`](packet::Offload): none needs more than [`takes`](Self::takes) has just told.
    /// Should the device take less meanwhile, a frame that needs more is one without room.
    fn transmit_offloaded(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        // Nothing is needed here; there may be only knowledge that the device has no use for.
        self.transmit(frames, stats)
    }

    /// Whether the driver keeps the packets that it is given until the device has sent them,
    /// instead of copying their bytes: then [`transmit_packets`](Self::transmit_packets) is
    /// cheaper than [`transmit`](Self::transmit).
    fn keeps_packets(&self) -> bool {
        false
    }

    /// As [`transmit_offloaded`](Self::transmit_offloaded), for packets, of which it takes those
    /// that it deals with from the front of `packets`; the others found no room. Packets that are
    /// done with go to `cache`.
    ///
    /// Other than there, the driver counts what was sent in `stats` itself, since nobody has the
    /// packets afterwards; see [`PacketTally`](crate::stats::PacketTally). Called only where
    /// [`keeps_packets`](Self::keeps_packets).
    fn transmit_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        let _ = (packets, cache, stats);
    }

    /// Whether the device takes frames now: it is there, up, and the queue is enabled.
    fn is_ready(&self) -> bool {
        true
    }

    /// How many buffers for frames wait in the ring, as the peer has it; `None` where the device does
    /// not tell, or has no ring now.
    fn depth(&mut self) -> Option<u32> {
        None
    }

    /// Completes transmissions whose buffers are still held by the device, where there are
    /// such, and sends notifications that were held back. Returns whether the device has not
    /// taken all that was sent: then it is to be called again soon.
    fn flush(&mut self) -> bool {
        false
    }
}

/// The outcome of a transmit burst of up to [`BURST`] frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames dealt with: sent or dropped for a reason. The rest found no room.
    pub consumed: usize,
    /// Those of them that were dropped: bit 0 is the burst's first frame. Where it is 0, as a
    /// rule, counting the burst as sent needs no look at single frames' fates.
    pub dropped: u32,
}

const _: () = assert!(BURST <= u32::BITS as usize);

impl Sent {
    /// No frame dealt with.
    pub const NONE: Self = Self { consumed: 0, dropped: 0 };

    /// The first `count` frames sent, and none dropped.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        Self { consumed: count, dropped: 0 }
    }

    /// The first `count` frames, [`BURST`] at most, dropped: counts them in `stats`.
    #[cold]
    #[must_use]
    pub fn all_dropped(count: usize, stats: &QueueStats, reason: DropReason) -> Self {
        let count = count.min(BURST);
        let rest = u32::BITS.saturating_sub(u32::try_from(count).unwrap_or(u32::BITS));
        stats.count_drops(reason, count);
        Self { consumed: count, dropped: u32::MAX.checked_shr(rest).unwrap_or(0) }
    }

    /// The next frame was sent.
    #[inline]
    pub const fn add_sent(&mut self) {
        self.consumed += 1;
    }

    /// The next `count` frames were sent.
    #[inline]
    pub const fn add_sent_many(&mut self, count: usize) {
        self.consumed += count;
    }

    /// Whether frame `index` of the burst was dropped.
    #[must_use]
    pub fn is_dropped(&self, index: usize) -> bool {
        u32::try_from(index)
            .is_ok_and(|index| self.dropped.checked_shr(index).unwrap_or(0) & 1 != 0)
    }

    /// The next frame was dropped: counts it in `stats`.
    #[cold]
    pub fn add_dropped(&mut self, stats: &QueueStats, reason: DropReason) {
        self.mark_dropped();
        stats.count_drops(reason, 1);
    }

    /// The next frame was dropped, which is counted already.
    pub fn mark_dropped(&mut self) {
        self.dropped |= u32::try_from(self.consumed).map_or(0, |bit| 1_u32.wrapping_shl(bit));
        self.consumed += 1;
    }

    /// How many frames were really sent.
    #[must_use]
    pub const fn packets(&self) -> usize {
        self.consumed.saturating_sub(self.dropped.count_ones() as usize)
    }
}

/// A receive queue of a port.
pub struct RxQueue {
    driver: Box<dyn RxDriver>,
    stats: Arc<QueueStats>,
    asked: Asked,
}

impl RxQueue {
    /// A queue on top of `driver`.
    #[must_use]
    pub fn new(driver: Box<dyn RxDriver>, stats: Arc<QueueStats>) -> Self {
        Self { driver, stats, asked: Asked::default() }
    }

    /// Receives up to `max` frames, [`BURST`] at most. The frames lie in the device's ring and
    /// go back to it when the returned guard is dropped.
    #[inline]
    pub fn rx_burst(&mut self, max: usize) -> RxBurst<'_> {
        if self.asked.take() {
            self.note_depth();
        }
        let max = max.min(BURST);
        self.driver.receive(max, &self.stats);
        if !self.driver.batch().frames().is_empty() {
            let frames = self.driver.batch_mut().compare();
            self.stats.count_burst(frames);
            self.stats.pressed.bursts.add(1);
            if frames.len() >= max {
                self.stats.pressed.full_bursts.add(1);
            }
        }
        RxBurst { driver: &mut *self.driver, stats: &self.stats }
    }

    #[cold]
    fn note_depth(&mut self) {
        self.stats.pressed.set_depth(self.driver.depth());
    }

    /// The counters of this queue.
    #[must_use]
    pub const fn stats(&self) -> &Arc<QueueStats> {
        &self.stats
    }

    /// See [`RxDriver::wait_fd`].
    #[must_use]
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.driver.wait_fd()
    }

    /// See [`RxDriver::arm`].
    #[must_use]
    pub fn arm(&mut self) -> bool {
        let is_empty = self.driver.arm();
        if is_empty {
            // Nobody polls it until something comes.
            self.stats.pressed.set_empty();
        }
        is_empty
    }

    /// See [`RxDriver::disarm`].
    pub fn disarm(&mut self) {
        self.driver.disarm();
    }
}

/// The frames of one receive burst. Dropping it gives all of them back to the device at once.
pub struct RxBurst<'q> {
    driver: &'q mut dyn RxDriver,
    stats: &'q QueueStats,
}

impl RxBurst<'_> {
    /// The frames, oldest first.
    #[must_use]
    #[inline]
    pub fn frames(&self) -> &[Frame<'_>] {
        self.driver.batch().frames()
    }

    /// The same, with what is known of all of them together.
    #[must_use]
    #[inline]
    pub fn known(&self) -> Burst<'_, '_> {
        self.driver.batch().known()
    }

    /// The private first bytes of frame `index`, to rewrite header fields in place.
    #[must_use]
    #[inline]
    pub fn head_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        self.driver.batch_mut().head_mut(index)
    }

    /// Lets `rewrite` change header fields of every frame, in its private first bytes: its head,
    /// which is a cache line long or the whole frame, and what is sent in its place.
    #[inline]
    pub fn for_each_head(&mut self, rewrite: impl FnMut(&mut [u8])) {
        self.driver.batch_mut().for_each_head(rewrite);
    }

    /// Whether [`into_packets`](Self::into_packets) needs no copy.
    #[must_use]
    #[inline]
    pub fn gives_packets(&self) -> bool {
        self.driver.gives_packets()
    }

    /// Makes packets of the frames and adds them to `packets`, in order: without a copy where the
    /// device receives into packet buffers, otherwise into buffers of `cache`. Frames that no
    /// buffer can be had for, or that `packets` has no room for, are counted as dropped
    /// ([`DropReason::NoBuffer`]).
    #[inline]
    pub fn into_packets(self, packets: &mut ArrayVec<Packet, BURST>, cache: &mut PoolCache) {
        if !self.frames().is_empty() {
            self.driver.take_packets(packets, cache, self.stats);
        }
    }
}

impl Drop for RxBurst<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.driver.batch().frames().is_empty() {
            self.driver.release();
        }
    }
}

/// A driver's transmit queue and its counters.
pub(crate) struct CountedTx {
    driver: Box<dyn TxDriver>,
    stats: Arc<QueueStats>,
    completer: Completer,
    asked: Asked,
}

impl CountedTx {
    #[cold]
    fn note_depth(&mut self) {
        self.stats.pressed.set_depth(self.driver.depth());
    }

    #[inline]
    pub(crate) fn tx_burst(&mut self, frames: Burst<'_, '_>) -> usize {
        if self.asked.take() {
            self.note_depth();
        }
        let mut consumed = 0;
        while consumed < frames.len() {
            let burst = frames.part(consumed, BURST).compared();
            let needs = match burst.alike() {
                Some(alike) => alike.offload().needs_of_each(),
                None => Offload::needs_of(&burst),
            };
            let sent = match needs {
                None => {
                    let sent = self.driver.transmit_known(burst, &self.stats);
                    self.stats.count_sent(&sent, burst);
                    sent.consumed
                }
                Some(needs) => self.tx_offloaded(burst, needs),
            };
            consumed += sent.min(burst.len());
            if sent < burst.len() {
                self.stats.pressed.stalls.add(1);
                break;
            }
        }
        consumed
    }

    /// Transmits frames of which some have an offload.
    #[inline(never)]
    fn tx_offloaded(&mut self, burst: Burst<'_, '_>, needs: Capabilities) -> usize {
        let takes = self.driver.takes();
        if takes.contains(needs) {
            let sent = self.driver.transmit_offloaded(&burst, &self.stats);
            self.stats.count_sent(&sent, burst);
            return sent.consumed;
        }
        self.completer.transmit(&mut *self.driver, takes, &burst, &self.stats)
    }

    /// As [`TxQueue::tx_packets`].
    pub(crate) fn tx_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
    ) -> usize {
        let before = packets.len();
        let needs = packets.iter().map(|packet| packet.offload().needs());
        let needs = needs.fold(Capabilities::empty(), Capabilities::union);
        if self.driver.keeps_packets() && (needs.is_empty() || self.driver.takes().contains(needs))
        {
            self.driver.transmit_packets(packets, cache, &self.stats);
            self.stats.pressed.stalls.add(u64::from(!packets.is_empty()));
            return before.saturating_sub(packets.len());
        }
        let frames: ArrayVec<Frame<'_>, BURST> = packets.iter().map(Packet::as_frame).collect();
        let sent = self.tx_burst(Burst::new(&frames)).min(before);
        drop(frames);
        cache.free_burst(packets.drain(..sent));
        sent
    }

    #[inline]
    pub(crate) fn keeps_packets(&self) -> bool {
        self.driver.keeps_packets()
    }

    pub(crate) fn drop_frames(&self, reason: DropReason, count: usize) {
        self.stats.count_drops(reason, count);
    }

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.driver.is_ready()
    }

    pub(crate) fn flush(&mut self) -> bool {
        self.driver.flush()
    }
}

/// Who uses a transmit queue.
enum Use {
    /// This value alone.
    Alone(CountedTx),
    /// Several values, in turns.
    Shared(SharedTxQueue),
}

/// A transmit queue of a port.
///
/// It belongs to one worker. Where a port has fewer queues than there are workers, make a
/// [`SharedTxQueue`] of it, which gives every worker a `TxQueue` of the same kind.
pub struct TxQueue {
    queue: Use,
    stats: Arc<QueueStats>,
}

impl TxQueue {
    /// A queue on top of `driver`.
    #[must_use]
    pub fn new(driver: Box<dyn TxDriver>, stats: Arc<QueueStats>) -> Self {
        let (completer, asked) = Default::default();
        let queue = CountedTx { driver, stats: Arc::clone(&stats), completer, asked };
        Self::from_alone(queue, stats)
    }

    pub(crate) const fn from_alone(queue: CountedTx, stats: Arc<QueueStats>) -> Self {
        Self { queue: Use::Alone(queue), stats }
    }

    pub(crate) fn from_shared(shared: SharedTxQueue, stats: Arc<QueueStats>) -> Self {
        Self { queue: Use::Shared(shared), stats }
    }

    /// The same queue; if it was [shared](SharedTxQueue) and nobody else has it any more, it takes
    /// no lock from now on.
    #[must_use]
    pub fn alone_if_last(self) -> Self {
        match self.queue {
            Use::Shared(shared) => shared.into_alone().unwrap_or_else(Self::from),
            Use::Alone(_) => self,
        }
    }

    /// Whether this value alone has the queue, so that it takes no lock.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self.queue, Use::Alone(_))
    }

    /// The queue itself, or what it shares already.
    pub(crate) fn into_parts(self) -> (Result<CountedTx, SharedTxQueue>, Arc<QueueStats>) {
        match self.queue {
            Use::Alone(queue) => (Ok(queue), self.stats),
            Use::Shared(shared) => (Err(shared), self.stats),
        }
    }

    /// Transmits `frames` in order and returns how many were dealt with: sent, or dropped with
    /// a reason counted. The others found no room: try again, or count them with
    /// [`drop_frames`](Self::drop_frames). Best given up to [`BURST`] frames at a time.
    #[inline]
    pub fn tx_burst(&mut self, frames: &[Frame<'_>]) -> usize {
        self.tx_frames(Burst::new(frames))
    }

    /// The same, where more may be known of the frames than what each of them is.
    #[inline]
    pub fn tx_frames(&mut self, frames: Burst<'_, '_>) -> usize {
        match &mut self.queue {
            Use::Alone(queue) => queue.tx_burst(frames),
            Use::Shared(shared) => shared.tx_frames(frames),
        }
    }

    /// Transmits packets in order, as [`tx_burst`](Self::tx_burst) does frames, takes those that
    /// were dealt with from the front of `packets`, and returns their number. A device that
    /// reaches their memory sends them without a copy; buffers of packets that are done with go to
    /// `cache`.
    #[inline]
    pub fn tx_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
    ) -> usize {
        match &mut self.queue {
            Use::Alone(queue) => queue.tx_packets(packets, cache),
            Use::Shared(shared) => shared.tx_packets(packets, cache),
        }
    }

    /// See [`TxDriver::keeps_packets`].
    #[must_use]
    pub fn keeps_packets(&self) -> bool {
        match &self.queue {
            Use::Alone(queue) => queue.keeps_packets(),
            Use::Shared(shared) => shared.keeps_packets(),
        }
    }

    /// Counts `count` frames as dropped on this queue.
    pub fn drop_frames(&self, reason: DropReason, count: usize) {
        match &self.queue {
            Use::Alone(queue) => queue.drop_frames(reason, count),
            Use::Shared(shared) => shared.drop_frames(reason, count),
        }
    }

    /// See [`TxDriver::is_ready`].
    #[must_use]
    #[inline]
    pub fn is_ready(&self) -> bool {
        match &self.queue {
            Use::Alone(queue) => queue.is_ready(),
            Use::Shared(shared) => shared.is_ready(),
        }
    }

    /// See [`TxDriver::flush`].
    pub fn flush(&mut self) -> bool {
        match &mut self.queue {
            Use::Alone(queue) => queue.flush(),
            Use::Shared(shared) => shared.flush(),
        }
    }

    /// The counters of this queue.
    #[must_use]
    pub const fn stats(&self) -> &Arc<QueueStats> {
        &self.stats
    }
}

impl std::fmt::Debug for RxQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RxQueue").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxQueue").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RxBurst<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}

#[cfg(test)]
mod tests;
