//! What depends on how long a packet is (`check_pkt_larger`).
//!
//! As in Open vSwitch, what is behind the action in its rule is done with a copy of the packet that has
//! the bit, and what follows that rule with the packet as it was. What is in the action set is done with
//! a copy that is longer; and in any case in the end, by the packet as it was. If the copy comes to an
//! `exit`, or stops, that is the end for the packet, too: of whoever follows it, for the longer one.

use openflow::{Action, Instructions, Subfield};

use super::Walk;
use crate::key::slot;
use crate::path::Op;

impl Walk<'_> {
    /// Does these with a copy of the packet of which a bit says whether it is longer than `len` bytes.
    /// Where somebody follows it, there may be no packet yet: both are told then.
    pub(super) fn check_larger(
        &mut self,
        (len, target): (u16, Subfield),
        rest: &[Action],
        of: Option<&Instructions>,
    ) {
        if !self.has_room() {
            return;
        }
        if self.watch.is_none() {
            let grown = self.state.grown.saturating_add(self.state.growth());
            // The length of a packet that a controller sends is its own, and no class.
            if !self.is_packet_out && !self.pipeline.tables.lengths().tell(grown) {
                return self.lose(format_args!("Dropping packet, its length is not known by now."));
            }
            let before = i32::from(self.state.key.get_u16(slot::FRAME_LEN));
            let is_larger = before.saturating_add(grown) > i32::from(len);
            return self.larger((is_larger, target), rest, of);
        }
        // Each of them may come here again.
        self.lookups += 1;
        self.tell(|watch, key| watch.by_len(key, len));
        self.larger((true, target), rest, of);
        self.tell(|watch, _| watch.end_by_len());
        let has_exited = std::mem::take(&mut self.has_exited);
        self.larger((false, target), rest, of);
        self.tell(|watch, _| watch.end_by_len());
        self.has_exited = has_exited;
    }

    fn larger(
        &mut self,
        (is_larger, target): (bool, Subfield),
        rest: &[Action],
        of: Option<&Instructions>,
    ) {
        // Off the stack, which deep lists must not exhaust.
        let (state, stack) = (Box::new(self.state.clone()), self.stack.clone());
        let set = self.set.clone();
        let at = self.ops.len();
        self.ops.push(Op::Save);
        self.level += 1;
        if !is_larger {
            self.set.clear();
        }
        self.write(target, u128::from(is_larger));
        match of {
            Some(&Instructions { clear, ref write, metadata, goto_table, .. }) => {
                let (apply, write) = (rest.to_vec(), write.clone());
                let rest = Instructions { apply, clear, write, metadata, goto_table };
                if let Some((port, table, may_ask)) = self.instructions(&rest) {
                    self.table(port, table, may_ask);
                }
            }
            None => self.actions(rest),
        }
        let has_stopped = self.freezing.is_some();
        self.end();
        self.has_exited |= has_stopped;
        self.level -= 1;
        self.end_copy(at);
        self.state = *state;
        (self.stack, self.set) = (stack, set);
    }
}

#[cfg(test)]
mod tests {
    use openflow::action::Encap;
    use openflow::{Field, Match};

    use super::*;
    use crate::cache::PathCache;
    use crate::key::Key;
    use crate::pipeline::Pipeline;
    use crate::walk::tests::{key, output, pipeline};
    use crate::walk::{Start, Watch, walk};

    const BIT: Subfield = Subfield { field: Field::Reg0, offset: 0, bits: 1 };

    fn check(len: u16) -> Action {
        Action::CheckPktLarger { len, target: BIT }
    }

    fn by_bit(table: u8) -> [(u8, u16, Match, Vec<Action>); 2] {
        [(1, 2), (0, 3)].map(|(bit, port)| {
            (table, 1, Match::new().with_masked(Field::Reg0, bit, 1), vec![output(port)])
        })
    }

    fn sent(pipeline: &Pipeline, len: usize) -> Vec<u16> {
        let mut key = key();
        key.set_frame_len(len);
        outputs(&walk(pipeline, &mut key, &Start::Table, None).ops)
    }

    fn outputs(ops: &[Op]) -> Vec<u16> {
        ops.iter()
            .filter_map(|op| if let Op::Output(port) = op { Some(*port) } else { None })
            .collect()
    }

    #[test]
    fn a_rule_goes_on_by_the_length() {
        let check = vec![check(100), Action::resubmit_table(1)];
        let behind = vec![Action::resubmit_table(2), Action::resubmit_table(1), output(4)];
        let [longer, other] = by_bit(1);
        let rules = [(0, 0, Match::new(), behind), (2, 0, Match::new(), check), longer, other];
        let pipeline = pipeline(&rules);
        // Behind the rule that has asked for it the bit is as it was.
        assert_eq!(sent(&pipeline, 101), [12, 13, 14]);
        assert_eq!(sent(&pipeline, 100), [13, 13, 14]);
    }

    #[test]
    fn what_a_rule_says_behind_its_actions_goes_by_the_length_too() {
        let mut pipeline = pipeline(&by_bit(1));
        let instructions = Instructions {
            write: Some(vec![output(4)]),
            goto_table: Some(1),
            ..Instructions::apply(vec![check(100)])
        };
        let add = crate::tables::Change::add(0, Match::new(), instructions);
        pipeline.tables.change(&add, 0).unwrap();
        assert_eq!((sent(&pipeline, 200), sent(&pipeline, 14)), (vec![12, 14], vec![13, 14]));
    }

