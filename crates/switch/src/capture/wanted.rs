//! The captures of a switch as control threads see them.

use std::sync::Arc;

use datapath::capture::Room;
use datapath::capture::{Captures, Tap, TapPort};

use super::reader::{CapturedPort, Shared};
use super::{Capture, MAX_CAPTURES};
use crate::error::Error;

/// A port as captures need to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'s> {
    pub(crate) name: &'s str,
    pub(crate) device: &'s str,
    pub(crate) number: u16,
}

/// A capture that is under way.
#[derive(Debug)]
struct Entry {
    id: u64,
    capture: Capture,
    shared: Arc<Shared>,
    /// Those of the present workers.
    rooms: Vec<Arc<Room>>,
}

/// All captures.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    all: Vec<Entry>,
    /// How many there ever were.
    count: u64,
}

impl Wanted {
    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds one; the switch has so many workers. Returns its number, and what its reader needs.
    pub(crate) fn add(
        &mut self,
        capture: &Capture,
        workers: usize,
    ) -> Result<(u64, Arc<Shared>), Error> {
        capture.check().map_err(|reason| Error::Capture { reason })?;
        if self.all.len() >= MAX_CAPTURES {
            let reason = format!("there are {MAX_CAPTURES} captures already, which is the most");
            return Err(Error::Capture { reason });
        }
        let id = self.count;
        self.count = id.saturating_add(1);
        let shared = Arc::<Shared>::default();
        let (capture, rooms) = (capture.clone(), Vec::new());
        let mut entry = Entry { id, capture, shared: Arc::clone(&shared), rooms };
        entry.restart(workers);
        self.all.push(entry);
        Ok((id, shared))
    }

    /// Ends one; returns whether it was there.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let count = self.all.len();
        self.all.retain(|entry| entry.id != id);
        self.all.len() != count
    }

    /// There are others, so many workers from now on.
    pub(crate) fn restart(&mut self, workers: usize) {
        self.all.iter_mut().for_each(|entry| entry.restart(workers));
    }

    /// What worker `worker` is to know of them, given all ports; `None` where there are none.
    pub(crate) fn captures(&self, ports: &[Seen<'_>], worker: usize) -> Option<Box<Captures>> {
        let taps = self.all.iter().filter_map(|entry| entry.tap(ports, worker));
        (!self.is_empty()).then(|| Box::new(Captures::new(taps.collect())))
    }
}

impl Entry {
    fn restart(&mut self, workers: usize) {
        let room = |_| Arc::new(Room::new(self.capture.buffer));
        self.rooms = (0..workers).map(room).collect();
        self.shared.lock().rooms.extend(self.rooms.iter().cloned());
    }

    fn tap(&self, ports: &[Seen<'_>], worker: usize) -> Option<Tap> {
        let room = self.rooms.get(worker)?;
        let mut taps = Vec::new();
        let names = self.capture.ports.as_ref();
        let is_wanted =
            |port: &&Seen<'_>| names.is_none_or(|names| names.iter().any(|name| name == port.name));
        for port in ports.iter().filter(is_wanted) {
            let place = self.place(port);
            let index = usize::from(port.number);
            if taps.len() <= index {
                taps.resize(index.saturating_add(1), None);
            }
            if let Some(tap) = taps.get_mut(index) {
                let missed = room.missed(place);
                *tap = u32::try_from(place).ok().map(|port| TapPort { port, missed });
            }
        }
        Some(Tap::new(&self.capture, taps, Arc::clone(room)))
    }

    /// The place of a port among those of the capture: the same as before, if it was there.
    fn place(&self, port: &Seen<'_>) -> usize {
        let state = &mut *self.shared.lock();
        let is_same = |known: &CapturedPort| known.name == port.name && known.device == port.device;
        state.ports.iter().position(is_same).unwrap_or_else(|| {
            let (name, device) = (port.name.to_owned(), port.device.to_owned());
            state.ports.push(CapturedPort { name, device });
            state.ports.len().saturating_sub(1)
        })
    }
}
