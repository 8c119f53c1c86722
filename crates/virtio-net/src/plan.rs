//! The rings of a session, and the memory that they take.

use std::sync::Arc;

use eal::{DmaSpace, PeerEvent};
use packet::pool::PoolError;
use virtio::Features;
use virtio::driver::DriverQueue;
use virtio::driver::split::LEGACY_ALIGN;

use super::control_queue::{self, ControlQueue};
use super::features::TRANSMIT_ROOM;
use virtio_queues::kick::Kick;
use virtio_queues::memory::{ALIGN, Cursor, Parts, Slots};
use virtio_queues::receive::{Agreed, RxRing};
use virtio_queues::store::PacketStore;
use virtio_queues::transmit::{Tables, TxRing};

/// What the rings of a session will be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RingPlan {
    /// Negotiated features.
    pub(crate) features: Features,
    /// Queue pairs that are used.
    pub(crate) pairs: u16,
    /// Entries of each receive ring.
    pub(crate) rx_size: u16,
    /// Entries of each transmit ring.
    pub(crate) tx_size: u16,
    /// Entries of the control queue's ring, if there is one.
    pub(crate) control_size: Option<u16>,
    /// Bytes of a frame that a receive buffer holds.
    pub(crate) receive_room: usize,
    /// Rings have the layout of devices before virtio 1.0.
    pub(crate) legacy: bool,
    /// Bytes of memory that the device sees in one piece; see
    /// [`DmaSpace::piece_len`](eal::DmaSpace::piece_len).
    pub(crate) piece: usize,
    /// Frames are received into packets, which have memory of their own.
    pub(crate) packets: bool,
}

impl RingPlan {
    /// Bytes of a frame that a receive ring holds.
    pub(crate) fn receive_limit(&self) -> usize {
        if self.features.contains(Features::MRG_RXBUF) {
            self.receive_room.saturating_mul(self.rx_slots().into())
        } else {
            self.receive_room
        }
    }

    /// Bytes of memory that all of it takes; `None` when a part is larger than a piece.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let slots = if self.packets { 0 } else { self.rx_slots() };
        let pair = [
            self.ring(self.rx_size),
            (Slots::bytes(slots, self.receive_room), ALIGN),
            self.ring(self.tx_size),
            (Slots::bytes(self.tx_slots(), TRANSMIT_ROOM), ALIGN),
            (Tables::bytes(self.tx_slots()), ALIGN),
        ];
        let mut cursor = Cursor::new(self.piece);
        for _ in 0..self.pairs {
            for (bytes, align) in pair {
                cursor.take(bytes, align)?;
            }
        }
        if let Some(size) = self.control_size {
            let (bytes, align) = self.ring(size);
            cursor.take(bytes, align)?;
            cursor.take(control_queue::BUFFER, ALIGN)?;
        }
        Some(cursor.offset())
    }

    /// Packets for the receive ring of the port called `name`, where they are to be packets.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(crate) fn packets(
        &self,
        name: &str,
        space: &DmaSpace,
    ) -> Result<Option<PacketStore>, PoolError> {
        if !self.packets {
            return Ok(None);
        }
        PacketStore::new(name, self.rx_size, self.receive_room, space).map(Some)
    }

    /// The next queue pair; parts are taken in the order in which [`bytes`](Self::bytes) counts
    /// them. `packets` are [those](Self::packets) of this pair. `None` when the memory is too small.
    pub(crate) fn pair(
        &self,
        parts: &mut Parts,
        kicks: (Kick, Kick),
        packets: Option<PacketStore>,
    ) -> Option<(RxRing, TxRing)> {
        let header = self.features.net_header_len();
        let (rx_kick, tx_kick) = kicks;

        let queue = self.queue(parts, self.rx_size)?;
        let agreed = Agreed {
            header,
            mergeable: self.features.contains(Features::MRG_RXBUF),
            offloads: self.features.guest_takes(),
        };
        let rx = if let Some(packets) = packets {
            let memory = Arc::clone(parts.memory());
            RxRing::with_packets(queue, packets, agreed, rx_kick, memory)
        } else {
            let slots = Slots::new(parts, self.rx_slots(), self.receive_room)?;
            RxRing::new(queue, slots, agreed, rx_kick)
        };

        let queue = self.queue(parts, self.tx_size)?;
        let slots = Slots::new(parts, self.tx_slots(), TRANSMIT_ROOM)?;
        let tables = Tables::new(parts.take(Tables::bytes(self.tx_slots()))?);
        let indirect = self.features.contains(Features::INDIRECT_DESC);
        let tables = indirect.then_some(tables);
        let takes = self.features.host_takes();
        let tx = TxRing::new(queue, slots, header, tables, takes, tx_kick);
        Some((rx, tx))
    }

    /// The control queue, after all pairs; `None` when there is to be none or the memory is too
    /// small.
    pub(crate) fn control_queue(
        &self,
        parts: &mut Parts,
        kick: Kick,
        call: Option<PeerEvent>,
    ) -> Option<ControlQueue> {
        let queue = self.queue(parts, self.control_size?)?;
        let buffer = parts.take(control_queue::BUFFER)?;
        Some(ControlQueue::new(queue, buffer, kick, call))
    }

    /// Receive buffers of a ring: no more slots than lie in one piece.
    fn rx_slots(&self) -> u16 {
        if self.packets {
            return self.rx_size;
        }
        Slots::fitting(self.rx_size, self.receive_room, self.piece)
    }

    fn tx_slots(&self) -> u16 {
        Slots::fitting(self.tx_size, TRANSMIT_ROOM, self.piece)
    }

    /// Size and alignment of a ring in memory, in bytes.
    fn ring(&self, size: u16) -> (usize, usize) {
        if self.legacy {
            (DriverQueue::legacy_bytes(size), LEGACY_ALIGN)
        } else {
            (DriverQueue::bytes(size, self.features), ALIGN)
        }
    }

    fn queue(&self, parts: &mut Parts, size: u16) -> Option<DriverQueue> {
        let (bytes, align) = self.ring(size);
        let part = parts.take_aligned(bytes, align)?;
        if self.legacy {
            DriverQueue::new_legacy(part, size, self.features)
        } else {
            DriverQueue::new(part, size, self.features)
        }
    }
}
