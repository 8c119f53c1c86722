//! Owned packets: bytes in buffers of a pool.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;

use eal::DmaSpace;

use crate::frame::{Frame, MAX_FRAME_LEN, RawSegment, Segment};
use crate::offload::Offload;
use crate::pool::{HEADROOM, MAX_SEGMENTS, PoolCache, Shared};

/// Where the data of a fresh packet begins.
#[allow(clippy::cast_possible_truncation, reason = "the constant is 128")]
const FRESH_OFFSET: u32 = HEADROOM as u32;

/// A packet that owns its buffers: one as a rule, a chain of up to
/// [`MAX_SEGMENTS`](crate::pool::MAX_SEGMENTS) for a long one. It can be kept, queued and sent
/// to another thread.
///
/// Dropping it gives the buffers back, with two atomic operations; a worker that has a
/// [`PoolCache`] gives it to [`PoolCache::free`] instead, which needs none.
///
/// Bytes that [`append`](Self::append) and [`prepend`](Self::prepend) add are those of whatever
/// the buffer held before, perhaps of another guest: the caller overwrites all of them.
pub struct Packet {
    pool: NonNull<Shared>,
    /// First byte of the first buffer, headroom included.
    buffer: NonNull<u8>,
    /// The first buffer; its reference to the pool belongs to this packet, as do those of the
    /// buffers in its tail.
    index: u32,
    /// Where the data begins in the first buffer.
    offset: u32,
    /// Length of the data in the first buffer.
    head_len: u32,
    /// Length of the packet.
    len: u32,
    /// Number of segments after the first one.
    tails: u32,
    offload: Offload,
}

// SAFETY: a packet is the only owner of its buffers, and the pool that it refers to is Sync.
unsafe impl Send for Packet {}
// SAFETY: a shared packet can only be read.
unsafe impl Sync for Packet {}

impl Packet {
    /// # Safety
    ///
    /// Nobody else may have buffer `index` of `pool`, and one reference to the pool goes over to
    /// the packet.
    #[inline]
    pub(crate) unsafe fn from_buffer(pool: NonNull<Shared>, index: u32) -> Self {
        // SAFETY: the reference that comes with the buffer keeps the pool alive.
        let buffer = unsafe { pool.as_ref() }.buffer(index);
        let (offset, offload) = (FRESH_OFFSET, Offload::NONE);
        Self { pool, buffer, index, offset, head_len: 0, len: 0, tails: 0, offload }
    }

    /// A packet with the bytes of `frame`; see [`PoolCache::copy_frame`].
    #[must_use]
    pub fn from_frame(frame: &Frame<'_>, cache: &mut PoolCache) -> Option<Self> {
        cache.copy_frame(frame)
    }

    /// Length of the packet in bytes, over all segments.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of segments, at least 1.
    #[must_use]
    pub const fn segment_count(&self) -> usize {
        1 + self.tails as usize
    }

    /// The bytes of the first segment: the whole packet if it has but one.
    #[must_use]
    #[inline]
    pub const fn data(&self) -> &[u8] {
        // SAFETY: `offset + head_len` is at most the buffer's size (every method keeps it so);
        // the bytes are initialised, since the memory began as zeroes, and this packet's alone.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.head_len as usize) }
    }

