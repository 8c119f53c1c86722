//! Where a packet goes: to ports, as a switch without rules has it, to controllers and to collectors.

use std::sync::Arc;

use openflow::action::Sample as SampleAction;
use openflow::packet_in::Reason;
use openflow::{PortNo, Subfield};

use super::{Kind, NO_METER, Walk, outer};
use crate::key::slot;
use crate::meters::CONTROLLER_METER;
use crate::path::{Op, PacketIn, Sample};

impl Walk<'_> {
    /// Sends it to a port's queue; what follows is as before.
    pub(super) fn enqueue(&mut self, port: PortNo, queue: u32) {
        let before = self.state.key.get(slot::SKB_PRIORITY);
        self.state.key.set(slot::SKB_PRIORITY, u128::from(queue));
        self.output(port, 0);
        self.state.key.set(slot::SKB_PRIORITY, before);
    }

    pub(super) fn output_field(&mut self, source: Subfield, max_len: u16) {
        let port = self.read(source);
        let Ok(number) = u16::try_from(port) else {
            return self.note(Kind::Warning, format_args!("output port {port} is out of range"));
        };
        self.note(Kind::Detail, format_args!("output port is {port}"));
        self.output(PortNo::from_v10(number), max_len);
    }

    pub(super) fn output(&mut self, port: PortNo, max_len: u16) {
        match port {
            PortNo::IN_PORT => self.send(self.in_port()),
            PortNo::TABLE => {
                let port = self.in_port();
                self.table(port, self.pipeline.tables.first_of(&self.state.key), true);
            }
            PortNo::NORMAL => self.switch(),
            PortNo::FLOOD => self.flood(false),
            PortNo::ALL => self.flood(true),
            PortNo::CONTROLLER => {
                let reason = match (self.is_packet_out, self.is_in_group, self.is_in_set) {
                    (true, ..) => Reason::PACKET_OUT,
                    (_, true, _) => Reason::GROUP,
                    (_, _, true) => Reason::ACTION_SET,
                    _ => Reason::ACTION,
                };
                let packet_in =
                    PacketIn { is_by_place: true, ..self.packet_in((max_len, 0), reason) };
                self.tell_controllers(packet_in, NO_METER);
            }
            PortNo::ANY => {}
            port if port == self.in_port() => {
                self.note(Kind::Warning, format_args!("skipping output to input port"));
            }
            port => self.send(port),
        }
    }

    /// Does what a switch without rules does, which needs a port where the packet came in, or that it
    /// is a controller's.
    pub(super) fn switch(&mut self) {
        let is_ethernet = self.state.key.is_ethernet();
        if !is_ethernet && !self.pipeline.ports.values().any(|port| port.takes_bare) {
            return self.refuse_without_ethernet();
        }
        let port = self.in_port();
        match self.pipeline.ports.get(&port) {
            Some(port) => self.emit(Op::Normal(Some(port.number))),
            None if matches!(port, PortNo::ANY | PortNo::CONTROLLER) => self.emit(Op::Normal(None)),
            None => self.note(Kind::Warning, format_args!("no input bundle, dropping")),
        }
    }

    pub(super) fn send(&mut self, port: PortNo) {
        match self.pipeline.ports.get(&port) {
            None => self.note(Kind::Warning, format_args!("Nonexistent output port")),
            Some(to) if !to.takes(self.state.key.get_u32(slot::PACKET_TYPE)) => {
                self.refuse_without_ethernet();
            }
            Some(to) if to.no_forward => {
                self.note(Kind::Detail, format_args!("OFPPC_NO_FWD set, skipping output"));
            }
            Some(to) => self.send_marked(port, Op::Output(to.number)),
        }
    }

    /// Sends it to controllers, through a meter if there is that one, or one for all that they get.
    pub(super) fn controller(
        &mut self,
        (max_len, id): (u16, u16),
        reason: Reason,
        userdata: &[u8],
        meter: u32,
    ) {
        let about = self.packet_in((max_len, id), reason);
        self.tell_controllers(PacketIn { userdata: userdata.to_vec(), ..about }, meter);
    }

    /// What controllers are told of it as it is.
    pub(super) fn packet_in(&self, (max_len, id): (u16, u16), reason: Reason) -> PacketIn {
        // The rule for what no other rule is for is a miss that somebody has asked for.
        let is_miss = reason == Reason::ACTION && self.is_miss;
        let reason = if is_miss { Reason::EXPLICIT_MISS } else { reason };
        let mut key = Box::new(self.state.key.beside());
        self.state.key.tell_connection(&mut key);
        // What the action set holds is not told.
        key.set(slot::ACTSET_OUTPUT, u128::from(PortNo::UNSET.0));
        key.set(slot::PACKET_TYPE, outer::told_type(&self.state.key).into());
        let (table, cookie, userdata) = (self.table, self.cookie, Vec::new());
        let (is_by_place, frozen) = (false, None);
        PacketIn { max_len, id, reason, is_by_place, table, cookie, key, userdata, frozen }
    }

    pub(super) fn tell_controllers(&mut self, packet_in: PacketIn, meter: u32) {
        let op = Op::Controller(Arc::new(packet_in));
        self.basis.meters = true;
        let meters = self.pipeline.tables.meters();
        let Some(meter) = [meter, CONTROLLER_METER].into_iter().find_map(|id| meters.get(id))
        else {
            return self.emit(op);
        };
        // What the meter drops goes wherever else it was to go.
        let meter = Op::Meter(meter.desc.id);
        self.flush();
        // What is told of it is forgotten with the rest.
        let told = (self.state.begins, self.state.mark);
        self.ops.push(Op::Save);
        self.emit(meter);
        self.emit(op);
        self.ops.push(Op::Restore);
        (self.state.begins, self.state.mark) = told;
    }

    /// Tells collectors of it.
    pub(super) fn sample(&mut self, sample: &SampleAction) {
        let said = sample.sampling_port;
        let port = match self.pipeline.ports.get(&said) {
            // Where it comes in.
            _ if said == PortNo::ANY || said == self.in_port() => None,
            Some(port) => Some(port.number),
            None => {
                let said = said.0;
                return self.note(
                    Kind::Warning,
                    format_args!("can't use unknown port {said} in flow sample action"),
                );
            }
        };
        let SampleAction { probability, direction, .. } = *sample;
        let (domain, point) = (sample.obs_domain_id, sample.obs_point_id);
        let set = sample.collector_set_id;
        let sample = Sample { probability, set, domain, point, port, direction };
        self.emit(Op::Sample(Arc::new(sample)));
    }
}
