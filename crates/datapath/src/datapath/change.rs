//! How a data path changes: its bridges, outputs and ports as workers are told of them, and what is recorded.

use flow::PathCounts;

use super::Datapath;
use crate::bond::way::{Fittings, Way};
use crate::bridge::{Bridge, BridgeChange, BridgeId};
use crate::capture::Captures;
use crate::flows::Flows;
use crate::guard::Guard;
use crate::limit::{Direction, Limiter};
use crate::output::Output;
use crate::patch::Patch;
use crate::port_set::PortSet;
use crate::record::{Record, Recorder, Recording};
use crate::trap::Trap;
use crate::tunnel::Tunnels;

impl Datapath {
    /// Changes a bridge, if it is there.
    pub fn change_bridge(&mut self, id: BridgeId, change: BridgeChange) {
        let index = usize::from(id.0);
        if self.bridges.len() <= index {
            self.bridges.resize_with(index + 1, || None);
            self.apart.resize_with(index + 1, || None);
        }
        let is_told = matches!(&change, BridgeChange::Flows(..) | BridgeChange::Close);
        let bridge = match (change, self.take_bridge(index)) {
            (BridgeChange::Open(bridge), _) => Some(bridge),
            (BridgeChange::Close, _) | (_, None) => None,
            (change, Some(mut bridge)) => {
                bridge.change(change);
                Some(bridge)
            }
        };
        self.put_bridge(index, bridge);
        if is_told {
            self.mute_bonds();
        }
    }

    /// Has bonds send nothing by members that are told to be sent nothing.
    pub(super) fn mute_bonds(&mut self) {
        let bridges = self.bridges.iter().chain(&self.apart).flatten();
        let bars = bridges.filter_map(Bridge::bars);
        let muted = bars.fold(PortSet::default(), |all, bars| all.with(&bars.no_forward));
        self.outputs.bonds_mut().mute(muted);
    }

    /// How often paths were looked up on all bridges since this was asked last.
    pub(crate) fn take_look_ups(&self) -> PathCounts {
        let flows = self.apart.iter().flatten().filter_map(Bridge::flows);
        flows.map(Flows::take_look_ups).fold(PathCounts::default(), PathCounts::and)
    }

    fn take_bridge(&mut self, index: usize) -> Option<Bridge> {
        let places = [&mut self.bridges, &mut self.apart];
        places.into_iter().find_map(|places| places.get_mut(index)?.take())
    }

    /// Puts a bridge where it belongs.
    fn put_bridge(&mut self, index: usize, bridge: Option<Bridge>) {
        let has_taps = bridge.as_ref().is_some_and(|bridge| bridge.taps().is_some());
        let has_flows = bridge.as_ref().is_some_and(|bridge| bridge.flows().is_some());
        let is_apart = has_taps || has_flows || !self.is_calm;
        if let Some(flows) = bridge.as_ref().and_then(Bridge::flows) {
            flows.record(self.turns.slot());
        }
        let places = if is_apart { &mut self.apart } else { &mut self.bridges };
        if let Some(place) = places.get_mut(index) {
            *place = bridge;
        }
    }

    /// Puts the output to `port` in place, and returns the one that was there.
    pub(crate) fn set_output(&mut self, port: u16, output: Option<Output>) -> Option<Output> {
        self.outputs.set(port, output)
    }

    /// Lets `act` change the output to `port`, if there is one.
    pub(crate) fn on_output(&mut self, port: u16, act: impl FnOnce(&mut Output)) {
        self.outputs.get_mut(port).map(act);
    }

    /// Has `port` be a patch port that leads to another bridge, or no more.
    pub(crate) fn set_patch(&mut self, port: u16, patch: Option<Patch>) {
        self.outputs.set_patch(port, patch.is_some());
        self.patches.set(port, patch);
    }

