//! The shared memory of a packed ring, as its driver uses it.

use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use crate::packed::{AVAIL, Desc, EVENT_DISABLE, MAX_SIZE, Position, USED};
use eal::DmaPart;

/// The parts of a ring start on boundaries of this many bytes, so that what the driver writes
/// and what the device writes never share a cache line, nor the pair of lines that x86 fetches.
const PART_ALIGN: usize = 128;

/// Descriptor ring and event structures in memory that is shared with the device.
///
/// Every position that its methods take must be less than the size; one that is not leads to
/// descriptor 0.
#[derive(Debug)]
pub struct PackedRing {
    ring: NonNull<u8>,
    driver_event: NonNull<u8>,
    device_event: NonNull<u8>,
    size: u16,
    /// What the pointers lead into, and nobody else in this process has.
    memory: DmaPart,
}

// SAFETY: the pointers lead into `memory`, which is Send; the ring is their only user on the
// driver's side.
unsafe impl Send for PackedRing {}

/// Where the event structures lie: the driver's, the device's, and the end of it all.
const fn layout(size: u16) -> (usize, usize, usize) {
    let driver = (16 * size as usize).next_multiple_of(PART_ALIGN);
    (driver, driver + PART_ALIGN, driver + 2 * PART_ALIGN)
}

impl PackedRing {
    /// Bytes of memory that a ring of `size` entries takes.
    #[must_use]
    pub const fn bytes(size: u16) -> usize {
        layout(size).2
    }

    /// A ring of `size` entries at the start of `memory`, all zero; `None` when the size is 0 or
    /// above [`MAX_SIZE`], or the memory is shorter than [`bytes`](Self::bytes) or not aligned to
    /// 16 bytes.
    #[must_use]
    pub fn new(memory: DmaPart, size: u16) -> Option<Self> {
        let (driver_event, device_event, end) = layout(size);
        let memory = memory.truncate(end)?;
        let (ring, device) = (memory.place().host(), memory.place().device());
        let aligned = ring.cast::<Desc>().is_aligned() && device.is_multiple_of(16);
        if size == 0 || size > MAX_SIZE || !aligned {
            return None;
        }
        // SAFETY: the part is `end` bytes long and belongs to this ring alone, and both offsets are
        // below that.
        let (driver_event, device_event) = unsafe {
            ring.as_ptr().write_bytes(0, end);
            (ring.add(driver_event), ring.add(device_event))
        };
        Some(Self { ring, driver_event, device_event, size, memory })
    }

    /// The number of entries.
    #[must_use]
    #[inline]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// The device's addresses of descriptor ring, driver and device event structure.
    #[must_use]
    pub const fn device_addresses(&self) -> (u64, u64, u64) {
        let ((driver, device, _), base) = (layout(self.size), self.memory.place().device());
        (base, base + driver as u64, base + device as u64)
    }

    /// The two words of the descriptor at `index`.
    #[inline]
    fn words(&self, index: u16) -> (&AtomicU64, &AtomicU64) {
        let index = if index < self.size { usize::from(index) } else { 0 };
        // SAFETY: the index is less than the number of descriptors, of 16 bytes each, aligned to
        // 16; an atomic may be shared with anybody.
        unsafe {
            let words = self.ring.cast::<u64>().add(2 * index);
            (AtomicU64::from_ptr(words.as_ptr()), AtomicU64::from_ptr(words.add(1).as_ptr()))
        }
    }

    /// Writes the address of the descriptor at `index`.
    #[inline]
    pub fn write_addr(&mut self, index: u16, addr: u64) {
        self.words(index).0.store(addr, Relaxed);
    }

    /// Writes length, id and flags of the descriptor at `index` at once. The device may see them
    /// at once, too.
    #[inline]
    pub fn write_rest(&mut self, index: u16, rest: u64) {
        self.words(index).1.store(rest, Relaxed);
    }

    /// As [`write_rest`](Self::write_rest), and everything written before this is visible to the
    /// device when it sees the flags.
    #[inline]
    pub fn publish_rest(&mut self, index: u16, rest: u64) {
        self.words(index).1.store(rest, Release);
    }

    /// Length and id of the descriptor at `at`, if the device has used it; what the device
    /// wrote before that may be read after this.
    #[must_use]
    #[inline]
    pub fn read_used(&self, at: Position) -> Option<(u32, u16)> {
        let desc = Desc::from_halves(0, self.words(at.index).1.load(Acquire));
        let wanted = if at.wrap { AVAIL | USED } else { 0 };
        (desc.flags & (AVAIL | USED) == wanted).then_some((desc.len, desc.id))
    }

    /// Orders what was published before this against what is read of the device's wishes after
    /// it (virtio 1.3 section 2.8.21.3.1).
    #[inline]
    pub fn full_fence() {
        fence(SeqCst);
    }

    /// The device's wish: a position, and `EVENT_*`.
    #[must_use]
    #[inline]
    pub fn device_event(&self) -> (u16, u16) {
        // SAFETY: the structure has 4 bytes, aligned to 128.
        let event = unsafe { AtomicU32::from_ptr(self.device_event.cast().as_ptr()) };
        let [off_0, off_1, flags_0, flags_1] = event.load(Relaxed).to_le_bytes();
        (u16::from_le_bytes([off_0, off_1]), u16::from_le_bytes([flags_0, flags_1]))
    }

    /// Tells the device when to interrupt: `flags` are `EVENT_*`.
    #[inline]
    pub fn set_driver_event(&mut self, off_wrap: u16, flags: u16) {
        let value = u32::from(flags) << 16 | u32::from(off_wrap);
        // SAFETY: the structure has 4 bytes, aligned to 128.
        unsafe { AtomicU32::from_ptr(self.driver_event.cast().as_ptr()) }.store(value, Release);
    }

    /// Tells the device not to interrupt.
    pub fn set_no_interrupt(&mut self) {
        self.set_driver_event(0, EVENT_DISABLE);
    }
}
