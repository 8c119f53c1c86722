//! What is heard of a walk, as lines and as actions.

use std::fmt::{Arguments, Write as _};
use std::sync::Arc;

use flow::place::place;
use flow::walk::{Kind, Place, Step, Watch, nsh_metadata};
use flow::{Change, Choice, Classifier, Frozen, Key, Op, PlaceHash, Rule, slot};
use openflow::action::Actions as Shown;
use openflow::{Action as Of, Field, Subfield};

use super::{ByLen, CopyKind, Fork, MAX_ERRORS, Tracer};
use crate::abilities::Abilities;
use crate::action::Action;
use crate::commit::commit;
use crate::kind::is_mpls;
use crate::look::look_up;
use crate::node::What;
use crate::told;
use crate::value::hex;

impl Watch for Tracer<'_> {
    fn look_up(&mut self, key: &Key, table: u8, rules: &Classifier<Arc<Rule>>) {
        let pipeline = self.world.pipeline(&self.bridge);
        let prefixes = pipeline.as_ref().and_then(|pipeline| {
            let settings = pipeline.tables.settings(table);
            settings.prefixes.as_deref()
        });
        look_up(key, (rules, prefixes), &mut self.seen.0, &mut self.rules_left);
    }

    fn enter(&mut self, key: &Key, place: Place<'_>) {
        self.lasts.push((self.is_last, self.tree.depth()));
        match place {
            Place::Table(table, rule) => {
                let text = match rule {
                    Ok(rule) => format!("{:>2}. {}", rule.shown_place().0, self.rule(rule)),
                    Err(true) => {
                        format!("{table:>2}. No match, and a \"packet-in\" is called for.")
                    }
                    Err(false) => format!("{table:>2}. No match."),
                };
                self.tree.begin(What::Table, text);
                let copies = self.shut_copies.take().unwrap_or_default();
                (0..copies).for_each(|_| self.tell_shut());
                if std::mem::take(&mut self.is_new_bridge) {
                    let actions = rule.map_or(&[][..], |rule| &rule.instructions.apply);
                    self.fork_for(key, actions);
                }
                if matches!(rule, Err(true)) {
                    self.tree.add(What::Action, "CONTROLLER:65535".to_owned());
                }
            }
            Place::Fragments(table) => {
                self.is_new_bridge = false;
                let text = "Packets are IP fragments and the fragment handling mode is \"drop\".";
                self.tree.begin(What::Table, format!("{table:>2}. {text}"));
            }
            Place::Bucket(id) => {
                self.tree.begin(What::Bucket, format!("bucket {id}"));
                // Others may follow.
                self.is_last = false;
            }
            Place::ActionSet => {
                self.tree.begin(What::Table, "--. Executing action set:".to_owned());
                self.is_last = true;
            }
        }
    }

    fn leave(&mut self) {
        let Some((is_last, depth)) = self.lasts.pop() else { return };
        self.is_last = is_last;
        // What the action set does follows from the first table.
        if depth != self.root {
            self.tree.end(depth);
        }
    }

    fn step(&mut self, key: &Key, step: Step<'_>, is_last: bool) {
        let outer = self.lasts.last().is_none_or(|(is_last, _)| *is_last);
        self.is_last = is_last && outer;
        let thawed = self.thawed(&step);
        let text = match step {
            Step::Drop => "drop".to_owned(),
            Step::Action(action) => self.action_text(action),
            Step::Clear(_) => "clear_actions".to_owned(),
            Step::Write(actions) => format!("write_actions({})", Shown(actions)),
            Step::Metadata(value, u64::MAX) => format!("write_metadata:{}", hex(value.into())),
            Step::Metadata(value, mask) => {
                format!("write_metadata:{}/{}", hex(value.into()), hex(mask.into()))
            }
            Step::GoTo(table) => format!("goto_table:{table}"),
        };
        self.tree.add(What::Action, thawed.unwrap_or(text));
        if let Step::Clear(before) = step {
            self.tell_set("was", before);
        }
        // Below its first label, a packet is as it was until then.
        if matches!(step, Step::Action(Of::PushMpls { .. })) && !is_mpls(key) {
            self.commit(key);
        }
        if let Step::Action(Of::Encap(_) | Of::Decap { .. }) = step {
            self.commit(key);
            self.encap = match step {
                Step::Action(Of::Encap(encap)) => Some(nsh_metadata(encap)),
                _ => None,
            };
            self.is_slow |= is_about_labels(key, &step) && !self.can.labels;
        }
        if matches!(step, Step::Action(Of::CtClear)) && key.get(slot::CT_STATE) != 0 {
            self.push(Action::said("ct_clear"));
        }
        self.is_slow |= matches!(step, Step::Action(Of::DebugSlow));
        self.has_queue = key.get(slot::SKB_PRIORITY) != 0;
        self.seen.step(key, &step);
        if let Step::Action(Of::Learn(_)) = step
            && !self.is_real
        {
            let note = "suppressing side effects, so learn action ignored";
            self.tree.add(What::Warning, note.to_owned());
        }
    }

    fn done(&mut self, key: &Key, action: &Of) {
        match action {
            Of::Move { target, .. } => self.tell_part(key, *target),
            Of::Pop(target) if !std::mem::take(&mut self.is_underflow) => {
                self.seen.popped(*target);
                self.tell_part(key, *target);
            }
            Of::PopQueue if std::mem::take(&mut self.has_queue) => {
                self.tree.add(What::Detail, "queue = 0".to_owned());
            }
            Of::Multipath(multipath) => self.tell_part(key, multipath.target),
            Of::Bundle(bundle) => bundle.target.iter().for_each(|to| self.tell_part(key, *to)),
            Of::Learn(learn) if self.is_real => {
                learn.result.iter().for_each(|to| self.tell_part(key, *to));
            }
            _ => {}
        }
    }

    fn action_set(&mut self, actions: &[Of]) {
        self.tell_set("is", actions);
    }

    fn fork(&mut self, key: &Key, actions: &[Of]) {
        self.fork_for(key, actions);
        self.lasts.push((self.is_last, usize::MAX));
    }

    fn join(&mut self) {
        let _ = self.lasts.pop();
        self.join_last();
    }

    fn send(&mut self, key: &Key, op: &Op) {
        self.onward(key, op);
    }

    fn queue(&mut self, key: &Key, is_marked: bool) {
        self.seen.queue(key, is_marked);
    }

    fn by_len(&mut self, key: &Key, len: u16) {
        self.commit(key);
        let (tunnel, cause) = (self.tunnel.clone(), self.causes.1);
        self.by_len.push(ByLen { len, base: self.base, tunnel, cause, longer: None });
        self.lasts.push((self.is_last, usize::MAX));
        self.is_last = true;
        self.actions.push(Vec::new());
    }

    fn end_by_len(&mut self) {
        let (Some(own), Some(done)) = (self.by_len.last_mut(), self.actions.pop()) else { return };
        (self.base, self.tunnel) = (own.base, own.tunnel.clone());
        self.causes.1 = own.cause;
        match own.longer.take() {
            None => {
                own.longer = Some(done);
                self.actions.push(Vec::new());
            }
            Some(longer) => {
                let len = own.len;
                self.by_len.pop();
                self.told_by_len(len, [longer, done]);
                if let Some((is_last, _)) = self.lasts.pop() {
                    self.is_last = is_last;
                }
            }
        }
    }

    fn learn(&mut self, rule: &Change) {
        if self.is_real {
            self.tree.add(What::Detail, learned(rule));
        }
    }

    fn choose(&mut self, key: &Key, choice: Choice<'_>) -> bool {
        match choice {
            Choice::Place(..) if !self.is_flow => false,
            Choice::Place(hash, _) if hash.told(key) != key.get_u32(slot::DP_HASH) => true,
            choice => {
                self.seen.choice(key, choice);
                false
            }
        }
    }

    fn goes_round(&self) -> bool {
        true
    }

    fn round(&mut self, key: &Key, hash: Option<PlaceHash>, next: Frozen) {
        self.go_round(key, hash, next);
    }

    fn recover(&mut self) {
        self.error = None;
    }

    fn note(&mut self, kind: Kind, note: Arguments<'_>) {
        let text = note.to_string();
        if text.starts_with("Dropping packet") {
            self.error = Some("Unsupported packet type");
        }
        let what = match kind {
            Kind::Detail => What::Detail,
            Kind::Warning => What::Warning,
            Kind::Error => What::Error,
        };
        if kind == Kind::Error {
            self.is_underflow = text.starts_with("stack underflow");
            if self.errors.len() < MAX_ERRORS {
                let mut packet = self.base;
                if self.is_covered {
                    // Open vSwitch tells it with the header of Ethernet that is behind it.
                    for slot in [slot::PACKET_TYPE, slot::ETH_SRC, slot::ETH_DST] {
                        packet.set(slot, self.first.get(slot));
                    }
                }
                let packet = told::packet(&packet, None);
                let bridge = &self.bridge;
                self.errors.push(format!("{text} on bridge {bridge} while processing {packet}"));
            }
            let reasons = [
                ("over max translation depth", "Recursion too deep"),
                ("resubmit actions", "Too many resubmits"),
                ("of stack", "Stack too deep"),
                ("more MPLS LSEs", "Too many MPLS labels"),
            ];
            // What was to be done until then is done all the same.
            self.is_slow |= text.contains("of actions");
            let reason = reasons.into_iter().find(|(part, _)| text.contains(part));
            self.error = reason.map(|(_, reason)| reason).or(self.error);
        }
        if self.error.is_some() {
            // What was to be put on is not.
            self.encap = None;
        }
        self.tree.add(what, text);
    }
}

