//! Pieces of memory that somebody else may be writing at the same moment.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// Where a piece of memory is, and how long: a pointer and a length that promise nothing.
///
/// Rings hand these out, since their buffers stay valid for as long as the ring's memory is held,
/// which no borrow can say. [`get`](Self::get) makes a [`Segment`] of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawSegment {
    ptr: NonNull<u8>,
    pub(super) len: u32,
}

// SAFETY: it is an address and a length; to use the address is unsafe wherever it is done.
unsafe impl Send for RawSegment {}
// SAFETY: as above; there is no interior state.
unsafe impl Sync for RawSegment {}

impl RawSegment {
    /// Notes `len` bytes at `ptr`.
    #[must_use]
    #[inline]
    pub const fn new(ptr: NonNull<u8>, len: u32) -> Self {
        Self { ptr, len }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a segment is a length, not a collection")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// First byte.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The memory itself.
    ///
    /// # Safety
    ///
    /// For all of `'a` the bytes must stay mapped and readable, from any thread, and nobody may
    /// have an exclusive reference to them.
    #[must_use]
    #[inline]
    pub const unsafe fn get<'a>(self) -> Segment<'a> {
        Segment { raw: self, _memory: PhantomData }
    }

    /// As [`get`](Self::get), for many at once.
    ///
    /// # Safety
    ///
    /// As there, for each of them.
    #[must_use]
    #[inline]
    pub const unsafe fn get_all<'a>(raw: &[Self]) -> &[Segment<'a>] {
        // SAFETY: a segment is nothing but a raw one (`repr(transparent)`), and the caller vouches
        // for what it promises.
        unsafe { &*(std::ptr::from_ref(raw) as *const [Segment<'a>]) }
    }

    /// As [`get_all`](Self::get_all), to be cut as well.
    ///
    /// # Safety
    ///
    /// As there.
    #[must_use]
    #[inline]
    pub const unsafe fn get_all_mut<'a>(raw: &mut [Self]) -> &mut [Segment<'a>] {
        // SAFETY: as in `get_all`; whatever is written there is a raw segment, too.
        unsafe { &mut *(std::ptr::from_mut(raw) as *mut [Segment<'a>]) }
    }
}

/// A piece of memory that is there for as long as `'a`, and that somebody else may be writing at
/// the same moment.
///
/// There is no way to get a `&[u8]` of it: its bytes can only be copied out.
///
/// It is valid no longer than what it was made from, which the borrow checker sees to:
///
/// ```compile_fail,E0505
/// let packet = packet::Pool::new("doc", 1, 64).unwrap().cache().alloc().unwrap();
/// let tail = packet.tail().first().copied();
/// drop(packet);
/// tail.map(|segment| segment.copy_to(&mut [0; 16]));
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Segment<'a> {
    raw: RawSegment,
    _memory: PhantomData<&'a [u8]>,
}

impl Segment<'static> {
    /// None at all.
    pub(super) const EMPTY: Self =
        Self { raw: RawSegment::new(NonNull::dangling(), 0), _memory: PhantomData };
}

impl<'a> Segment<'a> {
    /// Private bytes as a segment; what is longer than 4 GiB is cut.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: the bytes are borrowed for all of 'a, and there are at least `len`.
        unsafe { RawSegment::new(NonNull::from(bytes).cast(), len).get() }
    }

    /// Where it is, without the promise that it is still there.
    #[must_use]
    #[inline]
    pub const fn raw(&self) -> RawSegment {
        self.raw
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a segment is a length, not a collection")]
    pub const fn len(&self) -> usize {
        self.raw.len()
    }

    /// First byte, for a driver that copies or hands the bytes to a device.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.raw.ptr
    }

    /// Copies the first bytes, as many as fit, to `to`; returns how many.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len());
        // SAFETY: `count` is at most the length of both. `copy` stands a guest that maps one
        // piece of memory twice.
        unsafe { std::ptr::copy(self.raw.ptr.as_ptr(), to.as_mut_ptr(), count) };
        count
    }

    /// The segment without its first `count` bytes (empty when it has fewer).
    #[must_use]
    #[inline]
    pub fn skip(&self, count: usize) -> Self {
        let count = count.min(self.len());
        // SAFETY: `count` is at most the segment's length, so the result stays inside it.
        let ptr = unsafe { self.raw.ptr.add(count) };
        #[allow(clippy::cast_possible_truncation, reason = "count is at most len, a u32")]
        let raw = RawSegment { ptr, len: self.raw.len - count as u32 };
        Self { raw, ..*self }
    }
}
