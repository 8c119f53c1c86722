//! What a device is and can do, as it tells when it is opened.

use std::io;

use virtio::Features;

use super::abi::{ENABLE_AFTER_DRIVER_OK, IOTLB_ASID, IOTLB_BATCH, IOTLB_MSG_V2, SUSPEND};
use super::calls::Calls;
use crate::device::DeviceError;

/// The kind of a network device (virtio 1.3 section 5).
const NETWORK_DEVICE: u32 = 1;

/// Where the configuration tells the number of queue pairs (virtio 1.3 section 5.1.4), and its
/// size in kernels that do not tell.
const MAX_PAIRS_AT: u32 = 8;
const OLD_CONFIG_SIZE: u32 = 12;

/// Queue pairs that a vhost-user front-end can use: it names rings by a byte.
const MAX_PAIRS: u16 = 127;

/// Back-end features that are used where the kernel offers them.
const USED_BACKEND: u64 =
    IOTLB_MSG_V2 | IOTLB_BATCH | IOTLB_ASID | SUSPEND | ENABLE_AFTER_DRIVER_OK;

/// Features of a device that concern itself and the guest alone. What is not among them needs the
/// control queue, which is not the guest's (a front-end serves that itself), or notifications
/// that carry more than an eventfd does.
const PASSED_ON: Features = Features::GUEST_OFFLOADS
    .union(Features::HOST_OFFLOADS)
    .union(Features::GUEST_UFO)
    .union(Features::HOST_UFO)
    .union(Features::MTU)
    .union(Features::MAC)
    .union(Features::MRG_RXBUF)
    .union(Features::STATUS)
    .union(Features::ANY_LAYOUT)
    .union(Features::INDIRECT_DESC)
    .union(Features::EVENT_IDX)
    .union(Features::VERSION_1)
    .union(Features::RING_PACKED)
    .union(Features::IN_ORDER)
    .union(Features::ORDER_PLATFORM)
    .union(Features::SPEED_DUPLEX);

/// What a device told of itself, checked.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    /// All virtio features that it has, also those that are unknown here.
    pub(super) features: Features,
    /// The back-end features that are used: bits of [`abi`](super::abi).
    pub(super) backend: u64,
    /// Number of rings, a control queue's included; 2 at least.
    pub(super) rings: u16,
    /// Queue pairs that can be used; 1 at least, and no more than there are rings for.
    pub(super) pairs: u16,
    /// Most queue pairs as its configuration has them: the control queue comes after so many.
    pub(super) configured_pairs: u16,
    /// Most entries of a ring.
    pub(super) max_ring: u16,
    /// Bytes of its configuration space.
    pub(super) config_size: u32,
    /// The first and the last address that it reaches.
    pub(super) range: (u64, u64),
    /// Number of address spaces; 1 at least.
    pub(super) spaces: u32,
}

/// An error of the step `what`.
pub(super) fn failed(what: &'static str) -> impl Fn(io::Error) -> DeviceError {
    move |error| DeviceError(format!("{what} failed: {error}"))
}

impl Offer {
    /// Asks a device that was just opened what it is, and makes its back-end features known.
    ///
    /// # Errors
    /// When it is no network device, or makes no sense.
    pub(super) fn read(calls: &dyn Calls) -> Result<Self, DeviceError> {
        let id = calls.device_id().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => {
                DeviceError("it is not a vhost-vdpa device; expected /dev/vhost-vdpa-N".to_owned())
            }
            _ => failed("VHOST_VDPA_GET_DEVICE_ID")(error),
        })?;
        if id != NETWORK_DEVICE {
            return Err(DeviceError(format!(
                "it is a virtio device of type {id}, expected type 1, a network device"
            )));
        }
        calls.set_owner().map_err(failed("VHOST_SET_OWNER"))?;
        let offered = calls.backend_features().map_err(failed("VHOST_GET_BACKEND_FEATURES"))?;
        let backend = offered & USED_BACKEND;
        if backend & IOTLB_MSG_V2 == 0 {
            let old = "the kernel does not take memory mappings (IOTLB_MSG_V2); use Linux 5.7 or \
                       later";
            return Err(DeviceError(old.to_owned()));
        }
        calls.set_backend_features(backend).map_err(failed("VHOST_SET_BACKEND_FEATURES"))?;
        let features = calls.features().map_err(failed("VHOST_GET_FEATURES"))?;
        let offer = Self {
            features: Features::from_bits_retain(features),
            backend,
            max_ring: calls.max_ring_size().map_err(failed("VHOST_VDPA_GET_VRING_NUM"))?,
            // Kernels before 5.18 do not answer these, and before 5.11 not the range.
            config_size: calls.config_size().unwrap_or(OLD_CONFIG_SIZE),
            rings: calls.ring_count().map_or(2, |count| u16::try_from(count).unwrap_or(u16::MAX)),
            range: calls.iova_range().unwrap_or((0, u64::MAX)),
            spaces: if backend & IOTLB_ASID == 0 { 1 } else { calls.space_count().unwrap_or(1) },
            ..Self::default()
        };
        offer.with_pairs(calls)
    }

    fn with_pairs(mut self, calls: &dyn Calls) -> Result<Self, DeviceError> {
        if self.rings < 2 || self.max_ring == 0 {
            return Err(DeviceError(format!(
                "it has {} rings of {} entries at most, expected 2 rings or more",
                self.rings, self.max_ring
            )));
        }
        let (first, last) = self.range;
        if first > last {
            let reason = format!("it reaches the addresses from {first:#x} to {last:#x}: none");
            return Err(DeviceError(reason));
        }
        (self.pairs, self.configured_pairs) = (1, 1);
        let needed = Features::MQ | Features::CTRL_VQ;
        if self.features.contains(needed) && self.config_size >= MAX_PAIRS_AT + 2 {
            let mut bytes = [0; 2];
            calls.read_config(MAX_PAIRS_AT, &mut bytes).map_err(failed("VHOST_VDPA_GET_CONFIG"))?;
            self.configured_pairs = u16::from_le_bytes(bytes).max(1);
            // The ring behind all pairs is the control queue, without which one pair runs.
            let all = u32::from(self.configured_pairs) * 2 < u32::from(self.rings);
            self.pairs = if all { self.configured_pairs.min(MAX_PAIRS) } else { 1 };
        }
        Ok(self)
    }

    /// The features that a guest can use.
    pub(super) fn guest_features(&self) -> Features {
        let queues = if self.pairs > 1 { Features::MQ } else { Features::empty() };
        self.features & (PASSED_ON | queues)
    }

    /// Whether all of `backend`, bits of [`abi`](super::abi), is used.
    pub(super) const fn has(&self, backend: u64) -> bool {
        self.backend & backend == backend
    }
}
