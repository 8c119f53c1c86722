//! PCI devices that there are drivers for here, and what their registers say about them.

use eal::pci::{DeviceInfo, PciDevice, PciError};

/// A kind of device that there is a driver for.
#[derive(Clone, Copy, Debug)]
pub struct PciModel {
    /// The driver of it here: what a device string begins with.
    pub driver: &'static str,
    /// What people call it.
    pub name: &'static str,
    registers: fn(&dyn PciDevice) -> Result<Facts, PciError>,
}

/// Names and values.
type Facts = Vec<(&'static str, String)>;

/// What a device would be used as; `None` when there is no driver for it here.
#[must_use]
pub fn model(info: &DeviceInfo) -> Option<PciModel> {
    if let Some(name) = igb::name(info.vendor, info.device) {
        return Some(PciModel { driver: igb::INFO.name, name, registers: igb::facts });
    }
    let name = virtio_net::pci::name(info.vendor, info.device)?;
    let driver = virtio_net::pci::INFO.name;
    Some(PciModel { driver, name, registers: virtio_net::pci::facts })
}

/// What the registers of an open device say, in its driver's words; nothing for a device that
/// there is no driver for: reading unknown registers could do anything.
///
/// # Errors
/// When the registers cannot be mapped, or are not where the device says.
pub fn registers(device: &dyn PciDevice) -> Result<Vec<(&'static str, String)>, PciError> {
    model(device.info()).map_or_else(|| Ok(Vec::new()), |model| (model.registers)(device))
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use eal::DmaSpace;
    use eal::pci::Bar;

    use super::*;

    /// A device of which there is its configuration space, and a register file of 64 KiB behind
    /// each BAR number below 2.
    #[derive(Debug)]
    struct Made {
        info: DeviceInfo,
        config: Vec<u8>,
        registers: Vec<AtomicU64>,
    }

    impl Made {
        fn new(vendor: u16, device: u16) -> Self {
            let info = DeviceInfo {
                address: "01:00.0".parse().unwrap(),
                vendor,
                device,
                subsystem_vendor: 0,
                subsystem_device: 0,
                class: 0x02_00_00,
                revision: 0,
                driver: None,
                numa_node: None,
                iommu_group: None,
                interfaces: Vec::new(),
            };
            Self {
                info,
                config: vec![0; 256],
                registers: (0..8192).map(|_| AtomicU64::new(0)).collect(),
            }
        }

        /// A virtio capability of this kind at `offset` of configuration space.
        fn capability(mut self, at: u8, kind: u8, bar: u8, offset: u32) -> Self {
            self.config[6] = 0x10;
            let before = std::mem::replace(&mut self.config[0x34], at);
            let at = usize::from(at);
            self.config[at..at + 5].copy_from_slice(&[9, before, 16, kind, bar]);
            self.config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            self
        }
    }

    impl PciDevice for Made {
        fn info(&self) -> &DeviceInfo {
            &self.info
        }

        fn dma(&self) -> &DmaSpace {
            unreachable!()
        }

        fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), PciError> {
            let from = usize::from(offset);
            into.copy_from_slice(&self.config[from..from + into.len()]);
            Ok(())
        }

        fn write_config(&self, _offset: u16, _bytes: &[u8]) -> Result<(), PciError> {
            unreachable!()
        }

        fn map_bar(&self, index: u8) -> Result<Bar, PciError> {
            if index > 1 {
                return Err(PciError::new(self.info.address, "no such BAR"));
            }
            let memory = NonNull::from(self.registers.as_slice()).cast();
            // SAFETY: the registers outlive the bar, which no test keeps, and may change behind a
            // shared reference.
            Ok(unsafe { Bar::new(memory, 8 * self.registers.len(), None) })
        }

        fn set_bus_master(&self, _on: bool) -> Result<(), PciError> {
            unreachable!()
        }

        fn reset(&self) -> Result<(), PciError> {
            unreachable!()
        }

        fn msix_vectors(&self) -> u16 {
            0
        }

        fn set_msix(&self, _events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError> {
            unreachable!()
        }

        fn line_interrupt(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn unmask_line_interrupt(&self) -> Result<(), PciError> {
            unreachable!()
        }
    }

    #[test]
    fn models_are_known_by_their_numbers() {
        assert_eq!(model(&Made::new(0x8086, 0x10c9).info).unwrap().driver, "igb");
        assert_eq!(model(&Made::new(0x1af4, 0x1041).info).unwrap().driver, "virtio-pci");
        assert_eq!(model(&Made::new(0x8086, 0x1533).info).unwrap().name, "Intel I210");
        for (vendor, device) in [(0x1af4, 0x10c9), (0x1af4, 0x1001), (0x8086, 0x10e6)] {
            assert!(model(&Made::new(vendor, device).info).is_none());
        }
        assert_eq!(registers(&Made::new(1, 1)).unwrap(), []);
    }

    #[test]
    fn the_registers_of_an_igb_are_told() {
        let igb = Made::new(0x8086, 0x10c9);
        igb.registers[1].store(0x83, Relaxed);
        igb.registers[0x5400 / 8].store(0x8000_0605_0403_0252, Relaxed);
        let facts = registers(&igb).unwrap();
        assert_eq!(facts[1], ("link", "up, 1000 Mbit/s, full duplex".to_owned()));
        assert_eq!(facts[2], ("mac", "52:02:03:04:05:06".to_owned()));
        igb.registers[1].store(u64::MAX, Relaxed);
        assert!(registers(&igb).unwrap_err().to_string().contains("all ones"));
    }

    #[test]
    fn virtio_registers_are_where_the_device_says_if_that_is_inside() {
        let virtio = Made::new(0x1af4, 0x1041).capability(0x40, 1, 1, 0x1000);
        virtio.registers[(0x1000 + 16) / 8].store(3 << 16 | 0xf << 32, Relaxed);
        let facts = registers(&virtio).unwrap();
        assert_eq!(facts[1..], [("queues", "3".to_owned()), ("status", "0x0f".to_owned())]);
        // A register of a kind that does not exist is skipped, as is another structure.
        let virtio = Made::new(0x1af4, 0x1041).capability(0x40, 1, 7, 0).capability(0x60, 2, 1, 0);
        assert!(registers(&virtio).unwrap()[0].1.contains("legacy"));
        for (bar, offset) in [(1, 65_536 - 52), (1, u32::MAX - 3), (1, 2), (2, 0)] {
            let virtio = Made::new(0x1af4, 0x1041).capability(0x40, 1, bar, offset);
            assert!(registers(&virtio).is_err(), "{bar} {offset}");
        }
    }
}
