//! Which rules a packet finds: table by table.

use std::sync::Arc;

use openflow::PortNo;
use openflow::packet_in::Reason;

use super::{MAX_DEPTH, MAX_LEVEL, MAX_LOOKUPS, MAX_OPS, MAX_STACK, NO_METER, Place, Step, Walk};
use crate::key::{Slot, slot};
use crate::path::{Lost, Passed};
use crate::pattern::mix;
use crate::rule::Rule;
use crate::tables::{Fragments, HIDDEN_TABLE, Miss, Tables};

/// A table to look a packet up in, as if it had come in on that port, and whether controllers may be asked.
pub(super) type Next = (PortNo, u8, bool);

/// What was found for a packet, and in which table.
type Found<'w> = (u8, Option<&'w Arc<Rule>>);

impl<'w> Walk<'w> {
    /// Looks the packet up in a table, as if it had come in on `port`, and does what is found.
    pub(super) fn table(&mut self, port: PortNo, table: u8, may_ask: bool) {
        self.tables::<false>(port, table, may_ask);
    }

    /// Looks the packet up in the first table, and does nothing: a rule counts also what its port drops.
    #[cold]
    pub(super) fn pass_first(&mut self, port: PortNo) {
        let tables = &self.pipeline.tables;
        let (table, rule) = self.first_rule(port, tables.first_of(&self.state.key), true);
        self.pass(table, rule);
        let asks = rule.is_none() && self.asks(table);
        self.tell(|watch, key| {
            watch.enter(key, place(tables, table, rule.ok_or(asks)));
            watch.leave();
        });
    }

    /// The same, of the first packet of its connection in that table.
    #[cold]
    pub(super) fn table_of_original(&mut self, port: PortNo, table: u8) {
        self.tables::<true>(port, table, false);
    }

    fn tables<const ORIGINAL: bool>(&mut self, port: PortNo, table: u8, may_ask: bool) {
        let is_first = std::mem::take(&mut self.is_first);
        let (depth, level) = (self.depth, self.level);
        // What a rule says is no bucket's, though a bucket has sent the packet there.
        let is_in_group = std::mem::take(&mut self.is_in_group);
        let mut after = (self.table, self.cookie, self.is_miss, self.rule);
        let (mut next, mut is_at_first) = (Some((port, table, may_ask)), is_first);
        if ORIGINAL {
            next = self.visit::<true>((port, table, may_ask), false);
        }
        while let Some(here) = next {
            next = self.visit::<false>(here, is_at_first);
            if is_at_first {
                // What the action set does is done by the first rule that controllers see.
                after = (self.table, self.cookie, self.is_miss, self.rule);
                is_at_first = self.table == HIDDEN_TABLE;
            }
        }
        (self.depth, self.level, self.is_in_group) = (depth, level, is_in_group);
        (self.table, self.cookie, self.is_miss, self.rule) = after;
    }

    /// The same for one table; gives the one that it goes on to, if that is all that is left to do: most
    /// ways are such chains.
    #[inline]
    fn visit<const ORIGINAL: bool>(
        &mut self,
        (port, table, may_ask): Next,
        is_first: bool,
    ) -> Option<Next> {
        if !self.has_room() {
            return None;
        }
        self.lookups += 1;
        let mut deeper = u32::from(!is_first && table <= self.table);
        let (mut table, mut rule) = if ORIGINAL {
            (table, self.look_up_original(table))
        } else {
            self.first_rule(port, table, may_ask)
        };
        // Rules that only go on do not ask.
        let may_ask = may_ask && rule.is_none();
        if !is_first && self.may_run() {
            (table, rule) = self.run((table, rule), &mut deeper)?;
        }
        self.pass(table, rule);
        (self.table, self.rule) = (table, rule.map(Arc::as_ref));
        let asks = may_ask && self.asks(table);
        let tables = &self.pipeline.tables;
        self.tell(|watch, key| {
            watch.enter(key, place(tables, table, rule.ok_or(asks)));
        });
        let mut next = None;
        match rule {
            Some(rule) => {
                self.cookie = rule.cookie;
                self.is_miss = rule.is_table_miss();
                self.depth += deeper;
                self.level += 1;
                next = match rule.goes_to.filter(|_| self.watch.is_none()) {
                    Some(table) => Some((self.in_port(), table, false)),
                    None => self.instructions(&rule.instructions),
                };
            }
            None => self.miss(asks),
        }
        self.tell(|watch, _| watch.leave());
        next
    }

