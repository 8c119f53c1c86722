//! A model of the kernel's side of `/dev/vhost-vdpa-N`, with a device behind it that serves its
//! control queue.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use eal::PeerEvent;
use virtio::Features;
use virtio::ring::{DESC_NEXT, Desc, ENTRIES_OFFSET, INDEX_OFFSET};

use super::abi;
use super::calls::{Calls, Iotlb, Piece, RingAddresses};

const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct RingState {
    pub(super) size: u16,
    pub(super) addresses: Option<RingAddresses>,
    pub(super) base: u32,
    pub(super) enabled: bool,
    pub(super) kick: Option<Arc<OwnedFd>>,
    pub(super) call: Option<Arc<OwnedFd>>,
}

/// The device's insides, for tests to look at and to spoil.
#[derive(Debug)]
pub(super) struct State {
    pub(super) device_id: u32,
    pub(super) offered: Features,
    pub(super) accepted: Features,
    pub(super) backend: u64,
    pub(super) acked_backend: u64,
    pub(super) owned: bool,
    pub(super) status: u8,
    pub(super) config: Vec<u8>,
    pub(super) config_size: u32,
    pub(super) rings: Vec<RingState>,
    /// What the kernel says of the number of rings, if not the truth.
    pub(super) told_rings: Option<u32>,
    pub(super) max_ring: u16,
    pub(super) range: (u64, u64),
    pub(super) spaces: u32,
    /// Address space of each group: group 0 has the guest's rings, group 1 the last ring.
    pub(super) groups: [u32; 2],
    pub(super) maps: Vec<(u32, Piece)>,
    pub(super) batch: Option<u32>,
    /// The device still has what was mapped for another process.
    pub(super) stale: bool,
    pub(super) config_call: Option<OwnedFd>,
    pub(super) suspended: bool,
    pub(super) resets: usize,
    /// Pairs that were asked for by commands.
    pub(super) pairs: Vec<u16>,
    /// The device's answer to commands; `None` for none.
    pub(super) ack: Option<u8>,
    /// The method that fails, and how.
    pub(super) fails: Option<(&'static str, i32)>,
    /// The device does not let this stand in its status.
    pub(super) refuses: u8,
    /// What must not happen: memory taken away from a device that runs, and the like.
    pub(super) violations: Vec<String>,
}

/// A handle to the model.
#[derive(Clone, Debug)]
pub(super) struct Model(Arc<Mutex<State>>);

impl Model {
    /// A device with `pairs` queue pairs and a control queue, with everything the kernel can do.
    pub(super) fn new(pairs: u16) -> Self {
        let rings = vec![RingState::default(); usize::from(pairs) * 2 + 1];
        let mut config = vec![2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0xDC, 5];
        config[8..10].copy_from_slice(&pairs.to_le_bytes());
        let state = State {
            device_id: 1,
            offered: Features::VERSION_1
                | Features::ACCESS_PLATFORM
                | Features::MAC
                | Features::MRG_RXBUF
                | Features::STATUS
                | Features::RING_PACKED
                | Features::CTRL_VQ
                | Features::CTRL_MAC_ADDR
                | Features::NOTIFICATION_DATA
                | Features::MQ,
            accepted: Features::empty(),
            backend: !0,
            acked_backend: 0,
            owned: false,
            status: 0,
            config_size: config.len() as u32,
            config,
            rings,
            told_rings: None,
            max_ring: 1024,
            range: (0, u64::MAX),
            spaces: 2,
            groups: [0; 2],
            maps: Vec::new(),
            batch: None,
            stale: true,
            config_call: None,
            suspended: false,
            resets: 0,
            pairs: Vec::new(),
            ack: Some(0),
            fails: None,
            refuses: 0,
            violations: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The state, unless `method` is to fail, or needs an owner and has none.
    fn call(&self, method: &'static str) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.fails {
            Some((fails, errno)) if fails == method => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(state),
        }
    }

    fn ring(
        &self,
        method: &'static str,
        index: u16,
        change: impl FnOnce(&mut RingState),
    ) -> io::Result<()> {
        let mut state = self.call(method)?;
        if !state.owned {
            return errno(libc::EPERM);
        }
        let ring = state.rings.get_mut(usize::from(index));
        ring.map(change).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))
    }

    /// Serves the control queue until what is returned is dropped.
    pub(super) fn serve(&self) -> Served {
        let stop = Arc::new(AtomicBool::new(false));
        let (model, stopped) = (self.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                model.lock().serve_control();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Served { stop, thread: Some(thread) }
    }
}

/// Keeps the control queue being served.
pub(super) struct Served {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().unwrap().join();
        assert!(outcome.is_ok() || std::thread::panicking());
    }
}

