//! Post-copy migration towards this device (POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END, and
//! SET_MEM_TABLE between the last two; chapter "Migration").
//!
//! The guest runs here already while pages of its memory are still on their way. In order:
//!
//! 1. POSTCOPY_ADVISE: the front-end is given the file over which it hears of page faults.
//! 2. POSTCOPY_LISTEN: from here on there may be faults.
//! 3. SET_MEM_TABLE is answered with the addresses at which the regions lie on our side, so that
//!    the front-end knows of what page a fault tells. It comes a second time, empty, when the
//!    front-end is ready for faults; before that nothing may be touched. Of the two only the
//!    second has an acknowledgement, even where only the first asked for one.
//! 4. POSTCOPY_END: all pages are there.

use std::os::fd::AsFd;

use arrayvec::ArrayVec;
use eal::PeerFd;

use super::memory::MemoryTable;
use super::{Device, Reply, Session, SessionError};
use crate::backend::{MemoryKinds, RegionFile};
use crate::protocol::{FrontendMessage, FrontendRequest, MAX_TABLE_REGIONS, MemoryRegion};

/// How far a post-copy migration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// There is none.
    #[default]
    None,
    /// It was announced.
    Advised,
    /// Pages may be missing.
    Listening,
    /// The same, and the front-end has yet to say that it is ready for faults.
    Unready,
}

/// The post-copy migration of a session.
#[derive(Debug, Default)]
pub(super) struct Postcopy {
    phase: Phase,
    /// The first SET_MEM_TABLE asked for an acknowledgement.
    owed: bool,
    /// It is the turn of that acknowledgement.
    owes: bool,
}

impl Postcopy {
    /// Whether pages of the memory may be missing.
    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Listening | Phase::Unready)
    }

    /// Whether the message at hand is acknowledged though it does not ask for that.
    pub(super) const fn take_owed_acknowledgement(&mut self) -> bool {
        std::mem::replace(&mut self.owes, false)
    }

    /// Refuses all but the second SET_MEM_TABLE where its turn is.
    pub(super) fn check_turn<F>(&self, message: &FrontendMessage<F>) -> Result<(), SessionError> {
        let is_ready = matches!(message, FrontendMessage::SetMemTable(table) if table.is_empty());
        let expected = "an empty SET_MEM_TABLE is next, which says that faults are served";
        expect(message.request(), self.phase != Phase::Unready || is_ready, expected)
    }
}

/// Refuses `request` unless it is `right` now.
fn expect(
    request: FrontendRequest,
    right: bool,
    expected: &'static str,
) -> Result<(), SessionError> {
    if right {
        return Ok(());
    }
    Err(SessionError::PostcopyOrder { request: request.name(), expected })
}

impl Session {
    /// Hands out the file over which the front-end hears of page faults.
    pub(super) fn advise(&mut self, device: &mut Device) -> Result<Reply, SessionError> {
        let request = FrontendRequest::PostcopyAdvise;
        let idle = self.postcopy.phase == Phase::None;
        expect(request, idle, "it came before, and no POSTCOPY_END since")?;
        let file = device.backend.advise_postcopy();
        let file =
            file.map_err(|source| SessionError::Backend { request: request.name(), source })?;
        self.attached = Some(file);
        self.postcopy.phase = Phase::Advised;
        Ok(Reply::Userfault)
    }

    /// Expects faults from now on. Memory that was shared before could not be told of any more.
    pub(super) fn listen(&mut self) -> Result<(), SessionError> {
        let request = FrontendRequest::PostcopyListen;
        let advised = self.postcopy.phase == Phase::Advised;
        expect(request, advised, "POSTCOPY_ADVISE comes before")?;
        let blank = self.memory.is_empty();
        expect(request, blank, "it comes before SET_MEM_TABLE")?;
        self.postcopy.phase = Phase::Listening;
        Ok(())
    }

    /// Takes a memory of which pages are missing, or the word that faults are served.
    pub(super) fn set_missing_memory(
        &mut self,
        device: &mut Device,
        regions: &[(MemoryRegion, PeerFd)],
        needs_reply: bool,
    ) -> Result<Option<Reply>, SessionError> {
        if self.postcopy.phase == Phase::Unready {
            // `check_turn` has seen that it is empty.
            self.postcopy.phase = Phase::Listening;
            self.postcopy.owes = std::mem::take(&mut self.postcopy.owed);
            device.backend.postcopy_acknowledged();
            return Ok(None);
        }
        let request = FrontendRequest::SetMemTable;
        // Nothing else can have faults that a front-end serves.
        let table = MemoryTable::of(request.name(), regions, MemoryKinds::Lasting)?;
        self.check_log_memory(request, table.end())?;
        let files: ArrayVec<_, MAX_TABLE_REGIONS> = regions.iter().map(file).collect();
        let memory = table.memory(request.name())?;
        let placed = device.backend.set_missing_memory(memory, &files);
        let placed =
            placed.map_err(|source| SessionError::Backend { request: request.name(), source })?;
        self.memory = table;
        self.postcopy.phase = Phase::Unready;
        self.postcopy.owed = needs_reply;
        let regions = regions.iter().zip(placed);
        let regions =
            regions.map(|((region, _), address)| MemoryRegion { user_addr: address, ..*region });
        Ok(Some(Reply::MemTable(regions.collect())))
    }

    /// All pages are there; or the migration does not take place.
    pub(super) fn end_postcopy(&mut self, device: &mut Device) -> Result<Reply, SessionError> {
        let request = FrontendRequest::PostcopyEnd;
        let begun = self.postcopy.phase != Phase::None;
        expect(request, begun, "POSTCOPY_ADVISE comes before")?;
        self.postcopy.phase = Phase::None;
        device.backend.end_postcopy();
        Ok(Reply::U64(0))
    }
}

fn file((region, fd): &(MemoryRegion, PeerFd)) -> RegionFile<'_> {
    let MemoryRegion { guest_addr, size, mmap_offset, .. } = *region;
    RegionFile { guest_addr, fd: fd.as_fd(), offset: mmap_offset, len: size }
}
