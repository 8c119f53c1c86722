//! What is told of one bridge by sFlow.

use std::time::{Duration, Instant};

use eal::time::later;
use export::Tally;
use export::sflow::{
    Agent, Counters, Exporter, FlowSample, LacpCounters, OpenFlowPort, Output, Tag,
};
use litemap::LiteMap;
use switch::{BondReport, PortReport, Sample, SampleReader, Sampling};

use super::collectors::Collectors;
use super::settings::SflowSettings;
use super::{View, agent, index};
use crate::report;

/// How long it takes until the address of the switch is looked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// States of LACP as a member of a bond is to be: it may be aggregated, speaks, and is told of (IEEE 802.1AX).
const ACTOR_ADMIN: u8 = 0x07;

/// What is told of a bridge.
#[derive(Debug)]
pub(super) struct Sflow {
    settings: SflowSettings,
    sub_id: u32,
    collectors: Collectors,
    /// Absent as long as nobody knows by which address the switch is known; and when that is looked for.
    exporter: Option<Exporter>,
    look: Instant,
    /// Absent where packets are not sampled.
    samples: Option<SampleReader>,
    /// How many of them were lost, as far as that was counted.
    lost: u64,
    /// When counters are told, if they are.
    poll: Option<Instant>,
}

/// A tag's 16 bits, of the first bytes of a packet.
fn tag_in(bytes: &[u8]) -> Tag {
    match bytes.get(12..16) {
        Some([0x81, 0, high, low] | [0x88, 0xa8, high, low]) => {
            Tag::of_tci(u16::from_be_bytes([*high, *low]))
        }
        _ => Tag::default(),
    }
}

impl Sflow {
    /// Begins to tell of `bridge`.
    pub(super) fn start(
        bridge: &str,
        settings: SflowSettings,
        sub_id: u32,
        view: &View<'_>,
    ) -> Self {
        let sampling = settings.rate.map(|rate| {
            let bridge = bridge.to_owned();
            view.daemon.switch().sample(&Sampling { bridge, rate, bytes: settings.header })
        });
        let samples = sampling.transpose().unwrap_or_else(|error| {
            tracing::warn!("bridge {bridge}: sFlow tells counters alone: {error}");
            None
        });
        tracing::info!(target: "sflow", "creating sFlow agent {sub_id}");
        let collectors = Collectors::new(&settings.targets);
        let poll = settings.polling.map(|polling| later(view.now, polling));
        let (exporter, look, lost) = (None, view.now, 0);
        Self { settings, sub_id, collectors, exporter, look, samples, lost, poll }
    }

    /// Whether it tells this already.
    pub(super) fn is(&self, settings: &SflowSettings, sub_id: u32) -> bool {
        self.settings == *settings && self.sub_id == sub_id
    }

    /// What has become of it.
    pub(super) const fn tally(&self) -> &Tally {
        self.collectors.tally()
    }

    /// Sends what has come in since the last time.
    pub(super) fn run(&mut self, bridge: &str, view: &View<'_>, uptime: u32) {
        self.find_agent(bridge, view);
        let lost = self.samples.as_ref().map_or(0, SampleReader::lost);
        let new = lost.saturating_sub(std::mem::replace(&mut self.lost, lost));
        self.collectors.tally().add_lost(new);
        let rate = self.settings.rate.unwrap_or(0);
        let Self { exporter, samples, .. } = self;
        let mut indices = LiteMap::<u16, u32>::new();
        let mut take = |sample: &Sample| {
            if let Some(exporter) = exporter {
                let mut index = |port| *indices.entry(port).or_insert_with(|| index_of(port, view));
                exporter.flow(&told(sample, rate, low(lost), &mut index), uptime);
            }
        };
        samples.iter_mut().for_each(|samples| samples.read(&mut take));
        if self.poll.is_some_and(|poll| view.now >= poll) {
            self.poll = self.settings.polling.map(|polling| later(view.now, polling));
            self.take_counters(bridge, view, uptime);
        }
        if let Some(exporter) = &mut self.exporter {
            for datagram in exporter.take(uptime) {
                self.collectors.send(&datagram.bytes, datagram.records.into());
            }
        }
    }

