//! The action set: what was written by rules, done once the packet has been through the tables, in
//! the order that the protocol says (OpenFlow 1.5, section 5.6).

use openflow::PortNo;
use openflow::action::Action;

use super::{Place, Step, Walk};
use crate::key::slot;

/// Kinds of actions of which a set has the one that was written last, in the order of doing.
const ONCE: [fn(&Action) -> bool; 9] = [
    |action| matches!(action, Action::StripVlan | Action::PopVlan),
    |action| matches!(action, Action::PopMpls { .. }),
    |action| matches!(action, Action::Decap { .. }),
    |action| matches!(action, Action::Encap(_)),
    |action| matches!(action, Action::PushMpls { .. }),
    |action| matches!(action, Action::PushVlan { .. }),
    |action| matches!(action, Action::DecTtl(_)),
    |action| matches!(action, Action::DecMplsTtl),
    |action| matches!(action, Action::DecNshTtl),
];

/// What ends a set, the first of these that there is: what sends the packet, or goes on with it.
const ENDS: [fn(&Action) -> bool; 5] = [
    |action| matches!(action, Action::Group(_)),
    |action| matches!(action, Action::Output { .. }),
    |action| matches!(action, Action::Resubmit { .. }),
    |action| matches!(action, Action::CtClear),
    |action| matches!(action, Action::Ct(_)),
];

/// All of these are done, in the order in which they were written.
fn is_write(action: &Action) -> bool {
    matches!(
        action,
        Action::SetField { .. }
            | Action::Load { .. }
            | Action::Move { .. }
            | Action::SetVlanVid { .. }
            | Action::SetVlanPcp { .. }
            | Action::SetEthSrc(_)
            | Action::SetEthDst(_)
            | Action::SetIpSrc(_)
            | Action::SetIpDst(_)
            | Action::SetNwTos(_)
            | Action::SetNwEcn(_)
            | Action::SetNwTtl(_)
            | Action::SetMplsLabel(_)
            | Action::SetMplsTc(_)
            | Action::SetMplsTtl(_)
            | Action::SetL4Src(_)
            | Action::SetL4Dst(_)
            | Action::SetTunnel { .. }
            | Action::SetQueue(_)
    )
}

/// The actions of a set in the order in which they are done; none if nothing ends it.
pub(crate) fn ordered(set: &[Action]) -> Vec<Action> {
    type Kind = fn(&Action) -> bool;
    let last = |is_it: &Kind| set.iter().rev().find(|action| is_it(action)).cloned();
    let Some(end) = ENDS.iter().find_map(last) else { return Vec::new() };
    let once = ONCE.iter().filter_map(last);
    let writes = set.iter().filter(|action| is_write(action)).cloned();
    // Only buckets have one.
    let meter: Kind = |action| matches!(action, Action::Meter(_));
    let meter = last(&meter);
    once.chain(writes).chain(meter).chain([end]).collect()
}

impl Walk<'_> {
    /// Does what is in the action set.
    pub(super) fn action_set(&mut self) {
        let actions = ordered(&std::mem::take(&mut self.set));
        if actions.is_empty() {
            return;
        }
        self.tell(|watch, key| watch.enter(key, Place::ActionSet));
        self.is_in_set = true;
        self.actions(&actions);
        self.is_in_set = false;
        self.tell(|watch, _| watch.leave());
    }

    /// Tells that it is emptied next.
    pub(super) fn tell_cleared(&mut self) {
        if self.watch.is_some() {
            let before = ordered(&self.set);
            self.tell(|watch, key| watch.step(key, Step::Clear(&before), false));
        }
    }

    /// Tells what is in it.
    pub(super) fn tell_action_set(&mut self) {
        if self.watch.is_some() {
            let actions = ordered(&self.set);
            self.tell(|watch, _| watch.action_set(&actions));
        }
    }

    /// Notes where the action set sends the packet, which rules can match on.
    pub(super) fn update_actset_output(&mut self) {
        let port = match ordered(&self.set).last() {
            Some(Action::Output { port, .. }) => *port,
            _ => PortNo::UNSET,
        };
        self.state.key.set(slot::ACTSET_OUTPUT, u128::from(port.0));
    }
}

#[cfg(test)]
mod tests {
    use openflow::Field;

    use super::*;

    #[test]
    fn writes_and_queues_are_done_as_they_were_written_and_others_in_their_order() {
        let value = |value| Action::SetField { field: Field::Reg0, value, mask: u128::MAX };
        let (out, group) = (Action::output(PortNo(1)), Action::Group(1));
        let (queue, other) = (Action::SetQueue(2), Action::SetQueue(3));
        let set = [group.clone(), out.clone(), queue.clone(), value(1), other.clone()];
        let set = [&set[..], &[Action::DecTtl(None), Action::PopVlan, value(2)]].concat();
        let all = [Action::PopVlan, Action::DecTtl(None), queue, value(1), other, value(2), group];
        assert_eq!(ordered(&set), all);
        assert_eq!(ordered(&[value(1), out.clone()]), [value(1), out.clone()]);
        let encap = openflow::action::Encap { packet_type: 0, header_size: 0, properties: vec![] };
        let encap = Action::Encap(Box::new(encap));
        let (decap, push) =
            (Action::Decap { packet_type: 0xFFFE }, Action::PushMpls { ethertype: 0x8847 });
        let all = [decap, encap, push, out.clone()];
        assert_eq!(ordered(&all.iter().rev().cloned().collect::<Vec<_>>()), all);
        // Of meters the last one that was written, behind all that is written to the packet.
        let all = [Action::Meter(1), value(1), Action::Meter(2), out.clone(), Action::PopVlan];
        assert_eq!(ordered(&all), [Action::PopVlan, value(1), Action::Meter(2), out.clone()]);
        // Nothing is done where nothing ends it.
        assert_eq!(ordered(&[value(1), Action::PopVlan]), []);
    }
}
