//! The workers' side of a port: how its queues get to them, and back.

use std::sync::Arc;
use std::time::Duration;

use datapath::bridge::{BridgeChange, BridgeId};
use datapath::guard::{Guard, PortGuard};
use datapath::inputs::Input;
use datapath::limit::{Direction, PortLimits};
use datapath::output::Output;
use datapath::owners::{Owners, Watch};
use datapath::vlan::policy::Policy;
use datapath::worker::{Mailbox, Message};
use eal::clock;
use ethdev::{RxQueue, TxQueue};
use tunnel::Mode;

use super::Entry;
use crate::bridges::tell;
use crate::config::{MAX_TX_RETRIES, PortOptions};

/// How long a worker relies on a queue to be ready before it looks again.
const RECHECK: Duration = Duration::from_millis(1);

/// Queues of a port that no worker has.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    pub(super) inputs: Vec<Input>,
    /// With the worker of each.
    pub(super) outputs: Vec<(usize, Output)>,
}

impl Entry {
    pub(crate) const fn options(&self) -> &PortOptions {
        &self.options
    }

    /// The number of its receive queues.
    pub(crate) fn rx_count(&self) -> usize {
        self.port.control().info().rx_queues
    }

    /// Notes what the port is set to from now on.
    pub(crate) fn set_options(&mut self, options: &PortOptions) {
        self.options = options.clone();
    }

    /// Takes queues of a device that was just opened. `notify` is called when a worker has lost all
    /// its transmit queues ([`look_at_lost`](Self::look_at_lost)).
    pub(crate) fn put(
        &mut self,
        rx: Vec<RxQueue>,
        tx: Vec<TxQueue>,
        workers: usize,
        notify: impl Fn() + Send + Sync + 'static,
    ) {
        let number = self.number;
        let inputs = rx.into_iter().enumerate();
        self.parked.inputs = inputs.map(|(queue, rx)| Input::new(number, queue, rx)).collect();
        let (owners, parts) = Owners::start(number, tx, workers, notify);
        self.owners = Some(owners);
        self.park(parts);
    }

    /// Makes the ways to the port of all workers, whose queues these are.
    fn park(&mut self, parts: Vec<(Vec<TxQueue>, Watch)>) {
        let (workers, recheck) = (parts.len(), clock::cycles(RECHECK));
        let mtu = &self.mtu;
        let output = |(worker, (queues, watch))| {
            let mut output =
                Output::new(Vec::new(), (worker, workers), recheck, Arc::clone(mtu), 0);
            output.set_queues(queues, (worker, workers), watch);
            (worker, output)
        };
        self.parked.outputs = parts.into_iter().enumerate().map(output).collect();
    }

    /// Gives the way to the port to the workers `next`, of whom those in `fresh` have heard nothing
    /// of it, instead of those `before`. Those that are among both can send all the time.
    pub(crate) fn change_workers(
        &mut self,
        before: &[Mailbox],
        (next, fresh): (&[Mailbox], &[Mailbox]),
    ) {
        self.join(fresh);
        let (number, disabled) = (self.number, self.is_off());
        let Some(owners) = &mut self.owners else { return };
        let parked = &mut self.parked.outputs;
        let parts = owners.restart(next.len(), |index| {
            if disabled {
                let parked = parked.iter_mut().find(|(worker, _)| *worker == index);
                return parked.map(|(_, output)| output.share_queues());
            }
            before.get(index)?.on_output(number, Output::share_queues)
        });
        self.park(parts);
        self.attach(next);
        if let [_] = next {
            self.look_at_owners(next, &[0]);
        }
    }

    /// Moves the receive queues from the workers `before` to those of `next` in `places`.
    pub(crate) fn move_inputs(&mut self, places: Vec<usize>, before: &[Mailbox], next: &[Mailbox]) {
        let stays = |place: &usize| match (before.get(*place), next.get(*place)) {
            (Some(before), Some(next)) => before.is_same(next),
            _ => false,
        };
        if places != self.rx_workers || !places.iter().all(stays) {
            self.unpoll(before);
            self.poll(places, next);
        }
    }

    /// Looks whether it is time for the workers to have transmit queues of their own, or to share
    /// them; to be called once a second. `alive` are those that run.
    pub(crate) fn look_at_owners(&mut self, workers: &[Mailbox], alive: &[usize]) {
        let is_off = self.is_off();
        if let Some(owners) = self.owners.as_mut().filter(|_| !is_off) {
            owners.look(workers, alive);
        }
    }

    /// Helps a worker that has lost its transmit queues.
    pub(crate) fn look_at_lost(&mut self, workers: &[Mailbox]) {
        let is_off = self.is_off();
        if let Some(owners) = self.owners.as_mut().filter(|_| !is_off) {
            owners.look_at_lost(workers);
        }
    }

    /// Gives the workers the way to the port, unless it is disabled.
    pub(crate) fn attach(&mut self, workers: &[Mailbox]) {
        if self.is_off() {
            return;
        }
        let retries = self.retries();
        for (index, mut output) in self.parked.outputs.drain(..) {
            output.set_retries(retries);
            if let Some(worker) = workers.get(index) {
                worker.ask(|done| Message::AddOutput(self.number, Box::new(output), done));
            }
        }
    }

