//! Counters per queue.
//!
//! Each queue's counters are written by the one worker that owns the queue and read by anybody:
//! an update is a plain load and store, never an atomic read-modify-write. They only ever grow;
//! whoever wants to count from now on keeps a snapshot and takes the difference
//! ([`Stats::since`]).

use eal::Counter;
use packet::{Alike, BURST, Burst, Frame, MacAddr};

use crate::drop_reason::DropReason;
use crate::pressure::{Pressed, Pressure};
use crate::queue::Sent;

/// The number of size classes.
const SIZES: usize = 8;

/// Names of the size classes, as DPDK names them. The length counted is that of the frame
/// without its frame check sequence.
const SIZE_NAMES: [&str; SIZES] = [
    "undersize_packets",
    "size_64_packets",
    "size_65_127_packets",
    "size_128_255_packets",
    "size_256_511_packets",
    "size_512_1023_packets",
    "size_1024_1518_packets",
    "size_1519_max_packets",
];

/// The smallest length in each size class but the first.
const SIZE_BOUNDS: [i16; SIZES - 1] = [64, 65, 128, 256, 512, 1024, 1519];

/// Bursts up to this length are counted frame by frame: measured, about where both ways cost
/// the same.
const FEW: usize = 8;

/// What one burst adds to a queue's counters.
///
/// Sums are kept in registers until the burst is through. Additions that cannot overflow wrap,
/// since checks would keep compilers from using vector instructions.
#[derive(Clone, Copy, Debug)]
struct Tally {
    packets: u64,
    bytes: u64,
    sizes: [u64; SIZES],
    /// Some frames go to a group address.
    has_groups: bool,
}

impl Tally {
    /// Counts `frames`, of which there are [`BURST`] at most: 7 cycles per frame.
    #[inline]
    fn of_few<'a>(frames: impl Iterator<Item = &'a Frame<'a>>) -> Self {
        let (mut packets, mut bytes, mut first_bytes) = (0_u64, 0_u64, 0);
        // A byte per class; a burst is too short for one to overflow.
        let mut classes = 0_u64;
        for frame in frames {
            packets = packets.wrapping_add(1);
            bytes = bytes.wrapping_add(frame.len() as u64);
            classes = classes.wrapping_add(1_u64.wrapping_shl(8 * size_class(frame.len())));
            first_bytes |= first_byte(frame);
        }
        let sizes = classes.to_le_bytes().map(u64::from);
        Self { packets, bytes, sizes, has_groups: first_bytes & 1 != 0 }
    }

    /// As [`of_few`](Self::of_few): 45 cycles, and 2 per frame.
    ///
    /// Lengths are compared with each bound over a whole array and without a branch, which
    /// compilers turn into vector instructions.
    #[inline]
    fn of_many(frames: &[Frame<'_>]) -> Self {
        let (mut packets, mut bytes, mut first_bytes) = (0_u64, 0_u64, 0);
        let mut lengths = [0; BURST];
        for (frame, length) in frames.iter().zip(&mut lengths) {
            packets = packets.wrapping_add(1);
            bytes = bytes.wrapping_add(frame.len() as u64);
            *length = i16::try_from(frame.len()).unwrap_or(i16::MAX);
            first_bytes |= first_byte(frame);
        }
        let sizes = sizes_of(&lengths, packets);
        Self { packets, bytes, sizes, has_groups: first_bytes & 1 != 0 }
    }
}

const _: () = assert!(BURST <= u8::MAX as usize && SIZES == size_of::<u64>());

/// The size class of a frame of `len` bytes, without a branch: the power of two below `len`,
/// bounded, and one more each past 64 and past 1518.
#[inline]
fn size_class(len: usize) -> u32 {
    let power = (len | 1).ilog2().clamp(5, 10) - 5;
    power + u32::from(len > 64) + u32::from(len > 1518)
}

/// The frame's first byte, whose bit 0 tells group addresses; 0 for a frame without bytes.
#[inline]
fn first_byte(frame: &Frame<'_>) -> u8 {
    frame.head().first().copied().unwrap_or_default()
}

