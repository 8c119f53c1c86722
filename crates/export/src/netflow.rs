//! NetFlow version 5: packets are counted by flows, which are told when they have ended, or have gone on for long.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::datagram::Datagram;
use crate::wire::Writer;

#[cfg(test)]
mod tests;

const VERSION: u16 = 5;

/// The most records of a datagram.
const RECORDS: usize = 30;

/// Bytes of a record.
const RECORD: usize = 48;

/// The most flows that are known at a time.
const MAX_FLOWS: usize = 65_536;

/// A flow has ended that has had no packets for so many milliseconds.
const IDLE: u64 = 15_000;

/// What packets of a flow have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The number of the port where they come in.
    pub input: u16,
    /// The address from where.
    pub source: Ipv4Addr,
    /// The address to where.
    pub destination: Ipv4Addr,
    /// The protocol.
    pub protocol: u8,
    /// The type of service.
    pub tos: u8,
    /// The ports from where and to where; of ICMP 0, and the type and code.
    pub ports: [u16; 2],
}

/// Where packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// Nowhere.
    Dropped,
    /// Out on the port of this number.
    Port(u16),
    /// Out on several ports.
    Several,
    /// Out on all, since nobody knows their destination.
    Flood,
}

impl Output {
    /// As Open vSwitch has it.
    const fn code(self) -> u16 {
        match self {
            Self::Unknown => 0,
            Self::Dropped => u16::MAX - 2,
            Self::Several => u16::MAX - 1,
            Self::Flood => u16::MAX,
            Self::Port(port) => port,
        }
    }
}

/// Packets of a flow that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Where they go; `None`: where those went that came before, since nobody has looked.
    pub output: Option<Output>,
    /// How many they are.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All flags of TCP that they have.
    pub flags: u8,
    /// When the last one came, in milliseconds since the start.
    pub last: u64,
}

/// How flows are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What kind of engine tells.
    pub engine_type: u8,
    /// Which one.
    pub engine_id: u8,
    /// After so many milliseconds a flow is told although it goes on; `None`: only when it has ended.
    pub active: Option<u64>,
    /// Whether numbers of ports begin with seven bits of the engine's.
    pub add_id: bool,
}

/// A flow, with what was not told of it yet.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    output: Output,
    packets: u64,
    bytes: u64,
    flags: u8,
    first: u64,
    last: u64,
    /// Since when it was not told.
    since: u64,
    /// When the last packet came of which somebody looked where it goes.
    looked: u64,
}

/// Makes datagrams of flows.
#[derive(Debug)]
pub struct Exporter {
    settings: Settings,
    flows: HashMap<Key, Flow>,
    /// How many records there were.
    sequence: u32,
    records: Vec<u8>,
    /// How many packets there was no room for.
    lost: u64,
}

