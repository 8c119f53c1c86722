//! Instructions of rules, and lists of actions, one after the other.

use openflow::{Action, Instructions, PortNo};

use super::mpls::looks_inside;
use super::table::Next;
use super::{Kind, MAX_DEPTH, MAX_LEVEL, Step, Walk};
use crate::key::slot;
use crate::path::{Lost, Op};
use crate::tables::HIDDEN_TABLE;

impl Walk<'_> {
    /// Does what a rule says; gives the table that it says last to go on to, if nobody watches.
    pub(super) fn instructions(&mut self, instructions: &Instructions) -> Option<Next> {
        let Instructions { apply, clear, write, metadata, goto_table } = instructions;
        if self.watch.is_some() && instructions.is_empty() {
            self.tell(|watch, key| watch.step(key, Step::Drop, true));
        }
        let more = *clear || write.is_some() || metadata.is_some() || goto_table.is_some();
        if let Some((Action::Resubmit { port, table, ct: false }, before)) = apply.split_last()
            && !more
            && self.watch.is_none()
            && !before.iter().any(|action| matches!(action, Action::CheckPktLarger { .. }))
        {
            if !before.is_empty()
                && let Some(left) = self.list(before, Some(instructions))
            {
                let done = before.len() - left.len();
                self.keep(apply.get(done..).unwrap_or_default(), Some(instructions));
                return None;
            }
            if self.must_look() {
                self.go_again();
                self.keep(apply.get(before.len()..).unwrap_or_default(), None);
                return None;
            }
            return Some(self.resubmit(*port, *table));
        }
        if let Some(left) = self.list(apply, Some(instructions)) {
            self.keep(left, Some(instructions));
            return None;
        }
        if more && self.must_look() {
            self.go_again();
            self.keep(&[], Some(instructions));
            return None;
        }
        if *clear {
            self.tell_cleared();
            self.set.clear();
            self.update_actset_output();
        }
        if let Some(actions) = write {
            self.tell(|watch, key| watch.step(key, Step::Write(actions), false));
            self.set.extend(actions.iter().cloned());
            self.update_actset_output();
            self.tell_action_set();
        }
        if let Some((value, mask)) = metadata {
            self.tell(|watch, key| watch.step(key, Step::Metadata(*value, *mask), false));
            self.state.key.set_masked(slot::METADATA, u128::from(*value), u128::from(*mask));
        }
        // What goes to no table has ended: the number of the hidden one is not for controllers' rules.
        if let Some(table) = goto_table
            && *table < HIDDEN_TABLE
        {
            let is_last = self.set.is_empty();
            self.tell(|watch, key| watch.step(key, Step::GoTo(*table), is_last));
            let next = (self.in_port(), *table, true);
            if self.watch.is_none() {
                return Some(next);
            }
            self.table(next.0, next.1, next.2);
        }
        None
    }

    /// Where a packet goes on to, as if it had come in on `port`.
    pub(super) fn resubmit(&self, port: Option<PortNo>, table: Option<u8>) -> Next {
        let port = port.filter(|port| *port != PortNo::IN_PORT);
        (port.unwrap_or_else(|| self.in_port()), table.unwrap_or(self.table), false)
    }

    /// Does actions.
    pub(super) fn actions(&mut self, actions: &[Action]) {
        if actions.is_empty() {
            self.tell(|watch, key| watch.step(key, Step::Drop, true));
        }
        if let Some(left) = self.list(actions, None) {
            self.keep(left, None);
        }
    }

    /// The same; if they are a rule's, with what else it says. `None` if what is behind them is done,
    /// too; if not, those that are left, which matters if the packet has stopped.
    pub(super) fn list<'l>(
        &mut self,
        actions: &'l [Action],
        of: Option<&Instructions>,
    ) -> Option<&'l [Action]> {
        let more = of.is_some_and(|of| {
            of.clear || of.write.is_some() || of.metadata.is_some() || of.goto_table.is_some()
        });
        let mut left = actions;
        while let Some((action, rest)) = left.split_first() {
            if self.is_over() {
                return Some(left);
            }
            let from_here = left;
            if self.state.is_uncovered && looks_inside(action) && self.must_look() {
                self.go_again();
                return Some(from_here);
            }
            left = rest;
            let is_last = left.is_empty() && !more && self.set.is_empty();
            self.tell(|watch, key| watch.step(key, Step::Action(action), is_last));
            if let Action::CheckPktLarger { len, target } = *action {
                self.check_larger((len, target), left, of);
                // What is left of the rule is done.
                return Some(&[]);
            }
            if !self.act(action) {
                // What it goes round for is still to be done.
                return Some(if self.goes_round() { from_here } else { left });
            }
            self.tell(|watch, key| watch.done(key, action));
        }
        self.is_over().then_some(left)
    }

    /// Does one; returns whether those behind it are done.
    pub(super) fn act(&mut self, action: &Action) -> bool {
        match action {
            Action::Output { port, max_len } => self.output(*port, *max_len),
            Action::Enqueue { port, queue } => self.enqueue(*port, *queue),
            Action::OutputField { source, max_len } => self.output_field(*source, *max_len),
            Action::OutputTruncated { port, max_len } => self.truncated(*port, *max_len),
            Action::Controller(to) if to.pause => self.pause(to),
            Action::Controller(to) => {
                self.controller((to.max_len, to.id), to.reason, &to.userdata, to.meter);
            }
            Action::Resubmit { port, table, ct } => {
                let (port, table, may_ask) = self.resubmit(*port, *table);
                if *ct {
                    self.table_of_original(port, table);
                } else {
                    self.table(port, table, may_ask);
                }
            }
            Action::Clone(actions) => self.clone(actions),
            Action::Group(id) => return self.group(*id),
            Action::Meter(id) => return self.meter(*id),
            Action::Sample(sample) => self.sample(sample),
            Action::Exit => self.has_exited = true,
            Action::DebugRecirc => self.recirculate(),
            // There is one way for packets, and it is not slow.
            Action::DebugSlow => {}
            Action::Push(source) => {
                let value = self.read(*source);
                self.stack.push(value);
            }
            Action::Pop(target) => match self.stack.pop() {
                Some(value) => self.write(*target, value),
                None => self.note(Kind::Error, format_args!("stack underflow")),
            },
            Action::Learn(learn) => self.learn(learn),
            Action::Ct(ct) => self.track(ct),
            Action::CtClear => self.clear_connection(),
            Action::FinTimeout { idle, hard } => self.fin_timeout(*idle, *hard),
            Action::Bundle(bundle) => self.bundle(bundle),
            Action::Multipath(multipath) => self.multipath(multipath),
            Action::PushMpls { ethertype } => self.push_mpls(*ethertype),
            Action::PopMpls { ethertype } => self.pop_mpls(*ethertype),
            Action::Encap(encap) => self.encap(encap),
            Action::Decap { packet_type } => return self.decap(*packet_type),
            Action::DecMplsTtl => return self.dec_mpls_ttl(),
            Action::DecNshTtl => return self.dec_nsh_ttl(),
            Action::DecTtl(ids) => return self.dec_ttl(ids.as_deref().unwrap_or(&[0])),
            other => self.write_by(other),
        }
        true
    }

    /// Does actions with a copy of the packet.
    fn clone(&mut self, actions: &[Action]) {
        if self.level >= MAX_LEVEL {
            return self
                .fail(Lost::TooDeep, format_args!("over max translation depth {MAX_DEPTH}"));
        }
        // Off the stack, which deep clones must not exhaust.
        let (state, stack) = (Box::new(self.state.clone()), self.stack.clone());
        // What is in the action set is done with the copy, too.
        let set = self.set.clone();
        let at = self.ops.len();
        self.ops.push(Op::Save);
        self.tell(|watch, key| watch.fork(key, actions));
        self.level += 1;
        self.actions(actions);
        let stops = self.freezing.is_some() && !self.goes_round();
        self.end();
        // As in Open vSwitch, to which the one is as good as the other behind a copy.
        self.has_exited |= stops;
        self.level -= 1;
        self.tell(|watch, _| watch.join());
        self.end_copy(at);
        self.state = *state;
        (self.stack, self.set) = (stack, set);
    }

    /// A copy that was begun at this operation is done with.
    pub(super) fn end_copy(&mut self, at: usize) {
        let changes = |op: &Op| op.is_change() || matches!(op, Op::Meter(_));
        if self.ops.iter().skip(at + 1).any(changes) {
            self.ops.push(Op::Restore);
        } else if at < self.ops.len() {
            self.ops.remove(at);
        }
    }
}
