//! What the registers of a device say, for people.

use eal::pci::capability::CAPABILITY_VENDOR;
use eal::pci::{PciDevice, PciError, capabilities};

/// Features, queues and status, as the registers of an open device have them: names and values.
///
/// virtio 1.3, sections 4.1.4 (capabilities) and 4.1.4.3 (common configuration).
///
/// # Errors
/// When the registers cannot be mapped, or are not where the device says.
pub fn facts(device: &dyn PciDevice) -> Result<Vec<(&'static str, String)>, PciError> {
    const DEVICE_FEATURE_SELECT: usize = 0;
    const DEVICE_FEATURE: usize = 4;
    const NUM_QUEUES: usize = 18;
    const DEVICE_STATUS: usize = 20;
    const LENGTH: usize = 56;
    let Some((index, offset)) = common(device)? else {
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
fn common(device: &dyn PciDevice) -> Result<Option<(u8, u32)>, PciError> {
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
