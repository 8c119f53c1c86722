//! Patch ports as control threads see them: which are joined to their peers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datapath::bridge::BridgeId;
use datapath::patch::Patch;
use datapath::worker::Message;
use ethdev::{Link, OpenPort, PortControl, PortInfo, PortStats};
use packet::MacAddr;

use super::counts::Counts;
use super::{Control, Kind};
use crate::config::PortOptions;
use crate::error::Error;
use crate::ports::Entry;

/// What the device string of a patch port begins with.
const PREFIX: &str = "patch:";

/// The peer that a device string names, if it is one of a patch port: `patch:PEER`.
#[must_use]
pub fn patch_peer(device: &str) -> Option<&str> {
    device.strip_prefix(PREFIX)
}

/// What both a patch port's entry and its control side know.
#[derive(Debug)]
pub(crate) struct Cable {
    /// The name of the port at the other end.
    peer: Mutex<String>,
    /// The bridge and number of that, while they are joined.
    end: Mutex<Option<(BridgeId, u16)>>,
    /// How often it was joined to one or taken from it: odd while it is.
    changes: AtomicU64,
    counts: Counts,
}

impl Cable {
    /// One that is to be joined to `peer`.
    fn new(peer: &str) -> Self {
        Self {
            peer: Mutex::new(peer.to_owned()),
            end: Mutex::default(),
            changes: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    /// The name of the port at the other end.
    pub(crate) fn peer(&self) -> String {
        lock(&self.peer).clone()
    }

    /// The device string of the port.
    pub(crate) fn device(&self) -> String {
        format!("{PREFIX}{}", lock(&self.peer))
    }

    /// Has it be joined to this from now on; returns whether that is news.
    fn join(&self, end: Option<(BridgeId, u16)>) -> bool {
        let before = std::mem::replace(&mut *lock(&self.end), end);
        let steps = match (before, end) {
            (before, end) if before == end => 0,
            (Some(_), Some(_)) => 2,
            _ => 1,
        };
        self.changes.fetch_add(steps, Relaxed);
        steps != 0
    }

    fn is_joined(&self) -> bool {
        self.changes.load(Relaxed) % 2 == 1
    }

    /// What has gone through, all workers together.
    pub(crate) fn stats(&self) -> PortStats {
        self.counts.stats()
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The control side of a patch port.
struct PatchControl(Arc<Cable>);

impl PortControl for PatchControl {
    fn info(&self) -> PortInfo {
        PortInfo { driver: "patch", rx_queues: 0, tx_queues: 0, max_mtu: u16::MAX }
    }

    fn link(&self) -> Link {
        let Self(cable) = self;
        let changes = cable.changes.load(Relaxed);
        Link { up: cable.is_joined(), speed_mbps: None, changes }
    }

    fn mac(&self) -> MacAddr {
        MacAddr::default()
    }

    /// It takes frames of any length: the ports behind its peer have MTUs.
    fn mtu(&self) -> u16 {
        u16::MAX
    }

    fn details(&self) -> Vec<(String, String)> {
        vec![("peer".to_owned(), self.0.peer())]
    }
}

/// Where a patch port leads to: the bridge, number and counters of its peer.
type End = (BridgeId, u16, Arc<Cable>);

impl Control {
    /// Whether a port is one end of a patch.
    pub(crate) fn is_patch(&self, name: &str) -> bool {
        self.ports.get(name).is_ok_and(|entry| entry.cable().is_some())
    }

    /// Adds patch port `name`, which is joined to `peer` as soon as that is a patch port that names
    /// this one.
    pub(super) fn add_patch(
        &mut self,
        name: &str,
        peer: &str,
        options: &PortOptions,
    ) -> Result<(), Error> {
        let cable = Arc::new(Cable::new(peer));
        let device = cable.device();
        let control = Box::new(PatchControl(Arc::clone(&cable)));
        let open = OpenPort::new(name, &device, control, Vec::new(), Vec::new());
        self.add_port_with(open, Kind::Patch(cable), options)
    }

    /// Has patch port `name` be joined to `peer` from now on. Any other port is left alone.
    pub(super) fn set_peer(&mut self, name: &str, peer: &str) -> Result<(), Error> {
        let Some(cable) = self.ports.get(name)?.cable() else { return Ok(()) };
        peer.clone_into(&mut lock(&cable.peer));
        self.update_patches();
        self.update_protocols();
        Ok(())
    }

    /// Joins all patch ports that belong together by now, and parts those that do not any more.
    pub(super) fn update_patches(&self) {
        for (name, entry) in self.ports.iter() {
            let Some(cable) = entry.cable() else { continue };
            self.connect(entry, cable, self.end_of(name, entry).as_ref());
        }
    }

    /// Parts a patch port from its peer. Any other port is left alone.
    pub(super) fn part(&self, name: &str) {
        let ends = [self.ports.get(name).ok(), self.peer_of(name)];
        for entry in ends.into_iter().flatten() {
            if let Some(cable) = entry.cable() {
                self.connect(entry, cable, None);
            }
        }
    }

    /// The other port that patch port `name` names, if that names it in turn.
    fn peer_of(&self, name: &str) -> Option<&Entry> {
        let named = self.ports.get(name).ok()?.cable()?.peer();
        let peer = self.ports.get(&named).ok().filter(|_| named != name)?;
        peer.cable().is_some_and(|other| other.peer() == name).then_some(peer)
    }

    /// The bridge where frames come in that come in on a port: of a member of a bond, that of the bond.
    fn bridge_behind(&self, entry: &Entry) -> Option<BridgeId> {
        match &entry.options().bond {
            Some(bond) => Some(self.ports.get(bond).ok()?.bridge()),
            None => Some(entry.bridge()),
        }
    }

    /// Where a patch port leads to, if its peer is there.
    fn end_of(&self, name: &str, entry: &Entry) -> Option<End> {
        let peer = self.peer_of(name)?;
        // The bond of which one is a member may not be there.
        self.bridge_behind(entry).and(self.bridge_behind(peer))?;
        let in_service = !entry.options().disabled && !peer.options().disabled;
        let other = peer.cable().filter(|_| in_service)?;
        Some((peer.bridge(), peer.number(), Arc::clone(other)))
    }

    /// Tells workers that are new where patch ports lead to.
    pub(super) fn tell_patches(&self) {
        for (name, entry) in self.ports.iter() {
            if let Some(cable) = entry.cable().filter(|cable| cable.is_joined()) {
                self.tell(entry, cable, self.end_of(name, entry).as_ref());
            }
        }
    }

    fn tell(&self, entry: &Entry, cable: &Cable, end: Option<&End>) {
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let patch = end.map(|(bridge, peer, other)| {
                let (rx, tx) = (other.counts.of_worker(index).rx, cable.counts.of_worker(index).tx);
                Patch { bridge: *bridge, peer: *peer, tx, rx }
            });
            mailbox.ask(|done| Message::SetPatch(entry.number(), patch, done));
        }
    }

    /// Tells the workers where a patch port leads to, if that is news.
    fn connect(&self, entry: &Entry, cable: &Cable, end: Option<&End>) {
        if !cable.join(end.map(|(bridge, peer, _)| (*bridge, *peer))) {
            return;
        }
        self.tell(entry, cable, end);
        // As with any link that goes down: what is behind it may be elsewhere now.
        if let Ok(fdb) = self.fdb_of(entry) {
            fdb.write().flush(Some(entry.number()));
        }
    }
}
