//! How a bridge changes: what workers are told of it, and what it comes to know by that.

use std::sync::Arc;

use fdb::Fdb;

use super::{Bridge, Looks};
use crate::flows::{BridgeFlows, Flows};
use crate::gate::{Bars, Doors, Gate};
use crate::mirror::Taps;
use crate::snoop::stage::Snoop;
use crate::snoop::view::View;
use crate::vlan::policy::Policy;

/// A change of a bridge that workers are told.
#[derive(Clone, Debug)]
pub enum BridgeChange {
    /// It is there from now on.
    Open(Bridge),
    /// It has these settings.
    Set {
        /// Where it learns addresses.
        fdb: Arc<Fdb>,
        /// The most addresses that one burst may add there or move.
        learn_per_burst: usize,
        /// Reserved group addresses that are forwarded all the same, as bits.
        group_fwd_mask: u16,
        /// Whether it looks at tags though no port has VLAN settings.
        vlan_aware: bool,
        /// Whether it forwards frames whose source is no station's address.
        any_source: bool,
    },
    /// A port belongs to it, with these VLAN settings; `None`: a trunk of all VLANs.
    Join(u16, Option<Arc<Policy>>),
    /// A port that belongs to it has these VLAN settings.
    SetVlan(u16, Option<Arc<Policy>>),
    /// A port that belongs to it is one of those that frames flood to, as all are that join; or is none.
    Flood(u16, bool),
    /// A port does not belong to it any more.
    Leave(u16),
    /// It has these mirrors, or none.
    Mirror(Option<Box<Taps>>),
    /// Its ports do this by spanning tree; `None`: all of them forward.
    Gate(Option<Arc<Gate>>),
    /// It looks at groups, or does no more.
    Snoop(Option<Box<Snoop>>),
    /// Of one that does: its ports have these groups.
    Groups(Arc<View>),
    /// Its frames go by flows; `None`: as those of a plain bridge. The time is in milliseconds.
    Flows(Option<Box<BridgeFlows>>, u64),
    /// The rules of its flows are told what they were for until this time, in milliseconds.
    FlushFlows(u64),
    /// It is not there any more.
    Close,
}

impl Bridge {
    /// Makes a change of a bridge that stays.
    pub fn change(&mut self, change: BridgeChange) {
        match change {
            BridgeChange::Open(bridge) => *self = bridge,
            BridgeChange::Set { fdb, learn_per_burst, group_fwd_mask, vlan_aware, any_source } => {
                self.any_source = any_source;
                self.fdb = fdb;
                self.learn_per_burst = learn_per_burst;
                self.group_fwd_mask = group_fwd_mask;
                self.set_vlan_aware(vlan_aware);
            }
            BridgeChange::Join(port, policy) => self.join(port, policy),
            BridgeChange::SetVlan(port, policy) => self.set_vlan(port, policy),
            BridgeChange::Flood(port, floods) => self.set_flooded(port, floods),
            BridgeChange::Leave(port) => self.leave(port),
            BridgeChange::Mirror(taps) => self.set_taps(taps),
            BridgeChange::Gate(gate) => {
                self.gate = gate;
                self.set_doors();
            }
            BridgeChange::Snoop(snoop) => {
                self.snoop = snoop;
                self.look();
            }
            BridgeChange::Groups(groups) => {
                if let Some(snoop) = &mut self.snoop {
                    snoop.groups = groups;
                }
            }
            BridgeChange::Flows(flows, now) => self.set_flows(flows.as_deref(), now),
            BridgeChange::FlushFlows(now) => self.flush_flows(now),
            BridgeChange::Close => {}
        }
    }

    /// Has its frames go by flows from `now` on, or no more.
    fn set_flows(&mut self, flows: Option<&BridgeFlows>, now: u64) {
        match (&mut self.flows, flows) {
            (Some(own), Some(flows)) => own.update(flows, now),
            (own, flows) => {
                own.iter().for_each(|flows| flows.flush(now));
                *own = flows.map(|flows| Box::new(Flows::new(flows, now)));
            }
        }
        let bars = flows.and_then(|flows| Bars::of(&flows.pipeline));
        if self.bars.as_deref() != bars.as_ref() {
            self.bars = bars.map(Box::new);
            self.set_doors();
        }
    }

    fn flush_flows(&self, now: u64) {
        self.flows.iter().for_each(|flows| flows.flush(now));
    }

    /// Has it send to ports, or no more, to which it is told to send nothing.
    pub(crate) fn ignore_no_forward(&mut self, ignores: bool) {
        let open = self.bars.as_deref().filter(|_| ignores).map(Bars::without_no_forward);
        self.doors = Doors::new(self.gate.as_deref(), open.as_ref().or(self.bars()));
    }

    /// Finds out what its ports let through.
    fn set_doors(&mut self) {
        self.ignore_no_forward(false);
        self.look();
    }

    /// Finds out what it has to look at.
    const fn look(&mut self) {
        self.looks = match (&self.doors, &self.snoop, self.vlans.is_used()) {
            (None, None, false) => Looks::Addresses,
            (None, None, true) => Looks::Tags,
            _ => Looks::More,
        };
    }

    /// Takes `port` in, with these VLAN settings.
    pub(crate) fn join(&mut self, port: u16, policy: Option<Arc<Policy>>) {
        insert(&mut self.members, port);
        insert(&mut self.flooded, port);
        self.set_vlan(port, policy);
    }

    /// Has frames flood to a port that belongs to it, or not: those whose destination is known go there in any case.
    fn set_flooded(&mut self, port: u16, floods: bool) {
        if !floods {
            self.flooded.retain(|member| *member != port);
        } else if self.members.binary_search(&port).is_ok() {
            insert(&mut self.flooded, port);
        }
    }

    /// Lets `port` go.
    pub(crate) fn leave(&mut self, port: u16) {
        self.members.retain(|member| *member != port);
        self.set_flooded(port, false);
        self.set_vlan(port, None);
    }

    /// Changes mirrors and samplings; those samplings that stay go on.
    fn set_taps(&mut self, taps: Option<Box<Taps>>) {
        if let (Some(next), Some(before)) = (&taps, &self.taps) {
            next.samplers().go_on_from(before.samplers());
        }
        self.taps = taps;
    }

    /// Changes the VLAN settings of `port`.
    pub(crate) fn set_vlan(&mut self, port: u16, policy: Option<Arc<Policy>>) {
        self.vlans.set(port, policy);
        self.look();
    }

    /// Has it look at tags though no port has VLAN settings, or no more.
    pub(crate) fn set_vlan_aware(&mut self, aware: bool) {
        self.vlans.set_always(aware);
        self.look();
    }
}

/// Puts a number into a list that is in order, once.
fn insert(all: &mut Vec<u16>, port: u16) {
    if let Err(place) = all.binary_search(&port) {
        all.insert(place, port);
    }
}
