//! The guest's memory as its front-end shares it, and the checked way into it.
//!
//! Every address in a ring or descriptor goes through [`GuestMemory::translate`], which takes a
//! length and vouches for exactly that many bytes. There is no way to get a pointer without a
//! length that was checked with it.

use std::ptr::NonNull;
use std::sync::Arc;

use eal::Mapping;
use packet::{RawSegment, Segment};

/// One contiguous piece of guest memory.
#[derive(Clone, Debug)]
pub struct Region {
    /// Guest-physical address of its first byte.
    pub guest_addr: u64,
    /// Address of its first byte in the front-end's own address space, which is what
    /// vhost-user uses for ring addresses.
    pub user_addr: u64,
    /// Where this process has it; the region is as long as the mapping.
    pub mapping: Arc<Mapping>,
}

/// Why a set of regions cannot be a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// A region reaches the end of the 64-bit address space.
    #[error("memory region at {addr:#x} of {len:#x} bytes reaches the end of the address space")]
    Wraps {
        /// Its first address.
        addr: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// Two regions claim the same addresses.
    #[error("memory regions at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// First address of one.
        first: u64,
        /// First address of the other.
        second: u64,
    },
}

/// What a translation needs of a region, kept together so that one cache line holds two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    guest_addr: u64,
    user_addr: u64,
    len: u64,
    host: NonNull<u8>,
}

/// A guest's memory. It never changes: a new table makes a new one, and the old one stays mapped
/// for as long as a ring holds it.
#[derive(Debug, Default)]
pub struct GuestMemory {
    windows: Box<[Window]>,
    regions: Box<[Region]>,
}

// SAFETY: the pointers lead into mappings that `regions` keeps alive and that any thread may
// use; nothing is written through them by this type.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; all methods only read the table.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// The memory that `regions` make up, in any order.
    ///
    /// # Errors
    /// When a region runs past the address space, or two overlap in guest-physical or in
    /// front-end addresses: then an address would have two meanings.
    pub fn new(mut regions: Vec<Region>) -> Result<Self, MemoryError> {
        check_overlap(&mut regions, |region| region.user_addr)?;
        check_overlap(&mut regions, |region| region.guest_addr)?;
        let windows = regions.iter().map(|region| Window {
            guest_addr: region.guest_addr,
            user_addr: region.user_addr,
            len: region.mapping.len() as u64,
            host: region.mapping.ptr(),
        });
        Ok(Self { windows: windows.collect(), regions: regions.into_boxed_slice() })
    }

    /// The regions, by guest-physical address.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Whether the front-end has taken some of the memory away since it was mapped, by
    /// truncating its file. What was there reads as zeros now.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.poisoned())
    }

    /// The host memory of `len` bytes at guest-physical address `addr`; `None` unless all of them
    /// lie in one region. A ring uses a [`Translator`], which is faster.
    ///
    /// What it gives cannot outlive the memory:
    ///
    /// ```compile_fail,E0505
    /// # use std::sync::Arc;
    /// # use virtio::{GuestMemory, memory::Region};
    /// # let shared = eal::SharedMemory::allocate("guest", 1 << 20).unwrap();
    /// # let mapping = Arc::new(eal::Mapping::map(shared.fd(), 0, 1 << 20).unwrap());
    /// let memory = GuestMemory::new(vec![Region { guest_addr: 0, user_addr: 0, mapping }]).unwrap();
    /// let segment = memory.translate(0x1000, 16).unwrap();
    /// drop(memory);
    /// segment.copy_to(&mut [0; 16]);
    /// ```
    #[must_use]
    pub fn translate(&self, addr: u64, len: u32) -> Option<Segment<'_>> {
        let raw = self.find(addr)?.segment(addr, len)?;
        // SAFETY: the window vouches for `len` bytes in a mapping that `regions` keeps for as long
        // as `self` is borrowed, and nobody has references to a guest's memory.
        Some(unsafe { raw.get() })
    }

    /// The window that `addr` may lie in.
    fn find(&self, addr: u64) -> Option<Window> {
        let after = self.windows.partition_point(|window| window.guest_addr <= addr);
        self.windows.get(after.checked_sub(1)?).copied()
    }

    /// The host address of `len` bytes at address `addr` of the front-end's own address space,
    /// `align` being a power of two; `None` unless all of them lie in one region and the start
    /// is aligned both there and here.
    #[must_use]
    pub fn translate_user(&self, addr: u64, len: usize, align: usize) -> Option<NonNull<u8>> {
        let host = self
            .windows
            .iter()
            .find_map(|window| window.host_of(window.user_addr, addr, len as u64))?;
        host.as_ptr().addr().is_multiple_of(align).then_some(host)
    }

    /// The guest-physical address of a segment that was translated from this memory.
    #[must_use]
    pub fn guest_address(&self, segment: RawSegment) -> Option<u64> {
        self.windows.iter().find_map(|window| window.guest_addr_of(segment.as_ptr()))
    }

    /// The same memory for rings of which the guest-physical addresses are known: these are its
    /// front-end addresses too.
    ///
    /// # Errors
    /// None, since the regions do not overlap.
    pub fn by_guest_address(&self) -> Result<Self, MemoryError> {
        let region = |region: &Region| Region { user_addr: region.guest_addr, ..region.clone() };
        Self::new(self.regions.iter().map(region).collect())
    }

    /// The guest-physical address of front-end address `addr`.
    #[must_use]
    pub fn user_to_guest(&self, addr: u64) -> Option<u64> {
        self.windows.iter().find_map(|window| {
            let offset = addr.checked_sub(window.user_addr).filter(|off| *off < window.len)?;
            window.guest_addr.checked_add(offset)
        })
    }
}