    /// Finds out by which address collectors know the switch.
    fn find_agent(&mut self, bridge: &str, view: &View<'_>) {
        if self.exporter.is_some() || view.now < self.look {
            return;
        }
        self.look = later(view.now, AGAIN);
        let Self { settings, sub_id, .. } = self;
        match agent::address(settings.agent.as_deref(), &settings.targets) {
            Some(address) => {
                self.exporter = Some(Exporter::new(Agent { address, sub_id: *sub_id }));
            }
            None => tracing::error!(
                target: "sflow",
                "could not determine IP address for sFlow agent of bridge {bridge}: set 'agent' to one, or to an \
                 interface that has one"
            ),
        }
    }

    /// Takes the counters of all ports.
    fn take_counters(&mut self, bridge: &str, view: &View<'_>, uptime: u32) {
        let Some(exporter) = &mut self.exporter else { return };
        let switch = view.daemon.switch();
        let (ports, lacp) = (switch.ports(), switch.lacp());
        let datapath = view.content.bridges.get(bridge).map(report::datapath_id);
        let datapath = datapath.and_then(|id| u64::from_str_radix(&id, 16).ok());
        let numbers = view.numbers.get(bridge);
        let mut there = Vec::new();
        for port in ports.iter().filter(|port| port.bridge == bridge) {
            let index = named(&port.name, view);
            there.push(index);
            let number = numbers.and_then(|numbers| numbers.of(&port.name));
            let number = number.map(|number| openflow::PortNo::from_v10(number).0);
            let openflow = datapath.zip(number);
            let openflow = openflow.map(|(datapath, number)| OpenFlowPort { datapath, number });
            let lacp = lacp_of(&port.name, &lacp);
            exporter.counters(&Counters { index, openflow, lacp, ..counters(port) }, uptime);
        }
        exporter.retain(|index| there.contains(&index));
    }
}

/// The number of a port's interface, by the switch's number for it; 0 where it is gone.
fn index_of(port: u16, view: &View<'_>) -> u32 {
    let name = view.daemon.switch().port_named(port);
    name.map_or(0, |name| named(&name, view))
}

fn named(name: &str, view: &View<'_>) -> u32 {
    let mut rows = view.content.interfaces();
    let row = rows.find(|(_, _, known, _)| *known == name).map(|(.., row)| row);
    index::of(name, row, view.has_dummies)
}

/// A sample in the words of the protocol.
fn told<'s>(
    sample: &'s Sample,
    rate: u32,
    drops: u32,
    index: &mut impl FnMut(u16) -> u32,
) -> FlowSample<'s> {
    let onward = sample.onward;
    let output = match onward.count {
        0 => Output::Dropped,
        1 => Output::Interface(index(onward.port)),
        count => Output::Several(count),
    };
    // Of one that goes nowhere there is no tag.
    let tag_out = Tag::of_tci(if onward.count == 0 { 0 } else { onward.tci });
    FlowSample {
        rate,
        stands_for: sample.stands_for,
        drops,
        input: index(sample.port),
        output,
        tag_in: tag_in(sample.bytes()),
        tag_out,
        frame_len: sample.len,
        header: sample.bytes(),
    }
}

/// What is known of a port alone.
fn counters(port: &PortReport) -> Counters<'_> {
    let (rx, tx) = (port.stats.rx_total(), port.stats.tx_total());
    Counters {
        speed: u64::from(port.link.speed_mbps.unwrap_or(0)).saturating_mul(1_000_000),
        full_duplex: port.link.speed_mbps.map(|_| true),
        is_enabled: !port.disabled,
        is_up: port.link.up,
        received: [rx.packets, rx.bytes, rx.dropped()],
        sent: [tx.packets, tx.bytes, tx.dropped()],
        name: &port.name,
        ..Counters::default()
    }
}

/// What a port has agreed on by LACP, where it speaks that.
fn lacp_of(name: &str, bonds: &[BondReport]) -> Option<LacpCounters> {
    let of_bond = |bond: &BondReport| {
        let member = bond.members.iter().find(|member| member.name == name)?;
        let (own, lacp) = (bond.lacp?, member.lacp?);
        Some(LacpCounters {
            system: own.system.0,
            partner: lacp.partner_system.0,
            aggregate: lacp.key.into(),
            states: [ACTOR_ADMIN, lacp.flags, 0, lacp.partner_flags],
            received: low(lacp.received),
            bad: low(lacp.bad),
            sent: low(lacp.sent),
        })
    };
    bonds.iter().find_map(of_bond)
}

/// The low half of a counter.
const fn low(count: u64) -> u32 {
    let [a, b, c, d, ..] = count.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
