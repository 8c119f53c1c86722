//! The workers of a switch: how they start, and how others take their places while it runs.

use datapath::Datapath;
use datapath::bridge::BridgeChange;
use datapath::worker::{Mailbox, Message, Worker};
use eal::clock;

use super::{Control, Switch};
use crate::config::check_worker_count;
use crate::error::Error;
use crate::ports::Entry;

/// A worker as the system sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) core: Option<usize>,
    /// Its number in the group of threads.
    pub(super) thread: usize,
    /// When it started, in clock cycles.
    pub(super) since: u64,
}

/// The cores of all workers: those that are given, or so many times any.
pub(super) fn wanted_cores(cores: &[usize], workers: usize) -> Vec<Option<usize>> {
    if cores.is_empty() { vec![None; workers] } else { cores.iter().copied().map(Some).collect() }
}

impl Switch {
    /// Has other workers do the work: one on each of `cores`, or, where there are none, so many
    /// wherever the kernel puts them. Those that run as they are to stay. Receive queues go where
    /// their port's options say; the others are spread anew if there are more or fewer workers. No
    /// frame is lost.
    ///
    /// # Errors
    /// A number out of range, a port that is to be polled by a worker that there would not be, a
    /// core that cannot be had. Nothing is changed then.
    pub fn set_workers(&self, cores: &[usize], workers: usize) -> Result<(), Error> {
        self.control().set_workers(&wanted_cores(cores, workers))
    }
}

impl Control {
    /// Starts a worker that knows all bridges, and no port.
    pub(super) fn start_worker(&mut self, core: Option<usize>) -> Result<(Mailbox, Seat), Error> {
        let mut path = Datapath::new(self.spare.cache());
        path.set_recording(self.records, clock::now());
        for (_, bridge) in self.bridges.iter() {
            path.change_bridge(bridge.id(), BridgeChange::Open(bridge.view()));
        }
        let system = |source| Error::System { action: "create a worker's descriptors", source };
        let (worker, mailbox) = Worker::new(path, self.idle).map_err(system)?;
        let workers = self.workers.as_mut().ok_or(Error::NoWorker)?;
        let (name, since) = (format!("switch-{}", workers.len()), clock::now());
        let thread = workers.start(&name, core, move |context| worker.run(&context))?;
        Ok((mailbox, Seat { core, thread, since }))
    }

    fn set_workers(&mut self, wanted: &[Option<usize>]) -> Result<(), Error> {
        check_worker_count(wanted.len())?;
        for (name, entry) in self.ports.iter() {
            entry.options().check(name, wanted.len())?;
        }
        let crew = self.recruit(wanted)?;
        // Nothing fails from here on.
        let is_new = |mailbox: &&Mailbox| !self.mailboxes.iter().any(|old| old.is_same(mailbox));
        let next: Vec<Mailbox> = crew.iter().map(|(mailbox, _)| mailbox.clone()).collect();
        let fresh: Vec<Mailbox> = next.iter().filter(is_new).cloned().collect();
        let seats = crew.into_iter().map(|(_, seat)| seat).collect();
        let before = std::mem::replace(&mut self.mailboxes, next.clone());
        let seats_before = std::mem::replace(&mut self.seats, seats);
        // First the ways to all ports, then the ways from them, as for a port that comes.
        for entry in self.ports.iter_mut() {
            entry.change_workers(&before, (&next, &fresh));
        }
        self.tell_patches();
        self.update_tunnels();
        self.tell_bonds();
        self.tell_groups();
        self.tell_limits();
        self.tell_ears();
        self.tell_gates();
        self.bridges.tell_flows(0, &next, &fresh);
        self.restart_mirrors();
        self.restart_captures();
        self.move_inputs(&before)?;
        for (mailbox, seat) in before.iter().zip(&seats_before) {
            if !next.iter().any(|next| next.is_same(mailbox)) {
                self.dismiss(mailbox, *seat);
            }
        }
        tracing::info!(workers = next.len(), "the workers are others now");
        Ok(())
    }

    /// Those who are to work on the `wanted` cores: whoever does already, and new ones.
    fn recruit(&mut self, wanted: &[Option<usize>]) -> Result<Vec<(Mailbox, Seat)>, Error> {
        let all = self.mailboxes.iter().cloned().zip(self.seats.iter().copied()).enumerate();
        let mut free: Vec<_> =
            all.filter(|(index, _)| self.is_alive(*index)).map(|(_, one)| one).collect();
        let mut kept: Vec<Option<(Mailbox, Seat)>> = Vec::new();
        for core in wanted {
            let place = free.iter().position(|(_, seat)| seat.core == *core);
            kept.push(place.map(|place| free.remove(place)));
        }
        let (mut crew, mut started) = (Vec::new(), Vec::new());
        for (core, kept) in wanted.iter().zip(kept) {
            let one = match kept.map_or_else(|| self.start_worker(*core), Ok) {
                Ok(one) => one,
                Err(error) => {
                    started.iter().for_each(|(mailbox, seat)| self.dismiss(mailbox, *seat));
                    return Err(error);
                }
            };
            if !self.mailboxes.iter().any(|old| old.is_same(&one.0)) {
                started.push(one.clone());
            }
            crew.push(one);
        }
        Ok(crew)
    }

    /// Moves receive queues from the workers `before` to those that there are now.
    fn move_inputs(&mut self, before: &[Mailbox]) -> Result<(), Error> {
        let spreads_anew = before.len() != self.mailboxes.len();
        if spreads_anew {
            let free = self.ports.iter_mut().filter(|entry| entry.options().workers.is_empty());
            free.for_each(Entry::forget_places);
        }
        let names: Vec<String> = self.ports.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let entry = self.ports.get(&name)?;
            let wanted = &entry.options().workers;
            let places = match wanted.is_empty() && !spreads_anew {
                true => entry.places(),
                false => self.place(&name, entry.rx_count(), wanted)?,
            };
            self.ports.get_mut(&name)?.move_inputs(places, before, &self.mailboxes);
        }
        Ok(())
    }

    /// Ends a worker that has nothing to do any more.
    fn dismiss(&mut self, mailbox: &Mailbox, seat: Seat) {
        mailbox.ask(Message::End);
        if let Some(workers) = &mut self.workers {
            workers.wait(seat.thread);
        }
    }
}
