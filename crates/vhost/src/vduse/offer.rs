//! What a device is made with.

use packet::MacAddr;
use virtio::Features;

use super::abi::CONFIG_BYTES;
use crate::backend::Backend;

/// What a network device is made with: it cannot be changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The feature bits.
    pub features: Features,
    /// Number of rings.
    pub rings: u16,
    /// Number of queue pairs.
    pub pairs: u16,
    /// Most descriptors of a ring; a power of two.
    pub ring_size: u16,
    /// The address of the driver's interface.
    pub mac: MacAddr,
    /// Its longest payload in bytes, if it is bounded.
    pub mtu: Option<u16>,
}

impl Offer {
    /// What `backend` can be offered as.
    ///
    /// There is a control queue with several queue pairs only: a driver in the kernel waits for
    /// its answers with a lock that stops all configuration of interfaces, and would wait while
    /// this process is being started again. Rings are split: where a packed ring goes on cannot
    /// be read from it after a restart.
    #[must_use]
    pub fn of(backend: &dyn Backend, ring_size: u16, mac: MacAddr, mtu: Option<u16>) -> Self {
        let pairs = backend.queue_pairs();
        let mut features = Features::from_bits_truncate(backend.features());
        features.remove(Features::VHOST_USER_PROTOCOL | Features::VHOST_LOG_ALL);
        features.remove(Features::RING_PACKED | Features::MTU);
        features |= Features::VERSION_1 | Features::ACCESS_PLATFORM;
        // The configuration is here, other than with a VMM.
        features |= Features::MAC | Features::STATUS;
        features.set(Features::MTU, mtu.is_some());
        let mut rings = 2 * pairs;
        if pairs > 1 {
            rings += 1;
        } else {
            features.remove(Features::CONTROL | Features::MQ);
        }
        Self { features, rings, pairs, ring_size, mac, mtu }
    }

    /// `struct virtio_net_config` (virtio 1.3 section 5.1.4).
    #[must_use]
    pub fn config(&self) -> [u8; CONFIG_BYTES] {
        let [a, b, c, d, e, f] = self.mac.0;
        let [[s0, s1], [p0, p1], [m0, m1]] =
            [link_status(true), self.pairs.to_le_bytes(), self.mtu.unwrap_or(0).to_le_bytes()];
        let head = [a, b, c, d, e, f, s0, s1, p0, p1, m0, m1];
        let mut config = [0; CONFIG_BYTES];
        config.iter_mut().zip(head).for_each(|(place, byte)| *place = byte);
        // The speed is unknown, and so is the duplex.
        config.iter_mut().skip(12).take(5).for_each(|place| *place = 0xff);
        config
    }
}

/// Where the link status is in the configuration space.
pub(super) const LINK_STATUS_OFFSET: u32 = 6;

/// The bytes of the link status.
pub(super) fn link_status(up: bool) -> [u8; 2] {
    u16::from(up).to_le_bytes()
}
