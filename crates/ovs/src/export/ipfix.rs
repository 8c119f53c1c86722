//! What is told by IPFIX of one bridge, or of what its rules sample for one set of collectors.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use export::Tally;
use export::ipfix::{
    Addresses, Direction, Exporter, Interface, Ip, Moment, Sample, Settings, Stats, Tag, Transport,
};
use flow::{Depth, Key, extract, slot};
use litemap::LiteMap;
use openflow::action::SampleDirection;
use openflow::message::stats::ipfix::IpfixStats;
use switch::{MAX_SAMPLE, SampleLoss, SampleReader, Sampled, Sampling};

use super::View;
use super::collectors::Collectors;
use super::settings::IpfixSettings;
use super::sflow::index_of;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAG_PRESENT: u16 = 0x1000;

/// Protocols of IP (IANA, "Assigned Internet Protocol Numbers").
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;
const SCTP: u8 = 132;

/// Ports of UDP by which neighbours look after links (RFC 5881, section 4): that is not traffic.
const BFD: [u16; 2] = [3_784, 3_785];

/// What is told.
#[derive(Debug)]
pub(super) struct Ipfix {
    settings: IpfixSettings,
    collectors: Collectors,
    exporter: Exporter,
    /// Absent where packets are not sampled.
    samples: Option<SampleReader>,
    /// Why they are not, if they were to be.
    refusal: Option<String>,
    /// What was lost of them, as far as that was counted.
    lost: SampleLoss,
    /// Numbers and names of interfaces, by the switch's numbers of ports.
    interfaces: LiteMap<u16, (u32, String)>,
}

impl Ipfix {
    /// Begins to tell of `bridge`, or of what its rules sample for the collectors of the number `set`; the one who tells
    /// is the `process`th.
    pub(super) fn start(
        (bridge, set): (&str, Option<u32>),
        settings: IpfixSettings,
        (process, tally): (u32, &Tally),
        view: &View<'_>,
    ) -> Self {
        let collectors = Collectors::counted_with(&settings.targets, tally.clone());
        let exporter = Exporter::new(Settings { process, ..settings.flows.clone() });
        let (samples, refusal, lost, interfaces) = Default::default();
        let mut own = Self { settings, collectors, exporter, samples, refusal, lost, interfaces };
        own.sample((bridge, set), view);
        own
    }

    /// Has packets sampled if they are not, though they are to be: there may be room for that by now.
    pub(super) fn sample(&mut self, (bridge, set): (&str, Option<u32>), view: &View<'_>) {
        let rate = self.settings.rate;
        let of_frames = self.settings.sides.map(|sides| Sampled::Frames { rate, sides });
        let Some(what) = set.map(Sampled::Set).or(of_frames).filter(|_| self.samples.is_none())
        else {
            return;
        };
        let sampling = Sampling { bridge: bridge.to_owned(), what, bytes: MAX_SAMPLE };
        self.refusal = match view.daemon.switch().sample(&sampling) {
            Ok(samples) => {
                self.samples = Some(samples);
                None
            }
            Err(error) => {
                let refusal = error.to_string();
                // It is asked again and again, and told once.
                if self.refusal.as_ref() != Some(&refusal) {
                    tracing::warn!("bridge {bridge}: IPFIX tells nothing: {refusal}");
                }
                Some(refusal)
            }
        };
    }

    /// Whether packets are sampled.
    #[cfg(test)]
    pub(super) const fn is_sampling(&self) -> bool {
        self.samples.is_some()
    }

    /// Whether it tells this already.
    pub(super) fn is(&self, settings: &IpfixSettings) -> bool {
        self.settings == *settings
    }

    /// Ports or interfaces may be others.
    pub(super) fn look_again(&mut self) {
        self.interfaces.clear();
    }

    /// What has become of it.
    pub(super) const fn tally(&self) -> &Tally {
        self.collectors.tally()
    }

    /// What has come of it, which is for the set of collectors of this number.
    pub(super) fn counts(&self, set: Option<u32>) -> IpfixStats {
        let Stats { flows, current, packets, ok: [ipv4, ipv6], errors } = self.exporter.stats();
        let ([ipv4_errors, ipv6_errors], [sent, send_errors]) =
            (errors, self.collectors.datagrams());
        IpfixStats {
            flows,
            current_flows: current,
            packets,
            ipv4,
            ipv6,
            packet_errors: ipv4_errors.wrapping_add(ipv6_errors),
            ipv4_errors,
            ipv6_errors,
            sent,
            send_errors,
            set: set.unwrap_or(0),
        }
    }

    /// Sends what is to be told by `now`, in milliseconds since the switch was started.
    pub(super) fn run(&mut self, view: &View<'_>, now: u64) {
        self.take_samples(view, now);
        self.exporter.expire(now);
        self.send(now);
    }

    /// Sends all that was not told yet, since there will be no more.
    pub(super) fn end(mut self, view: &View<'_>, now: u64) {
        self.take_samples(view, now);
        self.exporter.end();
        self.send(now);
    }

