//! Classes of service that packets get by the queues of ports that rules send them to. What comes behind
//! has the class that it had.

use openflow::PortNo;
use openflow::field::Prerequisite;

use super::Walk;
use super::write::holds;
use crate::key::slot;
use crate::path::Op;
use crate::pipeline::Port;

impl Walk<'_> {
    /// Sends the packet to a port by the queue that it is in.
    pub(super) fn send_marked(&mut self, port: PortNo, op: Op) {
        let marks = &self.pipeline.marks;
        let first = marks.find_index(&(port, 0)).unwrap_or_else(|first| first);
        if marks.get_indexed(first).is_none_or(|((of, _), _)| *of != port) {
            return self.emit(op);
        }
        let queue = self.state.key.get_u32(slot::SKB_PRIORITY);
        let mark = marks.get(&(port, queue)).copied();
        let mark = mark.filter(|_| holds(Prerequisite::Ip, &self.state.key));
        self.tell(|watch, key| watch.queue(key, mark.is_some()));
        let Some(mark) = mark else { return self.emit(op) };
        let before = self.state.key.get(slot::IP_DSCP);
        self.put(slot::IP_DSCP, mark.into());
        self.emit(op);
        self.put(slot::IP_DSCP, before);
    }

    /// Sends it to all ports, or to those that flood, but that where it came in: one by one, where any of
    /// them gives it a class of its own.
    pub(super) fn flood(&mut self, all: bool) {
        let in_port = self.in_port();
        let queue = self.state.key.get_u32(slot::SKB_PRIORITY);
        let pipeline = self.pipeline;
        if pipeline.marks.keys().all(|(_, of)| *of != queue) {
            if !self.takes_any(all) {
                return;
            }
            return self.emit(Op::Flood { all, but: in_port.0 });
        }
        let others = pipeline.ports.iter();
        let others = others.filter(|(number, port)| **number != in_port && port.floods(all));
        others.for_each(|(number, _)| self.send(*number));
    }

    /// Tells of each port that it does not flood to since it has no header of Ethernet; returns whether any takes it,
    /// or it has one.
    fn takes_any(&mut self, all: bool) -> bool {
        let own = self.state.key.get_u32(slot::PACKET_TYPE);
        if own == 0 {
            return true;
        }
        let (pipeline, in_port) = (self.pipeline, self.in_port());
        let floods = |(number, port): &(&PortNo, &Port)| **number != in_port && port.floods(all);
        let others = pipeline.ports.iter().filter(floods);
        let (takers, left_out): (Vec<&Port>, Vec<&Port>) =
            others.map(|(_, port)| port).partition(|port| port.takes(own));
        left_out.iter().for_each(|_| self.refuse_without_ethernet());
        !takers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use openflow::action::Action;
    use openflow::{Instructions, Match};

    use super::*;
    use crate::key::Key;
    use crate::path::Edit;
    use crate::pipeline::Pipeline;
    use crate::tables::Change;
    use crate::walk::{Start, walk};

    /// What becomes of a packet of UDP, with class 63, from port 1, if there are two ports more: where
    /// it goes, and with which class.
    fn sent(actions: &[Action], is_ip: bool) -> Vec<(u16, u64)> {
        let mut pipeline = Pipeline::default();
        let add = Change::add(0, Match::new(), Instructions::apply(actions.to_vec()));
        pipeline.tables.change(&add, 0).unwrap();
        for number in 1..4_u16 {
            pipeline.ports.insert(PortNo(number.into()), Port::new(number));
        }
        pipeline.marks = [((PortNo(2), 1), 1), ((PortNo(2), 2), 2)].into_iter().collect();
        let mut key = Key::default();
        let ether_type = if is_ip { 0x800 } else { 0x806 };
        for (slot, value) in [
            (slot::IN_PORT, 1),
            (slot::ETH_TYPE, ether_type),
            (slot::IP_PROTO, 17),
            (slot::IP_DSCP, 63),
        ] {
            key.set(slot, value);
        }
        let mut class = key.get_u64(slot::IP_DSCP);
        let path = walk(&pipeline, &mut key, &Start::Table, None);
        let ports = path.ops.iter().filter_map(|op| match op {
            Op::Edit(Edit::Set { word, value, .. }) => {
                let mut words = [0; crate::key::WORDS];
                words[usize::from(*word)] = *value;
                class = Key::from_words(words).get_u64(slot::IP_DSCP);
                None
            }
            Op::Output(port) => Some((*port, class)),
            other => panic!("{other:?}"),
        });
        ports.collect()
    }

    #[test]
    fn a_queue_gives_its_class_to_what_goes_out_by_it_alone() {
        let output = |port| Action::output(PortNo(port));
        let enqueue = |queue| Action::Enqueue { port: PortNo(2), queue };
        let actions = [
            output(3),
            enqueue(1),
            enqueue(2),
            enqueue(9),
            output(2),
            Action::SetQueue(2),
            output(3),
            Action::output(PortNo::FLOOD),
            Action::PopQueue,
            output(2),
        ];
        let marked = [(3, 63), (2, 1), (2, 2), (2, 63), (2, 63), (3, 63), (2, 2), (3, 63), (2, 63)];
        assert_eq!(sent(&actions, true), marked);
        assert!(sent(&actions, false).iter().all(|(_, class)| *class == 63));
    }
}
