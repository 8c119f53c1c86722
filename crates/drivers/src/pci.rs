//! PCI devices that there are drivers for here, and what their registers say about them.

use eal::pci::capability::CAPABILITY_VENDOR;
use eal::pci::{DeviceInfo, PciDevice, PciError, capabilities};
use packet::MacAddr;

/// A kind of device that there is a driver for.
#[derive(Debug)]
pub struct PciModel {
    /// Vendor and device number.
    pub id: (u16, u16),
    /// The driver of it here.
    pub driver: &'static str,
    /// What people call it.
    pub name: &'static str,
    registers: fn(&dyn PciDevice) -> Result<Facts, PciError>,
}

/// Names and values.
type Facts = Vec<(&'static str, String)>;

const MODELS: &[PciModel] = &[
    PciModel { id: (0x8086, 0x10c9), driver: "igb", name: "Intel 82576", registers: igb_registers },
    PciModel {
        id: (0x1af4, 0x1041),
        driver: "virtio-net",
        name: "virtio network device",
        registers: virtio_registers,
    },
    PciModel {
        id: (0x1af4, 0x1000),
        driver: "virtio-net",
        name: "virtio network device (transitional)",
        registers: virtio_registers,
    },
];

/// What a device would be used as; `None` when there is no driver for it here.
#[must_use]
pub fn model(info: &DeviceInfo) -> Option<&'static PciModel> {
    MODELS.iter().find(|model| model.id == (info.vendor, info.device))
}

/// What the registers of an open device say, in its driver's words; nothing for a device that
/// there is no driver for: reading unknown registers could do anything.
///
/// # Errors
/// When the registers cannot be mapped, or are not where the device says.
pub fn registers(device: &dyn PciDevice) -> Result<Vec<(&'static str, String)>, PciError> {
    model(device.info()).map_or_else(|| Ok(Vec::new()), |model| (model.registers)(device))
}

/// 82576 datasheet, sections 8.2.2 (STATUS), 8.10.15 and 8.10.16 (RAL, RAH).
fn igb_registers(device: &dyn PciDevice) -> Result<Facts, PciError> {
    const STATUS: usize = 0x8;
    const RAL0: usize = 0x5400;
    const RAH0: usize = 0x5404;
    let bar = device.map_bar(0)?;
    let status = bar.read32(STATUS);
    if status == u32::MAX {
        let reason = "its registers read as all ones: it does not answer";
        return Err(PciError::new(device.info().address, reason));
    }
    let link = if status & 1 << 1 != 0 { "up" } else { "down" };
    let duplex = if status & 1 != 0 { "full" } else { "half" };
    let speed = match status >> 6 & 3 {
        0 => 10,
        1 => 100,
        _ => 1000,
    };
    let [a, b, c, d] = bar.read32(RAL0).to_le_bytes();
    let [e, f, ..] = bar.read32(RAH0).to_le_bytes();
    Ok(vec![
        ("status", format!("{status:#010x}")),
        ("link", format!("{link}, {speed} Mbit/s, {duplex} duplex")),
        ("mac", MacAddr([a, b, c, d, e, f]).to_string()),
    ])
}

/// virtio 1.3, sections 4.1.4 (capabilities) and 4.1.4.3 (common configuration).
fn virtio_registers(device: &dyn PciDevice) -> Result<Facts, PciError> {
    const DEVICE_FEATURE_SELECT: usize = 0;
    const DEVICE_FEATURE: usize = 4;
    const NUM_QUEUES: usize = 18;
    const DEVICE_STATUS: usize = 20;
    const LENGTH: usize = 56;
    let Some((index, offset)) = virtio_common(device)? else {
        return Ok(vec![("registers", "only those of a legacy device".to_owned())]);
    };
    let bar = device.map_bar(index)?;
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    if offset.checked_add(LENGTH).is_none_or(|end| end > bar.len()) || !offset.is_multiple_of(4) {
        let reason = format!("its common configuration is at {offset:#x} of BAR {index}, outside");
        return Err(PciError::new(device.info().address, reason));
    }
    let features = [0, 1].map(|half: u32| {
        bar.write32(offset + DEVICE_FEATURE_SELECT, half);
        u64::from(bar.read32(offset + DEVICE_FEATURE)) << (32 * half)
    });
    let [low, high] = features;
    Ok(vec![
        ("features", format!("{:#x}", low | high)),
        ("queues", bar.read16(offset + NUM_QUEUES).to_string()),
        ("status", format!("{:#04x}", bar.read8(offset + DEVICE_STATUS))),
    ])
}

/// The register and offset of the common configuration.
fn virtio_common(device: &dyn PciDevice) -> Result<Option<(u8, u32)>, PciError> {
    const COMMON: u8 = 1;
    for capability in capabilities(device)? {
        if capability.id != CAPABILITY_VENDOR {
            continue;
        }
        let mut bytes = [0; 16];
        device.read_config(u16::from(capability.offset), &mut bytes)?;
        let [_, _, _, kind, bar, _, _, _, a, b, c, d, ..] = bytes;
        // Registers above 5 are reserved, and to be skipped.
        if kind == COMMON && bar <= 5 {
            return Ok(Some((bar, u32::from_le_bytes([a, b, c, d]))));
        }
    }
    Ok(None)
}
