//! Packets that a device sends from where they lie, instead of copies of them.

use std::ptr::NonNull;

use eal::DmaSpace;
use packet::Packet;
use virtio::NetHeader;
use virtio::driver::{Buffer, DmaMemory};

/// The packets that a device has, by the head of their chain.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Where the device finds memory.
    space: DmaSpace,
    packets: Box<[Option<Packet>]>,
}

impl Kept {
    /// For a ring of `entries` entries of a device in `space`.
    pub(crate) fn new(entries: u16, space: DmaSpace) -> Self {
        Self { space, packets: (0..entries).map(|_| None).collect() }
    }

    /// Puts the net header of `header_len` bytes in front of the packet and returns both as one
    /// piece; the packet is then for [`keep`](Self::keep) alone. `None`, and nothing changes, for
    /// a packet that the device does not reach, of several segments, or without the headroom.
    #[inline]
    pub(crate) fn buffer(&self, packet: &mut Packet, header_len: usize) -> Option<Buffer> {
        if packet.segment_count() != 1 || packet.headroom() < header_len {
            return None;
        }
        // A buffer of a pool lies in one piece of memory, its headroom too.
        let address = packet.device_address(&self.space)?.checked_sub(header_len as u64)?;
        // The driver has no use for the number of buffers (virtio 1.3 section 5.1.6.2.1).
        let header = NetHeader::for_offload(packet.offload(), 0).encode();
        let header = header.get(..header_len)?;
        packet.prepend(header_len)?.copy_from_slice(header);
        let data = packet.data_mut();
        let len = data.len();
        // The packet's own bytes, which `keep` keeps until the device is done with them.
        let memory = DmaMemory::new(NonNull::from(data).cast(), len, address);
        memory.map(Buffer::readable)
    }

    /// Keeps a packet until the device has sent chain `head`.
    #[inline]
    pub(crate) fn keep(&mut self, head: u16, packet: Packet) {
        if let Some(place) = self.packets.get_mut(usize::from(head)) {
            *place = Some(packet);
        }
    }

    /// The packet of chain `head`, if it is one.
    #[inline]
    pub(crate) fn take(&mut self, head: u16) -> Option<Packet> {
        self.packets.get_mut(usize::from(head))?.take()
    }
}