impl State {
    fn is_running(&self) -> bool {
        self.status & DRIVER_OK != 0 && !self.suspended
    }

    /// What a device of `space` finds at `address`.
    fn at(&self, space: u32, address: u64, len: u64) -> *mut u8 {
        let found = self.maps.iter().find(|(in_space, piece)| {
            *in_space == space
                && address >= piece.iova
                && address + len - 1 <= piece.last().unwrap()
        });
        let (_, piece) = found.unwrap_or_else(|| panic!("{address:#x} is not mapped in {space}"));
        std::ptr::with_exposed_provenance_mut(
            (piece.host_address() + address - piece.iova) as usize,
        )
    }

    /// Takes a command from the control queue, a split ring, if it runs and there is one.
    fn serve_control(&mut self) {
        let Some(control) = self.rings.last().filter(|ring| ring.enabled).cloned() else { return };
        if self.status & DRIVER_OK == 0 {
            return;
        }
        let next = control.base as u16;
        let (space, size) = (self.groups[1], u64::from(control.size));
        let RingAddresses { descriptors, driver, device } = control.addresses.unwrap();
        // SAFETY: index and elements of the rings, and the descriptors and buffers that a trusted
        // driver has put there; each was found in mapped memory.
        unsafe {
            let avail = self.at(space, driver, 6 + 2 * size);
            let index = AtomicU16::from_ptr(avail.add(INDEX_OFFSET).cast());
            if index.load(Ordering::Acquire) == next {
                return;
            }
            let slot = usize::from(next) % usize::from(control.size);
            let head: u16 = avail.add(ENTRIES_OFFSET + 2 * slot).cast::<u16>().read();
            let mut bytes = Vec::new();
            let mut desc = self.at(space, descriptors + 16 * u64::from(head), 16).cast::<Desc>();
            while (*desc).flags & DESC_NEXT != 0 {
                let part = self.at(space, (*desc).addr, (*desc).len.into());
                bytes.extend_from_slice(std::slice::from_raw_parts(part, (*desc).len as usize));
                desc = self.at(space, descriptors + 16 * u64::from((*desc).next), 16).cast();
            }
            if let &[4, 0, low, high] = bytes.as_slice() {
                self.pairs.push(u16::from_le_bytes([low, high]));
            }
            let Some(ack) = self.ack else { return };
            self.at(space, (*desc).addr, 1).write(ack);
            let used = self.at(space, device, 6 + 8 * size);
            let element = used.add(ENTRIES_OFFSET + 8 * slot).cast::<[u32; 2]>();
            element.write([head.into(), 1]);
            let index = AtomicU16::from_ptr(used.add(INDEX_OFFSET).cast());
            index.store(next.wrapping_add(1), Ordering::Release);
        }
        if let Some(ring) = self.rings.last_mut() {
            ring.base = next.wrapping_add(1).into();
        }
        let call = control.call.unwrap().try_clone().unwrap();
        PeerEvent::from_fd(call).unwrap().signal().unwrap();
    }
}

fn errno<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

fn owned(file: Option<BorrowedFd<'_>>) -> Option<Arc<OwnedFd>> {
    file.map(|file| Arc::new(file.try_clone_to_owned().unwrap()))
}

impl Calls for Model {
    fn device_id(&self) -> io::Result<u32> {
        Ok(self.call("device_id")?.device_id)
    }

    fn set_owner(&self) -> io::Result<()> {
        self.call("set_owner")?.owned = true;
        Ok(())
    }

    fn features(&self) -> io::Result<u64> {
        Ok(self.call("features")?.offered.bits())
    }

    fn set_features(&self, features: u64) -> io::Result<()> {
        let mut state = self.call("set_features")?;
        if state.status & FEATURES_OK != 0 {
            return errno(libc::EBUSY);
        }
        state.accepted = Features::from_bits_retain(features);
        Ok(())
    }

    fn backend_features(&self) -> io::Result<u64> {
        Ok(self.call("backend_features")?.backend)
    }

    fn set_backend_features(&self, features: u64) -> io::Result<()> {
        let mut state = self.call("set_backend_features")?;
        if features & !state.backend != 0 {
            return errno(libc::EOPNOTSUPP);
        }
        state.acked_backend = features;
        Ok(())
    }

    fn status(&self) -> io::Result<u8> {
        Ok(self.call("status")?.status)
    }

    fn set_status(&self, status: u8) -> io::Result<()> {
        let mut state = self.call("set_status")?;
        if status == 0 {
            state.resets += 1;
            state.suspended = false;
            state.accepted = Features::empty();
            for ring in &mut state.rings {
                let (kick, call) = (ring.kick.take(), ring.call.take());
                *ring = RingState { kick, call, ..RingState::default() };
            }
        } else if state.status & !status != 0 {
            return errno(libc::EINVAL);
        }
        state.status = status & !state.refuses;
        Ok(())
    }