    /// Whether tables can be gone through without a look at anything but their rules: nobody follows the
    /// packet, and it is looked up as it is.
    #[inline]
    fn may_run(&self) -> bool {
        self.watch.is_none() && self.state.key.get_u8(slot::IP_FRAG) == 0
    }

    /// Goes along rules that say no more than to go on, from the one that was found in a table; gives the
    /// first that says more. What it takes to get there is not `deeper` than where it was, or is.
    #[inline]
    fn run(&mut self, (mut table, mut rule): Found<'w>, deeper: &mut u32) -> Option<Found<'w>> {
        let tables = &self.pipeline.tables;
        let mut is_same = false;
        while let Some(next) = rule.and_then(|rule| rule.goes_to) {
            self.pass(table, rule);
            self.depth += *deeper;
            self.level += 1;
            if self.is_deep() || self.lookups >= MAX_LOOKUPS {
                self.refuse();
                return None;
            }
            self.lookups += 1;
            *deeper = u32::from(next <= table);
            table = next;
            if !is_same {
                self.trace();
            }
            rule = match &mut self.guide {
                None => tables.table(table).and_then(|rules| rules.lookup(&self.state.key)),
                Some(_) => self.look_up_guided(table),
            };
            // It stays as it is.
            is_same = true;
        }
        Some((table, rule))
    }

    /// Notes that a table was passed, by a rule, or by none.
    #[inline]
    fn pass(&mut self, table: u8, rule: Option<&'w Arc<Rule>>) {
        // A rule that is changed counts where it did: the way is found in the same place.
        let at = rule.map_or(usize::from(table), |rule| Arc::as_ptr(&rule.stats).addr());
        self.trail = mix(self.trail, at as u64);
        self.visits.push(Passed { table, rule });
    }

    #[inline]
    const fn is_deep(&self) -> bool {
        self.depth >= MAX_DEPTH || self.level >= MAX_LEVEL
    }

    /// No rule of a table is for the packet.
    fn miss(&mut self, asks: bool) {
        if asks {
            self.cookie = u64::MAX;
            self.controller((u16::MAX, 0), Reason::IMPLICIT_MISS, &[], NO_METER);
        } else {
            self.tell(|watch, key| watch.step(key, Step::Drop, true));
        }
    }

    /// Whether the packet may come to another table or group; it is dropped if not.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        if self.is_deep()
            || self.lookups >= MAX_LOOKUPS
            || self.ops.len() >= MAX_OPS
            || self.stack.len() >= MAX_STACK
        {
            self.refuse();
        }
        !self.is_over()
    }

    /// Drops the packet, which has come to too much.
    #[cold]
    fn refuse(&mut self) {
        if self.is_deep() {
            self.fail(Lost::TooDeep, format_args!("over max translation depth {MAX_DEPTH}"));
        } else if self.lookups >= MAX_LOOKUPS {
            self.fail(Lost::TooMany, format_args!("over {MAX_LOOKUPS} resubmit actions"));
        } else if self.ops.len() >= MAX_OPS {
            self.stop();
        } else if self.stack.len() >= MAX_STACK {
            self.fail(Lost::StackTooDeep, format_args!("resubmits yielded over 64 kB of stack"));
        }
    }

