//! The guest's memory as its front-end shares it, and the checked way into it.
//!
//! Every address in a ring or descriptor goes through [`GuestMemory::translate`], which takes a
//! length and vouches for exactly that many bytes. There is no way to get a pointer without a
//! length that was checked with it.

mod translated;

use std::ptr::NonNull;
use std::sync::Arc;

use eal::Mapping;
use ordered::Order as _;
use packet::{RawSegment, Segment};

use self::translated::Translated;
use crate::device::ChainError;
use crate::iotlb::Iotlb;

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
///
/// Descriptors name it by guest-physical addresses, or, behind a virtual IOMMU, by addresses of
/// which only some have a meaning: see [`translated`](Self::translated).
#[derive(Debug, Default)]
pub struct GuestMemory {
    windows: Arc<[Window]>,
    regions: Arc<[Region]>,
    translated: Option<Translated>,
}

/// An address of which nobody has said yet what lies there, or not that it may be used like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The I/O virtual address.
    pub iova: u64,
    /// Whether it is to be written; otherwise it is to be read.
    pub write: bool,
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
        Ok(Self { windows: windows.collect(), regions: regions.into(), translated: None })
    }

    /// The same memory behind a virtual IOMMU: addresses in descriptors, and those of rings, are
    /// I/O virtual ones, and mean what `iotlb` says.
    #[must_use]
    pub fn translated(&self, iotlb: &Iotlb) -> Self {
        Self {
            windows: Arc::clone(&self.windows),
            regions: Arc::clone(&self.regions),
            translated: Some(Translated::new(&self.windows, &self.regions, iotlb)),
        }
    }

    /// Whether it is behind a virtual IOMMU.
    #[must_use]
    pub const fn is_translated(&self) -> bool {
        self.translated.is_some()
    }

    /// Whether the `len` bytes at `addr` of the front-end's own address space lie in one region.
    #[must_use]
    pub fn has_user(&self, addr: u64, len: u64) -> bool {
        self.windows.iter().any(|window| window.host_of(window.user_addr, addr, len).is_some())
    }

    /// The first of `len` bytes at `addr` that a device behind a virtual IOMMU cannot use yet.
    #[must_use]
    pub fn miss(&self, addr: u64, len: u64, write: bool) -> Option<Miss> {
        let translated = self.translated.as_ref()?;
        let (mut iova, mut left) = (addr, len.max(1));
        loop {
            let found = translated.find(iova, write).and_then(|window| window.left_at(iova));
            let Some(here) = found else { return Some(Miss { iova, write }) };
            if here >= left {
                return None;
            }
            left -= here;
            // Past the last address there is nothing that anybody could tell.
            iova = iova.checked_add(here)?;
        }
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
        let raw = self.find(addr, false)?.segment(addr, len)?;
        // SAFETY: the window vouches for `len` bytes in a mapping that `regions` keeps for as long
        // as `self` is borrowed, and nobody has references to a guest's memory.
        Some(unsafe { raw.get() })
    }

    /// The window that address `addr` of a descriptor may lie in, for reading or for writing.
    fn find(&self, addr: u64, write: bool) -> Option<Window> {
        match &self.translated {
            Some(translated) => translated.find(addr, write),
            None => find_in(&self.windows, addr),
        }
    }

    /// The host address of `len` bytes of a ring at address `addr` of the front-end's own address
    /// space, or at I/O virtual address `addr` behind a virtual IOMMU, `align` being a power of two;
    /// `None` unless all of them lie in one piece, which may be read or written, and the start is
    /// aligned both there and here.
    pub(crate) fn ring_part(
        &self,
        addr: u64,
        len: usize,
        align: usize,
        write: bool,
    ) -> Option<NonNull<u8>> {
        let len = len as u64;
        let host = match &self.translated {
            Some(translated) => {
                let window = translated.find(addr, write)?;
                window.host_of(window.guest_addr, addr, len)
            }
            None => {
                let mut windows = self.windows.iter();
                windows.find_map(|window| window.host_of(window.user_addr, addr, len))
            }
        }?;
        host.as_ptr().addr().is_multiple_of(align).then_some(host)
    }

    /// The guest-physical address of what a ring has at `addr`, as in
    /// [`ring_part`](Self::ring_part), and is to write.
    pub(crate) fn ring_guest_addr(&self, addr: u64) -> Option<u64> {
        match &self.translated {
            Some(_) => self.guest_addr_of(self.ring_part(addr, 1, 1, true)?),
            None => self.user_to_guest(addr),
        }
    }

    fn guest_addr_of(&self, host: NonNull<u8>) -> Option<u64> {
        self.windows.iter().find_map(|window| window.guest_addr_of(host))
    }

    /// The guest-physical address of a segment that was translated from this memory.
    #[must_use]
    pub fn guest_address(&self, segment: RawSegment) -> Option<u64> {
        self.guest_addr_of(segment.as_ptr())
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
    /// The window that was read last, or an empty one.
    last_read: Window,
    /// The window that was written last, or an empty one.
    last_written: Window,
    awaited: Option<Miss>,
    refused: Option<Miss>,
}

