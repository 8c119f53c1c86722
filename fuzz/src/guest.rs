//! The memory of a guest, and rings in it, written as a driver would: by its own addresses.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use eal::Mapping;
use rustix::fs::MemfdFlags;
use virtio::memory::{GuestMemory, Region};
use virtio::packed::{AVAIL, Position, USED};

use crate::input::Input;

/// Bytes of the memory.
pub const BYTES: u64 = 0x1_0000;

/// Where the guest has it, and its front-end.
pub const GUEST: u64 = 0x4000_0000;
/// See [`GUEST`].
pub const USER: u64 = 0x7000_0000_0000;

/// Where buffers begin; before that are rings.
pub const BUFFERS: u64 = 0x8000;

/// Memory of a guest. It is written by system calls, so that none of it is ever seen by a
/// reference here.
#[derive(Debug)]
pub struct Ram(OwnedFd);

impl Default for Ram {
    fn default() -> Self {
        Self::new()
    }
}

impl Ram {
    /// Memory of zeroes.
    #[must_use]
    pub fn new() -> Self {
        Self(file(BYTES))
    }

    /// Writes `bytes`; what lies behind the end is left out.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let room = usize::try_from(BYTES.saturating_sub(offset)).unwrap();
        let bytes = &bytes[..bytes.len().min(room)];
        rustix::io::pwrite(&self.0, bytes, offset).unwrap();
    }

    /// The bytes at `offset`; zeroes behind the end.
    #[must_use]
    pub fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        rustix::io::pread(&self.0, &mut bytes, offset).unwrap();
        bytes
    }

    /// The number at `offset`.
    #[must_use]
    pub fn read16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    /// Takes the memory away from `offset` on.
    pub fn truncate(&self, offset: u64) {
        rustix::fs::ftruncate(&self.0, offset).unwrap();
    }

    /// The file to share.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A memory table of this memory in `count` places, each at the next [`BYTES`].
    #[must_use]
    pub fn table(&self, count: u64) -> Arc<GuestMemory> {
        let region = |index| {
            let mapping = Mapping::map(self.fd(), 0, BYTES).unwrap();
            let (guest_addr, user_addr) = (GUEST + index * BYTES, USER + index * BYTES);
            Region { guest_addr, user_addr, mapping: Arc::new(mapping) }
        };
        Arc::new(GuestMemory::new((0..count).map(region).collect()).unwrap())
    }
}

/// A file in memory of `bytes`.
#[must_use]
pub fn file(bytes: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    fd
}

/// What a driver does in one ring. Split rings have all three parts in one piece, as the layout
/// has them; packed ones the event structures behind the descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    base: u64,
    size: u16,
    packed: bool,
    /// Split: the available index. Packed: where the next descriptor goes.
    next: u16,
    place: Position,
}

impl Driver {
    /// The driver of a ring of `size` at `base` of the memory.
    #[must_use]
    pub const fn new(base: u64, size: u16, packed: bool) -> Self {
        Self { base, size, packed, next: 0, place: Position::FIRST }
    }

    /// Offsets of descriptors, driver area and device area.
    #[must_use]
    pub const fn parts(&self) -> [u64; 3] {
        let driver = self.base + 16 * self.size as u64;
        let device = driver + if self.packed { 4 } else { (6 + 2 * self.size as u64 + 3) & !3 };
        [self.base, driver, device]
    }

    /// The same as addresses of the front-end.
    #[must_use]
    pub fn user(&self) -> [u64; 3] {
        self.parts().map(|offset| USER + offset)
    }

    /// Begins at another index, as a ring that has been in use.
    pub fn begin(&mut self, ram: &Ram, index: u16) {
        self.next = index;
        self.place = Position::from_bits(index);
        if !self.packed {
            let [_, avail, used] = self.parts();
            ram.write(avail + 2, &index.to_le_bytes());
            ram.write(used + 2, &index.to_le_bytes());
        }
    }

