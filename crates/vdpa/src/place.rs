//! Where a ring lies in guest memory.
//!
//! A front-end tells addresses of its own address space; a device needs guest-physical ones, and
//! nobody between it and the memory checks them any more. So the whole of each part must lie in
//! one region, and be aligned as the device reads it.

use vhost::RingSetup;
use virtio::ring::QueueSize;
use virtio::{Features, GuestMemory};

use crate::device::DeviceError;

/// The guest-physical addresses of a ring's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// A part of a ring: its name, its bytes and its alignment.
type Part = (&'static str, usize, u64);

/// The parts of a ring of this size (virtio 1.3 sections 2.7 and 2.8).
fn parts(size: u16, packed: bool) -> Option<[Part; 3]> {
    if packed {
        let ring = 16 * usize::from(size);
        let (driver, device) = ("driver event suppression area", "device event suppression area");
        return Some([("descriptor ring", ring, 16), (driver, 4, 4), (device, 4, 4)]);
    }
    let size = QueueSize::new(size)?;
    Some([
        ("descriptor table", size.desc_bytes(), 16),
        ("available ring", size.avail_bytes(), 2),
        ("used ring", size.used_bytes(), 4),
    ])
}

impl Place {
    /// Where ring `index` lies in `memory`.
    ///
    /// # Errors
    /// When a part of it is not in one region of memory, or not aligned.
    pub(crate) fn of(
        index: u16,
        setup: &RingSetup,
        memory: &GuestMemory,
    ) -> Result<Self, DeviceError> {
        let packed = setup.features & Features::RING_PACKED.bits() != 0;
        let [descriptors, driver, device] = parts(setup.size, packed).ok_or_else(|| {
            DeviceError(format!("ring {index}: {} is no size of a split ring", setup.size))
        })?;
        let find = |(name, len, align): Part, addr| {
            let found = user_to_guest(memory, addr, len as u64).ok_or_else(|| {
                DeviceError(format!(
                    "ring {index}: its {name} at {addr:#x}, {len} bytes, does not lie in one \
                     region of the guest's memory"
                ))
            })?;
            if !found.is_multiple_of(align) {
                return Err(DeviceError(format!(
                    "ring {index}: its {name} at guest address {found:#x} is not aligned to \
                     {align} bytes"
                )));
            }
            Ok(found)
        };
        Ok(Self {
            descriptors: find(descriptors, setup.desc)?,
            driver: find(driver, setup.avail)?,
            device: find(device, setup.used)?,
        })
    }
}

/// The guest-physical address of `len` bytes at the front-end's address `addr`, if all of them
/// lie in one region.
fn user_to_guest(memory: &GuestMemory, addr: u64, len: u64) -> Option<u64> {
    memory.regions().iter().find_map(|region| {
        let size = u64::try_from(region.mapping.len()).ok()?;
        let offset = addr.checked_sub(region.user_addr).filter(|offset| *offset < size)?;
        let fits = len <= size.checked_sub(offset)?;
        region.guest_addr.checked_add(offset).filter(|_| fits)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use eal::Mapping;
    use virtio::device;
    use virtio::memory::Region;

    use super::*;

    const LEN: u64 = 1 << 16;

    /// Two regions, neighbours for the front-end and far apart for the guest.
    fn memory() -> GuestMemory {
        let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, LEN).unwrap();
        let region = |guest_addr, user_addr| Region {
            guest_addr,
            user_addr,
            mapping: Arc::new(Mapping::map(fd.as_fd(), 0, LEN).unwrap()),
        };
        let regions = vec![region(0x10_0000, 0x7000_0000), region(0x2000_0002, 0x7000_0000 + LEN)];
        GuestMemory::new(regions).unwrap()
    }

    fn setup(size: u16, packed: bool, [desc, avail, used]: [u64; 3]) -> RingSetup {
        let [desc, avail, used] = [desc, avail, used].map(|offset| 0x7000_0000 + offset);
        let features = if packed { Features::RING_PACKED } else { Features::empty() };
        RingSetup::at(device::RingSetup { size, desc, avail, used, base: 0, features })
    }

    #[test]
    fn addresses_become_the_guests() {
        let memory = memory();
        let expected = Place { descriptors: 0x10_0000, driver: 0x10_1000, device: 0x10_2000 };
        for packed in [false, true] {
            let setup = setup(256, packed, [0, 0x1000, 0x2000]);
            assert_eq!(Place::of(3, &setup, &memory).unwrap(), expected);
        }
    }

    #[test]
    fn a_part_may_end_where_its_region_does_and_no_byte_later() {
        let memory = memory();
        for (packed, lens) in [(false, [4096, 518, 2054]), (true, [4096, 4, 4])] {
            for (part, len) in lens.into_iter().enumerate() {
                let mut offsets = [0, 0x1000, 0x2000];
                offsets[part] = (LEN - len) / 4 * 4;
                Place::of(0, &setup(256, packed, offsets), &memory).unwrap();
                // Its neighbour does not help: the guest has that elsewhere.
                offsets[part] = LEN - len + 2;
                let error = Place::of(0, &setup(256, packed, offsets), &memory).unwrap_err();
                assert!(error.to_string().contains("does not lie in one region"), "{error}");
            }
        }
        for far in [2 * LEN, u64::MAX - 0x7000_0000 - 15] {
            Place::of(0, &setup(256, false, [far, 0, 0]), &memory).unwrap_err();
        }
    }

    #[test]
    fn it_is_the_guests_address_that_must_be_aligned() {
        let memory = memory();
        let cases = [
            (false, [8, 0, 0], "descriptor table"),
            (false, [0, 1, 0], "available ring"),
            (false, [0, 0, 2], "used ring"),
            (false, [LEN, 0, 0], "descriptor table"),
            (true, [8, 0, 0], "descriptor ring"),
            (true, [0, 2, 0], "driver event suppression area"),
            (true, [0, 0, LEN], "device event suppression area"),
        ];
        for (packed, offsets, part) in cases {
            let error = Place::of(7, &setup(256, packed, offsets), &memory).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with(&format!("ring 7: its {part} at guest address")), "{error}");
        }
    }
}
