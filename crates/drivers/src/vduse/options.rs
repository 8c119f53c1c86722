//! The options of a VDUSE port.

use ethdev::{DeviceSpec, DriverInfo, Error, OptionInfo, mtu};
use packet::MacAddr;
use vhost_net::device::MAX_QUEUE_PAIRS;

use super::bus::BusDriver;

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "vduse",
    syntax: "vduse:NAME[,bind=virtio|vhost][,keep=on][,queues=1][,size=256][,mac=MAC][,mtu=N]\
             [,offloads=on]",
    summary: "a vDPA device of the host kernel: an interface, or /dev/vhost-vdpa-N (CAP_NET_ADMIN)",
    options: &[
        OptionInfo {
            name: "bind",
            value: "DRIVER",
            help: "'virtio' makes an interface, 'vhost' /dev/vhost-vdpa-N (default: the kernel's choice)",
        },
        OptionInfo {
            name: "keep",
            value: "on|off",
            help: "leave the interface to the next start of the switch when it ends (default on)",
        },
        OptionInfo {
            name: "queues",
            value: "N",
            help: "queue pairs, 1 to 127; more than 1 is refused by Linux from 6.9 on (default 1)",
        },
        OptionInfo {
            name: "size",
            value: "N",
            help: "most descriptors of a ring, a power of two from 2 to 32768 (default 256)",
        },
        OptionInfo { name: "mac", value: "MAC", help: "the interface's address (default: random)" },
        OptionInfo {
            name: "mtu",
            value: "BYTES",
            help: "the interface's MTU, 68 to 65521 (default: 1500, and it may be changed there)",
        },
        OptionInfo {
            name: "offloads",
            value: "on|off",
            help: "offer checksum and segmentation offloads to the driver (default on)",
        },
    ],
};

/// Names are those of a file, and of a device on the vDPA bus.
const MAX_NAME: usize = 63;

/// Options, parsed.
#[derive(Debug)]
pub(crate) struct Options {
    pub(super) name: String,
    pub(super) bind: Option<BusDriver>,
    pub(super) keep: bool,
    pub(super) queues: u16,
    pub(super) size: u16,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u16>,
    pub(super) offloads: bool,
}

impl Options {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let name = spec.require_target("a name for the device, as in vduse:sw0")?.to_owned();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let begins = |c: char| c.is_ascii_alphanumeric();
        if !name.chars().all(allowed) || !name.starts_with(begins) || name.len() > MAX_NAME {
            return Err(spec.error(format!(
                "'{name}': expected a name of up to {MAX_NAME} letters, digits, '_', '.' and '-'"
            )));
        }
        if name == "control" {
            return Err(spec.error("'control' is the kernel's own; choose another name"));
        }
        let bind = match spec.take("bind").as_deref() {
            None => None,
            Some("virtio") => Some(BusDriver::Virtio),
            Some("vhost") => Some(BusDriver::Vhost),
            Some(other) => {
                return Err(spec.error(format!("bind={other}: expected virtio or vhost")));
            }
        };
        let size = spec.take_number("size", 256, &(2..=32_768_u16))?;
        if !size.is_power_of_two() {
            return Err(spec.error(format!("size={size}: expected a power of two")));
        }
        let options = Self {
            name,
            bind,
            keep: spec.take_switch("keep", true)?,
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUE_PAIRS))?,
            size,
            mac: spec.take_optional("mac", "an address such as 52:54:00:12:34:56")?,
            mtu: spec.take_optional_number("mtu", &(mtu::MIN..=mtu::MAX))?,
            offloads: spec.take_switch("offloads", true)?,
        };
        spec.finish(&INFO.option_names())?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Error> {
        Options::parse(text.parse().unwrap())
    }

    #[test]
    fn options_are_read() {
        let options = parse("vduse:sw0").unwrap();
        assert_eq!((options.name.as_str(), options.queues, options.size), ("sw0", 1, 256));
        assert!(options.bind.is_none() && options.mac.is_none() && options.offloads);
        let options = parse("vduse:vm-1.a,bind=vhost,queues=4,size=1024,mtu=9000").unwrap();
        assert_eq!((options.bind, options.mtu), (Some(BusDriver::Vhost), Some(9000)));
        assert_eq!((options.queues, options.size), (4, 1024));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        let bad = [
            ("vduse:", "expected a name"),
            ("vduse:a/b", "expected a name of"),
            ("vduse:..", "expected a name of"),
            ("vduse:control", "choose another name"),
            ("vduse:a,bind=vfio", "expected virtio or vhost"),
            ("vduse:a,size=100", "a power of two"),
            ("vduse:a,queues=0", "from 1 to 127"),
            ("vduse:a,mtu=67", "from 68"),
        ];
        for (text, reason) in bad {
            assert!(refused(text).contains(reason), "{text}: {}", refused(text));
        }
        assert!(refused(&format!("vduse:{}", "a".repeat(64))).contains("up to 63"));
    }
}