    /// The rule for the packet in a table, or, where `goes_on`, in those behind it that it goes on to
    /// by itself; with the last one of these.
    fn first_rule(&mut self, port: PortNo, mut table: u8, goes_on: bool) -> Found<'w> {
        loop {
            let rule = self.look_up(port, table);
            let goes_on = goes_on && rule.is_none() && self.lookups < MAX_LOOKUPS;
            match goes_on.then(|| self.pipeline.tables.behind(table)).flatten() {
                Some(behind) => {
                    self.pass(table, rule);
                    table = behind;
                }
                None => return (table, rule),
            }
            self.lookups += 1;
        }
    }

    #[inline]
    fn look_up(&mut self, port: PortNo, table: u8) -> Option<&'w Arc<Rule>> {
        if port == self.in_port() && self.state.key.get_u8(slot::IP_FRAG) == 0 {
            self.look_up_as_it_is(table)
        } else {
            self.look_up_from(port, table)
        }
    }

    #[inline(never)]
    fn look_up_from(&mut self, port: PortNo, table: u8) -> Option<&'w Arc<Rule>> {
        if self.state.key.get_u8(slot::IP_FRAG) != 0
            && let Some(rule) = self.pipeline.tables.fragment_rule()
        {
            return Some(rule);
        }
        let before = self.pretend(port);
        let rule = self.look_up_as_it_is(table);
        before.into_iter().for_each(|(slot, value)| self.state.key.set(slot, value));
        rule
    }

    #[inline(always)]
    fn look_up_as_it_is(&mut self, table: u8) -> Option<&'w Arc<Rule>> {
        self.trace();
        let rules = self.pipeline.tables.table(table)?;
        self.tell(|watch, key| watch.look_up(key, table, rules));
        match &self.guide {
            None => rules.lookup(&self.state.key),
            Some(_) => self.look_up_guided(table),
        }
    }

    /// The same of a packet that has found its way before.
    #[inline(never)]
    fn look_up_guided(&mut self, table: u8) -> Option<&'w Arc<Rule>> {
        let rules = self.pipeline.tables.table(table)?;
        if let (Some(guide), Some(tracer)) = (&mut self.guide, &mut self.tracer)
            && let Some(known) = guide.find(self.visits.len(), table, rules, tracer)
        {
            return known;
        }
        rules.lookup(&self.state.key)
    }

    /// Notes what is looked up, if that is wanted.
    #[inline]
    pub(super) fn trace(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.see(self.visits.len(), &self.state.key);
        }
    }

    /// Has the key say what look-ups see, and gives what it has said: another port, to which what sends
    /// to where the packet came in does not go; and no ports of fragments, of which not all have any, unless
    /// rules are to see them (`OFPC_FRAG_NX_MATCH`).
    fn pretend(&mut self, port: PortNo) -> [(Slot, u128); 3] {
        let sees_ports = self.pipeline.tables.fragments() == Fragments::NxMatch;
        let key = &mut self.state.key;
        let before = [slot::IN_PORT, slot::TP_SRC, slot::TP_DST].map(|slot| (slot, key.get(slot)));
        key.set(slot::IN_PORT, u128::from(port.0));
        if key.get_u8(slot::IP_FRAG) != 0 && !sees_ports {
            key.set(slot::TP_SRC, 0);
            key.set(slot::TP_DST, 0);
        }
        before
    }

    /// Whether controllers are asked what becomes of a packet that no rule of `table` is for.
    fn asks(&self, table: u8) -> bool {
        let port = self.pipeline.ports.get(&self.in_port());
        let asks = match self.pipeline.tables.settings(table).miss {
            Miss::Default => self.pipeline.asks_controllers,
            Miss::Controller | Miss::Continue => true,
            Miss::Drop => false,
        };
        asks && port.is_none_or(|port| !port.no_packet_in)
    }
}

/// Where a packet is that has found this in a table.
fn place<'r>(tables: &Tables, table: u8, found: Result<&'r Arc<Rule>, bool>) -> Place<'r> {
    let is_of_fragments =
        |rule: &Arc<Rule>| tables.fragment_rule().is_some_and(|own| Arc::ptr_eq(own, rule));
    match found {
        Ok(rule) if is_of_fragments(rule) => Place::Fragments(table),
        found => Place::Table(table, found.map(Arc::as_ref)),
    }
}