    fn take_samples(&mut self, view: &View<'_>, now: u64) {
        let Self { settings, exporter, samples, interfaces, .. } = self;
        let Some(samples) = samples else { return };
        samples.read(|sample| {
            let port = sample.rule.map_or(sample.out, |rule| rule.port);
            for port in [Some(sample.port), port].into_iter().flatten() {
                interfaces.entry(port).or_insert_with(|| {
                    (
                        index_of(port, view),
                        view.daemon.switch().port_named(port).unwrap_or_default(),
                    )
                });
            }
            let interface = |port: Option<u16>| {
                let known = port.and_then(|port| interfaces.get(&port));
                known.map_or_else(Interface::default, |(index, name)| Interface {
                    index: *index,
                    name,
                })
            };
            let seen = seen(sample, settings);
            let both = [interface(Some(sample.port)), interface(port)];
            if let Some(sample) = told(sample, seen, both) {
                exporter.count(&sample, now);
            }
        });
        let lost = samples.lost();
        let before = std::mem::replace(&mut self.lost, lost);
        self.collectors.tally().add_lost(lost.samples.saturating_sub(before.samples));
    }

    fn send(&mut self, now: u64) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        let [_, not_sent] = self.collectors.datagrams();
        for datagram in self.exporter.take(Moment { now, wall }, not_sent) {
            self.collectors.send(&datagram.bytes, datagram.records.into());
        }
    }
}

/// Where and how a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    observed: [u32; 2],
    direction: Direction,
    /// For how many it stands.
    packets: u64,
    is_of_rule: bool,
}

fn seen(sample: &switch::Sample, settings: &IpfixSettings) -> Seen {
    let side = |goes_out| if goes_out { Direction::Egress } else { Direction::Ingress };
    match sample.rule {
        None => Seen {
            observed: settings.observed,
            direction: side(sample.out.is_some()),
            packets: settings.rate.into(),
            is_of_rule: false,
        },
        Some(rule) => Seen {
            observed: [rule.domain, rule.point],
            direction: match rule.direction {
                SampleDirection::Default => side(rule.port.is_some()),
                SampleDirection::Ingress => Direction::Ingress,
                SampleDirection::Egress => Direction::Egress,
            },
            packets: sample.stands_for.into(),
            is_of_rule: true,
        },
    }
}

/// A sample in the words of the protocol; `None` of what is not told.
fn told<'s>(
    sample: &switch::Sample,
    Seen { observed: [domain, point], direction, packets, is_of_rule }: Seen,
    [input, output]: [Interface<'s>; 2],
) -> Option<Sample<'s>> {
    let mut key = Key::default();
    let len = usize::try_from(sample.len).unwrap_or(usize::MAX);
    extract(&mut key, sample.bytes(), len, 1, Depth::All);
    let tci = key.get_u16(slot::VLAN_TCI);
    let tag = Tag { vlan: tci & 0xfff, priority: key.get_u8(slot::VLAN_PCP) };
    let (ip, transport) = (ip(&key), transport(&key));
    let is_of_link = matches!(transport, Transport::Udp([_, to]) if BFD.contains(&to));
    if is_of_link && !is_of_rule {
        return None;
    }
    Some(Sample {
        domain,
        point,
        direction,
        input,
        output,
        macs: [mac(&key, slot::ETH_SRC), mac(&key, slot::ETH_DST)],
        ether_type: key.get_u16(slot::ETH_TYPE),
        tag: (tci & TAG_PRESENT != 0).then_some(tag),
        ip,
        transport,
        len: sample.len,
        packets,
        is_dropped: sample.onward.count == 0,
    })
}

fn mac(key: &Key, slot: flow::Slot) -> [u8; 6] {
    let [.., a, b, c, d, e, f] = key.get(slot).to_be_bytes();
    [a, b, c, d, e, f]
}

fn ip(key: &Key) -> Option<Ip> {
    let addresses = match key.get_u16(slot::ETH_TYPE) {
        IPV4 => Addresses::V4(
            [slot::IPV4_SRC, slot::IPV4_DST].map(|slot| Ipv4Addr::from(key.get_u32(slot))),
        ),
        IPV6 => Addresses::V6(
            [slot::IPV6_SRC, slot::IPV6_DST].map(|slot| Ipv6Addr::from(key.get(slot))),
            key.get_u32(slot::IPV6_LABEL),
        ),
        _ => return None,
    };
    let [ttl, protocol, tos] =
        [slot::IP_TTL, slot::IP_PROTO, slot::IP_TOS].map(|slot| key.get_u8(slot));
    Some(Ip { addresses, ttl, protocol, tos })
}

fn transport(key: &Key) -> Transport {
    let ports = [slot::TP_SRC, slot::TP_DST].map(|slot| key.get_u16(slot));
    let kind = ports.map(|half| u8::try_from(half & 0xff).unwrap_or(0));
    match (key.get_u16(slot::ETH_TYPE), key.get_u8(slot::IP_PROTO)) {
        (IPV4 | IPV6, TCP) => Transport::Tcp(ports, key.get_u16(slot::TCP_FLAGS)),
        (IPV4 | IPV6, UDP) => Transport::Udp(ports),
        (IPV4 | IPV6, SCTP) => Transport::Sctp(ports),
        (IPV4, ICMP) | (IPV6, ICMP_V6) => Transport::Icmp(kind),
        _ => Transport::Other,
    }
}