/// A rule that is made of a packet.
fn learned(rule: &Change) -> String {
    let Change { filter, priority, cookie, flags, timeouts, instructions, .. } = rule;
    let mut text = format!("table={} {}", filter.table.unwrap_or_default(), filter.matching);
    text.truncate(text.trim_end().len());
    let _ = write!(text, " priority={priority}");
    if let Some(cookie @ 1..) = cookie {
        let _ = write!(text, " cookie={cookie:#x}");
    }
    for (name, seconds) in [("idle", timeouts.idle), ("hard", timeouts.hard)] {
        if seconds != 0 {
            let _ = write!(text, " {name}={seconds}");
        }
    }
    if flags.send_flow_removed {
        text += " send_flow_rem";
    }
    let _ = write!(text, " actions={}", Shown(&instructions.apply));
    text
}

/// Whether labels of MPLS are put on in front of a whole packet, or taken off there.
fn is_about_labels(key: &Key, step: &Step<'_>) -> bool {
    match step {
        Step::Action(Of::Encap(encap)) => matches!(encap.packet_type, 0x1_8847 | 0x1_8848),
        Step::Action(Of::Decap { .. }) => key.get(slot::PACKET_TYPE) != 0 && is_mpls(key),
        _ => false,
    }
}

/// Whether a datapath needs no clone for what is done with a copy: it can be undone.
fn is_reversible(actions: &[Of]) -> bool {
    actions.iter().all(|action| {
        !matches!(
            action,
            Of::Ct(_) | Of::Meter(_) | Of::Nat(_) | Of::OutputTruncated { .. } | Of::Encap(_)
        ) && !matches!(action, Of::Decap { .. } | Of::DecNshTtl)
    })
}

