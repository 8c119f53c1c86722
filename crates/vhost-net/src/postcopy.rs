//! A guest that runs before all of its memory is there: the device's part of a post-copy migration.
//!
//! Rings start once all of their own pages are there, and then leave in the ring what lies in others
//! (see [`gate`](super::gate)). The control queue, which the control thread serves and few
//! front-ends leave to it, starts with the last page.

use std::sync::Arc;

use arrayvec::ArrayVec;
use virtio::GuestMemory;
use virtio::device::DeviceQueue;

use super::device::NetDevice;
use super::gate::Gate;
use vhost::backend::{BackendError, RegionFile, RingSetup};
use vhost::call::Call;
use vhost::control::Watch;
use vhost::postcopy::{ComingPager, Pager, Pagers, PagersError, Pages, Report};
use vhost::protocol::MAX_TABLE_REGIONS;

/// The token of what a pager reports.
pub(super) const TOKEN: u16 = 1;

/// Reports that are taken in one go.
const BURST: usize = 64;

/// What a device has that can be migrated to by post-copy.
#[derive(Debug)]
pub(super) struct Postcopy {
    pagers: Arc<Pagers>,
    spare: Spare,
    migration: Option<Migration>,
}

/// The pager of the next migration.
#[derive(Debug)]
enum Spare {
    There(Pager),
    Coming(ComingPager),
    /// It could not be ordered, or did not come.
    None,
}

/// A migration that was announced.
#[derive(Debug)]
struct Migration {
    pager: Pager,
    /// Of the pager's reports.
    watch: Option<Watch>,
    /// What is there, once there is a memory.
    pages: Option<Arc<Pages>>,
    /// The pager has the memory.
    mapped: bool,
    /// The front-end serves faults.
    acknowledged: bool,
    /// Rings that are started as far as the front-end knows.
    waiting: Vec<Waiting>,
}

/// A ring whose pages are not all there.
#[derive(Debug)]
struct Waiting {
    index: u16,
    setup: RingSetup,
    gate: Gate,
}

impl Postcopy {
    /// Gets ready for a migration.
    pub(super) fn new(pagers: Arc<Pagers>) -> Result<Self, PagersError> {
        let coming = pagers.order()?;
        coming.wait()?;
        let spare = coming.arrive()?.map_or(Spare::Coming(coming), Spare::There);
        Ok(Self { pagers, spare, migration: None })
    }

    /// The spare pager, if there is one by now; another one is ordered.
    fn take_pager(&mut self) -> Result<Pager, PagersError> {
        let order = |pagers: &Pagers| pagers.order().map_or(Spare::None, Spare::Coming);
        let spare = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::There(pager) => Ok(Some(pager)),
            Spare::Coming(coming) => match coming.arrive() {
                Ok(None) => {
                    self.spare = Spare::Coming(coming);
                    return Err(PagersError::NotYet);
                }
                other => other,
            },
            Spare::None => Ok(None),
        };
        self.spare = order(&self.pagers);
        spare?.ok_or(PagersError::NotYet)
    }

    fn pages(&self) -> Option<(&Migration, &Arc<Pages>)> {
        let migration = self.migration.as_ref()?;
        Some((migration, migration.pages.as_ref()?))
    }

    fn waiting(&mut self) -> Option<&mut Vec<Waiting>> {
        self.migration.as_mut().map(|migration| &mut migration.waiting)
    }

    /// Ring `index`, if it waits to be started.
    pub(super) fn find_waiting(&mut self, index: u16) -> Option<&mut RingSetup> {
        let ring = self.waiting()?.iter_mut().find(|ring| ring.index == index)?;
        Some(&mut ring.setup)
    }

    /// Takes ring `index` back, if it waits to be started.
    pub(super) fn take_waiting(&mut self, index: u16) -> Option<RingSetup> {
        let rings = self.waiting()?;
        let at = rings.iter().position(|ring| ring.index == index)?;
        Some(rings.remove(at).setup)
    }

    /// Lets go of the migration.
    pub(super) fn forget(&mut self) {
        self.migration = None;
    }
}

impl NetDevice {
    /// The device with post-copy migration offered. The process that starts pagers is started if
    /// there is none, and a pager, so that it is known that there can be one.
    ///
    /// # Errors
    /// When there cannot.
    pub fn with_postcopy(self) -> Result<Self, PagersError> {
        self.with_postcopy_from(Pagers::shared()?)
    }

    pub(super) fn with_postcopy_from(mut self, pagers: Arc<Pagers>) -> Result<Self, PagersError> {
        self.postcopy = Some(Postcopy::new(pagers)?);
        Ok(self)
    }

    /// Whether rings have to wait for pages now.
    pub(super) fn has_missing_pages(&self) -> bool {
        self.postcopy.as_ref().is_some_and(|postcopy| postcopy.pages().is_some())
    }

    /// See [`Backend::advise_postcopy`](vhost::backend::Backend::advise_postcopy).
    pub(super) fn announce_postcopy(&mut self) -> Result<std::os::fd::OwnedFd, BackendError> {
        let postcopy = self.postcopy.as_mut().ok_or("it is switched off")?;
        let mut pager = postcopy.take_pager()?;
        let watcher = self.watcher.as_ref().ok_or("it has no control thread")?;
        let watch = watcher.watch(&**pager.link(), TOKEN)?;
        let userfault = pager.take_userfault().ok_or("its userfaultfd is gone")?;
        postcopy.migration = Some(Migration {
            pager,
            watch: Some(watch),
            pages: None,
            mapped: false,
            acknowledged: false,
            waiting: Vec::new(),
        });
        Ok(userfault)
    }

