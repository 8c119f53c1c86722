//! What a device string of this driver can say.

use ethdev::{DeviceSpec, Error};
use packet::MacAddr;
use virtio::Features;
use virtio::packed::MAX_SIZE;
use virtio::ring::QueueSize;

use super::INFO;
use super::memory::DATA_OFFSET;

/// Largest number of queue pairs: with the control queue, ring indexes fit into 8 bits.
const MAX_QUEUES: u16 = 127;

/// Bytes of a frame that one buffer holds at least: an ordinary frame with tags and some more.
const SLOT_ROOM: usize = 2176;

/// What a frame may have on top of the MTU: Ethernet header and one VLAN tag.
pub(super) const LINK_HEADERS: usize = 18;

/// Whether to use a control queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlQueueMode {
    /// If the back-end looks as if it served one.
    Auto,
    /// If the back-end offers one. (DPDK's does, and leaves it to the VMM to serve it.)
    On,
    Off,
}

/// A device string, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) path: String,
    pub(super) server: bool,
    pub(super) queues: u16,
    pub(super) queue_size: u16,
    pub(super) mac: MacAddr,
    pub(super) mtu: u16,
    pub(super) control: ControlQueueMode,
    /// VLANs to let through, if the device is to filter them.
    pub(super) vlans: Vec<u16>,
    /// Features that may be negotiated, as far as options decide.
    pub(super) features: Features,
}

