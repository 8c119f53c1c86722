//! Counters of a port.

use super::Source;
use crate::wire::Writer;

/// `counters_sample`.
const KIND: u32 = 2;

/// `if_counters`, with the kind of interface that all are (`ethernetCsmacd`).
const GENERIC: u32 = 1;
const ETHERNET: u32 = 6;

/// `lag_port_stats` (sFlow LAG counters), `of_port` and `port_name` (sFlow OpenFlow structures).
const LAG: u32 = 7;
const OPENFLOW: u32 = 1_004;
const NAME: u32 = 1_005;

/// What nobody counts.
const UNKNOWN: u32 = u32::MAX;

/// A port of a switch of OpenFlow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlowPort {
    /// The switch.
    pub datapath: u64,
    /// The number of the port there.
    pub number: u32,
}

/// What a port has agreed on by LACP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LacpCounters {
    /// The address by which the own side is known.
    pub system: [u8; 6],
    /// And the partner.
    pub partner: [u8; 6],
    /// The key of the links that are one.
    pub aggregate: u32,
    /// States as bits: of the own side as it is to be and is, of the partner in the same way.
    pub states: [u8; 4],
    /// Messages received, those that made no sense, and those sent.
    pub received: u32,
    /// Those that made no sense.
    pub bad: u32,
    /// Those sent.
    pub sent: u32,
}

/// Counters of a port at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters<'c> {
    /// Its number as an interface.
    pub index: u32,
    /// Bits in a second; 0 where that is not known.
    pub speed: u64,
    /// Whether both sides may send at once, where that is known.
    pub full_duplex: Option<bool>,
    /// Whether it is in service.
    pub is_enabled: bool,
    /// Whether its link is up.
    pub is_up: bool,
    /// Packets received, their bytes, and those of them that were dropped.
    pub received: [u64; 3],
    /// Packets sent, their bytes, and those that were dropped.
    pub sent: [u64; 3],
    /// Its name.
    pub name: &'c str,
    /// What it is to OpenFlow.
    pub openflow: Option<OpenFlowPort>,
    /// What it is to LACP.
    pub lacp: Option<LacpCounters>,
}

impl Counters<'_> {
    /// Writes them, the `sequence`th of the port.
    pub(super) fn write(&self, writer: &mut Writer, sequence: u32) {
        let blocks = 2_u32 + u32::from(self.openflow.is_some()) + u32::from(self.lacp.is_some());
        writer.block(KIND, |sample| {
            sample.u32(sequence).u32(Source::interface(self.index).code()).u32(blocks);
            sample.block(GENERIC, |block| self.write_generic(block));
            if let Some(lacp) = &self.lacp {
                sample.block(LAG, |block| lacp.write(block));
            }
            sample.block(NAME, |block| _ = block.opaque(self.name.as_bytes()));
            if let Some(OpenFlowPort { datapath, number }) = self.openflow {
                sample.block(OPENFLOW, |block| _ = block.u64(datapath).u32(number));
            }
        });
    }

    fn write_generic(&self, block: &mut Writer) {
        let direction = match self.full_duplex {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        };
        let status = u32::from(self.is_enabled) | u32::from(self.is_enabled && self.is_up) << 1;
        block.u32(self.index).u32(ETHERNET).u64(self.speed).u32(direction).u32(status);
        // What is no more than 32 bits goes round. Frames to one and to many are counted together, and
        // devices of which errors are known count them as dropped.
        let [packets, bytes, dropped] = self.received;
        block.u64(bytes).u32(low(packets)).u32(UNKNOWN).u32(UNKNOWN).u32(low(dropped));
        block.u32(0).u32(UNKNOWN);
        let [packets, bytes, dropped] = self.sent;
        block.u64(bytes).u32(low(packets)).u32(UNKNOWN).u32(UNKNOWN).u32(low(dropped)).u32(0);
        block.u32(0);
    }
}

impl LacpCounters {
    fn write(&self, block: &mut Writer) {
        for address in [self.system, self.partner] {
            block.bytes(&address).bytes(&[0; 2]);
        }
        block.u32(self.aggregate).bytes(&self.states);
        block.u32(self.received).u32(UNKNOWN).u32(UNKNOWN).u32(UNKNOWN).u32(self.bad);
        block.u32(self.sent).u32(UNKNOWN).u32(UNKNOWN);
    }
}

/// The low half of a counter.
const fn low(count: u64) -> u32 {
    let [a, b, c, d, ..] = count.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
