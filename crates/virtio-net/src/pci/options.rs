//! What a device string of this driver can say.

use eal::pci::PciAddress;
use ethdev::{DeviceSpec, Error};
use packet::MacAddr;
use virtio::Features;

use super::INFO;
use crate::options::{ControlQueueMode, NetOptions};

/// Features that concern the transport and the device's configuration; a device that offers
/// them gets them.
const PCI_FEATURES: Features = Features::MAC
    .union(Features::STATUS)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::ORDER_PLATFORM)
    .union(Features::NOTIFICATION_DATA)
    .union(Features::SPEED_DUPLEX);

/// A device string, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(super) address: PciAddress,
    /// The address to use instead of the device's own.
    pub(super) mac: Option<MacAddr>,
    pub(super) net: NetOptions,
}

impl Options {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let text = spec.require_target("a PCI address such as 0000:01:00.0")?;
        let address = text.parse().map_err(|error| spec.error(format!("{error}")))?;
        let mac: Option<MacAddr> =
            spec.take_optional("mac", "an address such as 02:00:00:00:00:01")?;
        if let Some(mac) = mac.filter(|mac| mac.is_multicast()) {
            return Err(spec.error(format!("mac={mac}: expected the address of one station")));
        }
        let mut net = NetOptions::take(&mut spec)?;
        net.features |= PCI_FEATURES;
        spec.finish(&INFO.option_names())?;
        Ok(Self { address, mac, net })
    }

    /// The features to use of those that the device offers.
    pub(super) fn choose(&self, offered: Features) -> Features {
        let mut features = self.net.choose(offered);
        let control = Features::CTRL_VQ
            | Features::CTRL_RX
            | Features::CTRL_MAC_ADDR
            | Features::GUEST_ANNOUNCE;
        if self.net.control == ControlQueueMode::Off || !offered.contains(Features::CTRL_VQ) {
            // Virtio 1.3 section 5.1.3.1: several queue pairs take a control queue.
            return features - Features::MQ;
        }
        features |= offered & control;
        features.set(
            Features::CTRL_VLAN,
            offered.contains(Features::CTRL_VLAN) && !self.net.vlans.is_empty(),
        );
        features
            .set(Features::RSS, offered.contains(Features::RSS) && features.contains(Features::MQ));
        // The driver learns of the wish to announce by the status.
        if !features.contains(Features::STATUS) {
            features -= Features::GUEST_ANNOUNCE;
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Error> {
        Options::parse(text.parse().unwrap())
    }

    #[test]
    fn bad_options_are_named() {
        for (text, expected) in [
            ("virtio-pci:", "PCI address such as"),
            ("virtio-pci:eth0", "'eth0' is no PCI address"),
            ("virtio-pci:01:00.0,mac=01:00:00:00:00:00", "one station"),
            ("virtio-pci:01:00.0,queue_size=100", "a power of two"),
            ("virtio-pci:01:00.0,in_order=on", "packed=on"),
            ("virtio-pci:01:00.0,mtu=67", "68"),
            ("virtio-pci:01:00.0,server=on", "unknown option 'server'"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let options = parse("virtio-pci:01:00.0").unwrap();
        assert_eq!((options.net.queue_size, options.net.mtu, options.mac), (None, None, None));
    }

    #[test]
    fn features_come_with_what_they_need() {
        let offered = Features::all() - Features::RING_PACKED;
        let one = parse("virtio-pci:01:00.0").unwrap().choose(offered);
        assert!(one.contains(Features::CTRL_VQ | Features::STATUS | Features::GUEST_ANNOUNCE));
        assert!(!one.intersects(Features::MQ | Features::RSS | Features::CTRL_VLAN));
        assert!(!one.intersects(Features::GUEST_UFO | Features::RING_RESET));
        let two = parse("virtio-pci:01:00.0,queues=2,vlans=5").unwrap();
        assert!(two.choose(offered).contains(Features::MQ | Features::RSS | Features::CTRL_VLAN));
        assert!(!two.choose(offered - Features::CTRL_VQ).contains(Features::MQ));
        assert!(!two.choose(offered - Features::STATUS).contains(Features::GUEST_ANNOUNCE));
        let off = parse("virtio-pci:01:00.0,ctrl_vq=off").unwrap().choose(offered);
        assert!(!off.intersects(Features::CTRL_VQ | Features::CTRL_RX | Features::GUEST_ANNOUNCE));
    }
}
