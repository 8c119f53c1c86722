//! Samples on their way into datagrams.

use std::net::IpAddr;

use litemap::LiteMap;

use super::{Counters, FlowSample, Source};
use crate::datagram::Datagram;
use crate::wire::Writer;

const VERSION: u32 = 5;

/// The most bytes of a datagram: with headers of IPv6, UDP and a tunnel it is less than what Ethernet carries.
const MOST: usize = 1_400;

/// Bytes of a datagram's header, with an address of version 6.
const HEADER: usize = 40;

/// Where the numbers of parts of the device begin.
const ENTITIES: u32 = 1_000;

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// By this address collectors know the device.
    pub address: IpAddr,
    /// And by this number which part of it.
    pub sub_id: u32,
}

/// Makes datagrams of samples.
#[derive(Debug)]
pub struct Exporter {
    agent: Agent,
    /// How many datagrams there were, samples of packets, and packets for which these stand.
    datagrams: u32,
    flows: u32,
    pool: u32,
    /// How many samples of counters there were of each interface.
    counters: LiteMap<u32, u32>,
    /// Samples of the next datagram.
    pending: Vec<u8>,
    count: u32,
    /// Datagrams that are full.
    full: Vec<Datagram>,
}

impl Exporter {
    /// One that has told nothing yet.
    #[must_use]
    pub fn new(agent: Agent) -> Self {
        let (datagrams, flows, pool, counters) = Default::default();
        let (pending, count, full) = Default::default();
        Self { agent, datagrams, flows, pool, counters, pending, count, full }
    }

    /// Who tells.
    #[must_use]
    pub const fn agent(&self) -> Agent {
        self.agent
    }

    /// Takes a sample, `uptime` milliseconds after the device was started.
    pub fn flow(&mut self, sample: &FlowSample<'_>, uptime: u32) {
        self.flows = self.flows.wrapping_add(1);
        self.pool = self.pool.wrapping_add(sample.stands_for);
        let source = Source::entity(ENTITIES.wrapping_add(self.agent.sub_id));
        let mut writer = Writer::default();
        sample.write(&mut writer, source, self.flows, self.pool);
        self.push(&writer.into_bytes(), uptime);
    }

    /// So many packets could have been sampled, or were, of which nothing is told.
    pub const fn skip(&mut self, packets: u32) {
        self.pool = self.pool.wrapping_add(packets);
    }

    /// Takes the counters of a port.
    pub fn counters(&mut self, counters: &Counters<'_>, uptime: u32) {
        let sequence = self.counters.entry(counters.index).or_insert(0);
        *sequence = sequence.wrapping_add(1);
        let mut writer = Writer::default();
        counters.write(&mut writer, *sequence);
        self.push(&writer.into_bytes(), uptime);
    }

    /// Forgets ports that are not among `ports`, by their numbers.
    pub fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.counters.retain(|index, _| is_there(*index));
    }

    /// What is to be sent now.
    pub fn take(&mut self, uptime: u32) -> Vec<Datagram> {
        self.end(uptime);
        std::mem::take(&mut self.full)
    }

    fn push(&mut self, sample: &[u8], uptime: u32) {
        let len = self.pending.len().saturating_add(sample.len());
        if len > MOST.saturating_sub(HEADER) {
            self.end(uptime);
        }
        self.pending.extend_from_slice(sample);
        self.count = self.count.wrapping_add(1);
    }

    /// The next datagram is full.
    fn end(&mut self, uptime: u32) {
        if self.count == 0 {
            return;
        }
        self.datagrams = self.datagrams.wrapping_add(1);
        let mut writer = Writer::default();
        writer.u32(VERSION);
        match self.agent.address.to_canonical() {
            IpAddr::V4(address) => writer.u32(1).bytes(&address.octets()),
            IpAddr::V6(address) => writer.u32(2).bytes(&address.octets()),
        };
        writer.u32(self.agent.sub_id).u32(self.datagrams).u32(uptime).u32(self.count);
        writer.bytes(&std::mem::take(&mut self.pending));
        let records = std::mem::take(&mut self.count);
        self.full.push(Datagram { bytes: writer.into_bytes(), records });
    }
}
