//! Where a modern device has its registers, as the capabilities in its configuration space say
//! (virtio 1.3 section 4.1.4).

use eal::pci::capability::CAPABILITY_VENDOR;
use eal::pci::{PciDevice, PciError, capabilities};

use super::window::Place;

/// Bytes of a virtio capability, and of one that has a notify multiplier.
const LEN: u8 = 16;
const NOTIFY_LEN: u8 = 20;

const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Bytes of the common configuration that this driver uses: all of virtio 1.0.
const COMMON_BYTES: u32 = 56;

/// Bytes of the network device's configuration up to the status of its link.
const DEVICE_BYTES: u32 = 8;

/// Where the registers are. Nothing is known yet of whether the base address registers are
/// that large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The common configuration.
    pub common: Place,
    /// The notify registers.
    pub notify: Place,
    /// Distance of the notify registers of two rings, in bytes; 0 where all have the same.
    pub notify_multiplier: u32,
    /// The interrupt status.
    pub isr: Place,
    /// The network device's configuration.
    pub device: Place,
}

/// What was found of it so far: the first of each kind counts (section 4.1.4.1).
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    common: Option<Place>,
    notify: Option<(Place, u32)>,
    isr: Option<Place>,
    device: Option<Place>,
}

/// Reads the layout; `None` for a device without virtio capabilities, which is a legacy one.
///
/// # Errors
/// When configuration space cannot be read, or the capabilities make no sense.
pub fn find(device: &dyn PciDevice) -> Result<Option<Layout>, PciError> {
    let mut found = Found::default();
    for capability in capabilities(device)? {
        if capability.id == CAPABILITY_VENDOR {
            add(device, capability.offset, &mut found)?;
        }
    }
    finish(found).map_err(|reason| PciError::new(device.info().address, reason))
}

/// Reads the virtio capability at `offset`; one that makes no sense is passed over, and so is one
/// of a kind that is known already.
fn add(device: &dyn PciDevice, offset: u8, found: &mut Found) -> Result<(), PciError> {
    let mut header = [0; 3];
    device.read_config(offset.into(), &mut header)?;
    let [_, _, len] = header;
    // Nothing may lie outside of the first 256 bytes.
    let len = len.min(u8::MAX - offset);
    let mut bytes = [0; NOTIFY_LEN as usize];
    let Some(part) = bytes.get_mut(..usize::from(len.min(NOTIFY_LEN))) else { return Ok(()) };
    if len < LEN {
        return Ok(());
    }
    device.read_config(offset.into(), part)?;
    let [_, _, _, kind, bar, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3, m0, m1, m2, m3] = bytes;
    let place = Place {
        bar,
        offset: u32::from_le_bytes([o0, o1, o2, o3]),
        len: u32::from_le_bytes([l0, l1, l2, l3]),
    };
    // Reserved values of `bar` are for devices of the future (section 4.1.4.1).
    if bar > 5 {
        return Ok(());
    }
    match kind {
        COMMON => found.common = found.common.or(Some(place)),
        ISR => found.isr = found.isr.or(Some(place)),
        DEVICE => found.device = found.device.or(Some(place)),
        NOTIFY if len >= NOTIFY_LEN => {
            let multiplier = u32::from_le_bytes([m0, m1, m2, m3]);
            found.notify = found.notify.or(Some((place, multiplier)));
        }
        _ => {}
    }
    Ok(())
}

/// Checks what was found by itself.
fn finish(found: Found) -> Result<Option<Layout>, String> {
    let (common, (notify, notify_multiplier), isr, device) = match found {
        Found { common: None, notify: None, isr: None, device: None } => return Ok(None),
        Found {
            common: Some(common),
            notify: Some(notify),
            isr: Some(isr),
            device: Some(device),
        } => (common, notify, isr, device),
        _ => return Err("some of its virtio capabilities are missing".to_owned()),
    };
    // Section 4.1.4: alignment as the widest register needs it, and the least lengths.
    let parts = [
        ("common", common, 4, COMMON_BYTES),
        ("notify", notify, 2, 2),
        ("interrupt status", isr, 1, 1),
        ("device", device, 4, DEVICE_BYTES),
    ];
    for (name, place, align, least) in parts {
        let Place { offset, len, .. } = place;
        if !offset.is_multiple_of(align) || len < least || offset.checked_add(len).is_none() {
            return Err(format!(
                "its {name} registers are {len} bytes at {offset:#x}, expected {least} at least \
                 at a multiple of {align}"
            ));
        }
    }
    if notify_multiplier != 0 && !notify_multiplier.is_power_of_two() || notify_multiplier == 1 {
        return Err(format!(
            "its notify registers are {notify_multiplier} bytes apart, expected an even power of \
             two or 0"
        ));
    }
    Ok(Some(Layout { common, notify, notify_multiplier, isr, device }))
}

impl Layout {
    /// Where in [`notify`](Self::notify) the register of a ring lies that the device gives
    /// number `notify_offset`; `None` when it is outside. It has `width` bytes.
    pub fn notify_at(&self, notify_offset: u16, width: u32) -> Option<u32> {
        let at = u32::from(notify_offset).checked_mul(self.notify_multiplier)?;
        let end = at.checked_add(width)?;
        let aligned = self.notify.offset.checked_add(at)?.is_multiple_of(width);
        (end <= self.notify.len && aligned).then_some(at)
    }
}
