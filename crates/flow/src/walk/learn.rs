//! Rules that are made of packets, and rules that end sooner by what packets say.

use std::sync::Arc;

use openflow::action::{Learn, LearnSource, LearnSpec, LearnTarget};
use openflow::field::Prerequisite;
use openflow::{Action, Field, Instructions, Match, PortNo, Subfield};

use super::Walk;
use super::write::holds;
use crate::key::slot;
use crate::place;
use crate::reads::ENDING;
use crate::rule::{Flags, Timeouts};
use crate::tables::{Change, Command, Filter};

/// Rules that one packet has made, at most.
const MAX_LEARNS: usize = 16_384;

impl Walk<'_> {
    /// Notes the rule that is made of the packet as it is by now.
    pub(super) fn learn(&mut self, learn: &Learn) {
        if self.learns.len() >= MAX_LEARNS {
            return self.stop();
        }
        let (mut matching, mut actions) = (Match::new(), Vec::new());
        let fin = learn.fin_timeouts;
        if fin != Default::default() {
            actions.push(Action::FinTimeout { idle: fin.idle, hard: fin.hard });
        }
        for spec in &learn.specs {
            let value = self.value_of(spec);
            match spec.target {
                LearnTarget::Match { field, offset } => {
                    ask(&mut matching, Subfield { field, offset, bits: spec.bits }, value);
                }
                LearnTarget::Load { field, offset } => {
                    actions.push(load(Subfield { field, offset, bits: spec.bits }, value));
                }
                LearnTarget::Output => actions.extend(port_of(value).map(Action::output)),
            }
        }
        let timeouts = Timeouts { idle: learn.timeouts.idle, hard: learn.timeouts.hard };
        let send_flow_removed = learn.flags.send_flow_removed;
        let change = Change {
            command: Command::Add,
            filter: Filter { table: Some(learn.table), matching, ..Filter::default() },
            priority: learn.priority,
            cookie: Some(learn.cookie),
            flags: Flags { send_flow_removed, ..Flags::default() },
            timeouts,
            importance: 0,
            instructions: Arc::new(Instructions::apply(actions)),
            may_add: true,
            limit: learn.limit,
        };
        let has_room = self.may_learn(&change);
        if has_room {
            self.tell(|watch, _| watch.learn(&change));
            self.learns.push(Arc::new(change));
        }
        if let Some(target) = learn.result {
            self.write(target, u128::from(has_room));
        }
    }

    /// Whether a rule is learnt, of which there may be so many; the way depends on how many there are.
    fn may_learn(&mut self, change: &Change) -> bool {
        let limit = usize::try_from(change.limit).unwrap_or(usize::MAX);
        let (Some(table), true) = (change.filter.table, limit != 0) else { return true };
        self.basis.counted.insert(table);
        let tables = &self.pipeline.tables;
        let is_there = || {
            let pattern = place::pattern(&change.filter.matching).ok()?;
            let rule = tables.table(table)?.find(&pattern, change.priority)?;
            Some(change.only_refreshes(rule))
        };
        tables.learned(table, change.cookie.unwrap_or_default()) < limit
            || is_there().unwrap_or_default()
    }

    /// A packet that ends its connection has the rule that it has come to end sooner.
    pub(super) fn fin_timeout(&mut self, idle: u16, hard: u16) {
        let is_tcp = holds(Prerequisite::Tcp, &self.state.key);
        let ends = is_tcp && self.state.key.get(slot::TCP_FLAGS) & ENDING != 0;
        let Some(rule) = self.rule.filter(|_| ends) else { return };
        self.learns.push(Arc::new(Change {
            command: Command::Shorten,
            filter: Filter {
                table: Some(rule.table),
                matching: rule.matching.clone(),
                ..Filter::default()
            },
            priority: rule.priority,
            cookie: Some(rule.cookie),
            timeouts: Timeouts { idle, hard },
            ..Change::add(rule.table, Match::new(), Instructions::default())
        }));
    }

    fn value_of(&self, spec: &LearnSpec) -> u128 {
        match spec.source {
            LearnSource::Value(value) => value,
            LearnSource::Field { field, offset } => {
                self.read(Subfield { field, offset, bits: spec.bits })
            }
        }
    }
}

