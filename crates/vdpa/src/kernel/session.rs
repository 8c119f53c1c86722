//! From one start of a device to the stop after it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use eal::{EventFd, PeerEvent};
use virtio::{Features, GuestMemory};
use virtio_net::control::feature_names;

use super::abi::{ENABLE_AFTER_DRIVER_OK, SUSPEND};
use super::calls::{Calls, GUEST_SPACE, Piece, RingAddresses};
use super::control::Control;
use super::memory::{self, Mappings};
use super::offer::{Offer, failed};
use crate::device::{DeviceError, Ring, Setup};

/// Bits of the device status (virtio 1.3 section 2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;

/// A device that runs, or is about to.
#[derive(Debug)]
pub(super) struct Session {
    features: Features,
    memory: Arc<GuestMemory>,
    rings: Vec<Ring>,
    /// Those that the device has served, at least for a while.
    served: Vec<u16>,
    /// Queue pairs that the device was started for.
    pairs: u16,
    mappings: Mappings,
    control: Option<Control>,
}

impl Session {
    /// Starts the device.
    ///
    /// # Errors
    /// When setup and device do not go together, or the kernel or the device do not do their
    /// part. Nothing is mapped then, and the device is reset.
    pub(super) fn start(
        calls: &dyn Calls,
        offer: &Offer,
        setup: Setup,
        config_call: &EventFd,
    ) -> Result<Self, DeviceError> {
        let pieces: Vec<Piece> = setup.memory.regions().iter().map(Piece::guest).collect();
        check(offer, &setup, &pieces)?;
        let Setup { features, memory, rings } = setup;
        let features = Features::from_bits_retain(features);
        let mut session = Self {
            features,
            memory,
            served: enabled(&rings).collect(),
            pairs: pairs_of(&rings),
            rings,
            mappings: Mappings::default(),
            control: None,
        };
        match session.run(calls, offer, &pieces, config_call) {
            Ok(()) => Ok(session),
            Err(error) => {
                session.halt(calls, offer);
                Err(error)
            }
        }
    }

    fn run(
        &mut self,
        calls: &dyn Calls,
        offer: &Offer,
        pieces: &[Piece],
        config_call: &EventFd,
    ) -> Result<(), DeviceError> {
        calls.set_status(0).map_err(failed("resetting the device"))?;
        self.negotiate(calls, offer)?;
        self.mappings.map(calls, offer, GUEST_SPACE, pieces)?;
        if self.pairs > 1 {
            let control = Control::new(calls, offer, pieces, self.features)?;
            self.mappings.map(calls, offer, control.space, std::slice::from_ref(&control.piece))?;
            self.control = Some(control);
        }
        let call = Some(config_call.as_fd());
        calls.set_config_call(call).map_err(failed("VHOST_VDPA_SET_CONFIG_CALL"))?;
        for ring in &self.rings {
            set_up(calls, &Place::of(ring)).map_err(|error| of_ring(ring.index, &error))?;
        }
        if let Some(control) = &self.control {
            set_up(calls, &Place::control(control))
                .map_err(|error| of_ring(control.index, &error))?;
        }
        set_status(calls, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)?;
        if !is_running(calls) {
            let status = calls.status().unwrap_or(0);
            let reason = format!("the device does not start: its status is {status:#x}");
            return Err(DeviceError(reason));
        }
        if let Some(control) = &mut self.control {
            control.use_pairs(self.pairs)?;
        }
        // There may be something in the rings since before the device ran.
        self.rings.iter().for_each(kick);
        Ok(())
    }

    /// Agrees with the device on features (virtio 1.3 section 3.1.1).
    fn negotiate(&mut self, calls: &dyn Calls, offer: &Offer) -> Result<(), DeviceError> {
        set_status(calls, ACKNOWLEDGE)?;
        set_status(calls, ACKNOWLEDGE | DRIVER)?;
        // The kernel translates the device's addresses whatever the guest knows of that.
        let mut features = self.features | (offer.features & Features::ACCESS_PLATFORM);
        if self.pairs > 1 {
            features |= Features::MQ | Features::CTRL_VQ;
        } else {
            features -= Features::MQ;
        }
        calls.set_features(features.bits()).map_err(failed("VHOST_SET_FEATURES"))?;
        set_status(calls, ACKNOWLEDGE | DRIVER | FEATURES_OK)?;
        let status = calls.status().map_err(failed("VHOST_VDPA_GET_STATUS"))?;
        if status & FEATURES_OK == 0 {
            return Err(DeviceError(format!(
                "the device refuses the features {}; a guest needs virtio 1.0 (version_1) at least",
                feature_names(features.bits())
            )));
        }
        self.features = features;
        Ok(())
    }

