//! Where a packet is handed on to.

use std::sync::Arc;

use flow::walk::{NO_ETHERNET, Start};
use flow::{Frozen, Key, Op, PacketIn, PlaceHash, Sample, TunnelWords, slot};
use openflow::PortNo;
use openflow::action::SampleDirection;

use super::{MAX_DEPTH, MirrorCopy, Outlet, Tracer};
use crate::action::{Action, Balance, Onward};
use crate::node::What;
use crate::value::hex;

impl Tracer<'_> {
    /// Does what an operation says.
    pub(super) fn onward(&mut self, key: &Key, op: &Op) {
        match op {
            Op::Output(port) => self.output(key, *port),
            Op::Flood { all, but } => {
                let Some(pipeline) = self.world.pipeline(&self.bridge) else { return };
                self.is_flooded = true;
                let packet_type = key.get_u32(slot::PACKET_TYPE);
                let others = pipeline.ports.iter().filter(|(number, port)| {
                    number.0 != *but && port.floods(*all) && port.takes(packet_type)
                });
                let others: Vec<u16> = others.map(|(_, port)| port.number).collect();
                let is_last = self.is_last;
                for (left, port) in (0..others.len()).rev().zip(others) {
                    self.is_last = is_last && left == 0;
                    self.output(key, port);
                }
                self.is_last = is_last;
            }
            Op::Normal(port) => self.normal(key, *port),
            Op::Controller(about) => self.controller(key, about),
            // Counted from 0, as datapaths do.
            Op::Meter(meter) => {
                self.push(Action::Said(format!("meter({})", meter.saturating_sub(1))));
            }
            Op::Sample(sample) => self.sample(key, sample),
            Op::Track(track, _) => self.track(key, track),
            Op::Again(frozen, _) => self.again(key, frozen),
            Op::Cut(len) => self.cut(*len),
            Op::Cause(cause) => self.causes.1 = (*cause).max(self.causes.0),
            Op::Edit(_)
            | Op::PushNsh(_)
            | Op::Tunnel(_)
            | Op::Begins(_)
            | Op::Mark(_)
            | Op::Save
            | Op::Restore => {}
        }
    }

    /// What is sent next is cut.
    fn cut(&mut self, len: u32) {
        self.push(Action::Said(format!("trunc({len})")));
        self.is_slow |= !self.can.cuts;
    }

    fn output(&mut self, key: &Key, port: u16) {
        let bridge = self.bridge.clone();
        if let Some(protocol) = self.world.closed_by(&bridge, port) {
            let note = format!("{protocol} not in forwarding state, skipping output");
            return self.tree.add(What::Warning, note);
        }
        let outlet = self.world.outlet(&bridge, port);
        self.send_to(key, &outlet);
        self.copies(key, Some(port));
    }

    /// It goes round, for a bucket if there is a hash.
    pub(super) fn go_round(&mut self, key: &Key, hash: Option<PlaceHash>, next: Frozen) {
        self.commit(key);
        let (bridge, frozen) = (self.bridge.clone(), Arc::new(next));
        let number = self.world.round(&bridge, &frozen);
        let mut balance = Balance::new(number, &self.first, &self.base);
        let copied = self.world.copied();
        balance.onward = Some(Arc::new(Onward { bridge, frozen, hash, copied }));
        self.push(Action::Balance(Box::new(balance)));
    }

    fn send_to(&mut self, key: &Key, outlet: &Outlet) {
        match outlet {
            Outlet::Port(number) => {
                self.commit(key);
                let action = match self.world.out_of_tunnel(*number, key) {
                    Some(tunnel) => Action::Pop(tunnel),
                    None => Action::Output(*number),
                };
                self.push(action);
            }
            Outlet::Tunnel(port) => self.enter_tunnel(key, port),
            Outlet::Balanced(number) => {
                self.commit(key);
                let balance = Balance::new(*number, &self.first, &self.base);
                self.push(Action::Balance(Box::new(balance)));
            }
            Outlet::ByTable(number) => {
                self.commit(key);
                self.push(Action::Said(format!("lb_output({number})")));
            }
            Outlet::Patch(bridge, port) => self.cross(key, bridge, *port),
            Outlet::Shut => match &mut self.shut_copies {
                Some(copies) => *copies += 1,
                None => self.tell_shut(),
            },
            Outlet::Nowhere => {}
        }
    }

    /// Tells that a port is sent nothing.
    pub(super) fn tell_shut(&mut self) {
        self.tree.add(What::Detail, "OFPPC_NO_FWD set, skipping output".to_owned());
    }

    /// Copies for mirrors.
    pub(super) fn copies(&mut self, key: &Key, out: Option<u16>) {
        let bridge = self.bridge.clone();
        if self.world.mirrors_vlans(&bridge) {
            self.seen.vlan();
        }
        let copies = self.world.copies(&bridge, key, out);
        self.send_copies(copies);
    }

    fn send_copies(&mut self, copies: Vec<MirrorCopy>) {
        for MirrorCopy { outlet, key, len } in copies {
            let is_last = std::mem::take(&mut self.is_last);
            if let Some(len) = len.filter(|_| outlet != Outlet::Shut) {
                self.cut(len.into());
            }
            self.send_to(&key, &outlet);
            self.is_last = is_last;
        }
    }

    /// Goes on in another bridge, by a patch port.
    pub(super) fn cross(&mut self, key: &Key, bridge: &str, port: PortNo) {
        if self.tree.depth() >= MAX_DEPTH || self.tree.is_full() {
            let note = "over max translation depth 64".to_owned();
            return self.tree.add(What::Error, note);
        }
        let mut key = *key;
        key.set(slot::IN_PORT, port.0.into());
        key.set_tunnel(&TunnelWords::default());
        let tunnel = self.seen.of_tunnel();
        for slot in [slot::METADATA, slot::CT_STATE, slot::CT_ZONE, slot::CT_MARK, slot::CT_LABEL] {
            key.set(slot, 0);
        }
        (0..slot::REGS).for_each(|index| key.set(slot::reg(index), 0));
        let error = self.error.take();
        let (is_last, forks) = (self.is_last, self.forks.len());
        let causes = self.causes;
        self.causes.0 = causes.1;
        let lasts = std::mem::take(&mut self.lasts);
        self.lasts.push((is_last, usize::MAX));
        self.is_new_bridge = true;
        self.bridge(bridge, &mut key, &Start::Table);
        self.is_new_bridge = false;
        self.seen.set_of_tunnel(&tunnel);
        while self.forks.len() > forks {
            self.join_last();
        }
        // What goes wrong there takes nothing back, neither here nor there.
        (self.error, self.is_last, self.lasts, self.causes) = (error, is_last, lasts, causes);
    }

    fn normal(&mut self, key: &Key, port: Option<u16>) {
        self.seen.normal(key);
        let Some(left) = self.normals_left.checked_sub(1) else { return };
        self.normals_left = left;
        let bridge = self.bridge.clone();
        let normal = self.world.normal(&bridge, port, key);
        for (is_warning, note) in normal.notes {
            let what = if is_warning { What::Warning } else { What::Detail };
            self.tree.add(what, note);
        }
        self.is_flooded |= normal.is_flooded;
        let outputs = self.taken(key, normal.outputs);
        let is_last = self.is_last && normal.copies.is_empty();
        for (left, (outlet, key)) in (0..outputs.len()).rev().zip(outputs) {
            self.is_last = is_last && left == 0;
            self.send_to(&key, &outlet);
        }
        self.is_last = is_last;
        self.send_copies(normal.copies);
    }

    /// Those outputs that take the packet: without a header of Ethernet, it is told of each other one.
    fn taken(&mut self, key: &Key, mut outputs: Vec<(Outlet, Key)>) -> Vec<(Outlet, Key)> {
        let Some(pipeline) = self.world.pipeline(&self.bridge).filter(|_| !key.is_ethernet())
        else {
            return outputs;
        };
        let bridge = self.bridge.clone();
        let takers = pipeline.ports.values().filter(|port| port.takes_bare);
        let takers: Vec<Outlet> =
            takers.map(|port| self.world.outlet(&bridge, port.number)).collect();
        outputs.retain(|(outlet, _)| {
            let takes = takers.contains(outlet);
            if !takes {
                self.tree.add(What::Warning, NO_ETHERNET.to_owned());
            }
            takes
        });
        // It has no tags either.
        outputs.iter_mut().for_each(|(_, own)| *own = *key);
        outputs
    }

    /// Collectors are told of it, if there are any.
    fn sample(&mut self, key: &Key, sample: &Sample) {
        let bridge = self.bridge.clone();
        if !self.world.has_collectors(&bridge) {
            return;
        }
        let port = sample.port.map(|port| self.world.outlet(&bridge, port));
        let port = match port {
            Some(Outlet::Port(number)) => number,
            // That is none.
            _ => u32::MAX,
        };
        let Sample { probability, set, domain, point, direction, .. } = sample;
        let direction = match direction {
            SampleDirection::Default => "",
            SampleDirection::Ingress => ",ingress",
            SampleDirection::Egress => ",egress",
        };
        self.commit(key);
        let told = format!(
            "userspace(pid=0,flow_sample(probability={probability},collector_set_id={set},\
             obs_domain_id={domain},obs_point_id={point},output_port={port}{direction}))"
        );
        let is_all = *probability == u16::MAX;
        let percents = f64::from(*probability) * 100.0 / f64::from(u16::MAX);
        self.push(Action::Said(match is_all {
            true => told,
            false => format!("sample(sample={percents:.1}%,actions({told}))"),
        }));
    }

    fn controller(&mut self, key: &Key, about: &Arc<PacketIn>) {
        self.commit(key);
        let (bridge, about) = (self.bridge.clone(), about.by(self.causes.0));
        let context = self.world.context(&bridge, &about);
        let PacketIn { max_len, id, reason, cookie, frozen, .. } = &*about;
        let cookie = match cookie {
            &u64::MAX => hex(0),
            cookie => hex((*cookie).into()),
        };
        // Of a packet that stops, Open vSwitch only tells what it does in earnest.
        if self.is_real || self.is_flow || frozen.is_none() {
            self.push(Action::Said(format!(
                "userspace(pid=0,controller(reason={},dont_send={},continuation={},\
                 recirc_id={context},rule_cookie={cookie},controller_id={id},max_len={max_len}))",
                reason.0,
                u8::from(!self.is_real && !self.is_flow),
                u8::from(frozen.is_some()),
            )));
        }
        if self.is_real {
            self.world.controller(&bridge, key, &about);
        }
    }
}
