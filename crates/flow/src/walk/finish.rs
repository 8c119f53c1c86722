//! What has come of a packet's way in the end: also where something went wrong.

use super::Walk;
use crate::path::{Lost, Op, Way};

impl<'w> Walk<'w> {
    /// Whether that some rule is for it was to be found out, and nothing else.
    const fn is_looked_up(&self) -> bool {
        self.lookups > 0 && !self.is_packet_out
    }

    fn found_nothing(&self) -> bool {
        self.groups.is_empty() && self.visits.iter().all(|visit| visit.rule.is_none())
    }

    /// What was done until now stays, whatever goes wrong later: Open vSwitch looks at the packet anew. What is done with
    /// copies of it goes on there as if it had not.
    pub(super) fn settle(&mut self) {
        let of = |wanted: fn(&Op) -> bool| self.ops.iter().filter(|op| wanted(op)).count();
        if of(|op| matches!(op, Op::Save)) == of(|op| matches!(op, Op::Restore)) {
            self.settled = Some(self.ops.len());
        }
    }

    /// Whether what goes wrong takes nothing back that was sent before: as in Open vSwitch, where the packet has come
    /// from another bridge. It stopped nowhere since.
    fn keeps_what_is_sent(&self) -> bool {
        let port = self.came_by.and_then(|port| self.pipeline.ports.get(&port));
        port.is_some_and(|port| port.is_patch)
    }

    /// The path that has come of it. What was learnt before something went wrong stays, as in Open vSwitch.
    pub(super) fn finish(mut self) -> Way<'w> {
        match self.settled {
            _ if self.error.is_none() => {}
            Some(count) => self.ops.truncate(count),
            None if self.keeps_what_is_sent() => {}
            None => self.ops.clear(),
        }
        let is_change = |op: &Op| op.is_change() || matches!(op, Op::Save | Op::Restore);
        let does = |op: &Op| match op {
            Op::Track(track, _) => track.next.is_some(),
            op => !is_change(op) && !matches!(op, Op::Meter(_) | Op::Sample(_)),
        };
        let lost = match (self.error, self.ops.iter().any(does)) {
            (_, true) => None,
            (Some(error), false) => Some(error),
            (None, false) if self.is_looked_up() && self.found_nothing() => Some(Lost::NoRule),
            (None, false) => Some(Lost::Dropped),
        };
        // What is changed after it was sent or metered for the last time does not matter.
        let end = self.ops.iter().rposition(|op| !is_change(op)).map_or(0, |last| last + 1);
        self.ops.truncate(end);
        let Self { ops, learns, visits, trail, groups, basis, tracer, .. } = self;
        Way { ops, learns, visits, trail, groups, basis, lost, tracer }
    }
}

#[cfg(test)]
mod tests {
    use openflow::{Action, Match, PortNo};

    use super::*;
    use crate::walk::tests::{output, path, pipeline};

    /// A header of Ethernet cannot be put on where there is one.
    fn fails() -> Action {
        let encap =
            openflow::action::Encap { packet_type: 0, header_size: 0, properties: Vec::new() };
        Action::Encap(Box::new(encap))
    }

    /// What a packet that comes by port 1 does where that leads to another bridge, and where it does not.
    fn both(rules: &[(u8, Vec<Action>)]) -> [(Vec<Op>, Option<Lost>); 2] {
        let rules = rules.iter().map(|(table, of)| (*table, 0, Match::new(), of.clone()));
        let mut pipeline = pipeline(&rules.collect::<Vec<_>>());
        [true, false].map(|is_patch| {
            pipeline.ports.get_mut(&PortNo(1)).unwrap().is_patch = is_patch;
            let path = path(&pipeline);
            (path.ops.into_vec(), path.lost)
        })
    }

    #[test]
    fn what_goes_wrong_takes_all_back_but_where_the_packet_has_come_from_another_bridge() {
        let (wrong, on) = (fails(), Action::resubmit_table(1));
        let inside = Action::Clone(vec![
            Action::SetEthSrc(packet::MacAddr([2; 6])),
            output(3),
            wrong.clone(),
        ]);
        for way in [
            vec![(0, vec![output(2), wrong.clone(), output(3)])],
            vec![(0, vec![output(2), on.clone(), output(3)]), (1, vec![wrong.clone()])],
            vec![(0, vec![output(2), on.clone(), output(3)]), (1, vec![on])],
        ] {
            let [patched, (ops, lost)] = both(&way);
            assert_eq!(patched, (vec![Op::Output(12)], None));
            assert!(ops.is_empty() && lost.is_some());
        }
        // A copy that was sent is sent as it was, and nothing is done behind it.
        let [(ops, _), others] = both(&[(0, vec![inside, output(2)])]);
        let [Op::Save, Op::Edit(_), Op::Output(13)] = *ops else { panic!("{ops:?}") };
        assert_eq!(others, (vec![], Some(Lost::PacketType)));
        // What sends nothing is lost for what went wrong.
        let nothing = both(&[(0, vec![wrong, output(2)])]);
        assert_eq!(nothing, [const { (vec![], Some(Lost::PacketType)) }; 2]);
    }

    /// Where labels are off, Open vSwitch looks at a packet anew before it goes on.
    #[test]
    fn what_was_sent_before_labels_were_off_stays() {
        let (push, pop) =
            (Action::PushMpls { ethertype: 0x8847 }, Action::PopMpls { ethertype: 0x0800 });
        let before = vec![push, output(2), pop];
        for behind in [vec![fails()], vec![Action::resubmit_table(1), output(3), fails()]] {
            let rules = [(0, [before.clone(), behind].concat())];
            for (ops, lost) in both(&rules) {
                let [Op::Edit(_), Op::Output(12), ref rest @ ..] = *ops else { panic!("{ops:?}") };
                assert!(rest.is_empty() && lost.is_none(), "{rest:?}");
            }
        }
        // What a copy is looked at anew for is nothing of the packet.
        let copy = Action::Clone([&before[..], &[Action::DecTtl(None)]].concat());
        let [_, others] = both(&[(0, vec![copy, fails()])]);
        assert_eq!(others, (vec![], Some(Lost::PacketType)));
    }

    /// What stops and goes on is looked at for itself.
    #[test]
    fn what_goes_on_takes_back_what_was_sent_since() {
        let mut pipeline = pipeline(&[(7, 0, Match::new(), vec![output(2), fails()])]);
        pipeline.ports.get_mut(&PortNo(1)).unwrap().is_patch = true;
        let mut key = crate::walk::tests::key();
        let frozen = crate::frozen::Frozen {
            key: Box::new(key),
            stack: Vec::new(),
            set: Vec::new(),
            table: Some(7),
            rest: Vec::new(),
            zone: None,
        };
        let start = crate::walk::Start::Frozen(&frozen);
        let path = crate::walk::walk(&pipeline, &mut key, &start, None);
        assert_eq!((path.ops.len(), path.lost), (0, Some(Lost::PacketType)));
    }
}