/// Has a match be on some bits of a field, beside what it is on.
fn ask(matching: &mut Match, to: Subfield, value: u128) {
    let (before, asked) = matching.get(to.field).unwrap_or_default();
    let mask = to.mask();
    let value = value.checked_shl(u32::from(to.offset)).unwrap_or_default();
    matching.set_masked(to.field, before & !mask | value & mask, asked | mask);
}

/// The action that writes a value.
fn load(target: Subfield, value: u128) -> Action {
    match u64::try_from(value) {
        Ok(value) if target.bits <= 64 => Action::Load { target, value },
        _ => {
            let shifted = value.checked_shl(u32::from(target.offset)).unwrap_or_default();
            Action::SetField { field: target.field, value: shifted, mask: target.mask() }
        }
    }
}

/// The port that a learnt rule sends to, by its number of OpenFlow 1.0: a packet must not have one learnt
/// that rules cannot send to, or that leads to controllers or back into the tables.
fn port_of(number: u128) -> Option<PortNo> {
    let port = PortNo::from_v10(u16::try_from(number).ok()?);
    let special = [PortNo::IN_PORT, PortNo::FLOOD, PortNo::ALL, PortNo::LOCAL];
    (port < PortNo::MAX || special.contains(&port)).then_some(port)
}

/// The fields that a learnt rule is about: those that packets here must be able to have.
pub(crate) fn fields(learn: &Learn) -> impl Iterator<Item = Field> + '_ {
    learn.specs.iter().flat_map(|spec| {
        let source = match spec.source {
            LearnSource::Field { field, .. } => Some(field),
            LearnSource::Value(_) => None,
        };
        let target = match spec.target {
            LearnTarget::Match { field, .. } | LearnTarget::Load { field, .. } => Some(field),
            LearnTarget::Output => None,
        };
        source.into_iter().chain(target)
    })
}

#[cfg(test)]
mod tests {
    use openflow::action::{LearnFlags, Timeouts as Seconds};

    use super::*;
    use crate::path::Op;
    use crate::pipeline::Pipeline;
    use crate::walk::tests::{key, output, path, pipeline};
    use crate::walk::{Start, walk};

    /// Learns a rule for packets to this one's source, and says whether it does in a bit.
    fn learn(limit: u32) -> Learn {
        let field = |field| LearnSource::Field { field, offset: 0 };
        let spec = LearnSpec {
            bits: 48,
            source: field(Field::EthSrc),
            target: LearnTarget::Match { field: Field::EthDst, offset: 0 },
        };
        Learn {
            timeouts: Seconds { idle: 60, hard: 0 },
            fin_timeouts: Seconds { idle: 5, hard: 0 },
            priority: 7,
            cookie: 9,
            flags: LearnFlags::default(),
            table: 1,
            limit,
            result: Some(Subfield { field: Field::Reg0, offset: 0, bits: 1 }),
            specs: vec![spec],
        }
    }

    fn choice(bit: u128, port: u32) -> (u8, u16, Match, Vec<Action>) {
        (2, 1, Match::new().with(Field::Reg0, bit), vec![output(port)])
    }

    fn from(pipeline: &Pipeline, source: u128) -> (Vec<Op>, Vec<Arc<Change>>) {
        let mut key = key();
        key.set(slot::ETH_SRC, source);
        let path = walk(pipeline, &mut key, &Start::Table, None);
        (path.ops.into_vec(), path.learns.into_vec())
    }

    #[test]
    fn a_rule_is_learnt_as_long_as_there_are_few_of_them() {
        let actions = vec![Action::Learn(Box::new(learn(2))), Action::resubmit_table(2)];
        let mut pipeline = pipeline(&[(0, 0, Match::new(), actions), choice(0, 2), choice(1, 3)]);
        for source in [5, 6] {
            let (ops, learns) = from(&pipeline, source);
            assert_eq!((ops.as_slice(), learns.len()), (&[Op::Output(13)][..], 1));
            let outcome = pipeline.tables.change(&learns[0], 0).unwrap();
            let fin = Action::FinTimeout { idle: 5, hard: 0 };
            assert_eq!(outcome.added[0].instructions.apply, [fin]);
        }
        // There is no room for a third one; one that is there is learnt once more.
        assert_eq!(from(&pipeline, 7), (vec![Op::Output(12)], vec![]));
        assert_eq!(from(&pipeline, 6).1.len(), 1);
        assert!(path(&pipeline).basis.counted.meets(&{
            let mut table = crate::path::TableSet::default();
            table.insert(1);
            table
        }));
        pipeline.tables.change(&Change::delete(Some(1), Match::new()), 0).unwrap();
        assert_eq!(from(&pipeline, 7).0, [Op::Output(13)]);
    }