    /// One of the things that a driver does, mostly by the rules.
    pub fn act(&mut self, ram: &Ram, input: &mut Input<'_>) {
        match input.below(8) {
            0..=3 => self.offer(ram, input),
            4 => self.set_event(ram, input),
            5 => ram.write(self.base + u64::from(input.number::<u16>() % 0x1000), input.bytes()),
            6 => ram.write(BUFFERS + u64::from(input.number::<u16>()), input.bytes()),
            _ => {
                // The index jumps, or entries become available that were not written.
                self.next = self.next.wrapping_add(input.number());
                self.place = Position::from_bits(input.number());
                self.publish(ram);
            }
        }
    }

    /// Makes a chain of some descriptors available.
    fn offer(&mut self, ram: &Ram, input: &mut Input<'_>) {
        let count = [1, 1, 1, 2, 3, 17][usize::from(input.below(6))];
        let flags = input.pick(&[0, 0, 2, 2, 4, 6, 0x8080]);
        let (addr, len) = (address(input), length(input));
        let head = if input.yes() { self.next % self.size } else { input.byte().into() };
        for part in 0..count {
            let next = if part + 1 < count { 1 } else { 0 };
            let addr = addr.wrapping_add(u64::from(part) * u64::from(len));
            let desc = Desc { addr, len, flags: flags | next };
            if self.packed {
                self.write_packed(ram, head, desc);
            } else {
                let index = head.wrapping_add(part);
                desc.write(
                    ram,
                    self.base + 16 * u64::from(index % self.size),
                    index.wrapping_add(1),
                    None,
                );
            }
        }
        if !self.packed {
            let [_, avail, _] = self.parts();
            let entry = avail + 4 + 2 * u64::from(self.next % self.size);
            ram.write(entry, &head.to_le_bytes());
            self.next = self.next.wrapping_add(1);
            self.publish(ram);
        }
    }

    fn write_packed(&mut self, ram: &Ram, id: u16, desc: Desc) {
        let wrap = if self.place.wrap { AVAIL } else { USED };
        let at = self.base + 16 * u64::from(self.place.index % self.size);
        desc.write(ram, at, id, Some(wrap));
        self.place = self.place.after(1, self.size);
    }

    fn publish(&self, ram: &Ram) {
        if !self.packed {
            let [_, avail, _] = self.parts();
            ram.write(avail + 2, &self.next.to_le_bytes());
        }
    }

    /// Says when to be told of used buffers.
    fn set_event(&self, ram: &Ram, input: &mut Input<'_>) {
        let [_, driver, _] = self.parts();
        let value = input.number::<u32>().to_le_bytes();
        if self.packed {
            ram.write(driver, &value);
        } else {
            ram.write(driver, &value[..2]);
            ram.write(driver + 4 + 2 * u64::from(self.size), &value[2..]);
        }
    }
}

/// A descriptor of either format.
#[derive(Clone, Copy, Debug)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
}

impl Desc {
    /// Writes it: of a packed ring with an id and flags of its own.
    fn write(self, ram: &Ram, at: u64, other: u16, packed: Option<u16>) {
        ram.write(at, &self.addr.to_le_bytes());
        ram.write(at + 8, &self.len.to_le_bytes());
        let flags = self.flags | packed.unwrap_or(0);
        let [third, fourth] = if packed.is_some() { [other, flags] } else { [flags, other] };
        ram.write(at + 12, &third.to_le_bytes());
        ram.write(at + 14, &fourth.to_le_bytes());
    }
}

/// An address of a buffer, mostly in memory.
fn address(input: &mut Input<'_>) -> u64 {
    match input.below(16) {
        0 => input.number(),
        1 => GUEST + BYTES - u64::from(input.byte()),
        2 => GUEST + u64::from(input.number::<u16>()),
        slot => GUEST + BUFFERS + u64::from(slot) * 0x600 + u64::from(input.byte()),
    }
}

/// Bytes of a buffer.
fn length(input: &mut Input<'_>) -> u32 {
    match input.below(8) {
        0 => input.number(),
        1 => u32::from(input.number::<u16>()),
        2 => 1526,
        _ => input.byte().into(),
    }
}