impl Tracer<'_> {
    /// A rule's match, priority and cookie.
    fn rule(&self, rule: &Rule) -> String {
        let mut text = rule.matching.to_string();
        if self.names {
            let names = |port| self.world.port_name(&self.bridge, port);
            text = told::named(&text, &names);
        }
        if !text.is_empty() {
            text += ", ";
        }
        let _ = write!(text, "priority {}", rule.shown_place().1);
        if rule.cookie != 0 {
            let _ = write!(text, ", cookie {:#x}", rule.cookie);
        }
        text
    }

    fn action_text(&self, action: &Of) -> String {
        match action {
            Of::Output { port, .. } if self.names => {
                match self.world.port_name(&self.bridge, *port) {
                    Some(name) => format!("output:{}", told::quoted(&name)),
                    None => action.to_string(),
                }
            }
            _ => action.to_string(),
        }
    }

    fn tell_set(&mut self, verb: &str, set: &[Of]) {
        let text = match set {
            [] => format!("action set {verb} empty"),
            set => format!("action set {verb}: {}", Shown(set)),
        };
        self.tree.add(What::Detail, text);
    }

    /// What bits of a field are now.
    fn tell_part(&mut self, key: &Key, part: Subfield) {
        let Some(slot) = place(part.field) else { return };
        let value = key.get(slot) >> part.offset & openflow::field::ones(part.bits);
        let text = match part.is_whole() {
            // Whether there is a tag is told with it.
            true if part.field == Field::VlanVid => key.get(slot::VLAN_VID_PRESENT).to_string(),
            true => openflow::field::shown(part.field, value),
            false => hex(value),
        };
        self.tree.add(What::Detail, format!("{part} is now {text}"));
    }

    /// What follows is done with a copy: without a clone of the datapath's, where that can be undone.
    pub(super) fn fork_for(&mut self, key: &Key, actions: &[Of]) {
        let kind = self.copy_kind(actions);
        if kind != CopyKind::Plain {
            self.commit(key);
            self.actions.push(Vec::new());
        }
        if kind == CopyKind::None {
            self.tree.add(What::Error, "Failed to compose clone action".to_owned());
        }
        self.forks.push(Fork {
            base: self.base,
            tunnel: self.tunnel.clone(),
            cause: self.causes.1,
            depth: self.tree.depth(),
            kind,
            was_last: self.is_last,
        });
        self.is_last |= kind != CopyKind::Plain;
    }

    /// Both ways are told, or that of the packet that there is.
    fn told_by_len(&mut self, len: u16, [longer, others]: [Vec<Action>; 2]) {
        if self.can.lengths {
            return self.push(Action::ByLen(len, [longer, others]));
        }
        self.is_slow = true;
        let is_longer = self.world.packet_len().is_some_and(|own| own > len.into());
        let own = if is_longer { longer } else { others };
        own.into_iter().for_each(|action| self.push(action));
    }

    fn copy_kind(&self, actions: &[Of]) -> CopyKind {
        match self.can {
            _ if self.is_last || is_reversible(actions) => CopyKind::Plain,
            Abilities { clones: true, .. } => CopyKind::Clone,
            can if can.samples_copies() => CopyKind::Sample,
            _ => CopyKind::None,
        }
    }

    /// What follows is done with the packet as it was at the last fork.
    pub(super) fn join_last(&mut self) {
        let Some(fork) = self.forks.pop() else { return };
        self.is_last = fork.was_last;
        self.causes.1 = fork.cause;
        if fork.kind == CopyKind::Plain {
            return;
        }
        let inner = self.actions.pop().unwrap_or_default();
        (self.base, self.tunnel) = (fork.base, fork.tunnel);
        match fork.kind {
            _ if inner.is_empty() => {}
            CopyKind::Clone => self.push(Action::Clone(inner)),
            CopyKind::Sample => self.push(Action::Sample(inner)),
            CopyKind::Plain | CopyKind::None => {}
        }
    }

    /// Ends forks within lines that are deeper than this.
    pub(super) fn close_clones(&mut self, depth: usize) {
        while self.forks.last().is_some_and(|fork| fork.depth > depth) {
            self.join_last();
        }
    }

    pub(super) fn push(&mut self, action: Action) {
        if let Some(actions) = self.actions.last_mut() {
            actions.push(action);
        }
    }

    /// Has the datapath's packet be what rules have made of it.
    pub(super) fn commit(&mut self, key: &Key) {
        let encap = std::mem::take(&mut self.encap);
        if encap.is_some() {
            self.is_covered = key.get(slot::PACKET_TYPE) != 0;
        }
        if let Some(actions) = self.actions.last_mut() {
            let key = (key, encap.as_deref());
            self.is_slow |= commit(&mut self.base, key, &mut self.seen.0, actions);
        }
    }
}