    fn config_size(&self) -> io::Result<u32> {
        Ok(self.call("config_size")?.config_size)
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> io::Result<()> {
        let state = self.call("read_config")?;
        let from = state.config.get(offset as usize..).unwrap_or_default();
        let from = from.get(..bytes.len()).ok_or(io::ErrorKind::ArgumentListTooLong)?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.call("write_config")?;
        let at = offset as usize;
        state.config[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn ring_count(&self) -> io::Result<u32> {
        let state = self.call("ring_count")?;
        Ok(state.told_rings.unwrap_or(state.rings.len() as u32))
    }

    fn max_ring_size(&self) -> io::Result<u16> {
        Ok(self.call("max_ring_size")?.max_ring)
    }

    fn iova_range(&self) -> io::Result<(u64, u64)> {
        Ok(self.call("iova_range")?.range)
    }

    fn space_count(&self) -> io::Result<u32> {
        Ok(self.call("space_count")?.spaces)
    }

    fn ring_group(&self, index: u16) -> io::Result<u32> {
        let state = self.call("ring_group")?;
        Ok(u32::from(usize::from(index) + 1 == state.rings.len()))
    }

    fn set_group_space(&self, group: u32, space: u32) -> io::Result<()> {
        self.call("set_group_space")?.groups[group as usize] = space;
        Ok(())
    }

    fn iotlb(&self, space: u32, change: Iotlb) -> io::Result<()> {
        let mut state = self.call("iotlb")?;
        if !state.owned {
            return errno(libc::EPERM);
        }
        if space >= state.spaces || state.batch.is_some_and(|batch| batch != space) {
            return errno(libc::EINVAL);
        }
        match change {
            Iotlb::BatchBegin => state.batch = Some(space),
            Iotlb::BatchEnd => {
                state.stale &= state.batch.take().is_none();
            }
            Iotlb::Update(piece) => {
                let overlaps = |other: &(u32, Piece)| {
                    other.0 == space
                        && other.1.iova <= piece.last().unwrap()
                        && piece.iova <= other.1.last().unwrap()
                };
                if state.maps.iter().any(overlaps) {
                    return errno(libc::EEXIST);
                }
                if let Some((fails, number)) = state.fails
                    && fails == "third map"
                    && state.maps.len() == 2
                {
                    return errno(number);
                }
                state.maps.push((space, piece));
            }
            Iotlb::Invalidate { iova, len } => {
                if state.is_running() {
                    state.violations.push(format!("{iova:#x} is unmapped as the device runs"));
                }
                let before = state.maps.len();
                state.maps.retain(|(s, p)| *s != space || p.iova != iova || p.len != len);
                if state.maps.len() == before {
                    state.violations.push(format!("{iova:#x} is unmapped but was not mapped"));
                }
            }
        }
        Ok(())
    }

    fn set_config_call(&self, call: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut state = self.call("set_config_call")?;
        state.config_call = call.map(|call| call.try_clone_to_owned().unwrap());
        Ok(())
    }

    fn set_ring_size(&self, index: u16, size: u16) -> io::Result<()> {
        if !size.is_power_of_two() {
            return errno(libc::EINVAL);
        }
        self.ring("set_ring_size", index, |ring| ring.size = size)
    }

    fn set_ring_addresses(&self, index: u16, addresses: RingAddresses) -> io::Result<()> {
        self.ring("set_ring_addresses", index, |ring| ring.addresses = Some(addresses))
    }

    fn set_ring_base(&self, index: u16, base: u32) -> io::Result<()> {
        self.ring("set_ring_base", index, |ring| ring.base = base)
    }

    fn ring_base(&self, index: u16) -> io::Result<u32> {
        let mut state = self.call("ring_base")?;
        if state.backend & abi::SUSPEND != 0 && !state.suspended {
            state.violations.push(format!("ring {index} is asked for its base while it runs"));
        }
        let ring = state.rings.get(usize::from(index));
        ring.map(|ring| ring.base).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn set_ring_kick(&self, index: u16, kick: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.ring("set_ring_kick", index, |ring| ring.kick = owned(kick))
    }

    fn set_ring_call(&self, index: u16, call: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.ring("set_ring_call", index, |ring| ring.call = owned(call))
    }

    fn set_ring_enabled(&self, index: u16, enabled: bool) -> io::Result<()> {
        self.ring("set_ring_enabled", index, |ring| ring.enabled = enabled)
    }

    fn suspend(&self) -> io::Result<()> {
        let mut state = self.call("suspend")?;
        if state.acked_backend & abi::SUSPEND == 0 {
            return errno(libc::EOPNOTSUPP);
        }
        state.suspended = true;
        Ok(())
    }
}
