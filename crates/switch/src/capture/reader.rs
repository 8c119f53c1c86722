//! What workers have captured, for a thread that takes its time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use datapath::capture::{Captured, Room, records};
use ordered::Order as _;

use crate::switch::Control;

/// A port of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPort {
    /// Its name.
    pub name: String,
    /// Its device string.
    pub device: String,
}

/// What the reader of a capture shares with the switch.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<State>);

/// Both only grow.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The ports that there ever were, each by name and device once.
    pub(super) ports: Vec<CapturedPort>,
    /// One for each worker that there ever was.
    pub(super) rooms: Vec<Arc<Room>>,
}

impl Shared {
    /// Of one port, whose frames are written to these.
    pub(crate) fn of(port: CapturedPort) -> Self {
        Self(Mutex::new(State { ports: vec![port], rooms: Vec::new() }))
    }

    /// How many frames of a port found no room.
    pub(crate) fn missed(&self, port: usize) -> u64 {
        self.lock().rooms.iter().map(|room| room.missed_of(port)).sum()
    }

    /// There are more rooms.
    pub(crate) fn add_rooms(&self, rooms: &[Arc<Room>]) {
        self.lock().rooms.extend(rooms.iter().cloned());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what is captured. Dropping it ends the capture.
#[derive(Debug)]
pub struct CaptureReader {
    id: u64,
    control: Weak<Mutex<Control>>,
    shared: Arc<Shared>,
    /// Memory to be exchanged for what workers have written.
    spare: Vec<Vec<u8>>,
    /// By worker and port, how many frames were missed when one was read last.
    missed: Vec<Vec<u32>>,
}

impl CaptureReader {
    pub(crate) fn new(id: u64, control: Weak<Mutex<Control>>, shared: &Arc<Shared>) -> Self {
        let (spare, missed) = Default::default();
        Self { id, control, shared: Arc::clone(shared), spare, missed }
    }

    /// The ports so far. More may come, at the end.
    #[must_use]
    pub fn ports(&self) -> Vec<CapturedPort> {
        self.shared.lock().ports.clone()
    }

    /// How many frames of a port were missed, since they came faster than they were read.
    #[must_use]
    pub fn missed(&self, port: usize) -> u64 {
        self.shared.missed(port)
    }

    /// Ends the capture; what was captured before can still be read.
    pub fn stop(&self) {
        if let Some(control) = self.control.upgrade() {
            let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
            control.end_capture(self.id);
        }
    }

    /// Hands each frame that was captured since the last call to `take`, in order of time; returns
    /// how many there were. Waits for nobody.
    pub fn read(&mut self, mut take: impl FnMut(&Captured<'_>)) -> usize {
        let rooms = self.shared.lock().rooms.clone();
        let mut taken: Vec<(usize, Vec<u8>)> = Vec::new();
        for (worker, room) in rooms.iter().enumerate() {
            room.take(&mut self.spare, |half| taken.push((worker, half)));
        }
        let all = taken
            .iter()
            .flat_map(|(worker, half)| records(half).map(move |captured| (*worker, captured)));
        let mut all: Vec<(usize, Captured<'_>)> = all.collect();
        // What has the same time, as all of a burst, stays in order.
        all.order_by_key(|(_, captured)| captured.cycles);
        let count = all.len();
        for (worker, captured) in all {
            let before = place(&mut self.missed, worker, captured.port);
            let missed = before.map_or(0, |before| {
                captured.missed.wrapping_sub(std::mem::replace(before, captured.missed))
            });
            take(&Captured { missed, ..captured });
        }
        self.spare.extend(taken.into_iter().map(|(_, mut half)| {
            half.clear();
            half
        }));
        count
    }
}

/// The place of a port of a worker.
fn place(missed: &mut Vec<Vec<u32>>, worker: usize, port: usize) -> Option<&mut u32> {
    if missed.len() <= worker {
        missed.resize(worker.saturating_add(1), Vec::new());
    }
    let ports = missed.get_mut(worker)?;
    if ports.len() <= port {
        ports.resize(port.saturating_add(1), 0);
    }
    ports.get_mut(port)
}

impl Drop for CaptureReader {
    fn drop(&mut self) {
        self.stop();
    }
}