    /// Has there be these tunnels, or none.
    pub(crate) fn set_tunnels(&mut self, tunnels: Option<Box<Tunnels>>) {
        let places = |tunnels: Option<&Tunnels>| {
            tunnels.map(|tunnels| tunnels.places().collect::<Vec<u16>>()).unwrap_or_default()
        };
        let next = places(tunnels.as_deref());
        let before = self.patches.set_tunnels(tunnels);
        for port in places(before.as_deref()) {
            self.outputs.set_patch(port, self.patches.has(port));
        }
        next.into_iter().for_each(|port| self.outputs.set_patch(port, true));
        if let (Some(before), Some(tunnels)) = (before, self.patches.tunnels_mut()) {
            tunnels.go_on_from(*before);
        }
        self.sort_bridges();
    }

    /// Changes a limit of `port`.
    pub(crate) fn set_limit(
        &mut self,
        port: u16,
        direction: Direction,
        limiter: Option<Box<Limiter>>,
    ) {
        self.limits.set(port, direction, limiter);
        self.sort_bridges();
    }

    /// Has `port` be a bond, or no more.
    pub(crate) fn set_bond(&mut self, port: u16, bond: Option<(Way, Fittings)>) {
        self.outputs.set_bond(port, bond);
        self.sort_bridges();
    }

    /// Changes what `port` may send.
    pub(crate) fn set_guard(&mut self, port: u16, guard: Option<Box<Guard>>) {
        self.guards.set(port, guard);
        self.sort_bridges();
    }

    /// Has what neighbours say to the switch itself on `port` be taken out of what comes in there.
    pub(crate) fn set_trap(&mut self, port: u16, trap: Option<Box<Trap>>) {
        self.traps.set(port, trap);
        self.sort_bridges();
    }

    /// Captures this from now on.
    pub(crate) fn set_captures(&mut self, captures: Option<Box<Captures>>) {
        self.outputs.set_captures(captures);
        self.sort_bridges();
    }

    /// Records this from `now` on, in clock cycles.
    pub fn set_recording(&mut self, record: Record, now: u64) {
        self.turns.set(record, now);
        self.turn_recording(now);
    }

    /// It is about to sleep, at `now`: there is time to record frames.
    #[inline]
    pub fn sleeps(&mut self, now: u64) {
        if self.turns.sleeps(now) {
            self.turn_recording(now);
        }
    }

    /// Has recorders do what it is the turn of, from `now` on.
    #[cold]
    pub(super) fn turn_recording(&mut self, now: u64) {
        let lacks = self.recorder.set(self.turns.slot());
        if lacks && let Some(recorder) = self.recorder.any() {
            recorder.pass(now);
        }
        self.sort_bridges();
    }

    /// Gives away what was recorded: where it came in, and where it has come again in bridges.
    pub(crate) fn take_recording(&mut self) -> (Recording, Vec<(BridgeId, Recording)>) {
        let came = self.recorder.any().map(Recorder::take).unwrap_or_default();
        let of = |(at, bridge): (u16, &Option<Bridge>)| {
            Some((BridgeId(at), bridge.as_ref()?.flows()?.take_recording()))
        };
        (came, (0..).zip(&self.apart).filter_map(of).collect())
    }

    /// Puts all bridges where they belong.
    fn sort_bridges(&mut self) {
        self.is_calm = self.limits.is_empty()
            && self.guards.is_empty()
            && self.traps.is_empty()
            && self.patches.tunnels().is_none()
            && !self.recorder.is_active()
            && self.outputs.bonds().is_empty()
            && !self.outputs.is_watched();
        for index in 0..self.bridges.len() {
            let bridge = self.take_bridge(index);
            self.put_bridge(index, bridge);
        }
    }

    /// Changes how often to try again although `port` takes nothing.
    pub(crate) fn set_retries(&mut self, port: u16, retries: u32) {
        if let Some(output) = self.outputs.get_mut(port) {
            output.set_retries(retries);
        }
    }
}