    #[test]
    fn rules_are_learnt_of_packets_that_are_lost_later() {
        let spec = LearnSpec {
            bits: 48,
            source: LearnSource::Field { field: Field::EthSrc, offset: 0 },
            target: LearnTarget::Match { field: Field::EthDst, offset: 0 },
        };
        let rule = Learn { specs: vec![spec], ..learn(2) };
        let learns = || Action::Learn(Box::new(rule.clone()));
        let bare = Action::Decap { packet_type: 0xFFFE };
        let tagged = Action::PushVlan { ethertype: 0x8100 };
        for lost in [vec![Action::resubmit_table(0)], vec![tagged, bare]] {
            let actions = [vec![learns(), output(2)], lost].concat();
            let pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
            let path = path(&pipeline);
            assert!(path.lost.is_some() && path.ops.is_empty() && !path.learns.is_empty());
        }
    }

    #[test]
    fn a_rule_that_is_learnt_sends_where_rules_may_send() {
        let spec = LearnSpec {
            bits: 32,
            source: LearnSource::Field { field: Field::Reg1, offset: 0 },
            target: LearnTarget::Output,
        };
        let fin_timeouts = Seconds::default();
        let rule = Learn { specs: vec![spec], result: None, fin_timeouts, ..learn(0) };
        let pipeline = pipeline(&[(0, 0, Match::new(), vec![Action::Learn(Box::new(rule))])]);
        let learnt = |value| {
            let mut key = key();
            key.set(slot::reg(1), value);
            let path = walk(&pipeline, &mut key, &Start::Table, None);
            path.learns[0].instructions.apply.clone()
        };
        assert_eq!(learnt(7), [output(7)]);
        assert_eq!(learnt(0xFFFE), [Action::output(PortNo::LOCAL)]);
        for other in [0xFF00, 0xFFF7, 0xFFF9, 0xFFFA, 0xFFFD, 0xFFFF, 0x1_0001, 0xFFFF_FFFE] {
            assert_eq!(learnt(other), [], "{other:#x}");
        }
    }

    #[test]
    fn a_packet_that_ends_a_connection_has_its_rule_end_sooner() {
        let matching = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 6);
        let add = Change {
            timeouts: Timeouts { idle: 60, hard: 3 },
            ..Change::add(
                0,
                matching,
                Instructions::apply(vec![Action::FinTimeout { idle: 5, hard: 4 }]),
            )
        };
        let mut pipeline = pipeline(&[]);
        pipeline.tables.change(&add, 0).unwrap();
        assert_eq!(pipeline.tables.relevant().get(slot::TCP_FLAGS), ENDING);
        let learns = |flags: u128, proto: u128| {
            let mut key = key();
            key.set(slot::IP_PROTO, proto);
            key.set(slot::TCP_FLAGS, flags);
            walk(&pipeline, &mut key, &Start::Table, None).learns
        };
        assert!(learns(0x12, 6).is_empty(), "SYN and ACK");
        assert!(learns(0x01, 17).is_empty(), "no TCP");
        let [fin, rst] = [learns(0x11, 6), learns(0x04, 6)];
        assert_eq!((fin.len(), &fin), (1, &rst));
        let outcome = pipeline.tables.change(&fin[0], 1).unwrap();
        assert!(outcome.added.is_empty() && outcome.removed.is_empty());
        let timeouts = |pipeline: &Pipeline| pipeline.tables.iter().next().unwrap().timeouts;
        assert_eq!(timeouts(&pipeline), Timeouts { idle: 5, hard: 3 });
        // Nothing is new the next time; and another rule in its place is left alone.
        let version = pipeline.tables.version();
        pipeline.tables.change(&fin[0], 2).unwrap();
        assert_eq!(pipeline.tables.version(), version);
        pipeline.tables.change(&Change { cookie: Some(1), ..add }, 3).unwrap();
        pipeline.tables.change(&fin[0], 4).unwrap();
        assert_eq!(timeouts(&pipeline), Timeouts { idle: 60, hard: 3 });
    }
}
