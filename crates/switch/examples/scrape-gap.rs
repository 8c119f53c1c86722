//! Whether a worker is held up while somebody takes the figures of 256 ports.
//!
//! `cargo run --release -p ringway-switch --example scrape-gap`
//!
//! One of the ports tells when it was polled. The worker polls all the time; how far apart two polls
//! are is counted while nobody looks, and while somebody takes all figures every 10 ms, as a scrape
//! does once. What the system does to the worker's thread is in both; a look that held the worker up
//! would be another gap each.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use eal::clock;
use ethdev::{Link, OpenPort, PortControl, PortInfo, QueueStats, RxDriver, RxQueue, ask_depths};
use packet::{FrameBatch, MacAddr};
use switch::{PortOptions, Switch, SwitchConfig};

const PORTS: usize = 256;
const SPAN: Duration = Duration::from_secs(3);

/// Gaps in microseconds from which on they are counted.
const BOUNDS: [u64; 5] = [10, 50, 100, 1_000, 10_000];

/// How many gaps were at least so long, and how many there were.
#[derive(Debug, Default)]
struct Gaps {
    long: [AtomicU64; BOUNDS.len()],
    all: AtomicU64,
}

/// Receives nothing, and tells when it was asked.
struct Probe {
    batch: FrameBatch,
    gaps: Arc<Gaps>,
    last: u64,
}

impl RxDriver for Probe {
    fn receive(&mut self, _max: usize, _stats: &QueueStats) {
        let now = clock::now();
        let gap = clock::duration(now.saturating_sub(std::mem::replace(&mut self.last, now)));
        let is_long = BOUNDS.iter().zip(&self.gaps.long);
        for (_, count) in is_long.filter(|(bound, _)| gap >= Duration::from_micros(**bound)) {
            count.fetch_add(1, Relaxed);
        }
        self.gaps.all.fetch_add(1, Relaxed);
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {}
}

struct Control;

impl PortControl for Control {
    fn info(&self) -> PortInfo {
        PortInfo { driver: "probe", rx_queues: 1, tx_queues: 0, max_mtu: 1500 }
    }

    fn link(&self) -> Link {
        Link { up: true, ..Link::default() }
    }

    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 1])
    }

    fn mtu(&self) -> u16 {
        1500
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let switch = Switch::start(&SwitchConfig { busy_poll: true, ..SwitchConfig::default() })?;
    for number in 1..PORTS {
        switch.open_port(&format!("port{number}"), "null:", &PortOptions::default())?;
    }
    let gaps = Arc::<Gaps>::default();
    let probe =
        Probe { batch: FrameBatch::with_segments(0), gaps: Arc::clone(&gaps), last: clock::now() };
    let rx = vec![RxQueue::new(Box::new(probe), Arc::default())];
    let open = OpenPort::new("probe", "probe:", Box::new(Control), rx, Vec::new());
    switch.add_port(open, &PortOptions::default())?;
    println!("{:<10} {:>10}  polls apart by at least {BOUNDS:?} us", "", "polls");
    for looks in [false, true, false, true] {
        let take = || (gaps.all.swap(0, Relaxed), gaps.long.each_ref().map(|n| n.swap(0, Relaxed)));
        let _ = take();
        let (begin, mut times) = (Instant::now(), 0_u32);
        while begin.elapsed() < SPAN {
            if looks {
                ask_depths();
                let figures = (switch.samples(), switch.bridges(), switch.workers());
                times += u32::from(figures.0.len() == PORTS);
            }
            // Where it goes on looking it takes a core, which is another matter.
            std::thread::sleep(Duration::from_millis(10));
        }
        let (all, long) = take();
        let what = if looks { format!("{times} looks") } else { "nobody".to_owned() };
        println!("{what:<10} {all:>10}  {long:?}");
    }
    Ok(())
}
