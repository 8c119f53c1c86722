//! The rings that an AF_XDP socket shares with the kernel.
//!
//! Each has a producer and a consumer index, which only ever grow (modulo 2^32), and entries;
//! one side writes one index and reads the other. Facts: Linux
//! `Documentation/networking/af_xdp.rst`, `include/uapi/linux/if_xdp.h`.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, fence};

use crate::kernel::memory::Pages;

/// `XDP_RING_NEED_WAKEUP`: the kernel does not look at the ring until it is called.
const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// What a ring of frames has: a piece of a frame (`struct xdp_desc`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Descriptor {
    /// Where it starts, from the start of the UMEM.
    pub(super) address: u64,
    /// Its length in bytes.
    pub(super) len: u32,
    /// `XDP_PKT_CONTD`: the frame goes on in the next one.
    pub(super) options: u32,
}

/// What the two rings of free chunks have: the address of a chunk, from the start of the UMEM.
pub(super) type Chunk = u64;

/// The kernel's index says more than the ring has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an index in a ring of {size} entries says that it has {count}")]
pub(super) struct BrokenRing {
    count: u32,
    size: u32,
}

/// Where the parts of a ring lie in its mapping, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offsets {
    pub(super) producer: u64,
    pub(super) consumer: u64,
    pub(super) flags: u64,
    pub(super) entries: u64,
}

/// A ring's memory.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Where the pointers lead.
    _pages: Pages,
}

// SAFETY: the pointers lead into `_pages`, which moves along; entries are plain numbers.
unsafe impl<T: Copy + Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn new(pages: Pages, offsets: &Offsets, size: u32) -> Option<Self> {
        let place = |offset: u64| usize::try_from(offset).ok();
        if !size.is_power_of_two() {
            return None;
        }
        Some(Self {
            producer: pages.array(place(offsets.producer)?, 1)?,
            consumer: pages.array(place(offsets.consumer)?, 1)?,
            flags: pages.array(place(offsets.flags)?, 1)?,
            entries: pages.array(place(offsets.entries)?, size as usize)?,
            size,
            _pages: pages,
        })
    }

    fn map(fd: BorrowedFd<'_>, offset: u64, offsets: &Offsets, size: u32) -> io::Result<Self> {
        let entries = (size as usize).checked_mul(size_of::<T>());
        let start = usize::try_from(offsets.entries).map_err(io::Error::other)?;
        let len = entries.and_then(|entries| entries.checked_add(start));
        let len = len.ok_or_else(|| io::Error::other("a ring without end"))?;
        Self::new(Pages::of(fd, offset, len)?, offsets, size)
            .ok_or_else(|| io::Error::other("the kernel has told impossible places in a ring"))
    }

    #[inline]
    const fn producer(&self) -> &AtomicU32 {
        // SAFETY: `new` has checked that it lies in the mapping and is aligned; what both sides
        // write is only ever accessed as an atomic.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    const fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    /// Whether the kernel waits for a call before it looks at the ring. What was produced is
    /// visible to it first.
    #[inline]
    fn needs_wakeup(&self) -> bool {
        fence(SeqCst);
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }.load(Relaxed) & NEED_WAKEUP != 0
    }

    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        let index = index & (self.size - 1);
        // SAFETY: the index is less than the number of entries, all of which lie in the mapping.
        unsafe { self.entries.add(index as usize) }
    }

    #[inline]
    fn check(&self, count: u32) -> Result<u32, BrokenRing> {
        let size = self.size;
        if count > size { Err(BrokenRing { count, size }) } else { Ok(count) }
    }
}

/// A ring that we fill: of free chunks for the kernel to receive into, or of frames to send.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Our own index, of what is submitted.
    head: u32,
    /// The kernel's index, as last seen.
    tail: u32,
}

