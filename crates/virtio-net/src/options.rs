//! What device strings say about rings and features, whatever the transport.

use ethdev::{DeviceSpec, Error, mtu};
use virtio::Features;
use virtio::packed::MAX_SIZE;
use virtio::ring::QueueSize;

use super::features::with_valid_offloads;

/// Largest number of queue pairs: with the control queue, ring indexes fit into 8 bits.
const MAX_QUEUES: u16 = 127;

/// The options that mean the same to every transport; the device may be a program behind a socket.
pub(crate) mod about {
    use ethdev::OptionInfo;

    pub(crate) const QUEUES: OptionInfo =
        OptionInfo { name: "queues", value: "N", help: "queue pairs, 1 to 127 (default 1)" };
    pub(crate) const PACKED: OptionInfo =
        OptionInfo::switch("packed", "packed rings (default off: split)");
    pub(crate) const IN_ORDER: OptionInfo = OptionInfo::switch(
        "in_order",
        "buffers are used in order; with packed=on only (default off)",
    );
    pub(crate) const MRG_RXBUF: OptionInfo =
        OptionInfo::switch("mrg_rxbuf", "received frames may span several buffers (default on)");
    pub(crate) const INDIRECT: OptionInfo =
        OptionInfo::switch("indirect", "send long frames by descriptor tables (default on)");
    pub(crate) const EVENT_IDX: OptionInfo =
        OptionInfo::switch("event_idx", "suppress notifications by ring index (default off)");
    pub(crate) const OFFLOADS: OptionInfo = OptionInfo::switch(
        "offloads",
        "exchange large segments and begun checksums with the device (default on)",
    );
    pub(crate) const CTRL_VQ: OptionInfo = OptionInfo {
        name: "ctrl_vq",
        value: "auto|on|off",
        help: "use a control queue (default auto: if the device serves one)",
    };
    pub(crate) const VLANS: OptionInfo = OptionInfo {
        name: "vlans",
        value: "ID+ID..",
        help: "have the device filter VLANs and let these through (default: no filter)",
    };
}

/// Whether to use a control queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlQueueMode {
    /// If the device looks as if it served one.
    Auto,
    /// If the device offers one. (DPDK's back-end does, and leaves it to the VMM to serve it.)
    On,
    Off,
}

/// The options that all transports have.
#[derive(Clone, Debug)]
pub(crate) struct NetOptions {
    pub(crate) queues: u16,
    /// Entries of each ring, if given.
    pub(crate) queue_size: Option<u16>,
    /// Bytes, if given.
    pub(crate) mtu: Option<u16>,
    pub(crate) control: ControlQueueMode,
    /// VLANs to let through, if the device is to filter them.
    pub(crate) vlans: Vec<u16>,
    /// Features that may be negotiated, as far as options decide.
    pub(crate) features: Features,
}

impl NetOptions {
    /// Takes these options out of a device string.
    pub(crate) fn take(spec: &mut DeviceSpec) -> Result<Self, Error> {
        let packed = spec.take_switch("packed", false)?;
        let control = match spec.take("ctrl_vq").as_deref() {
            None | Some("auto") => ControlQueueMode::Auto,
            Some("on") => ControlQueueMode::On,
            Some("off") => ControlQueueMode::Off,
            Some(other) => {
                return Err(spec.error(format!("ctrl_vq={other}: expected auto, on or off")));
            }
        };
        Ok(Self {
            queue_size: take_queue_size(spec, packed)?,
            features: take_features(spec, packed)?,
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUES))?,
            mtu: spec.take_optional_number("mtu", &(mtu::MIN..=u16::MAX))?,
            control,
            vlans: take_vlans(spec)?,
        })
    }

    /// The features to use of those that a device offers, without a control queue.
    pub(crate) fn choose(&self, offered: Features) -> Features {
        let mut features = offered & self.features;
        if self.queues > 1 {
            features |= offered & Features::MQ;
        }
        with_valid_offloads(features)
    }

    /// The features to add for a control queue; empty for none.
    pub(crate) fn choose_control(&self, offered: Features) -> Features {
        // DPDK's back-end offers CTRL_VQ and CTRL_RX for the VMM to serve, but not the MAC.
        let served = match self.control {
            ControlQueueMode::Auto => Features::CTRL_VQ | Features::CTRL_MAC_ADDR,
            ControlQueueMode::On => Features::CTRL_VQ,
            ControlQueueMode::Off => return Features::empty(),
        };
        if !offered.contains(served) {
            return Features::empty();
        }
        let mut wanted = Features::CTRL_VQ | Features::CTRL_RX | Features::CTRL_MAC_ADDR;
        wanted.set(Features::CTRL_VLAN, !self.vlans.is_empty());
        wanted |= Features::MQ;
        offered & wanted
    }
}

const SPLIT_SIZES: &str = "a power of two from 4 to 32768";
const PACKED_SIZES: &str = "4 to 32768";

fn take_queue_size(spec: &mut DeviceSpec, packed: bool) -> Result<Option<u16>, Error> {
    let sizes = if packed { PACKED_SIZES } else { SPLIT_SIZES };
    let Some(size) = spec.take_optional::<u16>("queue_size", sizes)? else { return Ok(None) };
    let allowed = (4..=MAX_SIZE).contains(&size) && (packed || QueueSize::new(size).is_some());
    if !allowed {
        return Err(spec.error(format!("queue_size={size}: expected {sizes}")));
    }
    Ok(Some(size))
}

fn take_features(spec: &mut DeviceSpec, packed: bool) -> Result<Features, Error> {
    let mut features = Features::MTU | Features::ANY_LAYOUT | Features::VERSION_1;
    features.set(Features::MRG_RXBUF, spec.take_switch("mrg_rxbuf", true)?);
    features.set(Features::INDIRECT_DESC, spec.take_switch("indirect", true)?);
    features.set(Features::EVENT_IDX, spec.take_switch("event_idx", false)?);
    features.set(Features::RING_PACKED, packed);
    let in_order = spec.take_switch("in_order", false)?;
    if in_order && !packed {
        return Err(spec.error("in_order=on: expected packed=on with it".to_owned()));
    }
    features.set(Features::IN_ORDER, in_order);
    let offloads = Features::HOST_OFFLOADS | Features::GUEST_OFFLOADS;
    features.set(offloads, spec.take_switch("offloads", true)?);
    Ok(features)
}

fn take_vlans(spec: &mut DeviceSpec) -> Result<Vec<u16>, Error> {
    let Some(text) = spec.take("vlans") else { return Ok(Vec::new()) };
    let parse = |id: &str| id.parse().ok().filter(|id| (0..4095).contains(id));
    text.split('+')
        .map(parse)
        .collect::<Option<Vec<u16>>>()
        .ok_or_else(|| spec.error(format!("vlans={text}: expected numbers to 4094, as in 1+20")))
}
