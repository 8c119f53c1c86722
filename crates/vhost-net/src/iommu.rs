//! A device behind the guest's virtual IOMMU (`VIRTIO_F_ACCESS_PLATFORM`).
//!
//! Rings and buffers have I/O virtual addresses, whose meaning the front-end tells when it is asked
//! and takes back as it likes. Whatever it says, a new memory is made of it and handed to all rings
//! before the front-end has its answer; so no worker uses what was taken back.
//!
//! A ring waits where the meaning of an address is not known: with its start, in the middle of its
//! work when its own parts are taken away, or with its next chain. One translation is asked for at
//! a time, the rings taking turns.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use eal::{EventFd, PeerEvent};
use litemap::LiteMap;
use virtio::device::DeviceQueue;
use virtio::iotlb::{Access, Translation};
use virtio::memory::Miss;
use virtio::{Features, GuestMemory, Iotlb};

use super::control_ring::ControlRing;
use super::device::NetDevice;
use super::ring::{Health, Ring};
use vhost::backend::{Backend, BackendError, RingSetup};
use vhost::control::{Watch, Watcher};
use vhost::protocol::IotlbMessage;

/// The token by which the device hears that a worker has met an unknown address.
pub(super) const ASKS: u16 = 2;

/// The tokens from this one on, one for each ring, are those of kick files: the driver has offered
/// its first buffers.
pub(super) const FIRST_BUFFERS: u16 = 3;

/// What a device knows of its IOMMU.
#[derive(Debug)]
pub(super) struct Iommu {
    iotlb: Iotlb,
    /// The memory as the front-end shares it.
    shared: Arc<GuestMemory>,
    /// Rings that start when it is known where they lie.
    waiting: LiteMap<u16, RingSetup>,
    /// What the front-end has yet to answer.
    asked: Option<Asked>,
    /// The ring that may ask next.
    turn: u16,
    /// Rings of which the front-end does not know where they lie. They are not asked for again
    /// before it has told something.
    unknown: BTreeSet<u16>,
    /// Signalled by workers that have met an unknown address.
    asks: Arc<EventFd>,
    watch: Option<Watch>,
    /// Kick files of rings in which the driver has not offered buffers yet.
    kicks: LiteMap<u16, Watch>,
}

/// A translation that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The ring that needs it.
    ring: u16,
    miss: Miss,
    /// The front-end has told it, though it may have taken it back since.
    told: bool,
}

impl Asked {
    /// Notes that `translation` was told.
    fn hear(&mut self, translation: &Translation) {
        let needed = if self.miss.write { Access::WRITE } else { Access::READ };
        let offset = self.miss.iova.checked_sub(translation.iova);
        let is_inside = offset.is_some_and(|offset| offset < translation.len);
        self.told |= is_inside && translation.access.contains(needed);
    }
}

impl Iommu {
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            iotlb: Iotlb::new(),
            shared: Arc::default(),
            waiting: LiteMap::new(),
            asked: None,
            turn: 0,
            unknown: BTreeSet::new(),
            asks: Arc::new(EventFd::new()?),
            watch: None,
            kicks: LiteMap::new(),
        })
    }

    /// Has the control thread hear of workers.
    pub(super) fn attach(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watch = Some(watcher.watch_edges(Arc::clone(&self.asks), ASKS)?);
        Ok(())
    }

    pub(super) const fn asks(&self) -> &Arc<EventFd> {
        &self.asks
    }

    /// Does not wait for kicks of ring `index` any more.
    pub(super) fn unwatch(&mut self, index: u16) {
        self.kicks.remove(&index);
    }

    /// The setup of ring `index`, if that waits to start.
    pub(super) fn waiting(&mut self, index: u16) -> Option<&mut RingSetup> {
        self.waiting.get_mut(&index)
    }

    /// Forgets ring `index`, if it waits to start.
    pub(super) fn take_waiting(&mut self, index: u16) -> Option<RingSetup> {
        self.waiting.remove(&index)
    }

    /// Another front-end may come, or other features.
    pub(super) fn forget(&mut self) {
        self.iotlb.clear();
        self.unknown.clear();
    }

    /// What was asked for is not answered any more.
    pub(super) fn forget_asked(&mut self) {
        self.asked = None;
    }

    /// The memory that is shared now, as rings see it that are behind the IOMMU.
    fn memory(&self) -> Arc<GuestMemory> {
        Arc::new(self.shared.translated(&self.iotlb))
    }
}

