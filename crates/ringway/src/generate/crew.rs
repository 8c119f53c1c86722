//! The threads that the lanes run on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eal::channel::{Receiver as Returned, channel};
use eal::{CoreList, Workers};

use super::lane::{Lane, Phase, Progress};
use super::receiver::Received;
use crate::exit::Failure;

/// Lanes at work, each on a thread of its own.
#[derive(Debug)]
pub struct Crew {
    phase: Arc<Phase>,
    progress: Vec<Arc<Mutex<Progress>>>,
    workers: Option<Workers>,
    returned: Returned<Lane>,
}

impl Crew {
    /// Starts them, on `cores` as far as there are some.
    ///
    /// # Errors
    /// When there can be no more threads, or a core cannot be had.
    pub fn start(lanes: Vec<Lane>, cores: Option<&CoreList>) -> Result<Self, Failure> {
        let mut workers = Workers::new().map_err(Failure::runtime)?;
        let phase = Arc::new(Phase::default());
        let mut progress = Vec::new();
        let (sender, returned) = channel();
        for (index, mut lane) in lanes.into_iter().enumerate() {
            let core = cores.and_then(|cores| cores.iter().nth(index));
            let (phase, own) = (Arc::clone(&phase), Arc::new(Mutex::new(Progress::default())));
            progress.push(Arc::clone(&own));
            let sender = sender.clone();
            let work = move |_| {
                lane.run(&phase, &own);
                // Whoever does not want it back has let it go.
                let _ = sender.send(lane);
            };
            workers.start(&format!("gen-{index}"), core, work).map_err(Failure::runtime)?;
        }
        Ok(Self { phase, progress, workers: Some(workers), returned })
    }

    /// Something of each lane's progress.
    pub fn lanes<'s, T: 's>(
        &'s self,
        take: impl Fn(&mut Progress) -> T + 's,
    ) -> impl Iterator<Item = T> + 's {
        self.progress
            .iter()
            .map(move |lane| take(&mut lane.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What all of them have received.
    pub fn received(&self) -> Received {
        self.lanes(|progress| progress.received).fold(Received::default(), |mut sum, lane| {
            sum += lane;
            sum
        })
    }

    /// Whether `count` frames are built and given to their devices.
    pub fn have_sent(&self, count: u64) -> bool {
        self.lanes(|progress| progress.complete || progress.built == 0).all(|done| done)
            && self.lanes(|progress| progress.built).sum::<u64>() >= count
    }

    /// That none has ended before its time.
    ///
    /// # Errors
    /// When one has, by a panic.
    pub fn check(&self) -> Result<(), Failure> {
        let workers = self.workers.as_ref();
        if workers.is_some_and(|all| (0..all.len()).any(|index| all.has_ended(index))) {
            return Err(Failure::runtime("a worker has ended before its time; see the log"));
        }
        Ok(())
    }

    /// Has them build no more frames, but receive what is under way.
    pub fn drain(&self) {
        self.phase.drain();
    }

    /// Waits until as many test frames have come as `sent` says, or none has for as long as
    /// `patience`.
    pub fn wait_for_the_rest(&self, patience: Duration, sent: impl Fn(&Self) -> u64) {
        let (mut since, mut seen) = (Instant::now(), 0);
        while since.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(10));
            let tested = self.received().tested();
            if tested >= sent(self) {
                return;
            }
            if tested != seen {
                (since, seen) = (Instant::now(), tested);
            }
        }
    }

    /// Ends them, and gives back those that have not ended before.
    pub fn stop(&mut self) -> Vec<Lane> {
        self.phase.stop();
        drop(self.workers.take());
        self.returned.try_iter().collect()
    }
}