/// How many of `packets` frames are in each size class. Unused lengths are 0.
#[inline]
fn sizes_of(lengths: &[i16; BURST], packets: u64) -> [u64; SIZES] {
    let at_least = |bound| {
        let is_longer = |length: &i16| i16::from(*length >= bound);
        lengths.iter().map(is_longer).fold(0_i16, i16::wrapping_add)
    };
    let mut sizes = [0; SIZES];
    let mut rest = packets;
    for (size, bound) in sizes.iter_mut().zip(SIZE_BOUNDS) {
        let longer = u64::from(at_least(bound).cast_unsigned());
        *size = rest.wrapping_sub(longer);
        rest = longer;
    }
    let [.., largest] = &mut sizes;
    *largest = rest;
    sizes
}

/// What a burst of packets adds to a queue's counters, for drivers that give packets away while
/// they go through a burst, and so cannot have them counted afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketTally {
    packets: u64,
    bytes: u64,
    /// A byte per size class; a burst is too short for one to overflow.
    classes: u64,
    multicast: u64,
    broadcast: u64,
}

impl PacketTally {
    /// Counts a packet of `len` bytes that begins with `head`; at most [`BURST`] of them.
    #[inline]
    pub fn add(&mut self, len: usize, head: &[u8]) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len as u64);
        self.classes = self.classes.wrapping_add(1_u64.wrapping_shl(8 * size_class(len)));
        if head.first().is_some_and(|first| first & 1 != 0) {
            let is_broadcast = head.starts_with(&MacAddr::BROADCAST.0);
            self.broadcast += u64::from(is_broadcast);
            self.multicast += u64::from(!is_broadcast);
        }
    }
}

/// The counters of one queue. What nearly every burst changes lies on its first cache line.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct QueueStats {
    packets: Counter,
    bytes: Counter,
    sizes: [Counter; SIZES],
    multicast: Counter,
    broadcast: Counter,
    drops: [Counter; DropReason::COUNT],
    pub(crate) pressed: Pressed,
}

// Not derived, since the standard library does so for arrays of up to 32 only.
impl Default for QueueStats {
    fn default() -> Self {
        let [packets, bytes, multicast, broadcast] = <[Counter; 4]>::default();
        let drops = std::array::from_fn(|_| Counter::default());
        let (sizes, pressed) = Default::default();
        Self { packets, bytes, sizes, multicast, broadcast, drops, pressed }
    }
}

impl QueueStats {
    /// Counts clock cycles that the worker of a receive queue has spent on its frames.
    #[inline]
    pub fn count_cycles(&self, cycles: u64) {
        self.pressed.cycles.add(cycles);
    }

