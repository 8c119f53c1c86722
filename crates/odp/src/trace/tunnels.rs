//! Into tunnels, and out of them.

use std::mem;

use flow::{Depth, Key, extract, slot};
use tunnel::{Congestion, Inner, Outer};

use super::Tracer;
use crate::action::Action;
use crate::kind::Kind as Packet;
use crate::node::What;
use crate::seen::Seen;
use crate::tunnel::{IntoTunnel, Push, TunnelWay, header, set};

impl Tracer<'_> {
    /// Has a packet that has come by a tunnel know of congestion that was met outside (RFC 6040, section 4.2);
    /// returns whether it goes on.
    pub(super) fn admits(&mut self, key: &mut Key) -> bool {
        let inner = Packet::of(key).is_ip().then(|| key.get_u8(slot::IP_TOS));
        match Congestion::of(key.get_u8(slot::TUN_TOS), inner) {
            Congestion::Keep => true,
            Congestion::Mark => {
                key.set(slot::IP_ECN, 3);
                true
            }
            Congestion::Drop => {
                let note = "dropping tunnel packet marked ECN CE but is not ECN capable";
                self.tree.add(What::Warning, note.to_owned());
                false
            }
        }
    }

    /// It goes to a port of a tunnel.
    pub(super) fn enter_tunnel(&mut self, key: &Key, port: &str) {
        let bridge = self.bridge.clone();
        let Some(into) = self.world.enter_tunnel(&bridge, port, key) else {
            return self.tree.add(What::Warning, "Tunneling decided against output".to_owned());
        };
        self.seen.enter_tunnel(key, &into.settings);
        // Its header of Ethernet is taken off before.
        let mut bare = *key;
        if let Inner::Bare(kind) = into.meta.inner
            && key.get(slot::PACKET_TYPE) == 0
        {
            bare.set_packet_type(1 << 16 | u32::from(kind.0));
            // One that was to be put on is not.
            self.encap = None;
        }
        let key = &bare;
        match &into.way {
            None => self.set_tunnel(key, &into),
            Some(way) => {
                self.tree.add(What::Detail, "output to native tunnel".to_owned());
                self.commit(key);
                match way {
                    Ok(way) => self.push_tunnel(key, port, &into, way),
                    Err(note) => self.tree.add(What::Warning, note.clone()),
                }
            }
        }
    }

    /// The datapath has to know where it goes.
    fn set_tunnel(&mut self, key: &Key, into: &IntoTunnel) {
        self.tree.add(What::Detail, "output to kernel tunnel".to_owned());
        let text = set(&into.settings, &into.meta);
        if self.tunnel.as_ref() != Some(&text) {
            self.push(Action::Said(text.clone()));
            self.tunnel = Some(text);
        }
        self.commit(key);
        self.push(Action::Output(into.number));
    }

    /// It goes on in another bridge, with a header in front of it, of which nothing is seen here.
    fn push_tunnel(&mut self, key: &Key, port: &str, into: &IntoTunnel, way: &TunnelWay) {
        let TunnelWay { port: by, number, inlet, next, outer } = way;
        self.tree.add(What::Detail, format!("tunneling to {next} via {by}"));
        let Some(header) = header(into.settings.kind, &into.meta, outer) else { return };
        let mut outside = outside(key, outer);
        let is_last = self.is_last;
        let (base, tunnel) = (mem::replace(&mut self.base, outside), self.tunnel.take());
        let seen = mem::replace(&mut self.seen, Seen::new(&outside));
        let (bridge, inlet) = inlet;
        outside.set(slot::IN_PORT, inlet.0.into());
        let push = Push { interface: port.to_owned(), ports: [into.number, *number], header };
        self.actions.push(vec![Action::Push(Box::new(push))]);
        self.is_last = true;
        // That the outer packet floods is nothing of the inner one.
        let is_flooded = self.is_flooded;
        self.cross(&outside, bridge, *inlet);
        self.is_flooded = is_flooded;
        let done = self.actions.pop().unwrap_or_default();
        (self.base, self.tunnel, self.seen, self.is_last) = (base, tunnel, seen, is_last);
        if done.len() > 1 {
            match is_last {
                true => done.into_iter().for_each(|action| self.push(action)),
                false => self.push(Action::Clone(done)),
            }
        }
    }
}

/// What a packet is by its outer header.
fn outside(key: &Key, outer: &Outer) -> Key {
    let mut outside = Key::default();
    for slot in [slot::PKT_MARK, slot::SKB_PRIORITY] {
        outside.set(slot, key.get(slot));
    }
    let mut frame = outer.as_bytes().to_vec();
    outer.write(&mut frame, 0, 0);
    extract(&mut outside, &frame, frame.len(), 0, Depth::All);
    outside
}
