//! Packets of which only the start is sent (`output(port,max_len)`); what comes behind has all of them.

use openflow::PortNo;

use super::{Kind, Walk, outer};
use crate::path::Op;

/// Bytes of a header of Ethernet: what of a packet is sent at least.
const SHORTEST: u32 = 14;

/// Ports that stand for none, or for more than one, to which it is not sent, as in Open vSwitch.
const NOT_ONE: [PortNo; 6] =
    [PortNo::TABLE, PortNo::NORMAL, PortNo::FLOOD, PortNo::ALL, PortNo::CONTROLLER, PortNo::ANY];

impl Walk<'_> {
    /// Sends the start of it to one port.
    pub(super) fn truncated(&mut self, port: PortNo, max_len: u32) {
        if NOT_ONE.contains(&port) {
            let note = format_args!("output_trunc does not support port: {port}");
            return self.note(Kind::Warning, note);
        }
        if port == self.in_port() {
            return self.note(Kind::Warning, format_args!("skipping output to input port"));
        }
        // It is that long before tags and labels are put on, or taken off, that are still to be.
        let (more, less) = self.state.changes();
        let more = more.saturating_add(outer::longer(&self.state.key).unsigned_abs());
        let max_len = max_len.saturating_add(more).saturating_sub(less);
        if max_len < SHORTEST {
            return self.note(Kind::Warning, format_args!("no header is left, skipping output"));
        }
        self.flush();
        // What is told of it where it goes out is forgotten with the rest.
        let told = (self.state.tunnel, self.state.begins, self.state.mark);
        let before = self.ops.len();
        self.ops.extend([Op::Save, Op::Cut(max_len)]);
        self.tell(|watch, key| watch.send(key, &Op::Cut(max_len)));
        self.output(port, 0);
        if self.ops.len() == before + 2 {
            self.ops.truncate(before);
        } else {
            self.ops.push(Op::Restore);
            (self.state.tunnel, self.state.begins, self.state.mark) = told;
        }
    }
}

#[cfg(test)]
mod tests {
    use openflow::{Action, Field, Match};

    use super::*;
    use crate::pipeline::Pipeline;
    use crate::walk::tests::{ops, output, path, pipeline};

    fn cut(port: PortNo) -> Action {
        Action::OutputTruncated { port, max_len: 60 }
    }

    /// What is done with packets, but for changes of them.
    fn done(pipeline: &Pipeline) -> Vec<Op> {
        path(pipeline).ops.into_iter().filter(|op| !matches!(op, Op::Edit(_))).collect()
    }

    #[test]
    fn what_a_packet_begins_with_is_told_behind_it_once_more() {
        let decap = Action::Decap { packet_type: 0xFFFE };
        let actions = vec![output(2), decap, cut(PortNo(2)), output(2)];
        let mut pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
        pipeline.ports.get_mut(&PortNo(2)).unwrap().takes_bare = true;
        let begins = Op::Begins(0x1_0800);
        let sent = [begins.clone(), Op::Output(12)];
        let start = [Op::Output(12), Op::Save, Op::Cut(74)];
        let wanted = [&start[..], &sent, &[Op::Restore], &sent].concat();
        assert_eq!(done(&pipeline), wanted);
    }

    #[test]
    fn the_tunnel_is_told_behind_it_once_more() {
        let set = |value| {
            let field = Field::TunId;
            Action::SetField { field, value, mask: field.full_mask() }
        };
        let actions = vec![set(5), output(2), cut(PortNo(2)), set(7), cut(PortNo(2)), output(2)];
        let mut pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
        pipeline.tunnels.is_used = true;
        let kinds: Vec<&str> = done(&pipeline)
            .iter()
            .map(|op| match op {
                Op::Tunnel(_) => "tunnel",
                Op::Output(_) => "output",
                Op::Cut(_) => "cut",
                Op::Save => "save",
                Op::Restore => "restore",
                _ => "other",
            })
            .collect();
        // Into the first one it goes as it did before.
        let [first, second, whole] = [
            "tunnel output save cut output restore",
            "save cut tunnel output restore",
            "tunnel output",
        ];
        assert_eq!(kinds.join(" "), [first, second, whole].join(" "));
    }

    #[test]
    fn it_goes_to_one_port() {
        for port in NOT_ONE {
            assert_eq!(ops(vec![cut(port), output(3)]), [Op::Output(13)], "{port}");
        }
        let sent = ops(vec![cut(PortNo::IN_PORT)]);
        assert_eq!(sent, [Op::Save, Op::Cut(60), Op::Output(11)]);
    }
}
