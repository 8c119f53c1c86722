//! Traffic between several ports, each of which sends and receives.

use std::thread::sleep;
use std::time::Duration;

use eal::clock;
use ethdev::{RxQueue, TxQueue};

use super::announce::announce;
use super::lane::{Lane, Source};
use super::receiver::Receiver;
use super::run::{empty_lanes, share, spread};
use super::sender::Sender;
use super::topology::{Link, Routes, links};
use super::traffic::{Traffic, places};
use crate::cli::{GenArgs, Mode};
use crate::exit::Failure;

/// How long what is tested has for what was announced to it.
const SETTLE: Duration = Duration::from_millis(200);

/// Traffic between several ports.
#[derive(Debug)]
pub struct Several {
    links: Vec<(Link, Traffic)>,
    routes: Routes,
    /// Flows of a link.
    flows: u32,
    ports: usize,
}

impl Several {
    /// What `args` ask for between `ports` ports.
    ///
    /// # Errors
    /// When that does not go together, or there are not enough addresses.
    pub fn new(args: &GenArgs, traffic: &Traffic, ports: usize) -> Result<Self, Failure> {
        if args.port2.is_some() {
            return Err(Failure::usage("--port2 is of use with one --port only"));
        }
        if matches!(args.mode, Mode::Io | Mode::Throughput | Mode::BackToBack) {
            return Err(Failure::usage(
                "several --port are of use with txonly, rxonly, flowgen and latency: here there is \
                 --port and --port2",
            ));
        }
        if args.headers.dst_mac.is_some() {
            return Err(Failure::usage(
                "--dst-mac is of no use with several --port: frames go to the addresses that \
                 --src-mac gives the other ports",
            ));
        }
        let flows = traffic.flows(1);
        let links = links(args.topology.unwrap_or_default(), ports).map_err(Failure::usage)?;
        let routes = Routes::new(&links, flows).map_err(Failure::usage)?;
        let mut first_flow = 0;
        let mut all = Vec::new();
        for link in links {
            all.push((link, traffic.between(link, first_flow).map_err(Failure::usage)?));
            first_flow += flows;
        }
        Ok(Self { links: all, routes, flows, ports })
    }

    /// Spreads the queues of the ports over threads; what is tested learns where everybody is before.
    pub fn into_lanes(
        self,
        args: &GenArgs,
        queues: Vec<(Vec<RxQueue>, Vec<TxQueue>)>,
        run: u16,
    ) -> Vec<Lane> {
        let most = queues.iter().map(|(rx, tx)| rx.len().max(tx.len())).sum::<usize>();
        let mut lanes = empty_lanes(args, most.max(1));
        let checks = args.mode != Mode::Txonly;
        let mut sending = Vec::new();
        for (port, (rx, tx)) in queues.into_iter().enumerate() {
            if checks {
                spread(&mut lanes, rx, |lane, queue| lane.checked.push((queue, port)));
            } else {
                spread(&mut lanes, rx, |lane, queue| lane.discarded.push(queue));
            }
            sending.push(tx);
        }
        if matches!(args.mode, Mode::Flowgen | Mode::Latency) {
            self.announce(&mut sending);
        }
        if args.mode != Mode::Rxonly {
            let sources = self.sources(args, sending, run);
            spread(&mut lanes, sources, |lane, source| lane.sources.push(source));
        }
        for lane in lanes.iter_mut().filter(|_| checks) {
            let mut receiver = Receiver::new((args.mode != Mode::Rxonly).then_some(run));
            if args.mode != Mode::Rxonly {
                receiver.expect(self.routes.clone());
            }
            if args.mode == Mode::Latency {
                receiver.measure_latency();
            }
            lane.receiver = Some(receiver);
        }
        lanes
    }

    /// Has each port send from its own addresses, once from each.
    fn announce(&self, queues: &mut [Vec<TxQueue>]) {
        for (port, queues) in queues.iter_mut().enumerate() {
            let to_it = self.links.iter().find(|(link, _)| link.to == port);
            if let Some(((_, traffic), queue)) = to_it.zip(queues.first_mut()) {
                announce(traffic, queue);
            }
        }
        sleep(SETTLE);
    }

    /// A source for each transmit queue, which sends on all links of its port.
    fn sources(&self, args: &GenArgs, queues: Vec<Vec<TxQueue>>, run: u16) -> Vec<Source> {
        let start = clock::now();
        let mut sources = Vec::new();
        for (port, queues) in queues.into_iter().enumerate() {
            let burst = args.burst.map_or(usize::MAX, |burst| burst as usize);
            let count = queues.len().min(self.flows as usize).min(burst).max(1);
            let own: Vec<&Traffic> = self
                .links
                .iter()
                .filter(|(link, _)| link.from == port)
                .map(|(_, traffic)| traffic)
                .collect();
            for (index, queue) in queues.into_iter().take(count).enumerate() {
                let senders = own.iter().map(|traffic| {
                    let builder = traffic.builder(self.flows, run);
                    let places = places(self.flows, count, index);
                    Sender::new(builder, &args.size, traffic.order(self.flows), places)
                });
                let pacer = own.first().and_then(|traffic| traffic.pacer(args, start));
                sources.push(Source {
                    queue,
                    senders: senders.collect(),
                    turn: 0,
                    pacer: pacer.map(|pacer| pacer(count, index)),
                    limit: args.count.map(|total| {
                        let total = usize::try_from(total).unwrap_or(usize::MAX);
                        let of_port = share(total, self.ports, port);
                        share(of_port, count, index) as u64
                    }),
                    span: None,
                });
            }
        }
        sources
    }
}
