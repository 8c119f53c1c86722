//! The driver's side of a virtqueue in both formats (virtio 1.3 sections 2.7 and 2.8), with
//! nothing checked: any descriptor can be written anywhere, and any index published.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Result;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::memory::Memory;

/// Bits of a descriptor's flags.
pub mod desc {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
    /// Packed rings: the descriptor is available in this round.
    pub const AVAIL: u16 = 1 << 7;
    /// Packed rings: the descriptor is used in this round.
    pub const USED: u16 = 1 << 15;
}

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Split,
    Packed,
}

impl Format {
    /// The name in case names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
        }
    }
}

/// A descriptor. In a packed ring `next` is the buffer's id.
#[derive(Clone, Copy, Debug, Default)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Desc {
    /// A buffer.
    pub const fn new(addr: u64, len: u32, flags: u16) -> Self {
        Self { addr, len, flags, next: 0 }
    }
}

/// Where the parts of a ring are: offsets in memory, which are also the guest's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub desc: usize,
    pub avail: usize,
    pub used: usize,
}

impl Layout {
    /// Bytes from one ring to the next: room for 1,024 descriptors.
    pub const STRIDE: usize = 0x1_0000;

    /// The parts of ring `index`.
    pub const fn of(index: usize) -> Self {
        let start = index * Self::STRIDE;
        Self { desc: start, avail: start + 0x8000, used: start + 0xC000 }
    }
}

/// One ring, from the driver's side.
#[derive(Debug)]
pub struct Ring {
    pub memory: Arc<Memory>,
    pub format: Format,
    pub at: Layout,
    pub size: u16,
    pub kick: OwnedFd,
    pub call: OwnedFd,
    /// The slot of the next descriptor.
    slot: u16,
    /// Packed: the wrap counter of that slot.
    wrap: bool,
    /// Split: how many heads have been published.
    idx: u16,
    /// Split: how many used elements were taken; packed: the slot of the next one.
    seen: u16,
    seen_wrap: bool,
}

impl Ring {
    /// An empty ring.
    pub fn new(memory: &Arc<Memory>, format: Format, index: usize, size: u16) -> Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            memory: Arc::clone(memory),
            format,
            at: Layout::of(index),
            size,
            kick: event()?,
            call: event()?,
            slot: 0,
            wrap: true,
            idx: 0,
            seen: 0,
            seen_wrap: true,
        })
    }

    fn desc_at(&self, slot: u16) -> usize {
        self.at.desc + 16 * usize::from(slot)
    }

    /// The flags that make a packed descriptor available in this round, or used in it.
    pub fn available(wrap: bool) -> u16 {
        if wrap { desc::AVAIL } else { desc::USED }
    }

    /// Writes a descriptor as it is, its flags last.
    pub fn put(&self, slot: u16, desc: Desc) {
        let at = self.desc_at(slot);
        self.memory.write(at, &desc.addr.to_le_bytes());
        self.memory.write(at + 8, &desc.len.to_le_bytes());
        let [flags, next] = [desc.flags, desc.next].map(u16::to_le);
        match self.format {
            Format::Split => {
                self.memory.publish(at + 12, flags);
                self.memory.publish(at + 14, next);
            }
            Format::Packed => {
                self.memory.publish(at + 12, next);
                self.memory.publish(at + 14, flags);
            }
        }
    }

    /// The slot that comes next, and its wrap counter.
    pub fn place(&self) -> (u16, bool) {
        (self.slot, self.wrap)
    }

    /// Moves on by `count` slots without writing anything.
    pub fn skip(&mut self, count: u16) {
        for _ in 0..count {
            self.slot += 1;
            if self.slot >= self.size {
                self.slot = 0;
                self.wrap = !self.wrap;
            }
        }
    }

    /// Offers one buffer under an id below the ring's size, as an honest driver does.
    pub fn offer(&mut self, id: u16, buffer: Desc) {
        match self.format {
            Format::Split => {
                self.put(id, buffer);
                self.publish_head(id);
            }
            Format::Packed => {
                let flags = buffer.flags | Self::available(self.wrap);
                self.put(self.slot, Desc { flags, next: id, ..buffer });
                self.skip(1);
            }
        }
    }

    /// Offers a chain in the slots that come next. NEXT is set on all but the last, over what the
    /// descriptors say themselves.
    pub fn offer_chain(&mut self, chain: &[Desc]) {
        let (head, _) = self.place();
        let mut first = None;
        for (i, part) in chain.iter().enumerate() {
            let (slot, wrap) = self.place();
            self.skip(1);
            let more = if i + 1 < chain.len() { desc::NEXT } else { 0 };
            let mut desc = Desc { flags: part.flags | more, ..*part };
            match self.format {
                Format::Split => desc.next = part.next.wrapping_add(self.slot),
                Format::Packed => {
                    desc.flags |= Self::available(wrap);
                    desc.next = head;
                }
            }
            if i == 0 && self.format == Format::Packed {
                first = Some(desc);
            } else {
                self.put(slot, desc);
            }
        }
        match first {
            // The head last: the device may look at any time.
            Some(desc) => self.put(head, desc),
            None => self.publish_head(head),
        }
    }

    /// Split: puts a head into the available ring and publishes it.
    pub fn publish_head(&mut self, head: u16) {
        self.put_head(head);
        self.publish_idx(self.idx);
    }

    /// Split: puts a head into the available ring without publishing it.
    pub fn put_head(&mut self, head: u16) {
        let at = self.at.avail + 4 + 2 * usize::from(self.idx % self.size);
        self.memory.publish(at, head.to_le());
        self.idx = self.idx.wrapping_add(1);
    }

    /// Split: how many heads have been published.
    pub fn idx(&self) -> u16 {
        self.idx
    }

    /// Split: says that so many heads have been published.
    pub fn publish_idx(&mut self, idx: u16) {
        self.idx = idx;
        self.memory.publish(self.at.avail + 2, idx.to_le());
    }

    /// The next buffer that the device has used: its id and length.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        let number = |at: usize| {
            let bytes = self.memory.read(at, 4);
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        match self.format {
            Format::Split => {
                if u16::from_le(self.memory.look(self.at.used + 2)) == self.seen {
                    return None;
                }
                let at = self.at.used + 4 + 8 * usize::from(self.seen % self.size);
                let (id, len) = (number(at), number(at + 4));
                self.seen = self.seen.wrapping_add(1);
                Some((u16::try_from(id).unwrap_or(u16::MAX), len))
            }
            Format::Packed => {
                let at = self.desc_at(self.seen);
                let flags = u16::from_le(self.memory.look(at + 14));
                let bit = |bit: u16| (flags & bit != 0) == self.seen_wrap;
                if !bit(desc::AVAIL) || !bit(desc::USED) {
                    return None;
                }
                let (id, len) = (u16::from_le(self.memory.look(at + 12)), number(at + 8));
                self.seen += 1;
                if self.seen >= self.size {
                    self.seen = 0;
                    self.seen_wrap = !self.seen_wrap;
                }
                Some((id, len))
            }
        }
    }

    /// Asks for no notifications, as one who polls does.
    pub fn suppress(&self) {
        match self.format {
            Format::Split => self.memory.publish(self.at.avail, 1_u16.to_le()),
            Format::Packed => self.memory.publish(self.at.avail + 2, 1_u16.to_le()),
        }
    }

    /// Tells the device that there is something.
    pub fn kick(&self) {
        kick(&self.kick);
    }
}

