//! Packets that are tracked, and looked up again.

use std::collections::VecDeque;
use std::sync::Arc;

use conntrack::{Nat, Request};
use flow::walk::Start;
use flow::{Frozen, Key, Track, slot};
use openflow::Field;
use openflow::field::shown;

use super::nat;
use super::{Question, Told, Tracer, World};
use crate::action::Action;
use crate::kind::begins_with_nsh;
use crate::node::What;
use crate::value::hex;

/// How often packets are followed that were tracked, at most.
const MAX_ROUNDS: usize = 64;

/// What a connection is taken for where nothing is said: tracked, and new.
const NEW: u32 = 0x21;

/// A packet that was tracked, on its way to be looked up again.
#[derive(Debug)]
pub(super) struct Round {
    number: u32,
    bridge: String,
    key: Key,
    frozen: Arc<Frozen>,
    nat: Option<Nat>,
}

/// Tells the ways of packets that were tracked behind what was told of the first one. `states` are what
/// their connections are taken for, one after the other.
pub(super) fn follow(
    world: &mut dyn World,
    question: &Question<'_>,
    told: &mut Told,
    first: Vec<Round>,
) {
    // Those that come later would not be followed.
    let mut rounds: VecDeque<Round> = first.into_iter().take(MAX_ROUNDS).collect();
    let mut states = question.states.iter();
    for _ in 0..MAX_ROUNDS {
        let Some(Round { number, bridge, mut key, frozen, nat }) = rounds.pop_front() else {
            return;
        };
        let state = states.next();
        key.set(slot::CT_STATE, state.copied().unwrap_or(NEW).into());
        let said = match state {
            Some(state) => format!("ct_state={}", shown(Field::CtState, (*state).into())),
            None => "default ct_state=trk|new (use --ct-next to customize)".to_owned(),
        };
        let line = "=".repeat(79);
        let translated = nat.map(|nat| nat::simulate(&nat, &mut key)).unwrap_or_default();
        let begin = format!(
            "\n\n{line}\nrecirc({number:#x}) - resume conntrack with \
             {said}\n{translated}{line}\n\n"
        );
        let mut tracer = Tracer::new(&mut *world, question, &key);
        let mut last = key;
        tracer.bridge(&bridge, &mut last, &Start::Frozen(&frozen));
        last.set(slot::RECIRC_ID, number.into());
        let (next, more) = tracer.finish(&bridge, &key, &last);
        let room = MAX_ROUNDS.saturating_sub(rounds.len());
        rounds.extend(more.into_iter().take(room));
        told.text += &begin;
        told.text += &next.text;
    }
}

impl Tracer<'_> {
    /// The packet is tracked, and a copy of it goes on if something says how.
    pub(super) fn track(&mut self, key: &Key, track: &Track) {
        self.commit(key);
        let Request { zone, mark, label, nat, .. } = track.request;
        self.push(Action::Said(said(&track.request)));
        let Some(frozen) = &track.next else { return };
        let bridge = self.bridge.clone();
        let number = self.world.round(&bridge, frozen);
        self.push(Action::Said(format!("recirc({number:#x})")));
        let mut key = *key;
        key.set(slot::RECIRC_ID, number.into());
        key.set(slot::CT_ZONE, zone.into());
        let (mark, mark_mask) = mark.unwrap_or_default();
        let (label, label_mask) = label.unwrap_or_default();
        key.set(slot::CT_MARK, u128::from(mark & mark_mask));
        key.set(slot::CT_LABEL, label & label_mask);
        self.rounds.push(Round { number, bridge, key, frozen: Arc::clone(frozen), nat });
        let table = frozen.table.unwrap_or_default();
        let note = format!(
            "A clone of the packet is forked to recirculate. The forked pipeline will be resumed \
             at table {table}."
        );
        self.tree.add(What::Detail, note);
    }

    /// The packet's last label is off, or its network service header, and it is looked at anew.
    pub(super) fn again(&mut self, key: &Key, frozen: &Arc<Frozen>) {
        let had_ethernet = self.base.is_ethernet();
        self.commit(key);
        let number = self.world.round(&self.bridge.clone(), frozen);
        if had_ethernet {
            // Its labels were behind that, and are gone by now.
            return self.push(Action::Said(format!("recirc({number:#x})")));
        }
        if begins_with_nsh(&self.base) {
            self.push(Action::said("pop_nsh()"));
            return self.push(Action::Said(format!("recirc({number:#x})")));
        }
        let kind = match key.get_u32(slot::PACKET_TYPE) {
            // A frame of Ethernet is behind it (`ETH_TYPE_TEB`).
            0 => 0x6558,
            packet_type => packet_type & 0xFFFF,
        };
        self.push(Action::Said(format!("pop_mpls(eth_type={kind:#x})")));
        self.push(Action::Said(format!("recirc({number:#x})")));
    }
}

/// What is done with a connection, in words of a datapath.
fn said(request: &Request) -> String {
    let Request { zone, commit, force, mark, label, nat, helper, is_translated: _, before: _ } =
        *request;
    let mut parts = Vec::new();
    match (commit, force) {
        (_, true) => parts.push("force_commit".to_owned()),
        (true, false) => parts.push("commit".to_owned()),
        (false, false) => {}
    }
    if zone != 0 {
        parts.push(format!("zone={zone}"));
    }
    if let Some((mark, mask)) = mark {
        parts.push(format!("mark={}/{}", hex((mark & mask).into()), hex(mask.into())));
    }
    if let Some((label, mask)) = label {
        let masked = if mask == u128::MAX { String::new() } else { format!("/{}", hex(mask)) };
        parts.push(format!("label={}{masked}", hex(label & mask)));
    }
    parts.extend(helper.map(|helper| format!("helper={}", helper.name())));
    parts.extend(nat.as_ref().map(nat::said));
    if parts.is_empty() { "ct".to_owned() } else { format!("ct({})", parts.join(",")) }
}