impl<T: Copy> Producer<T> {
    /// Maps a socket's ring of `size` entries.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        offsets: &Offsets,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(fd, offset, offsets, size).map(Self::new)
    }

    fn new(ring: Ring<T>) -> Self {
        let (head, tail) = (ring.producer().load(Relaxed), ring.consumer().load(Acquire));
        Self { ring, head, tail }
    }

    /// How many entries are free; looks at the kernel's index only where `wanted` are not known
    /// to be.
    #[inline]
    pub(super) fn free(&mut self, wanted: u32) -> Result<u32, BrokenRing> {
        let mut used = self.head.wrapping_sub(self.tail);
        if self.ring.size - used.min(self.ring.size) < wanted {
            // Acquire: the kernel has read an entry before it is written anew.
            let tail = self.ring.consumer().load(Acquire);
            used = self.ring.check(self.head.wrapping_sub(tail))?;
            self.tail = tail;
        }
        Ok(self.ring.size - used.min(self.ring.size))
    }

    /// As [`free`](Self::free), and an error if there are not as many as `wanted`.
    #[inline]
    pub(super) fn require(&mut self, wanted: u32) -> Result<(), BrokenRing> {
        let size = self.ring.size;
        match self.free(wanted)? {
            free if free >= wanted => Ok(()),
            free => Err(BrokenRing { count: size - free + wanted, size }),
        }
    }

    /// Writes the entry `offset` behind the last one submitted, which must be free.
    #[inline]
    pub(super) fn write(&mut self, offset: u32, value: T) {
        let entry = self.ring.entry(self.head.wrapping_add(offset));
        // SAFETY: the entry lies in the mapping. Should it not be free, the kernel reads
        // nonsense, which is its right to check.
        unsafe { entry.write(value) };
    }

    /// Gives the next `count` entries to the kernel.
    #[inline]
    pub(super) fn submit(&mut self, count: u32) {
        self.head = self.head.wrapping_add(count);
        self.ring.producer().store(self.head, Release);
    }

    /// See [`Ring::needs_wakeup`].
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// How many submitted entries the kernel has not taken yet.
    pub(super) fn waiting(&self) -> u32 {
        self.head.wrapping_sub(self.ring.consumer().load(Relaxed))
    }
}

/// A ring that the kernel fills: of received frames, or of chunks that were sent.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Our own index, of what is released.
    tail: u32,
    /// The kernel's index, as last seen.
    head: u32,
}

