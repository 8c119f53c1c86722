//! Flows on their way into messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::MAX_FLOWS;
use super::element::Shape;
use super::message::{Messages, Moment};
use super::packet::{Addresses, Direction, Sample, Transport};
use super::totals::{Audience, Totals};
use crate::datagram::Datagram;
use crate::wire::Writer;

/// Why a flow is told (`flowEndReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    ActiveTimeout = 2,
    ForcedEnd = 4,
    LackOfResources = 5,
}

/// How flows are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The number of the one who tells.
    pub process: u32,
    /// For how many milliseconds packets of a flow are gathered; 0: they are not.
    pub active: u64,
    /// How many flows are gathered at a time, [`MAX_FLOWS`] at most; 0: none is.
    pub max_flows: usize,
    /// The name of a virtual observation.
    pub virtual_id: Option<String>,
}

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows.
    pub flows: u64,
    /// Flows that are gathered now.
    pub current: u64,
    /// Packets that were sampled.
    pub packets: u64,
    /// Those of version 4 of IP, and of version 6, that carry what is looked at.
    pub ok: [u64; 2],
    /// Those of either version that carry something else.
    pub errors: [u64; 2],
}

/// A flow, with what was not told of it yet.
#[derive(Clone, Copy, Debug)]
struct Flow {
    domain: u32,
    shape: Shape,
    first: u64,
    last: u64,
    packets: u64,
    dropped: u64,
    frame_bytes: u64,
    bytes: u64,
    dropped_bytes: u64,
    squares: u64,
    shortest: u64,
    longest: u64,
    /// Packets to many that went out, and their bytes of IP.
    multicast: [u64; 2],
    totals: Totals,
}

/// What packets of a flow have in common, as it is told: behind the domain and the template.
type Key = Arc<[u8]>;

/// Where that begins.
const KEY: usize = 6;

/// Makes datagrams of samples.
#[derive(Debug)]
pub struct Exporter {
    settings: Settings,
    flows: HashMap<Key, Flow>,
    /// Those flows in the order in which they began.
    order: VecDeque<Key>,
    totals: Totals,
    stats: Stats,
    /// What is to be told.
    told: Vec<(Key, Flow, Reason)>,
    messages: Messages,
}

impl Exporter {
    /// One that has told nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (flows, order, totals, stats) = Default::default();
        let (told, messages) = Default::default();
        Self { settings, flows, order, totals, stats, told, messages }
    }

    /// What has been counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { current: self.flows.len() as u64, ..self.stats }
    }

    /// Takes a sample of a packet that has come by `now`.
    pub fn count(&mut self, sample: &Sample<'_>, now: u64) {
        self.totals.count(sample);
        self.stats.count(sample);
        let flow = Flow::of(sample, now, self.totals);
        let key = key(sample, flow.shape);
        let Settings { active, max_flows, .. } = self.settings;
        let most = max_flows.min(MAX_FLOWS);
        if active == 0 || most == 0 {
            self.stats.flows = self.stats.flows.wrapping_add(1);
            let why = if active == 0 { Reason::ActiveTimeout } else { Reason::LackOfResources };
            return self.told.push((key, flow, why));
        }
        if let Some(known) = self.flows.get_mut(&key) {
            return known.join(&flow);
        }
        self.stats.flows = self.stats.flows.wrapping_add(1);
        self.order.push_back(Arc::clone(&key));
        self.flows.insert(key, flow);
        if self.flows.len() > most {
            self.tell_first(Reason::LackOfResources);
        }
    }

    /// Tells the flows that have gone on for as long as packets are gathered.
    pub fn expire(&mut self, now: u64) {
        let active = self.settings.active;
        let is_due = |flow: &Flow| now.saturating_sub(flow.first) >= active;
        while self.order.front().and_then(|key| self.flows.get(key)).is_some_and(is_due) {
            self.tell_first(Reason::ActiveTimeout);
        }
    }

    /// Tells all flows, since there will be no more.
    pub fn end(&mut self) {
        while !self.order.is_empty() {
            self.tell_first(Reason::ForcedEnd);
        }
    }

    fn tell_first(&mut self, why: Reason) {
        if let Some(key) = self.order.pop_front()
            && let Some(flow) = self.flows.remove(&key)
        {
            self.told.push((key, flow, why));
        }
    }

    /// What is to be sent; so many messages before could not be.
    pub fn take(&mut self, moment: Moment, not_sent: u64) -> Vec<Datagram> {
        let told = std::mem::take(&mut self.told);
        if !told.is_empty() {
            self.messages.reliability(self.settings.process, not_sent, moment);
        }
        let name = self.settings.virtual_id.as_deref();
        for (key, flow, why) in told {
            let mut record = Writer::default();
            record.bytes(key.get(KEY..).unwrap_or_default());
            name.into_iter().for_each(|name| _ = record.variable(name.as_bytes()));
            flow.write(&mut record, why, moment);
            let template = (flow.shape.template(), || flow.shape.elements(name.is_some()));
            self.messages.record(flow.domain, template, &record.into_bytes(), moment);
        }
        self.messages.take()
    }
}