    /// How hard pressed the queue is now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressed.snapshot()
    }

    /// Counts received frames.
    #[inline]
    pub fn count_frames(&self, frames: &[Frame<'_>]) {
        for burst in frames.chunks(BURST) {
            self.count_burst(Burst::new(burst).compared());
        }
    }

    /// The same of a burst, whose frames were [compared](Burst::compared).
    #[inline(always)]
    pub(crate) fn count_burst(&self, frames: Burst<'_, '_>) {
        match frames.alike() {
            Some(alike) => self.count_alike(alike, frames.as_slice()),
            None => self.count_each(frames.as_slice()),
        }
    }

    /// The same where they are not alike.
    #[inline(never)]
    fn count_each(&self, burst: &[Frame<'_>]) {
        match burst.len() {
            ..=FEW => self.add(&Tally::of_few(burst.iter()), burst.iter()),
            _ => self.add(&Tally::of_many(burst), burst.iter()),
        }
    }

    /// Counts frames that are alike, as those of one flow often are.
    #[inline(always)]
    fn count_alike(&self, alike: Alike, frames: &[Frame<'_>]) {
        let packets = frames.len() as u64;
        self.packets.add(packets);
        self.bytes.add(packets.wrapping_mul(alike.len() as u64));
        if let Some(counter) = self.sizes.get(size_class(alike.len()) as usize) {
            counter.add(packets);
        }
        if alike.first_bytes() & 1 != 0 {
            self.count_groups(frames.iter());
        }
    }

    /// Counts what a driver has gone through by itself.
    #[inline]
    pub fn count_tally(&self, tally: &PacketTally) {
        let sizes = tally.classes.to_le_bytes().map(u64::from);
        let PacketTally { packets, bytes, multicast, broadcast, .. } = *tally;
        self.add(&Tally { packets, bytes, sizes, has_groups: false }, std::iter::empty());
        if multicast | broadcast != 0 {
            self.multicast.add(multicast);
            self.broadcast.add(broadcast);
        }
    }

    /// Counts the outcome of a transmit burst of `frames`, [`BURST`] at most, which were
    /// [compared](Burst::compared): those that were dealt with and not dropped.
    #[inline]
    pub(crate) fn count_sent(&self, sent: &Sent, frames: Burst<'_, '_>) {
        let consumed = frames.part(0, sent.consumed.min(BURST));
        if sent.dropped == 0 {
            self.count_burst(consumed);
        } else {
            self.count_sent_between_drops(sent.dropped, &consumed);
        }
    }

    #[cold]
    fn count_sent_between_drops(&self, dropped: u32, frames: &[Frame<'_>]) {
        let numbered = frames.iter().take(BURST).enumerate();
        let sent = numbered.filter(|(index, _)| dropped & (1 << index) == 0);
        let sent = sent.map(|(_, frame)| frame);
        self.add(&Tally::of_few(sent.clone()), sent);
    }

    /// Counts dropped frames.
    #[inline]
    pub fn count_drops(&self, reason: DropReason, count: usize) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.add(count as u64);
        }
    }

    /// How many frames were dropped so far, in the order of [`DropReason::ALL`].
    #[must_use]
    #[inline]
    pub fn drops(&self) -> [u64; DropReason::COUNT] {
        self.drops.each_ref().map(Counter::get)
    }

    /// How many frames were dropped so far, for whatever reason.
    #[must_use]
    #[inline]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().fold(0, |sum, counter| sum.wrapping_add(counter.get()))
    }

    /// Adds what `tally` has of `frames`.
    #[inline]
    fn add<'a>(&self, tally: &Tally, frames: impl Iterator<Item = &'a Frame<'a>>) {
        if tally.packets == 0 {
            return;
        }
        self.packets.add(tally.packets);
        self.bytes.add(tally.bytes);
        for (counter, count) in self.sizes.iter().zip(tally.sizes) {
            if count != 0 {
                counter.add(count);
            }
        }
        if tally.has_groups {
            self.count_groups(frames);
        }
    }

    #[inline(never)]
    fn count_groups<'a>(&self, frames: impl Iterator<Item = &'a Frame<'a>>) {
        let (mut multicast, mut broadcast) = (0, 0);
        for head in frames.map(Frame::head) {
            let is_group = head.first().is_some_and(|first| first & 1 != 0);
            let is_broadcast = head.starts_with(&MacAddr::BROADCAST.0);
            broadcast += u64::from(is_broadcast);
            multicast += u64::from(is_group && !is_broadcast);
        }
        self.multicast.add(multicast);
        self.broadcast.add(broadcast);
    }

    /// A copy of the counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Stats {
        Stats {
            packets: self.packets.get(),
            bytes: self.bytes.get(),
            sizes: self.sizes.each_ref().map(Counter::get),
            multicast: self.multicast.get(),
            broadcast: self.broadcast.get(),
            drops: self.drops.each_ref().map(Counter::get),
        }
    }
}

/// Counters at one moment: of a queue, or summed over queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Frames received, or really sent.
    pub packets: u64,
    /// Bytes of those frames, without frame check sequences.
    pub bytes: u64,
    /// Those frames by size: below 64 bytes, 64, 65 to 127, 128 to 255, 256 to 511, 512 to
    /// 1023, 1024 to 1518, and above, without frame check sequence.
    pub sizes: [u64; SIZES],
    /// Those of them that go to a group address other than broadcast.
    pub multicast: u64,
    /// Those of them that go to the broadcast address.
    pub broadcast: u64,
    /// Dropped frames, in the order of [`DropReason::ALL`]. They are in no other counter.
    pub drops: [u64; DropReason::COUNT],
}

impl Default for Stats {
    fn default() -> Self {
        let drops = [0; DropReason::COUNT];
        Self { packets: 0, bytes: 0, sizes: [0; SIZES], multicast: 0, broadcast: 0, drops }
    }
}

