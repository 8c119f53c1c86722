//! What a session with the device will be like: features, rings, and which of these the device
//! serves itself.

use virtio::device::{self, DeviceQueue};
use virtio::ring::QueueSize;
use virtio::{Features, GuestMemory};
use virtio_net::pci::registers::{QueueInfo, Registers};

use crate::device::{DeviceError, Ring, Setup};

/// Features that are negotiated with the device for ourselves, where it has them.
const OWN: Features = Features::ACCESS_PLATFORM
    .union(Features::ORDER_PLATFORM)
    .union(Features::CTRL_VQ)
    .union(Features::CTRL_RX);

/// Features of the device that its guest does not get: the front-end serves the control queue;
/// addresses are the guest's own; a doorbell that the front-end hands on cannot say where in the
/// ring the guest is; a ring cannot be reset alone; and where a device that gives chains back in
/// batches was stopped cannot be told.
const WITHHELD: Features = OWN
    .union(Features::CONTROL)
    .union(Features::VHOST_LOG_ALL)
    .union(Features::NOTIFICATION_DATA)
    .union(Features::RING_RESET)
    .union(Features::IN_ORDER);

/// What the front-end may negotiate of what the device offers.
pub(super) fn offered(device: Features) -> Features {
    let mut features = device - WITHHELD;
    // Without a control queue nobody can tell the device how many pairs to use.
    if !device.contains(Features::CTRL_VQ) {
        features -= Features::MQ;
    }
    features
}

/// Features to negotiate with the device, which offers `device`, for a front-end that has
/// negotiated `wanted`, and for `pairs` queue pairs.
pub(super) fn features(device: Features, wanted: u64, pairs: u16) -> Result<Features, DeviceError> {
    let missing = wanted & !offered(device).bits();
    if missing != 0 {
        let names = virtio_net::control::feature_names(missing);
        return Err(DeviceError(format!(
            "it lacks features that the front-end has negotiated ({names}); restart the VM, so \
             that it negotiates again"
        )));
    }
    let wanted = Features::from_bits_truncate(wanted);
    if !wanted.contains(Features::VERSION_1) {
        let reason = "the guest's driver is of before virtio 1.0, which the device cannot serve";
        return Err(DeviceError(reason.to_owned()));
    }
    let mut own = OWN & device;
    if pairs > 1 {
        own |= Features::MQ & device;
    }
    if !own.contains(Features::CTRL_VQ) {
        own -= Features::CTRL_RX;
    }
    Ok(wanted | own)
}

/// Who serves a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nobody: it is not enabled.
    Resting,
    /// The device itself.
    Direct,
    /// The device serves a shadow ring of so many entries.
    Shadow(u16),
}

/// A ring and what to do with it.
#[derive(Debug)]
pub(super) struct PlannedRing {
    pub(super) index: u16,
    pub(super) mode: Mode,
    /// The ring as it lies in guest-physical addresses, with the negotiated features.
    pub(super) setup: device::RingSetup,
    pub(super) info: QueueInfo,
}

/// The rings of `setup`, in their order. `memory` is the guest's with its guest-physical addresses
/// for front-end addresses, and `logging` says that whatever is written has to be logged.
pub(super) fn rings(
    registers: &dyn Registers,
    setup: &Setup,
    memory: &GuestMemory,
    features: Features,
    logging: bool,
) -> Result<Vec<PlannedRing>, DeviceError> {
    let plan = |ring: &Ring| {
        let info = registers.queue(ring.index);
        let size = ring_size(ring, info, features)?;
        let setup = device::RingSetup {
            size: ring.size,
            desc: ring.descriptors,
            avail: ring.driver,
            used: ring.device,
            base: ring.base,
            features,
        };
        let direct = size == ring.size && !logging && DeviceQueue::is_new(memory, &setup);
        let mode = match (ring.enabled || ring.index > 1, direct) {
            (false, _) => Mode::Resting,
            (true, true) => Mode::Direct,
            (true, false) => Mode::Shadow(size),
        };
        Ok(PlannedRing { index: ring.index, mode, setup, info })
    };
    setup.rings.iter().map(plan).collect()
}

/// Entries of the ring that the device serves: those of the guest's ring, or fewer where the device
/// cannot do as many.
fn ring_size(ring: &Ring, info: QueueInfo, features: Features) -> Result<u16, DeviceError> {
    let packed = features.contains(Features::RING_PACKED);
    let most = info.size;
    let size = match ring.size <= most {
        true => ring.size,
        false if packed => most,
        false => most.checked_ilog2().and_then(|log| 1_u16.checked_shl(log)).unwrap_or(0),
    };
    if size == 0 || !(packed || QueueSize::new(ring.size).is_some()) {
        let Ring { index, size, .. } = ring;
        return Err(DeviceError(format!(
            "ring {index} has {size} entries, and the device has room for {most}"
        )));
    }
    Ok(size)
}

/// How many queue pairs are in use: those up to the first that is not enabled.
pub(super) fn enabled_pairs(rings: &[Ring]) -> u16 {
    let enabled = |pair: u16| {
        let of_pair = rings.iter().filter(|ring| ring.index / 2 == pair);
        of_pair.fold(false, |any, ring| any | ring.enabled)
    };
    let most = rings.iter().map(|ring| ring.index / 2 + 1).max().unwrap_or(0);
    (0..most).take_while(|pair| enabled(*pair)).fold(0, |count, _| count + 1)
}
