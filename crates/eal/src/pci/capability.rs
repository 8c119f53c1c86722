//! Configuration space: the command register, and the list of capabilities.
//!
//! Offsets are those of the PCI Local Bus Specification 3.0, chapter 6.

use super::device::PciDevice;
use super::error::PciError;

/// Offset of the command register.
pub const COMMAND: u16 = 0x04;
/// Command register: the device decodes its memory.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command register: the device may reach memory by itself.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command register: the line interrupt (INTx) is off.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

const STATUS: u16 = 0x06;
/// Status register: there is a list of capabilities.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Where the list begins.
const CAPABILITIES_POINTER: u16 = 0x34;
/// Number of the interrupt pin, 0 for none.
const INTERRUPT_PIN: u16 = 0x3d;
/// Capabilities are behind the header and in the first 256 bytes, four bytes each at least.
const FIRST_CAPABILITY: u8 = 0x40;
const MOST_CAPABILITIES: usize = (0x100 - FIRST_CAPABILITY as usize) / 4;

/// Number of the capability of power management.
pub const CAPABILITY_POWER: u8 = 0x01;
/// Number of the capability MSI.
pub const CAPABILITY_MSI: u8 = 0x05;
/// Number of capabilities that vendors define, virtio among them.
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// Number of the capability of PCI Express.
pub const CAPABILITY_EXPRESS: u8 = 0x10;
/// Number of the capability MSI-X.
pub const CAPABILITY_MSIX: u8 = 0x11;

/// An entry of the list of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is: one of the `CAPABILITY_` numbers, or another.
    pub id: u8,
    /// Where it begins in configuration space.
    pub offset: u8,
}

/// The list of capabilities, in its order.
///
/// # Errors
/// When configuration space cannot be read, or the list runs in a circle or out of its place.
pub fn capabilities(device: &dyn PciDevice) -> Result<Vec<Capability>, PciError> {
    walk(|offset, into| device.read_config(offset, into))?
        .map_err(|reason| PciError::new(device.info().address, reason))
}

/// Walks the list with `read`, which fills a slice from an offset of configuration space. The
/// inner error is what is wrong with the list.
pub(super) fn walk<E>(
    mut read: impl FnMut(u16, &mut [u8]) -> Result<(), E>,
) -> Result<Result<Vec<Capability>, String>, E> {
    let mut status = [0; 2];
    read(STATUS, &mut status)?;
    let status = u16::from_le_bytes(status);
    // All ones come from a device that is gone.
    if status == u16::MAX {
        return Ok(Err("it does not answer: its status register reads as all ones".into()));
    }
    if status & STATUS_CAPABILITIES == 0 {
        return Ok(Ok(Vec::new()));
    }
    let mut next = [0; 1];
    read(CAPABILITIES_POINTER, &mut next)?;
    let mut next = next[0];
    let mut found: Vec<Capability> = Vec::new();
    // The two lowest bits are reserved and masked off (section 6.7).
    while next & !3 != 0 {
        let offset = next & !3;
        if offset < FIRST_CAPABILITY {
            return Ok(Err(format!("a capability is at {offset:#x}, inside the header")));
        }
        if found.len() >= MOST_CAPABILITIES || found.iter().any(|one| one.offset == offset) {
            return Ok(Err(format!("its list of capabilities runs in a circle at {offset:#x}")));
        }
        let mut entry = [0; 2];
        read(u16::from(offset), &mut entry)?;
        let [id, following] = entry;
        if id == 0xff {
            return Ok(Err(format!("the capability at {offset:#x} reads as all ones")));
        }
        found.push(Capability { id, offset });
        next = following;
    }
    Ok(Ok(found))
}

/// Sets and clears bits of the command register.
pub(super) fn change_command(device: &dyn PciDevice, set: u16, clear: u16) -> Result<(), PciError> {
    let mut command = [0; 2];
    device.read_config(COMMAND, &mut command)?;
    let old = u16::from_le_bytes(command);
    let new = (old & !clear) | set;
    if new != old {
        device.write_config(COMMAND, &new.to_le_bytes())?;
    }
    Ok(())
}

/// Whether the device has a line interrupt.
pub(super) fn has_interrupt_pin(device: &dyn PciDevice) -> bool {
    let mut pin = [0];
    device.read_config(INTERRUPT_PIN, &mut pin).is_ok() && (1..=4).contains(&pin[0])
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// Walks the list of a made-up configuration space.
    fn list(space: &[u8]) -> Result<Result<Vec<Capability>, String>, ()> {
        walk(|offset, into| {
            let from = usize::from(offset);
            into.copy_from_slice(space.get(from..from + into.len()).ok_or(())?);
            Ok(())
        })
    }

    fn space(entries: &[(u8, u8, u8)]) -> Vec<u8> {
        let mut space = vec![0; 256];
        space[usize::from(STATUS)] = 0x10;
        space[usize::from(CAPABILITIES_POINTER)] = entries.first().map_or(0, |entry| entry.0);
        for (offset, id, next) in entries {
            space[usize::from(*offset)] = *id;
            space[usize::from(*offset) + 1] = *next;
        }
        space
    }

    #[test]
    fn the_list_is_walked_in_order() {
        let space = space(&[(0x40, 1, 0x51), (0x50, 0x11, 0xa2), (0xa0, 9, 0)]);
        let found = list(&space).unwrap().unwrap();
        let found: Vec<(u8, u8)> = found.iter().map(|one| (one.offset, one.id)).collect();
        assert_eq!(found, [(0x40, 1), (0x50, 0x11), (0xa0, 9)]);
        assert_eq!(list(&[0; 256]), Ok(Ok(Vec::new())));
    }

    #[test]
    fn hostile_lists_end() {
        let circle = space(&[(0x40, 1, 0x50), (0x50, 2, 0x40)]);
        assert!(list(&circle).unwrap().unwrap_err().contains("circle"));
        assert!(list(&space(&[(0x40, 1, 0x40)])).unwrap().unwrap_err().contains("circle"));
        assert!(list(&space(&[(0x40, 1, 0x10)])).unwrap().unwrap_err().contains("header"));
        assert!(list(&[0xff; 256]).unwrap().unwrap_err().contains("all ones"));
        assert!(list(&space(&[(0x40, 0xff, 0xff)])).unwrap().unwrap_err().contains("all ones"));
        let every: Vec<(u8, u8, u8)> =
            (16..=63).map(|n: u8| (n * 4, 9, (n + 1).wrapping_mul(4))).collect();
        assert_eq!(list(&space(&every)).unwrap().unwrap().len(), 48);
        // A space that ends too early, as for a user without privilege: 64 bytes.
        assert_eq!(list(&space(&[(0x40, 1, 0)])[..64]), Err(()));
    }
}