/// A guest's memory for one ring, which finds most of its buffers in the same region as the
/// buffer before.
#[derive(Debug)]
pub struct Translator {
    memory: Arc<GuestMemory>,
    /// The window that was used last, or an empty one.
    last: Window,
}

// SAFETY: the copied window leads into a mapping that `memory` keeps alive.
unsafe impl Send for Translator {}

impl Translator {
    /// Translates addresses of `memory`.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        Self { memory, last: Window::EMPTY }
    }

    /// The memory.
    #[must_use]
    pub const fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// As [`GuestMemory::translate`], for many buffers at once, which no borrow could allow: they
    /// are valid for as long as somebody holds this translator, or the memory in another way.
    #[must_use]
    #[inline]
    pub fn translate(&mut self, addr: u64, len: u32) -> Option<RawSegment> {
        let mut cursor = self.cursor();
        let segment = cursor.translate(addr, len);
        self.last = cursor.last;
        segment
    }

    /// The guest-physical address of what lies at `host`: the way back of
    /// [`translate`](Self::translate).
    #[must_use]
    pub fn guest_addr(&self, host: NonNull<u8>) -> Option<u64> {
        let last = self.last.guest_addr_of(host);
        last.or_else(|| self.memory.windows.iter().find_map(|window| window.guest_addr_of(host)))
    }

    /// Translates many addresses: a loop has all that it needs in registers.
    #[inline]
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { memory: &self.memory, last: self.last }
    }

    /// Starts the next time with the window that a cursor ended with.
    #[inline]
    pub(crate) fn set_last(&mut self, last: Window) {
        self.last = last;
    }
}

/// See [`Translator::cursor`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'m> {
    memory: &'m GuestMemory,
    last: Window,
}

impl Cursor<'_> {
    /// The window that was used last.
    #[inline]
    pub(crate) fn last(self) -> Window {
        self.last
    }

    /// As [`Translator::translate`].
    #[inline]
    pub(crate) fn translate(&mut self, addr: u64, len: u32) -> Option<RawSegment> {
        if let Some(segment) = self.last.segment(addr, len) {
            return Some(segment);
        }
        let window = find_cold(self.memory, addr)?;
        let segment = window.segment(addr, len)?;
        self.last = window;
        Some(segment)
    }
}

/// Apart, and without a cursor to change, so that the cursor may stay in registers.
#[cold]
#[inline(never)]
fn find_cold(memory: &GuestMemory, addr: u64) -> Option<Window> {
    memory.find(addr)
}

impl Window {
    const EMPTY: Self = Self { guest_addr: 0, user_addr: 0, len: 0, host: NonNull::dangling() };

    /// `len` bytes at guest-physical address `addr`, if all of them are in this window.
    #[inline]
    fn segment(&self, addr: u64, len: u32) -> Option<RawSegment> {
        let host = self.host_of(self.guest_addr, addr, u64::from(len))?;
        Some(RawSegment::new(host, len))
    }

    /// The guest-physical address of host address `host`, if it is in this window.
    fn guest_addr_of(&self, host: NonNull<u8>) -> Option<u64> {
        let start = self.host.as_ptr().addr();
        let offset = host.as_ptr().addr().checked_sub(start)? as u64;
        self.guest_addr.checked_add(offset).filter(|_| offset < self.len)
    }

    /// The host address of `len` bytes at `addr`, where the window starts at `base`.
    #[inline]
    fn host_of(&self, base: u64, addr: u64, len: u64) -> Option<NonNull<u8>> {
        let offset = addr.wrapping_sub(base);
        if offset < self.len && len <= self.len - offset {
            // SAFETY: `offset` is inside the mapping, which is `self.len` bytes long; a usize
            // holds it since the mapping exists in this address space.
            #[allow(clippy::cast_possible_truncation, reason = "inside a mapping")]
            Some(unsafe { self.host.add(offset as usize) })
        } else {
            None
        }
    }
}

fn check_overlap(regions: &mut [Region], start: fn(&Region) -> u64) -> Result<(), MemoryError> {
    regions.sort_by_key(start);
    let mut free_from = 0;
    let mut last = 0;
    for region in regions {
        let (addr, len) = (start(region), region.mapping.len() as u64);
        if addr < free_from {
            return Err(MemoryError::Overlap { first: last, second: addr });
        }
        let end = addr.checked_add(len).ok_or(MemoryError::Wraps { addr, len })?;
        (free_from, last) = (end, addr);
    }
    Ok(())
}