impl Stats {
    /// Frames dropped for all reasons together.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Frames dropped for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or_default()
    }

    /// What was counted since `earlier`, a snapshot of the same queues.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combine(earlier, u64::wrapping_sub)
    }

    /// Every counter with its name, without the queue: `good_packets`, `size_64_packets`,
    /// `drop_ring_full` and so on, always all of them and in the same order.
    pub fn named(&self) -> impl Iterator<Item = (String, u64)> {
        let frames = [("good_packets", self.packets), ("good_bytes", self.bytes)];
        let casts = [("multicast_packets", self.multicast), ("broadcast_packets", self.broadcast)];
        let sizes = SIZE_NAMES.into_iter().zip(self.sizes);
        let drops = DropReason::ALL.into_iter().zip(self.drops);
        frames
            .into_iter()
            .chain(casts)
            .chain(sizes)
            .map(|(name, count)| (name.to_owned(), count))
            .chain(drops.map(|(reason, count)| (format!("drop_{}", reason.name()), count)))
    }

    fn combine(&self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        let mut result = *self;
        let Self { packets, bytes, sizes, multicast, broadcast, drops } = &mut result;
        let to = [packets, bytes, multicast, broadcast].into_iter().chain(sizes).chain(drops);
        let from = [other.packets, other.bytes, other.multicast, other.broadcast]
            .into_iter()
            .chain(other.sizes)
            .chain(other.drops);
        for (to, from) in to.zip(from) {
            *to = with(*to, from);
        }
        result
    }
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        *self = self.combine(&other, u64::wrapping_add);
    }
}

impl std::iter::Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |mut sum, stats| {
            sum += stats;
            sum
        })
    }
}

/// The counters of all queues of a port at one moment.
///
/// Queues are read one after the other while workers go on, so counters of different queues
/// may be some microseconds apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Receive queues, by number.
    pub rx: Vec<Stats>,
    /// Transmit queues, by number.
    pub tx: Vec<Stats>,
}

impl PortStats {
    /// All receive queues together.
    #[must_use]
    pub fn rx_total(&self) -> Stats {
        self.rx.iter().copied().sum()
    }

    /// All transmit queues together.
    #[must_use]
    pub fn tx_total(&self) -> Stats {
        self.tx.iter().copied().sum()
    }