impl<T: Copy> Consumer<T> {
    /// Maps a socket's ring of `size` entries.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        offsets: &Offsets,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(fd, offset, offsets, size).map(Self::new)
    }

    fn new(ring: Ring<T>) -> Self {
        let (head, tail) = (ring.producer().load(Acquire), ring.consumer().load(Relaxed));
        Self { ring, tail, head }
    }

    /// How many entries are there; looks at the kernel's index only where `wanted` are not known
    /// to be.
    #[inline]
    pub(super) fn available(&mut self, wanted: u32) -> Result<u32, BrokenRing> {
        let known = self.head.wrapping_sub(self.tail);
        if known >= wanted && known <= self.ring.size {
            return Ok(known);
        }
        // Acquire: the entries, and the frames they tell of, are there when the index is.
        let head = self.ring.producer().load(Acquire);
        let count = self.ring.check(head.wrapping_sub(self.tail))?;
        self.head = head;
        Ok(count)
    }

    /// A private copy of the entry `offset` behind the last one released.
    #[inline]
    pub(super) fn read(&self, offset: u32) -> T {
        let entry = self.ring.entry(self.tail.wrapping_add(offset));
        // SAFETY: the entry lies in the mapping, and any bytes make a number. It is read once.
        unsafe { entry.read_volatile() }
    }

    /// Gives the first `count` entries back.
    #[inline]
    pub(super) fn release(&mut self, count: u32) {
        self.tail = self.tail.wrapping_add(count);
        // Release: the kernel may overwrite them now that they are read.
        self.ring.consumer().store(self.tail, Release);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const OFFSETS: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// The kernel's side of a ring: the indices, to be set at will.
    #[derive(Debug)]
    pub(crate) struct Kernel {
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        entries: NonNull<u8>,
    }

    impl Kernel {
        pub(crate) fn set_producer(&self, index: u32) {
            // SAFETY: the test keeps the ring alive.
            unsafe { self.producer.as_ref() }.store(index, Release);
        }

        pub(crate) fn producer(&self) -> u32 {
            // SAFETY: as above.
            unsafe { self.producer.as_ref() }.load(Acquire)
        }

        pub(crate) fn set_consumer(&self, index: u32) {
            // SAFETY: as above.
            unsafe { self.consumer.as_ref() }.store(index, Release);
        }

        pub(crate) fn consumer(&self) -> u32 {
            // SAFETY: as above.
            unsafe { self.consumer.as_ref() }.load(Acquire)
        }

        pub(crate) fn entry<T>(&self, index: u32, size: u32) -> NonNull<T> {
            // SAFETY: within the ring.
            unsafe { self.entries.cast::<T>().add((index & (size - 1)) as usize) }
        }
    }

    fn ring<T: Copy>(size: u32, start: u32) -> (Ring<T>, Kernel) {
        let pages = Pages::anonymous(192 + size as usize * size_of::<T>()).unwrap();
        let ring = Ring::<T>::new(pages, &OFFSETS, size).unwrap();
        let (producer, consumer, entries) = (ring.producer, ring.consumer, ring.entries.cast());
        let kernel = Kernel { producer, consumer, entries };
        kernel.set_producer(start);
        kernel.set_consumer(start);
        (ring, kernel)
    }

    pub(crate) fn producer<T: Copy>(size: u32, start: u32) -> (Producer<T>, Kernel) {
        let (ring, kernel) = ring(size, start);
        (Producer::new(ring), kernel)
    }

    pub(crate) fn consumer<T: Copy>(size: u32, start: u32) -> (Consumer<T>, Kernel) {
        let (ring, kernel) = ring(size, start);
        (Consumer::new(ring), kernel)
    }

    #[test]
    fn an_index_that_cannot_be_is_noticed() {
        let (mut consumer, kernel) = consumer::<u64>(8, 100);
        kernel.set_producer(109);
        assert_eq!(consumer.available(1), Err(BrokenRing { count: 9, size: 8 }));
        kernel.set_producer(99);
        assert!(consumer.available(1).is_err());
        kernel.set_producer(108);
        assert_eq!(consumer.available(1), Ok(8));

        let (mut producer, kernel) = producer::<u64>(8, 100);
        assert_eq!(producer.free(8), Ok(8));
        producer.submit(8);
        kernel.set_consumer(99);
        assert_eq!(producer.free(1), Err(BrokenRing { count: 9, size: 8 }));
        kernel.set_consumer(109);
        assert!(producer.free(1).is_err());
        kernel.set_consumer(101);
        assert_eq!(producer.free(1), Ok(1));
    }

    #[test]
    fn a_ring_that_does_not_fit_its_mapping_is_refused() {
        let make = |offsets: Offsets, size| {
            Ring::<u64>::new(Pages::anonymous(4096).unwrap(), &offsets, size).is_some()
        };
        assert!(make(OFFSETS, 256));
        assert!(!make(OFFSETS, 512) && !make(OFFSETS, 3) && !make(OFFSETS, 0));
        assert!(!make(Offsets { entries: 2049, ..OFFSETS }, 256));
        assert!(!make(Offsets { producer: 4096, ..OFFSETS }, 256));
        assert!(!make(Offsets { flags: 2, ..OFFSETS }, 256));
        assert!(!make(Offsets { consumer: u64::MAX, ..OFFSETS }, 256));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// One side puts up to so many entries into the ring.
        Put(u32),
        /// The other takes up to so many.
        Take(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![(0..12_u32).prop_map(Step::Put), (0..12_u32).prop_map(Step::Take)];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        /// Near the end of the range of indices too, where they start over.
        #[test]
        fn what_is_produced_is_what_the_kernel_takes(start in any::<u32>(), steps in steps()) {
            let (mut producer, kernel) = producer::<u64>(8, start);
            let (mut model, mut next) = (VecDeque::new(), 0_u64);
            for step in steps {
                match step {
                    Step::Put(count) => {
                        let free = producer.free(count).unwrap();
                        prop_assert!(free as usize <= 8 - model.len());
                        prop_assert!(free >= count || free as usize == 8 - model.len());
                        let count = count.min(free);
                        for offset in 0..count {
                            producer.write(offset, next);
                            model.push_back(next);
                            next += 1;
                        }
                        producer.submit(count);
                    }
                    Step::Take(count) => {
                        let tail = kernel.consumer();
                        let there = kernel.producer().wrapping_sub(tail);
                        prop_assert_eq!(there as usize, model.len());
                        let count = count.min(there);
                        for offset in 0..count {
                            let entry = kernel.entry::<u64>(tail.wrapping_add(offset), 8);
                            // SAFETY: within the ring.
                            let value = unsafe { entry.read() };
                            prop_assert_eq!(Some(value), model.pop_front());
                        }
                        kernel.set_consumer(tail.wrapping_add(count));
                    }
                }
                prop_assert_eq!(producer.waiting() as usize, model.len());
            }
        }

        #[test]
        fn what_the_kernel_puts_is_what_is_consumed(start in any::<u32>(), steps in steps()) {
            let (mut consumer, kernel) = consumer::<u64>(8, start);
            let (mut model, mut next) = (VecDeque::new(), 0_u64);
            for step in steps {
                match step {
                    Step::Put(count) => {
                        let head = kernel.producer();
                        let count = count.min(8 - u32::try_from(model.len()).unwrap());
                        for offset in 0..count {
                            let entry = kernel.entry::<u64>(head.wrapping_add(offset), 8);
                            // SAFETY: within the ring.
                            unsafe { entry.write(next) };
                            model.push_back(next);
                            next += 1;
                        }
                        kernel.set_producer(head.wrapping_add(count));
                    }
                    Step::Take(count) => {
                        let there = consumer.available(count).unwrap();
                        prop_assert!(there as usize <= model.len());
                        prop_assert!(there >= count || there as usize == model.len());
                        let count = count.min(there);
                        for offset in 0..count {
                            prop_assert_eq!(Some(consumer.read(offset)), model.pop_front());
                        }
                        consumer.release(count);
                        prop_assert_eq!(kernel.consumer(), kernel.producer().wrapping_sub(
                            u32::try_from(model.len()).unwrap()));
                    }
                }
            }
        }
    }
}
