//! What the registers of a device say, for people.

use eal::pci::{PciDevice, PciError};
use packet::MacAddr;

/// The link and the address, as the registers of an open device have them: names and values.
///
/// 82576 datasheet, sections 8.2.2 (STATUS), 8.10.15 and 8.10.16 (RAL, RAH).
///
/// # Errors
/// When the registers cannot be mapped, or read as all ones.
pub fn facts(device: &dyn PciDevice) -> Result<Vec<(&'static str, String)>, PciError> {
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