    /// Has the port belong to its bridge, with its part in VLANs, on all workers.
    pub(crate) fn join(&self, workers: &[Mailbox]) {
        self.change_bridge(&BridgeChange::Join(self.number, self.policy()), workers);
        if !self.is_flooded() {
            self.change_bridge(&BridgeChange::Flood(self.number, false), workers);
        }
    }

    /// Whether frames flood there. Those for a port that takes the header of Ethernet off are for nobody behind it
    /// in particular.
    fn is_flooded(&self) -> bool {
        self.tube().is_none_or(|tube| tube.settings().mode != Mode::Packets)
    }

    /// Has it belong to its bridge no more.
    pub(crate) fn leave(&self, workers: &[Mailbox]) {
        self.change_bridge(&BridgeChange::Leave(self.number), workers);
    }

    /// Tells all workers the port's part in VLANs.
    pub(crate) fn update_vlan(&self, workers: &[Mailbox]) {
        self.change_bridge(&BridgeChange::SetVlan(self.number, self.policy()), workers);
    }

    fn policy(&self) -> Option<Arc<Policy>> {
        let vlan = &self.options.vlan;
        (!vlan.is_default()).then(|| Arc::new(Policy::from(vlan)))
    }

    fn change_bridge(&self, change: &BridgeChange, workers: &[Mailbox]) {
        // A bridge knows bonds, and not their members.
        if self.bridge != BridgeId::BOND {
            tell(workers, self.bridge, change);
        }
    }

    /// Tells the workers how often to try again although the port takes nothing.
    pub(crate) fn update_retries(&self, workers: &[Mailbox]) {
        let (number, retries) = (self.number, self.retries());
        for worker in workers {
            worker.ask(|done| Message::SetRetries(number, retries, done));
        }
    }

    /// Takes the port's limits and its guard away.
    pub(crate) fn drop_limits(&mut self, workers: &[Mailbox]) {
        let guard = std::mem::take(&mut self.options.guard);
        let limits = std::mem::take(&mut self.options.limits);
        self.update_limits(&limits, workers);
        self.update_guard((&guard, &limits), workers);
    }

    /// Tells the workers the port's limits, where they are others than `before`; buckets are full
    /// then.
    pub(crate) fn update_limits(&self, before: &PortLimits, workers: &[Mailbox]) {
        let (now, hz) = (clock::now(), clock::hz());
        let limits = &self.options.limits;
        for (direction, from, to) in
            [(Direction::Rx, before.rx(), limits.rx()), (Direction::Tx, before.tx(), limits.tx())]
        {
            if from == to {
                continue;
            }
            for (worker, limiter) in workers.iter().zip(to.limiters(workers.len(), hz, now)) {
                let limiter = limiter.map(Box::new);
                worker.ask(|done| Message::SetLimit(self.number, direction, limiter, done));
            }
        }
    }

    /// Tells the workers what the port may send, where that is something else than `before`; what
    /// may come at once may do so again then.
    pub(crate) fn update_guard(
        &self,
        (guard_before, limits_before): (&PortGuard, &PortLimits),
        workers: &[Mailbox],
    ) {
        let PortOptions { guard, limits, .. } = &self.options;
        let trip = self.trip.as_ref();
        if guard == guard_before && limits.storm() == limits_before.storm() {
            return;
        }
        for (worker, guard) in workers.iter().zip(Guard::of(guard, limits, trip, workers.len())) {
            let guard = guard.map(Box::new);
            worker.ask(|done| Message::SetGuard(self.number, guard, done));
        }
    }

    fn retries(&self) -> u32 {
        self.options.tx_retries.min(MAX_TX_RETRIES)
    }

    /// Takes the way to the port from all workers.
    pub(crate) fn detach(&mut self, workers: &[Mailbox]) {
        for (index, worker) in workers.iter().enumerate() {
            let output = worker.ask(|reply| Message::TakeOutput(self.number, reply)).flatten();
            self.parked.outputs.extend(output.map(|output| (index, output)));
        }
    }

    /// Gives the receive queues to the workers in `places`, by queue number, unless the port is
    /// disabled.
    pub(crate) fn poll(&mut self, places: Vec<usize>, workers: &[Mailbox]) {
        self.rx_workers = places;
        if self.options.disabled {
            return;
        }
        for mut input in self.parked.inputs.drain(..) {
            input.bridge = self.bridge;
            let place = self.rx_workers.get(input.queue);
            if let Some(worker) = place.and_then(|place| workers.get(*place)) {
                worker.ask(|done| Message::AddInput(Box::new(input), done));
            }
        }
    }

    /// Takes the receive queues from the workers.
    pub(crate) fn unpoll(&mut self, workers: &[Mailbox]) {
        let take = |worker: &Mailbox| worker.ask(|reply| Message::TakeInputs(self.number, reply));
        let inputs: Vec<Input> = workers.iter().filter_map(take).flatten().collect();
        self.parked.inputs.extend(inputs);
    }

    /// Has no worker count the receive queues as its own any more; they are to be placed anew.
    pub(crate) fn forget_places(&mut self) {
        self.rx_workers.clear();
    }

    /// The worker of each receive queue.
    pub(crate) fn places(&self) -> Vec<usize> {
        self.rx_workers.clone()
    }
}
