//! Layer 2 forwarding, all of it: opens ports, joins them, and forwards frames between them.
//!
//! This is what a program on Ringway's crates looks like. It knows nothing of the command that uses
//! it; `docs/l2fwd.md` goes through it line by line.
//!
//! ```
//! use l2fwd::{Options, Plan};
//!
//! let options = Options {
//!     burst: packet::BURST,
//!     mac_updating: true,
//!     buffer: ethdev::TxBufferOptions::default(),
//!     idle: ethdev::IdleOptions::default(),
//! };
//! let plan = |name: &str, to| Plan { name: name.to_owned(), device: "null:".to_owned(), to };
//! let plans = [plan("left", 1), plan("right", 0)];
//! let (ports, paths) = l2fwd::open(&plans, &options, &drivers::Drivers::default())?;
//! assert_eq!((ports.len(), paths.len()), (2, 2));
//! # Ok::<(), ethdev::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use drivers::Drivers;
use eal::{WorkerContext, clock};
use ethdev::{
    Error, Idle, IdleOptions, Load, OpenPort, Port, RxQueue, TxBuffer, TxBufferOptions, share_out,
};
use packet::headers::EthernetMut;
use packet::{MacAddr, Pool, PoolCache};

/// How to forward.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most frames of one receive burst, [`BURST`](packet::BURST) at most.
    pub burst: usize,
    /// Whether frames get new addresses: see [`addresses`].
    pub mac_updating: bool,
    /// How frames wait to be sent.
    pub buffer: TxBufferOptions,
    /// When workers sleep.
    pub idle: IdleOptions,
}

/// A port to open, and the number of the port that its frames go to. No two ports send to the
/// same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its device string.
    pub device: String,
    /// Where its frames go.
    pub to: usize,
}

/// One way through: what is received from one queue of a port is sent to one queue of another.
#[derive(Debug)]
pub struct Path {
    rx: RxQueue,
    tx: TxBuffer,
    /// The addresses that frames get, destination and source.
    addresses: Option<(MacAddr, MacAddr)>,
    burst: usize,
}

/// Opens ports and joins their queues as planned: each receive queue of a port with a transmit queue
/// of the other, the same number where there are as many.
pub fn open(
    plans: &[Plan],
    options: &Options,
    drivers: &Drivers,
) -> Result<(Vec<Port>, Vec<Path>), Error> {
    let (mut ports, mut receivers, mut senders) = (Vec::new(), Vec::new(), Vec::new());
    for plan in plans {
        let OpenPort { port, rx, tx } = drivers::open(&plan.name, &plan.device, drivers)?;
        ports.push(port);
        receivers.push(rx);
        senders.push(tx);
    }
    let mut paths = Vec::new();
    for (plan, rx) in plans.iter().zip(receivers) {
        let (Some(to), Some(tx)) = (ports.get(plan.to), senders.get_mut(plan.to)) else { continue };
        let addresses = options.mac_updating.then(|| addresses(plan.to, to));
        let queues = share_out(std::mem::take(tx), rx.len());
        paths.extend(rx.into_iter().zip(queues).map(|(rx, tx)| Path {
            rx,
            tx: TxBuffer::new(tx, options.buffer),
            addresses,
            burst: options.burst,
        }));
    }
    Ok((ports, paths))
}

/// The addresses of frames that leave by port `number`: they go to 02:00:00:00:00:NUMBER, and come
/// from the port itself.
fn addresses(number: usize, port: &Port) -> (MacAddr, MacAddr) {
    let [.., high, low] = number.to_be_bytes();
    (MacAddr([0x02, 0, 0, 0, high, low]), port.control().mac())
}

impl Path {
    /// Forwards a burst, and sends what has waited long enough; returns the number of frames.
    #[inline]
    fn forward(&mut self, now: u64, cache: &mut PoolCache) -> usize {
        let mut burst = self.rx.rx_burst(self.burst);
        let count = burst.frames().len();
        if count > 0 {
            if let Some((destination, source)) = self.addresses {
                burst.for_each_head(|head| {
                    if let Some(mut ethernet) = EthernetMut::parse(head) {
                        ethernet.set_destination(destination);
                        ethernet.set_source(source);
                    }
                });
            }
            self.tx.push_burst(burst, now, cache);
        }
        self.tx.drain(now, cache);
        count
    }
}

/// The work of one worker: forwards on `paths` until it is asked to stop.
// As a part of a caller that is built for size, it would be built for that, too.
#[inline(never)]
pub fn work(
    mut paths: Vec<Path>,
    idle: IdleOptions,
    pool: &Pool,
    load: Arc<Load>,
    context: &WorkerContext,
) -> io::Result<()> {
    let mut cache = pool.cache();
    let mut idle = Idle::new(idle, context.stop_event(), load)?;
    paths.iter().for_each(|path| idle.watch(&path.rx));
    while !context.should_stop() {
        let now = clock::now();
        let mut frames = 0;
        for path in &mut paths {
            frames += path.forward(now, &mut cache);
        }
        if frames == 0 {
            // Nothing is on its way that it would pay to wait for.
            paths.iter_mut().for_each(|path| path.tx.send_waiting(now, &mut cache));
        }
        if idle.may_sleep(frames, now) {
            let due = paths.iter().filter_map(|path| path.tx.due()).min();
            idle.sleep(&mut paths, |path| &mut path.rx, due);
        }
    }
    paths.iter_mut().for_each(|path| path.tx.flush(&mut cache));
    Ok(())
}
