//! A ring of slots that the kernel and we own in turns, as a word in each of them says.

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use libc::tpacket2_hdr;

use crate::kernel::memory::Pages;

/// Where the frame starts, behind the header, in a slot to be sent (`TPACKET2_HDRLEN` without
/// the address that only received frames have).
const SEND_AT: usize = size_of::<tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// The slots of a socket in one direction.
#[derive(Debug)]
pub(super) struct Slots {
    pages: Pages,
    count: u32,
    slot_len: usize,
    /// The slot that is next to change hands.
    next: u32,
}

/// A private copy of what the kernel has written about a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// `TP_STATUS_*`.
    pub(super) status: u32,
    /// The frame's length.
    pub(super) len: u32,
    /// How much of it is in the slot.
    pub(super) here: u32,
    /// Where it starts.
    pub(super) at: u16,
    /// The tag that the kernel has taken out of the frame.
    pub(super) vlan_control: u16,
    /// The tag's EtherType.
    pub(super) vlan_type: u16,
}

impl Slots {
    /// `count` slots, a power of two, of `slot_len` bytes each.
    pub(super) fn new(pages: Pages, count: u32, slot_len: usize) -> Option<Self> {
        let fits = (count as usize).checked_mul(slot_len)? <= pages.len();
        let good = fits
            && count.is_power_of_two()
            && slot_len.is_multiple_of(libc::TPACKET_ALIGNMENT)
            && slot_len > SEND_AT;
        good.then_some(Self { pages, count, slot_len, next: 0 })
    }

