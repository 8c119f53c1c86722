//! What is sent: headers, how many flows, and in which order they take their turns.

use std::ops::Range;

use eal::clock;

use super::headers::Headers;
use super::order::{Order, Shuffle};
use super::rate::{Pacer, Ramp, Rate};
use super::run::{BACKLOG, share};
use super::stamp::{MAX_FLOWS, STAMP_LEN};
use super::template::Builder;
use super::topology::Link;
use crate::cli::{GenArgs, Mode, Turns};
use crate::exit::Failure;
use crate::table::approximate;

/// Flows in flowgen mode when no number is given.
const FLOWGEN_FLOWS: u32 = 1024;

/// Rate for latency when none is given: low enough that queues stay short.
const LATENCY_RATE: Rate = Rate::Packets(100_000.0);

/// What is sent.
#[derive(Clone, Debug)]
pub struct Traffic {
    headers: Headers,
    flows: Option<u32>,
    seed: Option<u64>,
    pattern: bool,
    first_flow: u32,
    /// Whether source addresses of IP were asked for, so that each port has its own.
    own_ips: bool,
    /// Whether destination addresses were.
    own_destinations: bool,
}

impl Traffic {
    /// What `args` ask for.
    ///
    /// # Errors
    /// When they do not go together, or frames are too short for their headers.
    pub fn new(args: &GenArgs) -> Result<Self, Failure> {
        let headers = args.headers.headers().map_err(Failure::usage)?;
        if args.ramp_from.is_some() && args.ramp_time.is_none() && args.duration.is_none() {
            return Err(Failure::usage(
                "--ramp-from needs a time that the rate takes: --ramp-time or --duration",
            ));
        }
        check_sizes(args, &headers)?;
        let most = headers.most_flows();
        let flows = match args.flows {
            Some(flows) if u64::from(flows) > most => {
                return Err(Failure::usage(format!(
                    "--flows {flows}: these headers make {most} different ones; --src-ip \
                     10.0.0.0+{flows} makes more"
                )));
            }
            Some(flows) => Some(flows),
            None if headers.asked > 1 => {
                let asked = u32::try_from(headers.asked).ok().filter(|asked| *asked <= MAX_FLOWS);
                Some(asked.ok_or_else(|| {
                    Failure::usage(format!(
                        "the ranges make more than {MAX_FLOWS} different frames: choose with \
                         --flows how many of them are sent"
                    ))
                })?)
            }
            None => (args.mode == Mode::Flowgen).then_some(FLOWGEN_FLOWS),
        };
        let random = args.headers.order == Some(Turns::Random);
        let seed = random.then(|| args.headers.seed.unwrap_or(0));
        Ok(Self {
            headers,
            flows,
            seed,
            pattern: !args.no_pattern,
            first_flow: 0,
            own_ips: args.headers.src_ip.is_some(),
            own_destinations: args.headers.dst_ip.is_some(),
        })
    }

    /// The same from one of several ports to another: the source addresses that were asked for belong
    /// to the first port, as many behind these to the second, and so on, and frames go to those of the
    /// other one. Flows have numbers from `first_flow` on.
    ///
    /// # Errors
    /// When there are not as many addresses.
    pub fn between(&self, link: Link, first_flow: u32) -> Result<Self, String> {
        let mut traffic = Self { first_flow, ..self.clone() };
        let network = &mut traffic.headers.network;
        let (macs, ips) = (network.src_mac, network.src_ip);
        network.src_mac = macs.block(link.from)?;
        network.dst_mac = macs.block(link.to)?;
        if self.own_ips {
            network.src_ip = ips.block(link.from)?;
            if !self.own_destinations {
                network.dst_ip = ips.block(link.to)?;
            }
        }
        Ok(traffic)
    }

    /// The same the other way round.
    pub fn reversed(&self) -> Self {
        Self { headers: self.headers.reversed(), ..self.clone() }
    }