// SAFETY: the copied windows lead into mappings that `memory` keeps alive.
unsafe impl Send for Translator {}

impl Translator {
    /// Translates addresses of `memory`.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        let (last_read, last_written) = (Window::EMPTY, Window::EMPTY);
        Self { memory, last_read, last_written, awaited: None, refused: None }
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
    pub fn translate<const WRITE: bool>(&mut self, addr: u64, len: u32) -> Option<RawSegment> {
        let mut cursor = self.cursor::<WRITE>();
        let segment = cursor.translate(addr, len);
        self.set_last::<WRITE>(cursor.last);
        segment
    }

    /// Hands the pieces of `len` bytes at `addr`, in order, to `visit`: one, but behind a virtual
    /// IOMMU, where neighbours need not be neighbours in memory.
    pub(crate) fn pieces(
        &mut self,
        addr: u64,
        len: u32,
        write: bool,
        mut visit: impl FnMut(RawSegment) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        if self.memory.translated.is_some() {
            return self.translated_pieces(addr, len, write, visit);
        }
        visit(self.whole(addr, len, write)?)
    }

    /// The `len` bytes at `addr`, which must lie in one piece.
    pub(crate) fn whole(
        &mut self,
        addr: u64,
        len: u32,
        write: bool,
    ) -> Result<RawSegment, ChainError> {
        let found = match write {
            true => self.translate::<true>(addr, len),
            false => self.translate::<false>(addr, len),
        };
        found.ok_or_else(|| {
            let miss = self.memory.miss(addr, len.into(), write);
            miss.map_or(ChainError::Unmapped { addr, len }, |miss| self.await_answer(miss))
        })
    }

    fn translated_pieces(
        &mut self,
        addr: u64,
        len: u32,
        write: bool,
        mut visit: impl FnMut(RawSegment) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        let (mut iova, mut left) = (addr, len);
        loop {
            let window = self.memory.find(iova, write);
            let here = window.and_then(|window| Some((window, window.left_at(iova)?)));
            let Some((window, here)) = here else {
                return Err(self.await_answer(Miss { iova, write }));
            };
            let now = u32::try_from(here).map_or(left, |here| here.min(left));
            visit(window.segment(iova, now).ok_or(ChainError::Unmapped { addr, len })?)?;
            left -= now;
            if left == 0 {
                return Ok(());
            }
            iova = iova.checked_add(now.into()).ok_or(ChainError::Unmapped { addr, len })?;
        }
    }

    /// Notes that the ring cannot go on before there is an answer for `miss`, unless the answer has
    /// come already and was none.
    fn await_answer(&mut self, miss: Miss) -> ChainError {
        if self.refused == Some(miss) {
            self.refused = None;
            return ChainError::Unmapped { addr: miss.iova, len: 1 };
        }
        // The first is asked for, whatever the driver does to the chain meanwhile.
        self.awaited.get_or_insert(miss);
        ChainError::Untranslated
    }

    /// What the ring waits for.
    pub(crate) const fn awaited(&self) -> Option<Miss> {
        self.awaited
    }

    /// Has the ring go on without `miss`, now or when it comes to it.
    pub(crate) fn answer(&mut self, miss: Miss) {
        if self.awaited.is_none_or(|awaited| awaited == miss) {
            self.awaited = None;
            self.refused = Some(miss);
        }
    }

    /// What `walk` comes to wait for, though the ring does not wait for it yet; nothing where that
    /// was refused.
    pub(crate) fn ahead(&mut self, awaited: Option<Miss>, refused: Option<Miss>) -> Option<Miss> {
        let found = std::mem::replace(&mut self.awaited, awaited);
        self.refused = refused;
        found.filter(|_| found != refused)
    }