    /// Stops the device, and tells where each ring is to go on.
    pub(super) fn stop(mut self, calls: &dyn Calls, offer: &Offer) -> Vec<(u16, u32)> {
        let suspended = offer.has(SUSPEND)
            && calls
                .suspend()
                .inspect_err(|error| tracing::warn!(%error, "a vDPA device does not suspend"))
                .is_ok();
        // Where the device cannot be suspended it goes on while it is asked. In a split ring,
        // the guest's memory tells after the reset up to where everything was used: better. A
        // packed ring has no such place.
        let ask = suspended || self.features.contains(Features::RING_PACKED);
        let tell = |ring: &Ring| if ask { calls.ring_base(ring.index).ok() } else { None };
        let told: Vec<Option<u32>> = self.rings.iter().map(tell).collect();
        self.halt(calls, offer);
        let bases = self.rings.iter().zip(told).map(|(ring, told)| {
            let reached = told.or_else(|| self.used_index(ring));
            let reached = reached.filter(|_| self.served.contains(&ring.index));
            (ring.index, reached.unwrap_or(ring.base))
        });
        bases.collect()
    }

    /// The index of the used ring: a device that works in order, as network devices do, is done
    /// with everything before it.
    fn used_index(&self, ring: &Ring) -> Option<u32> {
        if self.features.contains(Features::RING_PACKED) {
            return None;
        }
        let mut bytes = [0; 4];
        self.memory.translate(ring.device, 4)?.copy_to(&mut bytes);
        let [_, _, low, high] = bytes;
        Some(u16::from_le_bytes([low, high]).into())
    }

    /// Resets the device and takes everything away from it that it was given.
    fn halt(&mut self, calls: &dyn Calls, offer: &Offer) {
        if let Err(error) = calls.set_status(0) {
            tracing::warn!(%error, "a vDPA device does not reset; its memory is unmapped");
        }
        let control = self.control.as_ref().map(|control| control.index);
        for index in self.rings.iter().map(|ring| ring.index).chain(control) {
            // The kernel refuses this for a ring that it does not have, which never had files.
            let _ = calls.set_ring_kick(index, None);
            let _ = calls.set_ring_call(index, None);
        }
        let _ = calls.set_config_call(None);
        self.mappings.unmap(calls, offer);
    }

    /// Bytes of memory that the device reaches.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.mappings.bytes()
    }

    fn ring(&mut self, index: u16) -> Result<&mut Ring, DeviceError> {
        let ring = self.rings.iter_mut().find(|ring| ring.index == index);
        ring.ok_or_else(|| DeviceError(format!("ring {index} does not run")))
    }

    pub(super) fn set_ring_enabled(
        &mut self,
        calls: &dyn Calls,
        offer: &Offer,
        index: u16,
        enabled: bool,
    ) -> Result<(), DeviceError> {
        let pairs = self.pairs;
        let ring = self.ring(index)?;
        if ring.enabled == enabled {
            return Ok(());
        }
        if !offer.has(ENABLE_AFTER_DRIVER_OK) {
            let reason = format!("the device does not enable or disable ring {index} as it runs");
            return Err(DeviceError(reason));
        }
        // It agreed on features, and got a control queue, for so many.
        if index / 2 >= pairs {
            let reason = format!("ring {index}: the device was started for {pairs} queue pairs");
            return Err(DeviceError(reason));
        }
        calls.set_ring_enabled(index, enabled).map_err(|error| of_ring(index, &error))?;
        ring.enabled = enabled;
        kick(ring);
        if enabled && !self.served.contains(&index) {
            self.served.push(index);
        }
        Ok(())
    }

    pub(super) fn set_ring_kick(
        &mut self,
        calls: &dyn Calls,
        index: u16,
        file: Option<PeerEvent>,
    ) -> Result<(), DeviceError> {
        let ring = self.ring(index)?;
        let Some(new) = &file else { return Err(no_kick(index)) };
        calls.set_ring_kick(index, Some(new.as_fd())).map_err(|error| of_ring(index, &error))?;
        ring.kick = file;
        kick(ring);
        Ok(())
    }

    pub(super) fn set_ring_call(
        &mut self,
        calls: &dyn Calls,
        index: u16,
        file: Option<PeerEvent>,
    ) -> Result<(), DeviceError> {
        let ring = self.ring(index)?;
        calls
            .set_ring_call(index, file.as_ref().map(PeerEvent::as_fd))
            .map_err(|error| of_ring(index, &error))?;
        ring.call = file;
        if let Some(call) = &ring.call {
            let _ = call.signal();
        }
        Ok(())
    }
}

