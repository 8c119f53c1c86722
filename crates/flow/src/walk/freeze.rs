//! A packet stops on its way, and goes on later (`controller(pause)`), or goes round for a group where
//! that is told.
//!
//! Nothing more is done from then on: while the walk goes back to where the packet, or this copy of
//! it, began, what is left of each rule is kept. All that it takes to go on goes along with the packet.

use std::sync::Arc;

use openflow::action::Controller;
use openflow::packet_in::Reason;
use openflow::{Action, Instructions, PortNo};

use super::{Walk, outer};
use crate::frozen::{Frozen, MAX_REST, Rest};
use crate::groups::PlaceHash;
use crate::key::{Key, PACKET_WORDS, TRACKED_WORDS, slot};
use crate::path::{Lost, Op, PacketIn};

/// A packet that stops: who is told, and what is left so far.
#[derive(Debug)]
pub(super) struct Freezing {
    stop: Stop,
    table: u8,
    cookie: u64,
    rest: Vec<Rest>,
    /// Actions in it.
    count: usize,
}

/// Who has to let a packet go on.
#[derive(Debug)]
enum Stop {
    /// A controller.
    Controller { id: u16, reason: Reason, userdata: Vec<u8> },
    /// Nobody: it goes round, to have this hash, if that is what it is for.
    Round(Option<PlaceHash>),
    /// Nobody: it is looked at anew.
    Again,
}

impl Walk<'_> {
    /// Stops the packet here.
    pub(super) fn pause(&mut self, to: &Controller) {
        let Controller { id, reason, ref userdata, .. } = *to;
        self.stop_at(Stop::Controller { id, reason, userdata: userdata.clone() });
    }

    /// Has the packet go round for a place.
    pub(super) fn go_round(&mut self, hash: PlaceHash) {
        self.stop_at(Stop::Round(Some(hash)));
    }

    /// Has it go round for nothing, where that is told. Whoever does not ask finds no difference.
    pub(super) fn recirculate(&mut self) {
        if self.watch.as_ref().is_some_and(|watch| watch.goes_round()) {
            self.stop_at(Stop::Round(None));
        }
    }

    /// Has the packet be looked at anew, since what it begins with was behind headers.
    pub(super) fn go_again(&mut self) {
        self.stop_at(Stop::Again);
    }

    fn stop_at(&mut self, stop: Stop) {
        let (table, cookie, rest) = (self.table, self.cookie, Vec::new());
        self.freezing = Some(Box::new(Freezing { stop, table, cookie, rest, count: 0 }));
    }

    /// Whether the packet goes round, for what is at hand.
    pub(super) fn goes_round(&self) -> bool {
        self.freezing.as_ref().is_some_and(|freezing| matches!(freezing.stop, Stop::Round(Some(_))))
    }

    /// Keeps what is left of the rule at hand, if the packet has stopped: of its actions, and behind
    /// these of its instructions.
    pub(super) fn keep(&mut self, left: &[Action], of: Option<&Instructions>) {
        let Some(freezing) = &mut self.freezing else { return };
        freezing.count = freezing.count.saturating_add(left.len());
        // What does nothing is nothing that is left to do.
        let is_left = |action: &&Action| !matches!(action, Action::Note(_));
        if freezing.count > MAX_REST || freezing.rest.len() >= MAX_REST {
            return self.fail(Lost::TooMany, format_args!("over {MAX_REST} actions left"));
        }
        let apply = left.iter().filter(is_left).cloned().collect();
        let instructions = match of {
            Some(&Instructions { clear, ref write, metadata, goto_table, .. }) => {
                Instructions { apply, clear, write: write.clone(), metadata, goto_table }
            }
            None => Instructions::apply(apply),
        };
        if !instructions.is_empty() {
            let (table, cookie) = (self.table, self.cookie);
            freezing.rest.push(Rest { table, cookie, instructions });
        }
    }

    /// What travels beside the packet, and what it begins with, for where it goes on.
    pub(super) fn beside(&self) -> Box<Key> {
        let own = &self.state.key;
        let mut key = Box::new(own.beside());
        key.set(slot::ACTSET_OUTPUT, u128::from(PortNo::UNSET.0));
        key.set(slot::PACKET_TYPE, outer::told_type(own).into());
        key
    }

    /// Sends a packet, or a copy of it, that has stopped to the controllers, or round. What follows is about
    /// others.
    pub(super) fn finish_freezing(&mut self) {
        let Some(freezing) = self.freezing.take() else { return };
        if self.error.is_some() {
            return;
        }
        let Freezing { stop, table: at, cookie, rest, .. } = *freezing;
        let mut key = self.beside();
        let (stack, set) = (self.stack.clone(), self.set.clone());
        // As in Open vSwitch: what has nothing left to do begins anew.
        let table = (matches!(stop, Stop::Again) && rest.is_empty()).then_some(0);
        let frozen = Frozen { key: key.clone(), stack, set, table, rest, zone: None };
        let (id, reason, userdata) = match stop {
            Stop::Controller { id, reason, userdata } => (id, reason, userdata),
            Stop::Again => return self.emit(Op::Again(Arc::new(frozen), 0)),
            Stop::Round(hash) => {
                let mut next = frozen;
                if hash.is_some() {
                    // It has another one then.
                    next.key.set(slot::DP_HASH, 0);
                }
                return self.tell(|watch, key| watch.round(key, hash, next));
            }
        };
        self.state.key.tell_connection(&mut key);
        let frozen = Some(Arc::new(frozen));
        let max_len = u16::MAX;
        let (table, is_by_place) = (at, false);
        let packet_in =
            PacketIn { max_len, id, reason, is_by_place, table, cookie, key, userdata, frozen };
        self.emit(Op::Controller(Arc::new(packet_in)));
    }

    /// Goes on with a packet that had stopped.
    pub(super) fn thaw(&mut self, frozen: &Frozen) {
        let Frozen { key, stack, set, table, rest, zone } = frozen;
        self.state.zone = *zone;
        // What is known of a packet's connection is new if it was tracked.
        self.state.key.set_beside(key, zone.is_some());
        self.state.mark = key.get_u32(slot::PKT_MARK);
        self.stack.clone_from(stack);
        self.set.clone_from(set);
        self.update_actset_output();
        if let Some(table) = *table {
            let port = self.in_port();
            self.is_first = true;
            self.table(port, table, true);
        }
        for Rest { table, cookie, instructions } in rest {
            if self.has_exited || self.error.is_some() {
                break;
            }
            (self.table, self.cookie, self.is_miss) = (*table, *cookie, false);
            if self.freezing.is_some() {
                self.keep(&instructions.apply, Some(instructions));
            } else if let Some((port, table, may_ask)) = self.instructions(instructions) {
                self.table(port, table, may_ask);
            }
        }
    }
}

impl Key {
    /// Puts what travels beside another packet beside this one, but for a hash that it has come with, and what
    /// is known of its connection if it `is_tracked`.
    fn set_beside(&mut self, other: &Self, is_tracked: bool) {
        let own = *self;
        *self = other.beside();
        if own.get(slot::DP_HASH) != 0 {
            self.set(slot::DP_HASH, own.get(slot::DP_HASH));
        }
        let packet = slot::ETH_DST.word()..slot::TUN_ID.word();
        let connection = if is_tracked { PACKET_WORDS..TRACKED_WORDS } else { 0..0 };
        for at in packet.chain(connection) {
            if let (Some(to), Some(from)) = (self.0.get_mut(at), own.0.get(at)) {
                *to = *from;
            }
        }
    }
}
