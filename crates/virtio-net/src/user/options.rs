//! What a device string of this driver can say.

use eal::Access;
use ethdev::{DeviceSpec, Error};
use packet::MacAddr;
use virtio::Features;

use super::INFO;
use crate::options::{ControlQueueMode, NetOptions};
use ethdev::access::take_access;

/// Entries of a ring unless told otherwise.
const QUEUE_SIZE: u16 = 256;

/// Bytes, unless told otherwise.
const MTU: u16 = 1500;

/// A device string, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(super) path: String,
    pub(super) server: bool,
    pub(super) access: Access,
    pub(super) queue_size: u16,
    pub(super) mac: MacAddr,
    pub(super) mtu: u16,
    /// Notifications are messages.
    pub(super) inband: bool,
    pub(super) net: NetOptions,
}

impl Options {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let path = spec.require_target("the path of a socket")?.to_owned();
        let mac =
            spec.take_parsed("mac", default_mac(&path), "an address such as 02:00:00:00:00:01")?;
        if mac.is_multicast() {
            return Err(spec.error(format!("mac={mac}: expected the address of one station")));
        }
        let mut net = NetOptions::take(&mut spec)?;
        net.features |= Features::VHOST_USER_PROTOCOL;
        net.features.set(Features::VERSION_1, spec.take_switch("version_1", true)?);
        if net.features.contains(Features::RING_PACKED)
            && !net.features.contains(Features::VERSION_1)
        {
            return Err(spec.error("packed=on: expected version_1=on with it".to_owned()));
        }
        net.features.set(Features::ACCESS_PLATFORM, spec.take_switch("iommu", false)?);
        let inband = spec.take_switch("inband", false)?;
        // A command is waited for by the thread that passes notifications on.
        if inband && net.control == ControlQueueMode::On {
            return Err(spec.error("ctrl_vq=on: expected inband=off with it".to_owned()));
        }
        if inband {
            net.control = ControlQueueMode::Off;
        }
        let options = Self {
            path,
            inband,
            server: spec.take_switch("server", false)?,
            access: take_access(&mut spec).map_err(|reason| spec.error(reason))?,
            queue_size: net.queue_size.unwrap_or(QUEUE_SIZE),
            mac,
            mtu: net.mtu.unwrap_or(MTU),
            net,
        };
        spec.finish(&INFO.option_names())?;
        Ok(options)
    }
}

/// A locally administered address that is the same each time for the same path (FNV-1a).
fn default_mac(path: &str) -> MacAddr {
    let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    MacAddr([0x02, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Error> {
        Options::parse(text.parse().unwrap())
    }

    #[test]
    fn options_have_sensible_defaults() {
        let options = parse("virtio-user:/run/a.sock").unwrap();
        assert_eq!((options.path.as_str(), options.server), ("/run/a.sock", false));
        assert_eq!((options.net.queues, options.queue_size, options.mtu), (1, 256, 1500));
        assert_eq!(options.mac, parse("virtio-user:/run/a.sock").unwrap().mac);
        assert_ne!(options.mac, parse("virtio-user:/run/b.sock").unwrap().mac);
        assert!(options.net.features.contains(Features::MRG_RXBUF | Features::VERSION_1));
        assert!(!options.net.features.contains(Features::EVENT_IDX));
    }

    #[test]
    fn bad_options_are_named() {
        for (option, expected) in [
            ("queues=0", "1 to 127"),
            ("queues=128", "1 to 127"),
            ("queue_size=100", "a power of two"),
            ("queue_size=2", "a power of two"),
            ("packed=on,queue_size=3", "4 to 32768"),
            ("packed=on,queue_size=32769", "4 to 32768"),
            ("packed=on,version_1=off", "version_1=on"),
            ("in_order=on", "packed=on"),
            ("mac=01:00:00:00:00:00", "one station"),
            ("mac=xyz", "mac=xyz"),
            ("mtu=67", "68"),
            ("ctrl_vq=maybe", "auto, on or off"),
            ("vlans=1+4095", "4094"),
            ("mode=8", "octal permissions"),
            ("group=no-such-group", "no such group"),
            ("inband=on,ctrl_vq=on", "inband=off"),
            ("colour=red", "unknown option 'colour'"),
        ] {
            let error = parse(&format!("virtio-user:/a,{option}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{option}: {error}");
        }
        let error = parse("virtio-user:").unwrap_err().to_string();
        assert!(error.contains("path of a socket"), "{error}");
    }

    #[test]
    fn only_what_is_offered_is_chosen() {
        let options = parse("virtio-user:/a,queues=2,mrg_rxbuf=off").unwrap();
        let dpdk = Features::VERSION_1
            | Features::MRG_RXBUF
            | Features::MQ
            | Features::CTRL_VQ
            | Features::CTRL_RX
            | Features::GUEST_TSO4;
        assert_eq!(options.net.choose(dpdk), Features::VERSION_1 | Features::MQ);
        assert_eq!(options.net.choose_control(dpdk), Features::empty());
        let ours = dpdk | Features::CTRL_MAC_ADDR | Features::CTRL_VLAN;
        let control = options.net.choose_control(ours);
        assert!(control.contains(Features::CTRL_VQ | Features::CTRL_MAC_ADDR));
        assert!(!control.contains(Features::CTRL_VLAN), "which would filter all VLANs");
    }

    #[test]
    fn offloads_come_with_what_they_need() {
        let all = Features::HOST_OFFLOADS | Features::GUEST_OFFLOADS;
        let merged = Features::MRG_RXBUF;
        let options = parse("virtio-user:/a").unwrap();
        assert_eq!(options.net.choose(all | merged), all | merged);
        assert_eq!(options.net.choose(all), Features::HOST_OFFLOADS | Features::GUEST_CSUM);
        let none = merged | Features::HOST_TSO4 | Features::GUEST_TSO4 | Features::HOST_ECN;
        assert_eq!(options.net.choose(none), merged);
        let ecn = Features::CSUM | Features::HOST_ECN | Features::GUEST_CSUM | Features::GUEST_ECN;
        assert_eq!(options.net.choose(ecn), Features::CSUM | Features::GUEST_CSUM);
        let off = parse("virtio-user:/a,offloads=off").unwrap();
        assert_eq!(off.net.choose(all | merged), merged);
    }
}
