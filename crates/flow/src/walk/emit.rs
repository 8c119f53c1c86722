//! The operations of a path: what is done with a packet once it is what its key says.

use std::sync::Arc;

use super::{MAX_OPS, State, Walk, nsh};
use crate::key::{Key, slot};
use crate::path::{Cause, Edit, Op};

impl Walk<'_> {
    /// Has the packet be what the key says, and then does something with it.
    pub(super) fn emit(&mut self, op: Op) {
        if self.ops.len() >= MAX_OPS {
            return self.stop();
        }
        self.flush();
        let goes_out = matches!(op, Op::Output(_) | Op::Flood { .. } | Op::Normal(_));
        if goes_out && self.pipeline.tunnels.is_used {
            self.tell_tunnel();
        }
        if op.is_by_type() {
            self.tell_type();
            self.tell_mark();
            self.tell_cause(&op);
        } else if matches!(op, Op::Track(..) | Op::Again(..)) {
            // Whoever goes on finds it told.
            self.tell_mark();
        }
        self.tell(|watch, key| watch.send(key, &op));
        self.ops.push(op);
    }

    /// Has it be known which tunnel the packet goes into, if it goes into one for which rules say that.
    pub(super) fn tell_tunnel(&mut self) {
        let words = self.state.key.tunnel();
        if self.state.tunnel.replace(words) != Some(words) {
            self.ops.push(Op::Tunnel(Arc::new(words)));
        }
    }

    /// Has it be known what the packet begins with, where that is something else than before.
    pub(super) fn tell_type(&mut self) {
        let own = self.state.key.get_u32(slot::PACKET_TYPE);
        if std::mem::replace(&mut self.state.begins, own) != own {
            self.ops.push(Op::Begins(own));
        }
    }

    /// Has its mark be known, where that is another one than before: no packet has it, and other bridges look at it.
    pub(super) fn tell_mark(&mut self) {
        let own = self.state.key.get_u32(slot::PKT_MARK);
        if std::mem::replace(&mut self.state.mark, own) != own {
            self.ops.push(Op::Mark(own));
        }
    }

    /// Has it be known by what it goes to another bridge, where it may go to one.
    fn tell_cause(&mut self, op: &Op) {
        let own = match (self.is_packet_out, self.is_in_set) {
            (true, _) => Cause::PacketOut,
            (_, true) => Cause::ActionSet,
            _ => Cause::Rule,
        };
        if own == self.state.cause || !self.may_cross(op) {
            return;
        }
        self.state.cause = own;
        let op = Op::Cause(own);
        self.tell(|watch, key| watch.send(key, &op));
        self.ops.push(op);
    }

    /// Whether another bridge may be behind where it goes.
    fn may_cross(&self, op: &Op) -> bool {
        let mut ports = self.pipeline.ports.values();
        match op {
            Op::Output(number) => ports.any(|port| port.is_patch && port.number == *number),
            Op::Flood { .. } | Op::Normal(_) => ports.any(|port| port.is_patch),
            _ => false,
        }
    }

    /// Adds the operations that change the packet as the key was changed.
    pub(super) fn flush(&mut self) {
        let State { key, tags, .. } = &mut self.state;
        tags.settle(key);
        self.state.grown = self.state.grown.saturating_add(self.state.growth());
        let State { key, dirty, tags, labels, nsh, .. } = &mut self.state;
        self.ops.extend(tags.edits(key).map(Op::Edit));
        if let Some(edits) = labels.edits(key) {
            self.ops.extend(edits.into_iter().map(Op::Edit));
            // They are put on as they were written.
            dirty.forget(slot::MPLS_LSE.word()..slot::MPLS_LSE.word() + 1);
        }
        if let Some(metadata) = nsh.take() {
            self.ops.extend(metadata.push(key, dirty));
        }
        while let Some((word, mask)) = dirty.take() {
            let at = usize::from(word);
            let may_be_written = match at > slot::VLAN_TCI.word() {
                true if at < slot::MPLS_LSE.word() => has_network_header(key),
                true if at >= slot::NSH_FIRST.word() => nsh::is_nsh(key),
                _ => true,
            };
            if may_be_written {
                let value = key.word(at) & mask;
                self.ops.push(Op::Edit(Edit::Set { word, mask, value }));
            }
        }
    }
}

/// Whether what is above the link layer is written to the packet. As in OVS, it is not where it makes
/// no sense, for which the protocol stands, nor in RARP.
fn has_network_header(key: &Key) -> bool {
    key.get_u8(slot::IP_PROTO) != 0 && key.get_u16(slot::ETH_TYPE) != 0x8035
}