impl Options {
    pub(super) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let path = spec.require_target("the path of a socket")?.to_owned();
        let packed = spec.take_switch("packed", false)?;
        let queue_size = take_queue_size(&mut spec, packed)?;
        let mac =
            spec.take_parsed("mac", default_mac(&path), "an address such as 02:00:00:00:00:01")?;
        if mac.is_multicast() {
            return Err(spec.error(format!("mac={mac}: expected the address of one station")));
        }
        let control = match spec.take("ctrl_vq").as_deref() {
            None | Some("auto") => ControlQueueMode::Auto,
            Some("on") => ControlQueueMode::On,
            Some("off") => ControlQueueMode::Off,
            Some(other) => {
                return Err(spec.error(format!("ctrl_vq={other}: expected auto, on or off")));
            }
        };
        let mut features = Features::MTU | Features::VHOST_USER_PROTOCOL | Features::ANY_LAYOUT;
        features.set(Features::VERSION_1, spec.take_switch("version_1", true)?);
        features.set(Features::MRG_RXBUF, spec.take_switch("mrg_rxbuf", true)?);
        features.set(Features::INDIRECT_DESC, spec.take_switch("indirect", true)?);
        features.set(Features::EVENT_IDX, spec.take_switch("event_idx", false)?);
        features.set(Features::RING_PACKED, packed);
        let in_order = spec.take_switch("in_order", false)?;
        if in_order && !packed {
            return Err(spec.error("in_order=on: expected packed=on with it".to_owned()));
        }
        features.set(Features::IN_ORDER, in_order);
        if packed && !features.contains(Features::VERSION_1) {
            return Err(spec.error("packed=on: expected version_1=on with it".to_owned()));
        }
        let offloads = Features::HOST_OFFLOADS | Features::GUEST_OFFLOADS;
        features.set(offloads, spec.take_switch("offloads", true)?);
        let options = Self {
            path,
            server: spec.take_switch("server", false)?,
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUES))?,
            queue_size,
            mac,
            mtu: spec.take_number("mtu", 1500, &(68..=u16::MAX))?,
            control,
            vlans: take_vlans(&mut spec)?,
            features,
        };
        spec.finish(&INFO.option_names())?;
        Ok(options)
    }

    /// The features to use of those that a back-end offers, without a control queue.
    pub(super) fn choose(&self, offered: Features) -> Features {
        let mut features = offered & self.features;
        if self.queues > 1 {
            features |= offered & Features::MQ;
        }
        with_valid_offloads(features)
    }

    /// The features to add for a control queue; empty for none.
    pub(super) fn choose_control(&self, offered: Features) -> Features {
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

/// The features without those offloads that cannot be without others (virtio 1.3 section
/// 5.1.3.1), and without large segments for receive buffers that could not hold them.
fn with_valid_offloads(mut features: Features) -> Features {
    let guest_tso = Features::GUEST_TSO4 | Features::GUEST_TSO6;
    let host_tso = Features::HOST_TSO4 | Features::HOST_TSO6;
    if !features.contains(Features::CSUM) {
        features -= Features::HOST_OFFLOADS;
    }
    if !features.contains(Features::GUEST_CSUM) {
        features -= Features::GUEST_OFFLOADS;
    }
    if !features.contains(Features::MRG_RXBUF) {
        features -= Features::GUEST_OFFLOADS - Features::GUEST_CSUM;
    }
    if !features.intersects(host_tso) {
        features -= Features::HOST_ECN;
    }
    if !features.intersects(guest_tso) {
        features -= Features::GUEST_ECN;
    }
    features
}

/// Bytes of a frame that a receive buffer must hold: all of it, if a frame cannot span several.
pub(super) fn receive_room(features: Features, mtu: u16) -> usize {
    if features.contains(Features::MRG_RXBUF) {
        return SLOT_ROOM;
    }
    SLOT_ROOM.max((usize::from(mtu) + LINK_HEADERS).next_multiple_of(DATA_OFFSET))
}

/// Bytes of a frame that a transmit buffer holds.
pub(super) const TRANSMIT_ROOM: usize = SLOT_ROOM;

const SPLIT_SIZES: &str = "a power of two from 4 to 32768";
const PACKED_SIZES: &str = "4 to 32768";

fn take_queue_size(spec: &mut DeviceSpec, packed: bool) -> Result<u16, Error> {
    let sizes = if packed { PACKED_SIZES } else { SPLIT_SIZES };
    let size: u16 = spec.take_parsed("queue_size", 256, sizes)?;
    let allowed = (4..=MAX_SIZE).contains(&size) && (packed || QueueSize::new(size).is_some());
    if !allowed {
        return Err(spec.error(format!("queue_size={size}: expected {sizes}")));
    }
    Ok(size)
}

fn take_vlans(spec: &mut DeviceSpec) -> Result<Vec<u16>, Error> {
    let Some(text) = spec.take("vlans") else { return Ok(Vec::new()) };
    let parse = |id: &str| id.parse().ok().filter(|id| (0..4095).contains(id));
    text.split('+')
        .map(parse)
        .collect::<Option<Vec<u16>>>()
        .ok_or_else(|| spec.error(format!("vlans={text}: expected numbers to 4094, as in 1+20")))
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
        assert_eq!((options.queues, options.queue_size, options.mtu), (1, 256, 1500));
        assert_eq!(options.mac, parse("virtio-user:/run/a.sock").unwrap().mac);
        assert_ne!(options.mac, parse("virtio-user:/run/b.sock").unwrap().mac);
        assert!(options.features.contains(Features::MRG_RXBUF | Features::VERSION_1));
        assert!(!options.features.contains(Features::EVENT_IDX));
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
        assert_eq!(options.choose(dpdk), Features::VERSION_1 | Features::MQ);
        assert_eq!(options.choose_control(dpdk), Features::empty());
        let ours = dpdk | Features::CTRL_MAC_ADDR | Features::CTRL_VLAN;
        let control = options.choose_control(ours);
        assert!(control.contains(Features::CTRL_VQ | Features::CTRL_MAC_ADDR));
        assert!(!control.contains(Features::CTRL_VLAN), "which would filter all VLANs");
    }

    #[test]
    fn offloads_come_with_what_they_need() {
        let all = Features::HOST_OFFLOADS | Features::GUEST_OFFLOADS;
        let merged = Features::MRG_RXBUF;
        let options = parse("virtio-user:/a").unwrap();
        assert_eq!(options.choose(all | merged), all | merged);
        assert_eq!(options.choose(all), Features::HOST_OFFLOADS | Features::GUEST_CSUM);
        let none = merged | Features::HOST_TSO4 | Features::GUEST_TSO4 | Features::HOST_ECN;
        assert_eq!(options.choose(none), merged);
        let ecn = Features::CSUM | Features::HOST_ECN | Features::GUEST_CSUM | Features::GUEST_ECN;
        assert_eq!(options.choose(ecn), Features::CSUM | Features::GUEST_CSUM);
        let off = parse("virtio-user:/a,offloads=off").unwrap();
        assert_eq!(off.choose(all | merged), merged);
    }

    #[test]
    fn buffers_hold_a_frame_or_frames_span_buffers() {
        let merged = Features::MRG_RXBUF;
        assert_eq!(receive_room(merged, 9000), SLOT_ROOM);
        assert_eq!(receive_room(Features::empty(), 1500), SLOT_ROOM);
        assert!(receive_room(Features::empty(), 9000) >= 9018);
    }
}