    /// What follows the rule, and the action set, are done only if the packet's own way did not end.
    #[test]
    fn an_end_is_one_for_what_is_behind_the_rule_too() {
        let ends = |bit: u128, port: u32| {
            let matching = Match::new().with_masked(Field::Reg0, bit, 1);
            (1, 1, matching, vec![output(port), Action::Exit])
        };
        let rules = |end, (other, goes_on): (u128, u32)| {
            let goes_on = vec![output(goes_on)];
            let other = (1, 1, Match::new().with_masked(Field::Reg0, other, 1), goes_on);
            let check = vec![check(100), Action::resubmit_table(1)];
            let behind = vec![Action::resubmit_table(2), output(4)];
            let mut pipeline = pipeline(&[(2, 0, Match::new(), check), end, other]);
            let write = Some(vec![Action::output(openflow::PortNo::IN_PORT)]);
            let instructions = Instructions { write, ..Instructions::apply(behind) };
            let add = crate::tables::Change::add(0, Match::new(), instructions);
            pipeline.tables.change(&add, 0).unwrap();
            pipeline
        };
        let longer = rules(ends(1, 2), (0, 3));
        assert_eq!((sent(&longer, 101), sent(&longer, 100)), (vec![12], vec![13, 14, 11]));
        let shorter = rules(ends(0, 3), (1, 2));
        assert_eq!((sent(&shorter, 101), sent(&shorter, 100)), (vec![12, 14, 11], vec![13]));
    }

    /// A tag that is put on before counts, though it is put on later.
    #[test]
    fn a_packet_is_as_long_as_it_is_by_then() {
        let push = Action::PushVlan { ethertype: 0x8100 };
        let actions = vec![push.clone(), output(4), push, check(108), Action::resubmit_table(1)];
        let [longer, other] = by_bit(1);
        let pipeline = pipeline(&[(0, 0, Match::new(), actions), longer, other]);
        assert_eq!((sent(&pipeline, 101), sent(&pipeline, 100)), (vec![14, 12], vec![14, 13]));
        let mut cache = PathCache::new(std::sync::Arc::new(pipeline));
        let mut find = |len: usize| {
            let mut key = key();
            cache.begin(0);
            cache.note_len(&mut key, || len);
            let id = cache.find(&key);
            outputs(&cache.path(id).unwrap().ops)
        };
        assert_eq!(
            (find(101), find(100), find(9_000), find(60)),
            (vec![14, 12], vec![14, 13], vec![14, 12], vec![14, 13])
        );
        assert!(find(9_001) == [14, 12] && find(61) == [14, 13]);
        assert_eq!(cache.stats().hits, 2, "lengths of one kind share a path");
    }

    /// So does all that is put on in front of all, which is no multiple of a tag's length.
    #[test]
    fn headers_in_front_of_all_count() {
        let encap = |packet_type| {
            let properties = Vec::new();
            Action::Encap(Box::new(Encap { packet_type, header_size: 0, properties }))
        };
        let (label, ethernet, off) =
            (encap(0x1_8847), encap(0), Action::Decap { packet_type: 0xFFFE });
        let (check, on) = (check(1_500), Action::resubmit_table(1));
        let labels = [label.clone(), label.clone(), label.clone(), ethernet.clone()];
        for (actions, grown) in [
            (vec![label, ethernet.clone(), check.clone(), on.clone()], 18),
            ([&labels[..], &[check.clone(), on.clone()]].concat(), 26),
            (vec![off, check, ethernet, on], -14),
        ] {
            let [longer, other] = by_bit(1);
            let pipeline = pipeline(&[(0, 0, Match::new(), actions), longer, other]);
            let mut cache = PathCache::new(std::sync::Arc::new(pipeline));
            for len in 1_460..1_520_usize {
                let mut key = key();
                cache.begin(0);
                cache.note_len(&mut key, || len);
                let id = cache.find(&key);
                let port = outputs(&cache.path(id).unwrap().ops).pop();
                let expected = if len.saturating_add_signed(grown) > 1_500 { 12 } else { 13 };
                assert_eq!(port, Some(expected), "{len} and {grown}");
            }
        }
    }

    /// Whoever follows a packet is told both; there is an end of it.
    #[test]
    fn both_ways_are_told() {
        #[derive(Default)]
        struct Told(Vec<String>);
        impl Watch for Told {
            fn by_len(&mut self, _: &Key, len: u16) {
                self.0.push(format!("{len}"));
            }
            fn end_by_len(&mut self) {
                self.0.push("end".to_owned());
            }
            fn send(&mut self, _: &Key, op: &Op) {
                self.0.push(format!("{op:?}"));
            }
        }
        let [longer, other] = by_bit(1);
        let actions = vec![check(100), Action::resubmit_table(1)];
        let one = pipeline(&[(0, 0, Match::new(), actions), longer, other]);
        let mut told = Told::default();
        walk(&one, &mut key(), &Start::Table, Some(&mut told));
        assert_eq!(told.0, ["100", "Output(12)", "end", "Output(13)", "end"]);
        let many = vec![check(100); 300];
        let many = pipeline(&[(0, 0, Match::new(), many)]);
        let path = walk(&many, &mut key(), &Start::Table, Some(&mut Told::default()));
        assert_eq!(path.lost, Some(crate::path::Lost::TooMany));
        assert_eq!(sent(&many, 1), [0; 0]);
    }
}
