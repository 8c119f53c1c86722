//! What is told of one bridge by sFlow.

use std::time::{Duration, Instant};

use eal::time::later;
use export::Tally;
use export::sflow::{
    Agent, Counters, Exporter, FlowSample, LacpCounters, OpenFlowPort, Output, Tag,
};
use litemap::LiteMap;
use switch::{BondReport, PortReport, Sample, SampleLoss, SampleReader, Sampled, Sampling, Sides};

use super::collectors::Collectors;
use super::settings::SflowSettings;
use super::{View, agent, index};
use crate::report;

/// How long it takes until the address of the switch, and numbers of interfaces, are looked for again.
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
    /// What was lost of them, as far as that was counted.
    lost: SampleLoss,
    /// Numbers of interfaces, by the switch's numbers of ports.
    indices: LiteMap<u16, u32>,
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
    /// Begins to tell of `bridge`; goes on with an `exporter` that has told of it before.
    pub(super) fn start(
        bridge: &str,
        settings: SflowSettings,
        sub_id: u32,
        exporter: Option<Exporter>,
        view: &View<'_>,
    ) -> Self {
        let sampling = settings.rate.map(|rate| {
            let bridge = bridge.to_owned();
            let what = Sampled::Frames { rate, sides: Sides::IN };
            view.daemon.switch().sample(&Sampling { bridge, what, bytes: settings.header })
        });
        let samples = sampling.transpose().unwrap_or_else(|error| {
            tracing::warn!("bridge {bridge}: sFlow tells counters alone: {error}");
            None
        });
        tracing::info!(target: "sflow", "creating sFlow agent {sub_id}");
        let collectors = Collectors::new(&settings.targets);
        let poll = settings.polling.map(|polling| later(view.now, polling));
        let (look, lost, indices) = (view.now, SampleLoss::default(), LiteMap::new());
        Self { settings, sub_id, collectors, exporter, look, samples, lost, indices, poll }
    }

    /// Whether it tells this already.
    pub(super) fn is(&self, settings: &SflowSettings) -> bool {
        self.settings == *settings
    }

    /// Its number among the bridges that collectors are told of.
    pub(super) const fn sub_id(&self) -> u32 {
        self.sub_id
    }

    /// Ports, interfaces or addresses may be others: they are looked for with the next [`run`](Self::run).
    pub(super) const fn look_again(&mut self, now: Instant) {
        self.look = now;
    }

    /// Ends; returns what has told of the bridge.
    pub(super) fn end(mut self, bridge: &str, view: &View<'_>, uptime: u32) -> Option<Exporter> {
        self.run(bridge, view, uptime);
        self.exporter
    }

    /// What has become of it.
    pub(super) const fn tally(&self) -> &Tally {
        self.collectors.tally()
    }

    /// Sends what has come in since the last time.
    pub(super) fn run(&mut self, bridge: &str, view: &View<'_>, uptime: u32) {
        self.find_agent(bridge, view);
        self.take_samples(view, uptime);
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

    /// Finds out by which address collectors know the switch, which may be another one by now.
    fn find_agent(&mut self, bridge: &str, view: &View<'_>) {
        if view.now < self.look {
            return;
        }
        self.look = later(view.now, AGAIN);
        self.indices.clear();
        let Self { settings, sub_id, .. } = self;
        let address = agent::address(settings.agent.as_deref(), &settings.targets);
        let agent = address.map(|address| Agent { address, sub_id: *sub_id });
        let is_told = goes_on(&mut self.exporter, agent);
        if !is_told {
            tracing::error!(
                target: "sflow",
                "could not determine IP address for sFlow agent of bridge {bridge}: set 'agent' to one, or to an \
                 interface that has one"
            );
        }
    }

    /// Takes what was sampled, and counts what was lost of it.
    fn take_samples(&mut self, view: &View<'_>, uptime: u32) {
        let lost = self.samples.as_ref().map_or(self.lost, SampleReader::lost);
        let before = std::mem::replace(&mut self.lost, lost);
        if let Some(exporter) = &mut self.exporter {
            exporter.skip(low(lost.frames.saturating_sub(before.frames)));
        }
        let mut untold = lost.samples.saturating_sub(before.samples);
        let rate = self.settings.rate.unwrap_or(0);
        let Self { exporter, samples, indices, .. } = self;
        let mut take = |sample: &Sample| match exporter {
            Some(exporter) => {
                let mut index = |port| *indices.entry(port).or_insert_with(|| index_of(port, view));
                exporter.flow(&told(sample, rate, low(lost.samples), &mut index), uptime);
            }
            // Nobody knows by which address the switch is known.
            None => untold = untold.saturating_add(1),
        };
        samples.iter_mut().for_each(|samples| samples.read(&mut take));
        self.collectors.tally().add_lost(untold);
    }

    /// Takes the counters of all ports.
    fn take_counters(&mut self, bridge: &str, view: &View<'_>, uptime: u32) {
        let Some(exporter) = &mut self.exporter else { return };
        let switch = view.daemon.switch();
        let (ports, lacp) = (switch.samples(), switch.lacp());
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

/// Makes `agent` tell from now on, if it is another one; returns whether anybody does.
fn goes_on(exporter: &mut Option<Exporter>, agent: Option<Agent>) -> bool {
    let before = exporter.as_ref().map(Exporter::agent);
    if agent.is_some() && agent != before {
        *exporter = agent.map(Exporter::new);
    }
    exporter.is_some()
}

/// The number of a port's interface, by the switch's number for it; 0 where it is gone.
pub(super) fn index_of(port: u16, view: &View<'_>) -> u32 {
    let name = view.daemon.switch().port_named(port);
    name.map_or(0, |name| named(&name, view))
}

fn named(name: &str, view: &View<'_>) -> u32 {
    let row = view.content.interface(name).map(|(_, row)| row);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_another_address_tells_anew() {
        let agent = |last: u8| Some(Agent { address: [192, 0, 2, last].into(), sub_id: 3 });
        let mut exporter = None;
        assert!(!goes_on(&mut exporter, None));
        let mut told = |agent| {
            assert!(goes_on(&mut exporter, agent));
            let exporter = exporter.as_mut().unwrap();
            exporter.counters(&Counters::default(), 0);
            let datagrams = exporter.take(0);
            let number = |from: usize| datagrams[0].bytes[from..from + 4].to_vec();
            (number(8), number(16))
        };
        let expected = |last, sequence| (vec![192, 0, 2, last], vec![0, 0, 0, sequence]);
        assert_eq!(told(agent(1)), expected(1, 1));
        // It is the same one, or nobody knows for now.
        assert_eq!(told(agent(1)), expected(1, 2));
        assert_eq!(told(None), expected(1, 3));
        assert_eq!(told(agent(2)), expected(2, 1));
    }
}