    /// What was counted since `earlier`, a snapshot of the same port. This is how a reader
    /// resets counters: it keeps a baseline, and the workers never hear of it.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: &[Stats], earlier: &[Stats]| {
            let zero = std::iter::repeat(Stats::default());
            now.iter()
                .zip(earlier.iter().copied().chain(zero))
                .map(|(now, earlier)| now.since(&earlier))
                .collect()
        };
        Self { rx: since(&self.rx, &earlier.rx), tx: since(&self.tx, &earlier.tx) }
    }

    /// Every counter by name: the port's sums (`rx_good_packets`), then each queue's
    /// (`rx_q0_good_packets`, `tx_q1_drop_ring_full`).
    #[must_use]
    pub fn extended(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (direction, total, queues) in
            [("rx", self.rx_total(), &self.rx), ("tx", self.tx_total(), &self.tx)]
        {
            all.extend(total.named().map(|(name, count)| (format!("{direction}_{name}"), count)));
            for (queue, stats) in queues.iter().enumerate() {
                let name = |name| format!("{direction}_q{queue}_{name}");
                all.extend(stats.named().map(|(counter, count)| (name(counter), count)));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The size class by definition.
    fn model_class(len: usize) -> usize {
        match len {
            0..64 => 0,
            64 => 1,
            65..=127 => 2,
            128..=255 => 3,
            256..=511 => 4,
            512..=1023 => 5,
            1024..=1518 => 6,
            _ => 7,
        }
    }

    #[test]
    fn every_length_is_in_its_class() {
        let bytes = vec![0; usize::from(u16::MAX)];
        for len in 0..=bytes.len() {
            let mut model = [0; SIZES];
            model[model_class(len)] = 1;
            for count in [1, BURST] {
                let stats = QueueStats::default();
                stats.count_frames(&[Frame::from_bytes(&bytes[..len]); BURST][..count]);
                assert_eq!(stats.snapshot().sizes, model.map(|n| n * count as u64), "{len}");
            }
        }
    }

    #[test]
    fn drops_within_a_burst_are_not_sent() {
        let bytes: Vec<Vec<u8>> = (0..4).map(|index| vec![0; 60 + index]).collect();
        let frames: Vec<Frame<'_>> = bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
        let stats = QueueStats::default();
        let mut sent = Sent::NONE;
        sent.add_sent();
        sent.add_dropped(&stats, DropReason::TooLong);
        sent.add_sent();
        stats.count_sent(&sent, Burst::new(&frames).compared());
        let now = stats.snapshot();
        assert_eq!((sent.consumed, sent.packets()), (3, 2));
        assert_eq!((now.packets, now.bytes), (2, 60 + 62));
        assert_eq!((now.dropped(), now.dropped_for(DropReason::TooLong)), (1, 1));
    }

    #[test]
    fn a_burst_may_be_dropped_as_a_whole() {
        for count in 0..=BURST {
            let stats = QueueStats::default();
            let sent = Sent::all_dropped(count, &stats, DropReason::LinkDown);
            assert_eq!((sent.consumed, sent.packets()), (count, 0));
            stats.count_sent(&sent, Burst::new(&[Frame::from_bytes(&[0; 60]); BURST]));
            assert_eq!(stats.snapshot().packets, 0);
            assert_eq!(stats.snapshot().dropped_for(DropReason::LinkDown), count as u64);
        }
    }

    #[test]
    fn names_tell_direction_queue_and_counter() {
        let queue = QueueStats::default();
        queue.count_frames(&[Frame::from_bytes(&[0xFF; 64]), Frame::from_bytes(&[1; 1500])]);
        queue.count_drops(DropReason::RingFull, 3);
        let stats = PortStats {
            rx: vec![queue.snapshot()],
            tx: vec![Stats::default(), queue.snapshot(), queue.snapshot()],
        };
        let all = stats.extended();
        let get = |name: &str| all.iter().find(|(other, _)| other == name).map(|(_, count)| *count);
        assert_eq!(get("rx_q0_good_packets"), Some(2));
        assert_eq!(get("rx_q0_good_bytes"), Some(1564));
        assert_eq!(get("rx_q0_size_64_packets"), Some(1));
        assert_eq!(get("tx_q1_size_1024_1518_packets"), Some(1));
        assert_eq!(get("tx_q0_good_packets"), Some(0));
        assert_eq!(get("tx_good_packets"), Some(4));
        assert_eq!(get("tx_broadcast_packets"), Some(2));
        assert_eq!(get("tx_multicast_packets"), Some(2));
        assert_eq!(get("tx_q1_drop_ring_full"), Some(3));
        assert_eq!(get("tx_drop_ring_full"), Some(6));
        let mut names: Vec<&String> = all.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "a name occurs twice");
    }

    #[test]
    fn a_baseline_resets_what_a_reader_sees() {
        let queue = QueueStats::default();
        let port = || PortStats { rx: vec![queue.snapshot()], tx: Vec::new() };
        queue.count_frames(&[Frame::from_bytes(&[0; 100]); 5]);
        let baseline = port();
        queue.count_frames(&[Frame::from_bytes(&[0; 200]); 40]);
        queue.count_drops(DropReason::Filtered, 1);
        let since = port().since(&baseline).rx_total();
        assert_eq!((since.packets, since.bytes, since.dropped()), (40, 8000, 1));
        assert_eq!((since.sizes[2], since.sizes[3]), (0, 40));
        assert_eq!(port().rx_total().packets, 45);
        assert_eq!(port().since(&PortStats::default()), port());
    }

    proptest! {
        #[test]
        fn counters_are_what_a_model_counts(
            frames in prop::collection::vec(
                (0..2000_usize, prop::sample::select(vec![0_u8, 1, 2, 0xFF]), any::<bool>()),
                0..100,
            ),
            // The frames of half of all cases are as long as each other.
            all_of in prop_oneof![Just(None), (1..2000_usize).prop_map(Some)],
        ) {
            let bytes: Vec<Vec<u8>> =
                frames.iter().map(|(len, first, _)| vec![*first; all_of.unwrap_or(*len)]).collect();
            let stats = QueueStats::default();
            let mut model = Stats::default();
            for (burst, kept) in bytes.chunks(BURST).zip(frames.chunks(BURST)) {
                let refs: Vec<Frame<'_>> =
                    burst.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
                let mut sent = Sent::NONE;
                for (bytes, (_, first, keep)) in burst.iter().zip(kept) {
                    if !keep {
                        sent.add_dropped(&stats, DropReason::NoBuffer);
                        model.drops[DropReason::NoBuffer as usize] += 1;
                        continue;
                    }
                    sent.add_sent();
                    model.packets += 1;
                    model.bytes += bytes.len() as u64;
                    model.sizes[model_class(bytes.len())] += 1;
                    let broadcast = *first == 0xFF && bytes.len() >= 6;
                    model.broadcast += u64::from(broadcast);
                    model.multicast += u64::from(first & 1 != 0 && !broadcast && !bytes.is_empty());
                }
                stats.count_sent(&sent, Burst::new(&refs).compared());
            }
            prop_assert_eq!(stats.snapshot(), model);
            prop_assert_eq!(model.sizes.iter().sum::<u64>(), model.packets);
        }
    }
}