    /// See [`Backend::set_missing_memory`](vhost::backend::Backend::set_missing_memory).
    pub(super) fn place_memory(
        &mut self,
        memory: Arc<GuestMemory>,
        files: &[RegionFile<'_>],
    ) -> Result<ArrayVec<u64, MAX_TABLE_REGIONS>, BackendError> {
        let runs = self.slots().iter().any(|slot| slot.inspect(|ring| ring.is_some()));
        let migration = self.postcopy.as_mut().and_then(|postcopy| postcopy.migration.as_mut());
        let migration = migration.ok_or("no migration was announced")?;
        if runs || !migration.waiting.is_empty() {
            return Err("rings run, whose pages may be missing in another memory; stop them".into());
        }
        let places = migration.pager.map(files)?;
        let by_guest_addr: ArrayVec<_, MAX_TABLE_REGIONS> =
            files.iter().map(|file| file.guest_addr).zip(places.iter().copied()).collect();
        migration.pages = Some(Arc::new(Pages::new(&memory, &by_guest_addr)));
        (migration.mapped, migration.acknowledged) = (false, false);
        self.memory = memory;
        Ok(places)
    }

    /// See [`Backend::postcopy_acknowledged`](vhost::backend::Backend::postcopy_acknowledged).
    pub(super) fn expect_pages(&mut self) {
        if let Some(migration) = self.postcopy.as_mut().and_then(|it| it.migration.as_mut()) {
            migration.acknowledged = true;
            tracing::info!(port = %self.name, "the guest arrives by post-copy migration");
        }
        self.start_waiting();
    }

    /// Has ring `index` start once its pages are there.
    pub(super) fn start_later(&mut self, index: u16, setup: RingSetup) -> Result<(), BackendError> {
        // What is wrong with its place is said at once.
        DeviceQueue::parts(&self.memory, &setup.place())?;
        let postcopy = self.postcopy.as_mut().ok_or("it is switched off")?;
        let (migration, pages) = postcopy.pages().ok_or("no page is missing")?;
        let gate = Gate::new(Arc::clone(pages), Arc::clone(migration.pager.link()));
        if let Some(rings) = postcopy.waiting() {
            rings.push(Waiting { index, setup, gate });
        }
        self.start_waiting();
        Ok(())
    }

    /// Starts the rings whose pages are there by now, and asks for the pages of the others.
    fn start_waiting(&mut self) {
        let Some(migration) = self.migration_with_faults() else { return };
        let mut waiting = std::mem::take(&mut migration.waiting);
        let is_there = |ring: &mut Waiting| {
            let place = ring.setup.place();
            !self.is_control(ring.index) && ring.gate.admit_ring(&self.memory, &place)
        };
        let there: Vec<_> = waiting.extract_if(.., is_there).collect();
        if let Some(migration) = self.migration_with_faults() {
            migration.waiting = waiting;
        }
        for ring in there {
            self.start_now(ring.index, ring.setup, Some(Box::new(ring.gate)));
        }
    }

    /// The migration, if pages can be brought in.
    fn migration_with_faults(&mut self) -> Option<&mut Migration> {
        let migration = self.postcopy.as_mut()?.migration.as_mut()?;
        (migration.mapped && migration.acknowledged).then_some(migration)
    }

    /// Starts a ring of which the front-end believes that it runs already.
    fn start_now(&mut self, index: u16, setup: RingSetup, gate: Option<Box<Gate>>) {
        let err = setup.err.clone();
        if let Err(error) = self.launch(index, setup, gate) {
            if let Some(suppressed) = self.limit.admit_line() {
                let port = self.name.as_str();
                tracing::warn!(port, ring = index, %error, suppressed, "a ring cannot start");
            }
            let _ = err.as_ref().map(Call::signal);
        }
    }

    /// Takes what the pager reports.
    pub(super) fn take_reports(&mut self) {
        let postcopy = self.postcopy.as_mut();
        let Some(migration) = postcopy.and_then(|postcopy| postcopy.migration.as_mut()) else {
            return;
        };
        for _ in 0..BURST {
            match migration.pager.link().next_report() {
                None => break,
                Some(Report::Mapped) => migration.mapped = true,
                Some(Report::Touched(at)) => {
                    if let Some(pages) = &migration.pages {
                        pages.mark_present(at);
                    }
                }
                Some(Report::Gone) => {
                    migration.watch = None;
                    tracing::warn!(
                        port = %self.name,
                        "the process that brings in the guest's pages has ended: what lies in \
                         missing ones waits for the end of the migration"
                    );
                    break;
                }
            }
        }
        self.start_waiting();
        // It is ours and cannot fail.
        let _ = self.wake.signal();
    }

    /// See [`Backend::end_postcopy`](vhost::backend::Backend::end_postcopy).
    pub(super) fn finish_postcopy(&mut self) {
        let Some(migration) = self.postcopy.as_mut().and_then(|it| it.migration.take()) else {
            return;
        };
        for slot in self.slots() {
            slot.edit(|ring| ring.as_mut().map(|ring| ring.gate = None));
        }
        for ring in migration.waiting {
            self.start_now(ring.index, ring.setup, None);
        }
        if migration.pages.is_some() {
            tracing::info!(port = %self.name, "all of the guest's memory has arrived");
        }
    }
}

/// Has what is missing in a ring that starts brought in before the first frame comes by. The guest
/// sends by rings with odd numbers.
pub(super) fn look_ahead(gate: &mut Option<Box<Gate>>, index: u16, queue: &mut DeviceQueue) {
    match gate {
        Some(gate) if index % 2 == 1 => gate.look_ahead::<false>(queue),
        Some(gate) => gate.look_ahead::<true>(queue),
        None => {}
    }
}