    /// What was refused last.
    pub(crate) const fn refused(&self) -> Option<Miss> {
        self.refused
    }

    /// The guest-physical address of what lies at `host`: the way back of
    /// [`translate`](Self::translate).
    #[must_use]
    pub fn guest_addr(&self, host: NonNull<u8>) -> Option<u64> {
        // Behind a virtual IOMMU the last window has other addresses.
        let last = self.memory.translated.is_none().then_some(self.last_written);
        let last = last.and_then(|window| window.guest_addr_of(host));
        last.or_else(|| self.memory.guest_addr_of(host))
    }

    /// Translates many addresses: a loop has all that it needs in registers.
    #[inline]
    pub(crate) fn cursor<const WRITE: bool>(&self) -> Cursor<'_, WRITE> {
        let last = if WRITE { self.last_written } else { self.last_read };
        Cursor { memory: &self.memory, last }
    }

    /// Starts the next time with the window that a cursor ended with.
    #[inline]
    pub(crate) fn set_last<const WRITE: bool>(&mut self, last: Window) {
        *(if WRITE { &mut self.last_written } else { &mut self.last_read }) = last;
    }
}

/// See [`Translator::cursor`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'m, const WRITE: bool> {
    memory: &'m GuestMemory,
    last: Window,
}

impl<const WRITE: bool> Cursor<'_, WRITE> {
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
        let window = find_cold(self.memory, addr, WRITE)?;
        let segment = window.segment(addr, len)?;
        self.last = window;
        Some(segment)
    }

    /// Hands the memory to `found` where it is in the window that was used last, as nearly all is; gives whether
    /// it is. A loop has fewer branches by this than by [`translate`](Self::translate).
    #[inline(always)]
    pub(crate) fn with_last(self, addr: u64, len: u32, found: impl FnOnce(RawSegment)) -> bool {
        let Some(offset) = self.last.offset_of(self.last.guest_addr, addr, len.into()) else {
            return false;
        };
        // SAFETY: `offset_of` says that so many bytes from there on are in the mapping.
        found(RawSegment::new(unsafe { self.last.host.add(offset) }, len));
        true
    }
}

/// Apart, and without a cursor to change, so that the cursor may stay in registers.
#[cold]
#[inline(never)]
fn find_cold(memory: &GuestMemory, addr: u64, write: bool) -> Option<Window> {
    memory.find(addr, write)
}

/// The last of `windows`, which are in order, that starts at `addr` or before.
fn find_in(windows: &[Window], addr: u64) -> Option<Window> {
    let after = windows.partition_point(|window| window.guest_addr <= addr);
    windows.get(after.checked_sub(1)?).copied()
}

impl Window {
    const EMPTY: Self = Self { guest_addr: 0, user_addr: 0, len: 0, host: NonNull::dangling() };

    /// `len` bytes at guest-physical address `addr`, if all of them are in this window.
    #[inline]
    fn segment(&self, addr: u64, len: u32) -> Option<RawSegment> {
        let host = self.host_of(self.guest_addr, addr, u64::from(len))?;
        Some(RawSegment::new(host, len))
    }

    /// Bytes from `addr` to the window's end, if `addr` is in it.
    fn left_at(&self, addr: u64) -> Option<u64> {
        let offset = addr.checked_sub(self.guest_addr)?;
        self.len.checked_sub(offset).filter(|left| *left > 0)
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
        let offset = self.offset_of(base, addr, len)?;
        // SAFETY: it is inside the mapping, which is `self.len` bytes long.
        Some(unsafe { self.host.add(offset) })
    }

    /// How far behind the window's start the `len` bytes at `addr` are, if all of them are in it.
    #[inline]
    fn offset_of(&self, base: u64, addr: u64, len: u64) -> Option<usize> {
        let offset = addr.wrapping_sub(base);
        if offset < self.len && len <= self.len - offset {
            // A usize holds it since the mapping exists in this address space.
            #[allow(clippy::cast_possible_truncation, reason = "inside a mapping")]
            Some(offset as usize)
        } else {
            None
        }
    }
}

fn check_overlap(regions: &mut [Region], start: fn(&Region) -> u64) -> Result<(), MemoryError> {
    regions.order_by_key(start);
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