fn key(sample: &Sample<'_>, shape: Shape) -> Key {
    let mut key = Writer::default();
    key.u32(sample.domain).u16(shape.template());
    sample.write_key(&mut key);
    key.into_bytes().into()
}

impl Stats {
    fn count(&mut self, sample: &Sample<'_>) {
        self.packets = self.packets.wrapping_add(1);
        let is_other = sample.transport == Transport::Other;
        let [v4, v6] = if is_other { &mut self.errors } else { &mut self.ok };
        match sample.ip.map(|ip| ip.addresses) {
            None => {}
            Some(Addresses::V4(_)) => *v4 = v4.wrapping_add(1),
            Some(Addresses::V6(..)) => *v6 = v6.wrapping_add(1),
        }
    }
}

impl Flow {
    fn of(sample: &Sample<'_>, now: u64, totals: Totals) -> Self {
        let packets = sample.packets;
        let dropped = if sample.is_dropped { packets } else { 0 };
        let len = if sample.ip.is_some() { sample.ip_len() } else { 0 };
        let bytes = packets.wrapping_mul(len);
        let [_, destination] = sample.macs;
        let is_copied =
            sample.direction == Direction::Egress && Audience::of(destination) == Audience::Many;
        Self {
            domain: sample.domain,
            shape: sample.shape(),
            first: now,
            last: now,
            packets,
            dropped,
            frame_bytes: packets.wrapping_mul(sample.len.into()),
            bytes,
            dropped_bytes: dropped.wrapping_mul(len),
            squares: bytes.wrapping_mul(len),
            shortest: len,
            longest: len,
            multicast: if is_copied { [packets, bytes] } else { [0; 2] },
            totals,
        }
    }

    /// Takes a later part of the same flow.
    fn join(&mut self, later: &Self) {
        let [packets, octets] = &mut self.multicast;
        let [later_packets, later_octets] = later.multicast;
        for (own, more) in [
            (&mut self.packets, later.packets),
            (&mut self.dropped, later.dropped),
            (&mut self.frame_bytes, later.frame_bytes),
            (&mut self.bytes, later.bytes),
            (&mut self.dropped_bytes, later.dropped_bytes),
            (&mut self.squares, later.squares),
            (packets, later_packets),
            (octets, later_octets),
        ] {
            *own = own.wrapping_add(more);
        }
        self.last = self.last.max(later.last);
        self.shortest = self.shortest.min(later.shortest);
        self.longest = self.longest.max(later.longest);
        self.totals = later.totals;
    }

    /// Writes what has been counted, in the order in which templates have it.
    fn write(&self, record: &mut Writer, why: Reason, moment: Moment) {
        let Self { totals, multicast: [copies, copied_bytes], .. } = self;
        let [all_copies, all_copied_bytes] = totals.multicast;
        record.u32(moment.before(self.first)).u32(moment.before(self.last));
        record.u64(self.dropped).u64(totals.dropped).u64(self.packets).u64(totals.packets);
        let sides = totals.ingress.iter().chain(&totals.egress);
        sides.for_each(|count| _ = record.u64(*count));
        record.u64(*copies).u64(all_copies);
        record.u64(self.frame_bytes).u64(totals.frame_bytes).bytes(&[why as u8]);
        if self.shape.is_ip() {
            record.u64(self.dropped_bytes).u64(totals.dropped_bytes);
            record.u64(self.bytes).u64(totals.bytes).u64(self.squares).u64(totals.squares);
            record.u64(self.shortest).u64(self.longest);
            record.u64(*copied_bytes).u64(all_copied_bytes);
        }
        if self.shape.is_tcp() {
            totals.flags.iter().for_each(|count| _ = record.u64(*count));
        }
    }
}