    /// The bytes of the first segment, to change.
    #[must_use]
    #[inline]
    pub const fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.head_len as usize) }
    }

    /// The segments after the first one.
    #[must_use]
    #[inline]
    pub fn tail(&self) -> &[Segment<'_>] {
        // SAFETY: the segments lie in this packet's buffers, which it has for as long as it is
        // borrowed.
        unsafe { RawSegment::get_all(self.raw_tail()) }
    }

    #[inline]
    fn raw_tail(&self) -> &[RawSegment] {
        if self.tails == 0 {
            return &[];
        }
        // SAFETY: the tail belongs to this packet, and its first `tails` segments are written.
        unsafe {
            let first = &raw const (*self.shared().tail(self.index)).segments;
            slice::from_raw_parts(first.cast(), self.tails as usize)
        }
    }

    /// The packet as a frame, without a copy.
    #[must_use]
    #[inline]
    pub fn as_frame(&self) -> Frame<'_> {
        // Never `None`: no method lets the packet grow beyond a frame's limits.
        Frame::from_parts(self.data(), self.tail())
            .unwrap_or_else(|| Frame::from_bytes(self.data()))
            .with_offload(self.offload)
    }

    /// What the packet still needs before it is complete, as with [`Frame::offload`].
    #[must_use]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Changes that: the offload must hold for the packet as it is.
    pub const fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Bytes free in front of the data.
    #[must_use]
    pub const fn headroom(&self) -> usize {
        self.offset as usize
    }

    /// Bytes free behind the data of the last segment.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        let (buffer, end) = self.last_end();
        buffer.addr().get() + self.shared().stride() - end.addr().get()
    }

    /// Adds `count` bytes in front and returns them; `None`, and nothing changes, when there is
    /// not that much headroom or the packet would be longer than a frame may be.
    #[must_use]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let len = self.grown(count)?;
        let short = u32::try_from(count).ok()?;
        self.offset = self.offset.checked_sub(short)?;
        self.head_len += short;
        self.len = len;
        self.data_mut().get_mut(..count)
    }

    /// Removes the first `count` bytes; `false`, and nothing changes, when the first segment has
    /// fewer, or headers that an offload needs are among them.
    pub fn adj(&mut self, count: usize) -> bool {
        let Some(short) = u32::try_from(count).ok().filter(|count| *count <= self.head_len) else {
            return false;
        };
        let Some(offload) = self.offload.shifted(count.cast_signed().wrapping_neg()) else {
            return false;
        };
        self.offload = offload;
        self.offset += short;
        self.head_len -= short;
        self.len -= short;
        true
    }

    /// Adds `count` bytes at the end and returns them; `None`, and nothing changes, when there
    /// is not that much tailroom or the packet would be longer than a frame may be.
    #[must_use]
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        let len = self.grown(count)?;
        if count > self.tailroom() {
            return None;
        }
        let short = u32::try_from(count).ok()?;
        let (_, end) = self.last_end();
        match self.tails.checked_sub(1) {
            None => self.head_len += short,
            Some(last) => self.resize_tail(last, |len| len + short),
        }
        self.len = len;
        // SAFETY: `count` bytes behind the old end are inside the last buffer (`tailroom`).
        Some(unsafe { slice::from_raw_parts_mut(end.as_ptr(), count) })
    }

    /// Removes the last `count` bytes, and the segments that become empty, except the first;
    /// `false`, and nothing changes, when the packet has fewer.
    pub fn trim(&mut self, count: usize) -> bool {
        let Some(mut rest) = u32::try_from(count).ok().filter(|count| *count <= self.len) else {
            return false;
        };
        self.len -= rest;
        while let Some(last) = self.tails.checked_sub(1) {
            let segment_len = self.raw_tail().last().map_or(0, RawSegment::len);
            // A segment's length was a u32.
            let segment_len = u32::try_from(segment_len).unwrap_or(u32::MAX);
            if rest < segment_len {
                self.resize_tail(last, |len| len - rest);
                return true;
            }
            rest -= segment_len;
            self.drop_last();
        }
        self.head_len -= rest;
        true
    }

    /// Joins `other` to the end, without a copy.
    ///
    /// # Errors
    ///
    /// Gives `other` back, and changes nothing, when it is of another pool, or the packet would
    /// be longer than a frame may be or have too many segments.
    pub fn chain(&mut self, other: Self) -> Result<(), Self> {
        let segments = self.segment_count() + other.segment_count();
        let Some(len) =
            self.grown(other.len()).filter(|_| other.pool == self.pool && segments <= MAX_SEGMENTS)
        else {
            return Err(other);
        };
        // SAFETY: both tails belong to the two packets, `other`'s first `tails` entries are
        // written, and `segments` bounds the writes to this one. `other` gives its buffers up.
        unsafe {
            let tail = self.shared().tail(self.index);
            let from = self.shared().tail(other.index);
            let mut at = self.tails as usize;
            let mut add = |segment, buffer| {
                (&raw mut (*tail).segments).cast::<RawSegment>().add(at).write(segment);
                (&raw mut (*tail).buffers).cast::<u32>().add(at).write(buffer);
                at += 1;
            };
            add(RawSegment::new(other.start(), other.head_len), other.index);
            for i in 0..other.tails as usize {
                let segment = (&raw const (*from).segments).cast::<RawSegment>().add(i).read();
                let buffer = (&raw const (*from).buffers).cast::<u32>().add(i).read();
                add(segment, buffer);
            }
        }
        self.tails += 1 + other.tails;
        self.len = len;
        let _ = ManuallyDrop::new(other);
        Ok(())
    }

    /// Lets `copy` write to the room behind a fresh packet's headroom, of the length that it is
    /// told; it returns how many bytes it wrote.
    ///
    /// # Safety
    ///
    /// The packet must be fresh, and `copy` must keep to that room.
    pub(crate) unsafe fn fill(&mut self, copy: impl FnOnce(NonNull<u8>, usize) -> usize) {
        let room = self.shared().stride() - HEADROOM;
        let count = copy(self.start(), room).min(room);
        self.head_len = u32::try_from(count).unwrap_or(0);
        self.len = self.head_len;
    }

    /// Where the devices of `space` find the first byte of the first segment; `None` when the
    /// packet is not of a pool that was made for them
    /// ([`Pool::for_devices`](crate::Pool::for_devices)).
    #[must_use]
    #[inline]
    pub fn device_address(&self, space: &DmaSpace) -> Option<u64> {
        self.shared().device_address(self.start(), space)
    }

    /// As [`device_address`](Self::device_address), for a segment of [`tail`](Self::tail).
    #[must_use]
    pub fn device_address_of(&self, segment: &Segment<'_>, space: &DmaSpace) -> Option<u64> {
        self.shared().device_address(segment.as_ptr(), space)
    }

    /// Bytes of a page of the memory that the buffers lie in. A buffer may begin on one page and end
    /// on the next, which are neighbours to devices, but not to what is behind their IOMMU.
    #[must_use]
    pub const fn page_size(&self) -> usize {
        self.shared().page_size()
    }

    /// Where the data of the first segment begins.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.start()
    }

    /// Gives a fresh packet, into whose buffer a device has written, its length: `len` bytes from
    /// where its data begins. `false`, and nothing changes, when the buffer has no room for that
    /// many behind its headroom.
    ///
    /// # Safety
    ///
    /// The packet must be fresh, of one segment, and the device must not write to it any more.
    #[inline]
    pub unsafe fn set_received(&mut self, len: usize) -> bool {
        // SAFETY: as the caller says.
        unsafe { self.set_received_from(0, len) }
    }

    /// As [`set_received`](Self::set_received), where the device has written from `before` bytes
    /// in front of that on, which is inside of the headroom.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline]
    pub unsafe fn set_received_from(&mut self, before: usize, len: usize) -> bool {
        let Some(offset) = HEADROOM.checked_sub(before) else { return false };
        let room = self.shared().stride() - offset;
        let (Ok(offset), Ok(short)) = (u32::try_from(offset), u32::try_from(len)) else {
            return false;
        };
        if len > room {
            return false;
        }
        self.offset = offset;
        self.head_len = short;
        self.len = short;
        true
    }

    pub(crate) const fn pool(&self) -> NonNull<Shared> {
        self.pool
    }

    /// Ends the packet and returns its buffers with their references: the first one, and the
    /// list of the others with their number.
    #[inline]
    #[allow(clippy::type_complexity, reason = "used in one place")]
    pub(crate) fn into_buffers(self) -> (u32, Option<([u32; MAX_SEGMENTS - 1], usize)>) {
        let this = ManuallyDrop::new(self);
        if this.tails == 0 {
            return (this.index, None);
        }
        let mut buffers = [0; MAX_SEGMENTS - 1];
        for (to, from) in buffers.iter_mut().zip(this.tail_buffers()) {
            *to = *from;
        }
        (this.index, Some((buffers, this.tails as usize)))
    }

    fn tail_buffers(&self) -> &[u32] {
        if self.tails == 0 {
            return &[];
        }
        // SAFETY: as in `tail`.
        unsafe {
            let first = &raw const (*self.shared().tail(self.index)).buffers;
            slice::from_raw_parts(first.cast(), self.tails as usize)
        }
    }

    #[inline]
    const fn shared(&self) -> &Shared {
        // SAFETY: the packet's references keep the pool alive, and nobody has it mutably.
        unsafe { self.pool.as_ref() }
    }

    #[inline]
    const fn start(&self) -> NonNull<u8> {
        // SAFETY: `offset` is at most the buffer's size.
        unsafe { self.buffer.add(self.offset as usize) }
    }

    /// The length with `count` more bytes, if a frame may have it.
    fn grown(&self, count: usize) -> Option<u32> {
        let len = self.len().checked_add(count).filter(|len| *len <= MAX_FRAME_LEN)?;
        u32::try_from(len).ok()
    }

    /// The last segment's buffer, and the end of its data.
    fn last_end(&self) -> (NonNull<u8>, NonNull<u8>) {
        let (buffer, start, len) = match (self.raw_tail().last(), self.tail_buffers().last()) {
            (Some(segment), Some(index)) => {
                (self.shared().buffer(*index), segment.as_ptr(), segment.len())
            }
            _ => (self.buffer, self.start(), self.head_len as usize),
        };
        // SAFETY: a segment lies inside its buffer.
        (buffer, unsafe { start.add(len) })
    }

    /// Changes the length of segment `at` of the tail, which must exist, to another that its
    /// buffer has room for.
    fn resize_tail(&mut self, at: u32, len: impl FnOnce(u32) -> u32) {
        // SAFETY: the tail belongs to this packet, which is borrowed exclusively; `at` is less
        // than `tails`, so the entry is written.
        unsafe {
            let tail = self.shared().tail(self.index);
            let segment = (&raw mut (*tail).segments).cast::<RawSegment>().add(at as usize);
            let old = segment.read();
            // A segment's length was a u32.
            let new = len(u32::try_from(old.len()).unwrap_or(0));
            segment.write(RawSegment::new(old.as_ptr(), new));
        }
    }

    /// Gives the last segment of the tail back to the pool.
    fn drop_last(&mut self) {
        if let Some(index) = self.tail_buffers().last().copied() {
            self.tails -= 1;
            self.shared().push_dropped(index, &[]);
            // SAFETY: the buffer came with a reference, and the first buffer's keeps the pool.
            unsafe { Shared::release(self.pool, 1) };
        }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        self.shared().push_dropped(self.index, self.tail_buffers());
        // SAFETY: one reference came with each buffer, and the packet ends here.
        unsafe { Shared::release(self.pool, self.segment_count()) };
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.len)
            .field("segments", &self.segment_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::pool::Pool;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Prepend(usize),
        Adj(usize),
        Append(usize),
        Trim(usize),
        Chain(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let count = || prop_oneof![0..70_usize, 0..3_000_usize];
        prop_oneof![
            count().prop_map(Step::Prepend),
            count().prop_map(Step::Adj),
            count().prop_map(Step::Append),
            count().prop_map(Step::Trim),
            (0..300_usize).prop_map(Step::Chain),
        ]
    }

    #[test]
    fn a_fresh_packet_is_empty_with_room_on_both_sides() {
        let pool = Pool::new("test-fresh", 4, 2000).unwrap();
        let mut packet = pool.cache().alloc().unwrap();
        assert_eq!((packet.len(), packet.is_empty(), packet.segment_count()), (0, true, 1));
        assert_eq!((packet.headroom(), packet.tailroom()), (HEADROOM, pool.room()));
        packet.append(3).unwrap().copy_from_slice(b"abc");
        packet.prepend(2).unwrap().copy_from_slice(b"..");
        assert_eq!(packet.data(), b"..abc");
        assert!(packet.prepend(HEADROOM - 1).is_none() && packet.append(pool.room()).is_none());
        assert!(!packet.adj(6) && !packet.trim(6));
        assert_eq!(packet.as_frame().head(), b"..abc");
    }

    #[test]
    fn packets_of_two_pools_do_not_mix() {
        let (one, other) = (Pool::new("one", 2, 64).unwrap(), Pool::new("other", 2, 64).unwrap());
        let mut packet = one.cache().alloc().unwrap();
        let refused = packet.chain(other.cache().alloc().unwrap()).unwrap_err();
        // A cache of the wrong pool drops it where it belongs.
        one.cache().free(refused);
        drop(packet);
        assert_eq!((one.available(), other.available()), (2, 2));
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_vector(steps in prop::collection::vec(step(), 0..60)) {
            let pool = Pool::new("test-model", 64, 192).unwrap();
            let mut cache = pool.cache();
            let mut packet = cache.alloc().unwrap();
            let mut model: Vec<u8> = Vec::new();
            let mut fill = (1..=255_u8).cycle();
            for step in steps {
                match step {
                    Step::Prepend(count) => {
                        let room = packet.headroom();
                        let got = packet.prepend(count);
                        prop_assert_eq!(got.is_some(), count <= room);
                        if let Some(bytes) = got {
                            bytes.fill_with(|| fill.next().unwrap());
                            let new = bytes.to_vec();
                            model.splice(0..0, new);
                        }
                    }
                    Step::Adj(count) => {
                        let has = packet.data().len();
                        prop_assert_eq!(packet.adj(count), count <= has);
                        if count <= has {
                            model.drain(..count);
                        }
                    }
                    Step::Append(count) => {
                        let room = packet.tailroom();
                        let got = packet.append(count);
                        prop_assert_eq!(got.is_some(), count <= room);
                        if let Some(bytes) = got {
                            bytes.fill_with(|| fill.next().unwrap());
                            model.extend_from_slice(bytes);
                        }
                    }
                    Step::Trim(count) => {
                        prop_assert_eq!(packet.trim(count), count <= model.len());
                        model.truncate(model.len().checked_sub(count).unwrap_or(model.len()));
                    }
                    Step::Chain(count) => {
                        let bytes: Vec<u8> = fill.by_ref().take(count).collect();
                        if let Some(other) = cache.copy_frame(&Frame::from_bytes(&bytes))
                            && packet.chain(other).is_ok()
                        {
                            model.extend(bytes);
                        }
                    }
                }
                prop_assert_eq!(packet.len(), model.len());
                prop_assert_eq!(packet.as_frame().to_vec(), &model[..]);
            }
            cache.free(packet);
            drop(cache);
            prop_assert_eq!(pool.available(), 64);
        }
    }
}