/// Signals an eventfd, unless that would have to wait: a full one is a signal, too.
pub fn kick(event: &OwnedFd) {
    let mut ready = [PollFd::new(event, PollFlags::OUT)];
    if poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0) {
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

/// Makes an eventfd that does not wait as full as it can be.
pub fn fill(event: &OwnedFd) {
    let most = (u64::MAX - 1).to_ne_bytes();
    // The back-end may signal or read it meanwhile.
    while rustix::io::write(event, &most).is_err()
        && rustix::io::read(event, &mut [0_u8; 8]).is_ok()
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(format: Format) -> Ring {
        Ring::new(&Arc::new(Memory::new(1 << 20).unwrap()), format, 1, 4).unwrap()
    }

    #[test]
    fn a_split_chain_is_linked_and_published() {
        let mut ring = ring(Format::Split);
        ring.offer_chain(&[Desc::new(0x1000, 12, 0), Desc::new(0x2000, 60, 0)]);
        let first = ring.memory.read(ring.at.desc, 16);
        assert_eq!(first, [0, 0x10, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(ring.memory.look(ring.at.desc + 16 + 12), 0, "the last has no next");
        assert_eq!(ring.memory.look(ring.at.avail + 2), 1);
        assert!(ring.used().is_none());
    }

    #[test]
    fn a_packed_ring_changes_its_flags_with_every_round() {
        let mut ring = ring(Format::Packed);
        for (id, flags) in [(0, 1 << 7), (1, 1 << 7), (2, 1 << 7), (3, 1 << 7), (0, 1 << 15)] {
            let (slot, _) = ring.place();
            ring.offer(id, Desc::new(0x1000, 12, 0));
            assert_eq!(ring.memory.look(ring.desc_at(slot) + 14), flags);
        }
        ring.put(0, Desc { addr: 0, len: 7, flags: desc::AVAIL | desc::USED, next: 3 });
        assert_eq!(ring.used(), Some((3, 7)));
        assert_eq!(ring.used(), None);
    }
}