impl Exporter {
    /// One without flows.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, flows: HashMap::new(), sequence: 0, records: Vec::new(), lost: 0 }
    }

    /// Counts packets of a flow.
    pub fn count(&mut self, key: Key, packets: &Packets) {
        let last = packets.last;
        let known = self.output_of(&key);
        if known.is_none() && self.flows.len() >= MAX_FLOWS {
            self.lost = self.lost.saturating_add(packets.packets);
            return;
        }
        let output = packets.output.or(known).unwrap_or(Output::Unknown);
        let fresh = Flow { output, first: last, last, since: last, ..Flow::default() };
        let flow = self.flows.entry(key).or_insert(fresh);
        if flow.output == Output::Unknown {
            // Those that came before went there, as far as anybody knows.
            flow.output = output;
        } else if flow.output != output {
            let before = std::mem::replace(flow, fresh);
            write(&mut self.records, self.settings, &key, &before);
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            if flow.packets == 0 {
                flow.first = last;
            }
            flow.packets = flow.packets.saturating_add(packets.packets);
            flow.bytes = flow.bytes.saturating_add(packets.bytes);
            flow.flags |= packets.flags;
            flow.last = flow.last.max(last);
            if packets.output.is_some() {
                flow.looked = flow.looked.max(last);
            }
        }
    }

    /// Where packets of a flow went that came last.
    #[must_use]
    pub fn output_of(&self, key: &Key) -> Option<Output> {
        self.flows.get(key).map(|flow| flow.output)
    }

    /// Whether it is known where packets of a flow go, and was looked at since then: others need not be looked at.
    /// Where nobody knows their destination, that may be another one any time.
    #[must_use]
    pub fn knows(&self, key: &Key, since: u64) -> bool {
        self.flows.get(key).is_some_and(|flow| {
            let stays = !matches!(flow.output, Output::Flood | Output::Unknown);
            stays && flow.looked >= since
        })
    }

    /// How many packets there was no room for since this was asked last.
    pub const fn take_lost(&mut self) -> u64 {
        std::mem::replace(&mut self.lost, 0)
    }

    /// Tells the flows that have ended by `now`, in milliseconds since the start, and those that have gone on for
    /// long.
    pub fn expire(&mut self, now: u64) {
        let Self { settings, flows, records, .. } = self;
        flows.retain(|key, flow| {
            let is_idle = now.saturating_sub(flow.last) >= IDLE;
            let is_long =
                settings.active.is_some_and(|active| now.saturating_sub(flow.since) >= active);
            if is_idle || is_long {
                write(records, *settings, key, flow);
                *flow = Flow { packets: 0, bytes: 0, flags: 0, since: now, ..*flow };
            }
            !is_idle
        });
    }

    /// Tells all flows, since there will be no more.
    pub fn end(&mut self) {
        let Self { settings, flows, records, .. } = self;
        flows.drain().for_each(|(key, flow)| write(records, *settings, &key, &flow));
    }

    /// What is to be sent at time `now`, which is `wall` since 1970: seconds, and nanoseconds.
    pub fn take(&mut self, now: u64, wall: (u64, u32)) -> Vec<Datagram> {
        let all = std::mem::take(&mut self.records);
        let datagram = |records: &[u8]| {
            let count = u16::try_from(records.len() / RECORD).unwrap_or(0);
            let mut writer = Writer::default();
            writer.u16(VERSION).u16(count).u32(low(now)).u32(low(wall.0)).u32(wall.1);
            writer.u32(self.sequence);
            let Settings { engine_type, engine_id, .. } = self.settings;
            writer.bytes(&[engine_type, engine_id, 0, 0]).bytes(records);
            self.sequence = self.sequence.wrapping_add(count.into());
            Datagram { bytes: writer.into_bytes(), records: count.into() }
        };
        all.chunks(RECORDS.saturating_mul(RECORD)).map(datagram).collect()
    }
}

/// Writes what was not told of a flow, if there is anything; more than a record can count goes into several.
fn write(records: &mut Vec<u8>, settings: Settings, key: &Key, flow: &Flow) {
    let most = u64::from(u32::MAX);
    let count = flow.bytes.div_ceil(most).max(flow.packets.div_ceil(most));
    let (mut packets, mut bytes) = (flow.packets, flow.bytes);
    // No link carries more in the time that a flow may go on.
    for left in (1..=count.min(256)).rev() {
        let part = [packets / left, bytes / left];
        write_record(records, settings, key, flow, part);
        packets = packets.saturating_sub(part[0]);
        bytes = bytes.saturating_sub(part[1]);
    }
}

fn write_record(
    records: &mut Vec<u8>,
    settings: Settings,
    key: &Key,
    flow: &Flow,
    [packets, bytes]: [u64; 2],
) {
    const PORT: u16 = 0x1ff;
    let engine = u16::from(settings.engine_id & 0x7f) << 9;
    let port = |port: u16| if settings.add_id { engine | port & PORT } else { port };
    let [source_port, destination_port] = key.ports;
    let mut writer = Writer::default();
    writer.bytes(&key.source.octets()).bytes(&key.destination.octets()).u32(0);
    writer.u16(port(key.input)).u16(port(flow.output.code()));
    writer.u32(low(packets)).u32(low(bytes)).u32(low(flow.first)).u32(low(flow.last));
    writer.u16(source_port).u16(destination_port);
    // Of the type of service the part that says how packets are treated.
    writer.bytes(&[0, flow.flags, key.protocol, key.tos & 0xfc]).u64(0);
    records.extend_from_slice(&writer.into_bytes());
}

/// The low half of a number, which goes round.
const fn low(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
