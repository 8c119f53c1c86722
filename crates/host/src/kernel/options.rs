//! What device strings say about ports on interfaces of the host, whatever the driver.

use ethdev::{DeviceSpec, Error, mtu};
use packet::{LINK_HEADERS, MacAddr};

/// Largest MTU: what the length of a frame's head can say.
#[allow(clippy::cast_possible_truncation, reason = "a constant that fits")]
pub(crate) const MAX_MTU: u16 = u16::MAX - LINK_HEADERS as u16;

/// The options that mean the same to all such ports.
pub(crate) mod about {
    use ethdev::OptionInfo;

    pub(crate) const QUEUE_SIZE: OptionInfo = OptionInfo {
        name: "queue_size",
        value: "N",
        help: "frames per queue and direction, a power of two from 64 to 32768 (default 1024)",
    };
    pub(crate) const PROMISCUOUS: OptionInfo =
        OptionInfo::switch("promiscuous", "receive frames for all stations (default on)");
    pub(crate) const MTU: OptionInfo = OptionInfo {
        name: "mtu",
        value: "BYTES",
        help: "the interface's MTU while the port is open (default: as it is)",
    };
    pub(crate) const MAC: OptionInfo = OptionInfo {
        name: "mac",
        value: "MAC",
        help: "the interface's address while the port is open (default: as it is)",
    };
}

/// What a port changes on its interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) mtu: Option<u16>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) promiscuous: bool,
}

impl Settings {
    /// Takes these options out of a device string.
    pub(crate) fn take(spec: &mut DeviceSpec) -> Result<Self, Error> {
        Ok(Self {
            mtu: spec.take_optional_number("mtu", &(mtu::MIN..=MAX_MTU))?,
            mac: spec.take_optional("mac", "an address such as 52:54:00:12:34:56")?,
            promiscuous: spec.take_switch("promiscuous", true)?,
        })
    }
}

/// Takes the number of frames per queue and direction out of a device string.
pub(crate) fn take_queue_size(spec: &mut DeviceSpec) -> Result<u32, Error> {
    let size: u32 = spec.take_number("queue_size", 1024, &(64..=32_768))?;
    if !size.is_power_of_two() {
        return Err(spec.error(format!("queue_size={size}: expected a power of two")));
    }
    Ok(size)
}
