//! What a PCI device is.

use std::fmt;
use std::str::FromStr;

/// Where a function is on the bus: `DOMAIN:BUS:DEVICE.FUNCTION`, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// PCI domain (segment).
    pub domain: u32,
    /// Bus in the domain.
    pub bus: u8,
    /// Device on the bus, 0 to 31.
    pub device: u8,
    /// Function of the device, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    /// As the kernel names it: `0000:01:00.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for PciAddress {
    type Err = BadAddress;

    /// With the domain or without it (then 0): `0000:01:00.0`, `01:00.0`.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
            let hex = |part: &str, most: u32| {
                let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
                let value = u32::from_str_radix(part, 16).ok();
                value.filter(|value| digits && *value <= most)
            };
            Some(Self {
                domain: hex(domain, u32::MAX)?,
                bus: u8::try_from(hex(bus, 0xff)?).ok()?,
                device: u8::try_from(hex(device, 0x1f)?).ok()?,
                function: u8::try_from(hex(function, 7)?).ok()?,
            })
        };
        parse().ok_or_else(|| BadAddress(text.to_owned()))
    }
}

/// Text that is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no PCI address: expected one such as 0000:01:00.0 or 01:00.0")]
pub struct BadAddress(String);

/// What the kernel knows of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor, such as 0x8086.
    pub vendor: u16,
    /// Device number of the vendor.
    pub device: u16,
    /// Vendor of the board.
    pub subsystem_vendor: u16,
    /// Number of the board, of its vendor.
    pub subsystem_device: u16,
    /// Class, subclass and programming interface, such as 0x02_00_00 for Ethernet.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// The kernel driver that it is bound to.
    pub driver: Option<String>,
    /// The NUMA node that it is near to, where the kernel knows one.
    pub numa_node: Option<u16>,
    /// Its IOMMU group, where there is an IOMMU.
    pub iommu_group: Option<u32>,
    /// Network interfaces that its kernel driver makes of it.
    pub interfaces: Vec<String>,
}

impl DeviceInfo {
    /// Whether it is a network controller, by its class.
    #[must_use]
    pub const fn is_network(&self) -> bool {
        self.class >> 16 == 0x02
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_shown() {
        let address = PciAddress { domain: 0, bus: 1, device: 0x1f, function: 7 };
        for text in ["0000:01:1f.7", "01:1f.7", "0:1:1f.7"] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        assert_eq!(address.to_string(), "0000:01:1f.7");
        for bad in
            ["", "01:00", "01:20.0", "01:00.8", "x:01:00.0", "01:+1.0", "1:2:3:4.0", "100:0.0"]
        {
            let error = bad.parse::<PciAddress>().unwrap_err();
            assert!(error.to_string().contains("0000:01:00.0"), "{bad}");
        }
    }
}