    /// How many flows there are, when nothing else is asked for one for each of `queues`.
    pub fn flows(&self, queues: usize) -> u32 {
        let default = u32::try_from(queues).unwrap_or(1).clamp(1, MAX_FLOWS);
        self.flows.unwrap_or(default)
    }

    /// What makes frames of `flows` flows in the run `run`.
    pub fn builder(&self, flows: u32, run: u16) -> Builder {
        let builder = Builder::new(self.headers.template(flows), run, self.pattern);
        builder.with_first_flow(self.first_flow)
    }

    /// Makes the pacer of the one of `count` senders whose number is `index`; `None` where there is no
    /// rate. All of them begin at `start`, and a burst is theirs together.
    pub fn pacer(
        &self,
        args: &GenArgs,
        start: u64,
    ) -> Option<impl Fn(usize, usize) -> Pacer + use<>> {
        let is_latency = args.mode == Mode::Latency;
        let rate = args.rate.or(is_latency.then_some(LATENCY_RATE))?;
        let (mean, hz) = (args.size.mean(), clock::hz());
        let rate = rate.packets_per_second(mean);
        let ramp = args.ramp_from.zip(args.ramp_time.or(args.duration));
        let ramp = ramp.map(|(from, time)| (from.packets_per_second(mean), time));
        let backlog = (!is_latency).then_some(BACKLOG);
        let burst = args.burst.unwrap_or(1) as usize;
        Some(move |count: usize, index: usize| {
            let own = share(burst, count, index).max(1);
            let part = if burst < count {
                1.0 / approximate(count as u64)
            } else {
                approximate(own as u64) / approximate(burst as u64)
            };
            let ramp = ramp.map(|(from, time)| Ramp {
                from: from * part,
                to: rate * part,
                time,
                start,
                hz,
            });
            let pacer = Pacer::new(rate * part, hz, start, backlog);
            pacer.in_bursts(u32::try_from(own).unwrap_or(u32::MAX)).along(ramp)
        })
    }

    /// In which order they take their turns.
    pub fn order(&self, flows: u32) -> Order {
        self.seed.map_or(Order::Sequence, |seed| Order::Shuffled(Shuffle::new(flows, seed)))
    }
}

/// The places in the order that the one of `count` senders has whose number is `index`.
pub fn places(flows: u32, count: usize, index: usize) -> Range<u32> {
    let start = |index: usize| {
        let (flows, index, count) = (u64::from(flows), index as u64, count.max(1) as u64);
        u32::try_from(flows * index / count).unwrap_or(u32::MAX)
    };
    start(index)..start(index.saturating_add(1))
}

/// That all frames have room for their headers, and for a stamp where they are expected back.
fn check_sizes(args: &GenArgs, headers: &Headers) -> Result<(), Failure> {
    let (smallest, fcs) = match args.mode {
        Mode::Rxonly | Mode::Io => return Ok(()),
        Mode::Throughput | Mode::BackToBack => {
            let smallest = args.rfc2544.sizes.iter().copied().min();
            (smallest.map_or(0, usize::from), 4)
        }
        Mode::Txonly | Mode::Flowgen | Mode::Latency => (args.size.smallest(), 0),
    };
    let head = headers.template(1).head.len();
    let least = if args.mode == Mode::Txonly { head } else { head + STAMP_LEN } + fcs;
    if smallest >= least {
        return Ok(());
    }
    let what = if args.mode == Mode::Txonly { "" } else { " and the generator's stamp" };
    Err(Failure::usage(format!(
        "frames of {smallest} bytes have no room for these headers{what}: expected {least} or more"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_share_the_places() {
        for (flows, count) in [(1, 1), (10, 3), (1 << 20, 7), (5, 5), (3, 5)] {
            let all = (0..count).flat_map(|index| places(flows, count, index));
            assert!(all.eq(0..flows), "{flows} {count}");
        }
        assert_eq!(places(10, 3, 2), 6..10);
    }
}