impl NetDevice {
    /// The device, which may be behind the guest's virtual IOMMU.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn with_iommu(mut self) -> io::Result<Self> {
        self.iommu = Some(Box::new(Iommu::new()?));
        Ok(self)
    }

    /// The IOMMU, where addresses are translated.
    pub(super) fn iommu_in_use(&mut self) -> Option<&mut Iommu> {
        let used = self.negotiated.contains(Features::ACCESS_PLATFORM);
        self.iommu.as_deref_mut().filter(|_| used)
    }

    /// Notes which memory is shared now; returns whether the rings have gone on in it already.
    pub(super) fn share(&mut self, memory: &Arc<GuestMemory>) -> bool {
        if let Some(iommu) = &mut self.iommu {
            iommu.shared = Arc::clone(memory);
        }
        if self.iommu_in_use().is_none() {
            return false;
        }
        self.renew();
        true
    }

    /// Follows a change of the features; no ring runs.
    pub(super) fn follow_features(&mut self) {
        if let Some(iommu) = self.iommu_in_use() {
            self.memory = iommu.memory();
        } else if let Some(iommu) = &mut self.iommu {
            iommu.forget();
            self.memory = Arc::clone(&iommu.shared);
        }
    }

    /// Gives the ring back if it can start, and keeps it where it is not known yet where it lies.
    pub(super) fn put_off(&mut self, index: u16, setup: RingSetup) -> Option<RingSetup> {
        let memory = Arc::clone(&self.memory);
        let Some(iommu) = self.iommu_in_use() else { return Some(setup) };
        if DeviceQueue::missing_part(&memory, &setup.place()).is_none() {
            return Some(setup);
        }
        iommu.unknown.remove(&index);
        iommu.waiting.insert(index, setup);
        None
    }

    /// Has all rings go on in what the table says now, or wait.
    fn renew(&mut self) {
        let Some(iommu) = self.iommu_in_use() else { return };
        iommu.unknown.clear();
        let memory = iommu.memory();
        for slot in &self.slots {
            slot.edit(|ring| ring.as_mut().map(|ring| ring.move_to(&memory)));
        }
        if let Some(ring) = &mut self.control {
            ring.move_to(&memory);
            // Commands may have waited. It is ours and cannot fail.
            let _ = self.wake.signal();
        }
        self.memory = memory;
        self.start_known();
    }

    /// Starts the rings of which it is known now where they lie.
    fn start_known(&mut self) {
        let memory = Arc::clone(&self.memory);
        let Some(iommu) = self.iommu_in_use() else { return };
        let lies = |setup: &RingSetup| DeviceQueue::missing_part(&memory, &setup.place()).is_none();
        let ready = iommu.waiting.iter().filter(|(_, setup)| lies(setup));
        let ready: Vec<u16> = ready.map(|(index, _)| *index).collect();
        for index in ready {
            let waiting = self.iommu_in_use().and_then(|iommu| iommu.take_waiting(index));
            let Some(setup) = waiting else { continue };
            let err = setup.err.clone();
            let Err(error) = self.launch(index, setup, None) else { continue };
            if let Some(suppressed) = self.limit.admit_line() {
                tracing::warn!(port = %self.name, ring = index, %error, suppressed, "the ring cannot start");
            }
            if let Some(err) = err {
                let _ = err.signal();
            }
        }
    }

    /// Forgets all translations once no ring runs: from then on, front-ends do not tell what has
    /// changed.
    pub(super) fn forget_when_idle(&mut self) {
        let runs = self.control.is_some()
            || self.slots.iter().any(|slot| slot.inspect(|ring| ring.is_some()));
        let Some(iommu) = self.iommu_in_use() else { return };
        if !runs && iommu.waiting.is_empty() {
            iommu.forget();
            self.memory = iommu.memory();
        }
    }

    /// Has the driver tell when it offers its first buffers in ring `index`, if that takes frames:
    /// what they lack is asked for before there are any.
    pub(super) fn await_buffers(&mut self, index: u16, kick: Option<PeerEvent>) {
        let slot = self.slots.get(usize::from(index)).filter(|_| index.is_multiple_of(2)).cloned();
        let (Some(watcher), Some(kick)) = (self.watcher.clone(), kick) else { return };
        let Some((iommu, slot)) = self.iommu_in_use().zip(slot) else { return };
        slot.work(|ring| {
            // Buffers that are there already are found without.
            let ring = ring.filter(|ring| ring.health == Health::Sound);
            ring.map(|ring| ring.queue.arm())
        });
        // Without it a few frames are lost at the start.
        if let Ok(watch) = watcher.watch_edges(kick, FIRST_BUFFERS.saturating_add(index)) {
            iommu.kicks.insert(index, watch);
        }
    }

    /// The driver has kicked a ring that takes frames: once is enough.
    pub(super) fn buffers_offered(&mut self, index: u16) {
        if let Some(iommu) = &mut self.iommu {
            iommu.unwatch(index);
        }
        if let Some(slot) = self.slots.get(usize::from(index)) {
            let sound = |ring: &&mut Ring| ring.health == Health::Sound;
            slot.work(|ring| ring.filter(sound).map(|ring| ring.queue.disarm()));
        }
    }

    /// What ring `index` waits for.
    fn awaited(&self, index: u16) -> Option<Miss> {
        let iommu = self.iommu.as_deref().filter(|iommu| !iommu.unknown.contains(&index))?;
        if let Some(setup) = iommu.waiting.get(&index) {
            return DeviceQueue::missing_part(&self.memory, &setup.place());
        }
        if self.is_control(index) {
            return self.control.as_ref()?.awaited(&self.memory);
        }
        let slot = self.slots.get(usize::from(index))?;
        slot.work(|ring| {
            let ring = ring?;
            // Frames for the guest do not wait until it is known where its buffers lie.
            let takes = index.is_multiple_of(2) && ring.health == Health::Sound;
            let awaited = ring.awaited(&self.memory);
            awaited.or_else(|| if takes { ring.miss_ahead() } else { None })
        })
    }

    /// Whether ring `index` waits for translations of its own parts.
    fn lies_nowhere(&mut self, index: u16) -> bool {
        if self.iommu_in_use().is_some_and(|iommu| iommu.waiting(index).is_some()) {
            return true;
        }
        if self.is_control(index) {
            return self.control.as_ref().is_some_and(ControlRing::is_lost);
        }
        let lost = |ring: Option<&Ring>| ring.is_some_and(|ring| ring.health == Health::Lost);
        self.slots.get(usize::from(index)).is_some_and(|slot| slot.inspect(lost))
    }

    /// The next translation to ask for.
    pub(super) fn next_miss(&mut self) -> Option<IotlbMessage> {
        let count = self.ring_count();
        let turn = self.iommu_in_use().filter(|iommu| iommu.asked.is_none())?.turn;
        let turns = (turn..count).chain(0..turn.min(count));
        let (index, miss) =
            turns.into_iter().find_map(|index| Some((index, self.awaited(index)?)))?;
        let iommu = self.iommu_in_use()?;
        iommu.asked = Some(Asked { ring: index, miss, told: false });
        iommu.turn = index.saturating_add(1);
        let access = if miss.write { Access::WRITE } else { Access::READ };
        let (iova, access) = (miss.iova, access.bits());
        Some(IotlbMessage { iova, access, kind: IotlbMessage::MISS, ..IotlbMessage::default() })
    }

    /// The front-end has answered: if it has not told what was asked for, there is no such thing.
    pub(super) fn miss_answered(&mut self) {
        let asked = self.iommu_in_use().and_then(|iommu| iommu.asked.take());
        let Some(Asked { ring: index, miss, .. }) = asked.filter(|asked| !asked.told) else {
            return;
        };
        let is_control = self.is_control(index);
        if self.lies_nowhere(index) {
            // It would be asked for again at once.
            self.iommu_in_use().map(|iommu| iommu.unknown.insert(index));
        } else if let Some(ring) = self.control.as_mut().filter(|_| is_control) {
            ring.queue.answer(miss);
            let _ = self.wake.signal();
        } else {
            self.edit(index, |ring| ring.queue.answer(miss));
        }
        if let Some(suppressed) = self.limit.admit_line() {
            let access = if miss.write { "write" } else { "read" };
            tracing::warn!(
                port = %self.name,
                ring = index,
                suppressed,
                "the guest's IOMMU lets the device {access} nothing at address {:#x}",
                miss.iova
            );
        }
    }

    /// See [`Backend::update_translation`].
    pub(super) fn add_translation(&mut self, translation: Translation) -> Result<(), BackendError> {
        let Some(iommu) = self.iommu_in_use() else {
            return Err("it is not behind an IOMMU".into());
        };
        let Translation { user_addr, len, .. } = translation;
        if !iommu.shared.has_user(user_addr, len) {
            return Err(format!("{len:#x} bytes at {user_addr:#x} are not in shared memory").into());
        }
        iommu.iotlb.insert(translation)?;
        iommu.asked.iter_mut().for_each(|asked| asked.hear(&translation));
        self.renew();
        Ok(())
    }

    /// See [`Backend::forget_translations`].
    pub(super) fn remove_translations(&mut self, iova: u64, len: u64) {
        if self.iommu_in_use().is_some_and(|iommu| iommu.iotlb.remove(iova, len)) {
            self.renew();
        }
    }
}