/// Numbers of the rings that are enabled.
fn enabled(rings: &[Ring]) -> impl Iterator<Item = u16> {
    rings.iter().filter(|ring| ring.enabled).map(|ring| ring.index)
}

/// Queue pairs of which a ring is enabled, counted from the first; 1 at least.
fn pairs_of(rings: &[Ring]) -> u16 {
    enabled(rings).map(|index| index / 2 + 1).max().unwrap_or(1)
}

/// Everything that a ring needs.
struct Place<'a> {
    index: u16,
    size: u16,
    addresses: RingAddresses,
    base: u32,
    enabled: bool,
    kick: Option<BorrowedFd<'a>>,
    call: Option<BorrowedFd<'a>>,
}

impl<'a> Place<'a> {
    fn of(ring: &'a Ring) -> Self {
        let Ring { index, size, descriptors, driver, device, base, enabled, kick, call } = ring;
        Self {
            index: *index,
            size: *size,
            addresses: RingAddresses {
                descriptors: *descriptors,
                driver: *driver,
                device: *device,
            },
            base: *base,
            enabled: *enabled,
            kick: kick.as_ref().map(PeerEvent::as_fd),
            call: call.as_ref().map(PeerEvent::as_fd),
        }
    }

    fn control(control: &'a Control) -> Self {
        Self {
            index: control.index,
            size: control.size,
            addresses: control.addresses(),
            base: control.base(),
            enabled: true,
            kick: Some(control.kick.as_fd()),
            call: Some(control.call.as_fd()),
        }
    }
}

/// Tells the kernel about a ring. Those that are enabled later are described now as well.
fn set_up(calls: &dyn Calls, place: &Place<'_>) -> std::io::Result<()> {
    let index = place.index;
    calls.set_ring_size(index, place.size)?;
    calls.set_ring_base(index, place.base)?;
    calls.set_ring_addresses(index, place.addresses)?;
    calls.set_ring_call(index, place.call)?;
    calls.set_ring_kick(index, place.kick)?;
    if place.enabled {
        calls.set_ring_enabled(index, true)?;
    }
    Ok(())
}

/// The kernel has the device look into a ring when it is told so, and not otherwise.
fn no_kick(index: u16) -> DeviceError {
    DeviceError(format!("ring {index} has no kick file: the device does not poll its rings"))
}

fn of_ring(index: u16, error: &std::io::Error) -> DeviceError {
    DeviceError(format!("the kernel refuses ring {index}: {error}"))
}

/// Has the device look into a ring.
fn kick(ring: &Ring) {
    if let Some(file) = &ring.kick {
        // The front-end cannot make it fail.
        let _ = file.signal();
    }
}

fn set_status(calls: &dyn Calls, status: u8) -> Result<(), DeviceError> {
    calls.set_status(status).map_err(failed("VHOST_VDPA_SET_STATUS"))
}

/// Whether the device says that it runs.
pub(super) fn is_running(calls: &dyn Calls) -> bool {
    let status = calls.status().unwrap_or(0);
    status & DRIVER_OK != 0 && status & (NEEDS_RESET | FAILED) == 0
}

/// Checks what can be known before the device is touched.
fn check(offer: &Offer, setup: &Setup, pieces: &[Piece]) -> Result<(), DeviceError> {
    let lacking = Features::from_bits_retain(setup.features) - offer.guest_features();
    if !lacking.is_empty() {
        return Err(DeviceError(format!(
            "the device lacks what the front-end negotiated: {}; restart the guest, or give it a \
             device that has this",
            feature_names(lacking.bits())
        )));
    }
    pieces.iter().try_for_each(|piece| memory::check(piece, offer))?;
    let mut next = 0;
    for Ring { index, size, kick, .. } in &setup.rings {
        if *index < next || *index >= offer.pairs * 2 {
            let (count, last) = (offer.pairs, offer.pairs * 2 - 1);
            return Err(DeviceError(format!(
                "there is no ring {index}: the device has {count} queue pairs, rings 0 to {last}"
            )));
        }
        next = index + 1;
        if kick.is_none() {
            return Err(no_kick(*index));
        }
        // The kernel wants this of packed rings as well.
        if *size > offer.max_ring || !size.is_power_of_two() {
            return Err(DeviceError(format!(
                "ring {index} has {size} entries, expected a power of two up to {}",
                offer.max_ring
            )));
        }
    }
    Ok(())
}