    pub(super) const fn slot_len(&self) -> usize {
        self.slot_len
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// `len` bytes at `offset` of the slot that is `ahead` of the next one; `None` unless they
    /// lie inside it.
    #[inline]
    pub(super) fn bytes(&self, ahead: u32, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.slot_len {
            return None;
        }
        let index = self.next.wrapping_add(ahead) & (self.count - 1);
        self.pages.at(index as usize * self.slot_len + offset, len)
    }

    #[inline]
    fn field<T>(&self, ahead: u32, offset: usize) -> Option<NonNull<T>> {
        self.bytes(ahead, offset, size_of::<T>()).map(NonNull::cast)
    }

    /// Who owns the slot, and more: `TP_STATUS_*`.
    #[inline]
    pub(super) fn status(&self, ahead: u32) -> u32 {
        let at = offset_of!(tpacket2_hdr, tp_status);
        self.field::<AtomicU32>(ahead, at).map_or(0, |status| {
            // SAFETY: the word lies in the mapping and is aligned, since slots are; it is only
            // ever accessed as an atomic. Acquire: what the kernel wrote to the slot is there.
            unsafe { status.as_ref() }.load(Acquire)
        })
    }

    /// Hands the slot over.
    #[inline]
    pub(super) fn set_status(&self, ahead: u32, value: u32) {
        let at = offset_of!(tpacket2_hdr, tp_status);
        if let Some(status) = self.field::<AtomicU32>(ahead, at) {
            // SAFETY: as above. Release: the kernel sees what we wrote, and overwrites nothing
            // before we have read it.
            unsafe { status.as_ref() }.store(value, Release);
        }
    }

    #[inline]
    fn read<T: Copy + Default>(&self, ahead: u32, offset: usize) -> T {
        self.field::<T>(ahead, offset).map_or_else(T::default, |field| {
            // SAFETY: the field lies in the mapping; any bytes make a number.
            unsafe { field.read_unaligned() }
        })
    }

    /// What the kernel says about the frame in a slot that is ours, whose status is `status`.
    #[inline]
    pub(super) fn received(&self, ahead: u32, status: u32) -> Received {
        Received {
            status,
            len: self.read(ahead, offset_of!(tpacket2_hdr, tp_len)),
            here: self.read(ahead, offset_of!(tpacket2_hdr, tp_snaplen)),
            at: self.read(ahead, offset_of!(tpacket2_hdr, tp_mac)),
            vlan_control: self.read(ahead, offset_of!(tpacket2_hdr, tp_vlan_tci)),
            vlan_type: self.read(ahead, offset_of!(tpacket2_hdr, tp_vlan_tpid)),
        }
    }

    /// Where to write `len` bytes to be sent, in a slot that is ours; `None` if they do not fit.
    #[inline]
    pub(super) fn to_send(&self, ahead: u32, len: usize) -> Option<NonNull<u8>> {
        let to = self.bytes(ahead, SEND_AT, len)?;
        let at = offset_of!(tpacket2_hdr, tp_len);
        let len_field = self.field::<u32>(ahead, at)?;
        // SAFETY: the field lies in the mapping.
        unsafe { len_field.write_unaligned(u32::try_from(len).ok()?) };
        Some(to)
    }

    /// Goes on by `count` slots.
    #[inline]
    pub(super) fn advance(&mut self, count: u32) {
        self.next = self.next.wrapping_add(count) & (self.count - 1);
    }

    /// Gives all received frames back.
    pub(super) fn discard(&mut self) {
        for _ in 0..self.count {
            if self.status(0) & libc::TP_STATUS_USER == 0 {
                break;
            }
            self.set_status(0, libc::TP_STATUS_KERNEL);
            self.advance(1);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn slots(count: u32, slot_len: usize) -> Slots {
        let pages = Pages::anonymous(count as usize * slot_len).unwrap();
        Slots::new(pages, count, slot_len).unwrap()
    }

    /// Writes a received frame to a slot, as the kernel does.
    pub(crate) fn put(slots: &Slots, ahead: u32, header: &Received, bytes: &[u8]) {
        let write = |offset, value: &[u8]| {
            let to = slots.bytes(ahead, offset, value.len()).unwrap();
            // SAFETY: inside the slot.
            unsafe { to.as_ptr().copy_from(value.as_ptr(), value.len()) };
        };
        write(offset_of!(tpacket2_hdr, tp_len), &header.len.to_ne_bytes());
        write(offset_of!(tpacket2_hdr, tp_snaplen), &header.here.to_ne_bytes());
        write(offset_of!(tpacket2_hdr, tp_mac), &header.at.to_ne_bytes());
        write(offset_of!(tpacket2_hdr, tp_vlan_tci), &header.vlan_control.to_ne_bytes());
        write(offset_of!(tpacket2_hdr, tp_vlan_tpid), &header.vlan_type.to_ne_bytes());
        if slots.bytes(ahead, usize::from(header.at), bytes.len()).is_some() {
            write(usize::from(header.at), bytes);
        }
        slots.set_status(ahead, header.status);
    }

    #[test]
    fn only_what_lies_inside_a_slot_has_an_address() {
        let slots = slots(4, 2048);
        assert!(slots.bytes(3, 0, 2048).is_some());
        assert!(slots.bytes(0, 1, 2048).is_none());
        assert!(slots.bytes(0, usize::MAX, 2).is_none());
        assert!(slots.to_send(0, 2048 - SEND_AT).is_some());
        assert!(slots.to_send(0, 2049 - SEND_AT).is_none());
        let make = |count, slot_len| Slots::new(Pages::anonymous(8192).unwrap(), count, slot_len);
        assert!(make(4, 2048).is_some());
        assert!(make(8, 2048).is_none() && make(3, 2048).is_none() && make(4, 2040).is_none());
        assert!(make(1 << 31, usize::MAX).is_none());
    }

    #[test]
    fn what_the_kernel_says_is_read_field_by_field() {
        let slots = slots(4, 2048);
        let header = Received {
            status: libc::TP_STATUS_USER,
            len: 70_000,
            here: 1234,
            at: 76,
            vlan_control: 0x2005,
            vlan_type: 0x88A8,
        };
        put(&slots, 2, &header, b"frame");
        assert_eq!(slots.status(1), 0);
        assert_eq!(slots.received(2, slots.status(2)), header);
    }

    proptest! {
        /// The kernel fills slots in turn, and skips none; we take and give back likewise.
        #[test]
        fn frames_come_in_order(steps in prop::collection::vec((0..6_u32, 0..6_u32), 0..60)) {
            let mut slots = slots(8, 2048);
            let (mut kernel, mut sent, mut model) = (0_u32, 0_u32, VecDeque::new());
            for (put_count, take_count) in steps {
                for _ in 0..put_count {
                    // The kernel's place in the ring, as seen from ours.
                    let ahead = kernel.wrapping_sub(slots.next) & 7;
                    if model.len() == 8 {
                        prop_assert!(slots.status(ahead) & libc::TP_STATUS_USER != 0);
                        break;
                    }
                    let status = libc::TP_STATUS_USER;
                    put(&slots, ahead, &Received { status, len: sent, ..Received::default() }, &[]);
                    model.push_back(sent);
                    (kernel, sent) = (kernel + 1, sent + 1);
                }
                for _ in 0..take_count {
                    let status = slots.status(0);
                    if status & libc::TP_STATUS_USER == 0 {
                        prop_assert!(model.is_empty());
                        break;
                    }
                    prop_assert_eq!(Some(slots.received(0, status).len), model.pop_front());
                    slots.set_status(0, libc::TP_STATUS_KERNEL);
                    slots.advance(1);
                }
            }
            slots.discard();
            prop_assert!((0..8).all(|ahead| slots.status(ahead) == 0));
        }
    }
}
