//! `ringway l2fwd` from start to end: opens the ports, starts the workers, prints statistics until
//! it is told to end.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drivers::Drivers;
use eal::event::{Events, Interest};
use eal::sandbox::Needs;
use eal::signals::Signals;
use eal::{Epoll, Workers, clock};
use ethdev::{Error, IdleOptions, Load, Port, TxBufferOptions};
use packet::pool::{CACHE_SIZE, DATA_ROOM};

use super::args::L2fwdArgs;
use super::forward::{self, Options, Path, Plan};
use super::report::{Reporter, Worker};
use super::{pairs, spread};
use crate::exit::Failure;
use crate::sandbox::Sandbox;
use crate::wait;

/// Packet buffers for each path: some wait in its transmit buffer, and a device may have as many as
/// its rings hold.
const BUFFERS_PER_PATH: usize = 2048;
/// The fewest packet buffers.
const MIN_BUFFERS: usize = 8192;
/// Time between two looks at the links.
const TICK: Duration = Duration::from_millis(20);
/// How long links may take without a word about it.
const PATIENCE: Duration = Duration::from_millis(500);

/// `ringway l2fwd`.
pub fn run(args: &L2fwdArgs) -> Result<(), Failure> {
    let signals = Signals::install().map_err(Failure::runtime)?;
    if let Some(cores) = &args.cores {
        cores.check_available().map_err(Failure::usage)?;
    }
    let plans = pairs::plan(&args.port, args.portmap.as_ref()).map_err(Failure::usage)?;
    // Before there are threads, which inherit it.
    let devices: Vec<&str> = plans.iter().map(|plan| plan.device.as_str()).collect();
    let _sandbox = Sandbox::enter_for(args.confine.sandbox, &devices, Needs::new())?;
    clock::Clock::get();
    let options = options(args);
    let drivers = Drivers::new();
    let (mut ports, paths) = forward::open(&plans, &options, &drivers)?;
    let shares = share(args, paths)?;
    set_promiscuous(&mut ports, args.promiscuous)?;
    note_loops(&plans);
    if !wait_for_links(&ports, args.wait_link, &signals)? {
        return Ok(());
    }
    let (workers, seen) = start(args, &options, shares, &drivers)?;
    let mut reporter = Reporter::new(args.json, plans, seen, &ports);
    reporter.ready();
    let watched = watch(&workers, &signals, args.stats, || reporter.print(&ports));
    workers.stop();
    // Workers send what waits before they end, so the counters are complete afterwards.
    let exits = workers.join();
    reporter.summary(&ports);
    watched?;
    match exits.iter().find_map(|exit| exit.panic.as_ref()) {
        None => Ok(()),
        Some(_) => Err(Failure::runtime("a worker had ended by a panic; see the log")),
    }
}

fn options(args: &L2fwdArgs) -> Options {
    let drain = Duration::from_micros(args.drain_us);
    let idle = IdleOptions::default();
    Options {
        burst: usize::from(args.burst),
        mac_updating: !args.no_mac_updating,
        buffer: TxBufferOptions { drain, ..TxBufferOptions::default() },
        idle: if args.busy_poll { IdleOptions { after: None } } else { idle },
    }
}

/// Spreads the paths over the workers.
fn share(args: &L2fwdArgs, paths: Vec<Path>) -> Result<Vec<Vec<Path>>, Failure> {
    let queues = paths.len();
    let cores = args.cores.as_ref().map(eal::CoreList::len);
    let per_core = args.queues_per_core.map(usize::from);
    spread::spread(paths, per_core, cores).map_err(|needed| {
        Failure::usage(format!(
            "{queues} receive queues at {} per core need {needed} cores; --cores has {}",
            per_core.unwrap_or_default(),
            cores.unwrap_or_default(),
        ))
    })
}

/// Has ports receive the frames of all stations, or their own only. Those that are no network cards
/// receive all in any case.
fn set_promiscuous(ports: &mut [Port], on: bool) -> Result<(), Failure> {
    for port in ports {
        let name = port.name().to_owned();
        match port.control_mut().set_promiscuous(on) {
            Ok(()) => {}
            Err(error) if on => return Err(Failure::runtime(format!("port {name}: {error}"))),
            Err(Error::Unsupported { .. }) => {}
            Err(error) => tracing::info!("port {name} receives frames for all stations: {error}"),
        }
    }
    Ok(())
}

/// Says of ports that get their own frames back that they do.
fn note_loops(plans: &[Plan]) {
    for (_, plan) in plans.iter().enumerate().filter(|(number, plan)| plan.to == *number) {
        tracing::info!("port {} has no other one: its frames go back out of it", plan.name);
    }
}

/// Waits until all links are up or `patience` is over, and says so where it takes long; `false` when
/// a signal came meanwhile.
fn wait_for_links(ports: &[Port], patience: Duration, signals: &Signals) -> Result<bool, Failure> {
    let start = Instant::now();
    let mut said: Option<String> = None;
    loop {
        let down: Vec<&str> =
            ports.iter().filter(|port| !port.control().link().up).map(Port::name).collect();
        let down = down.join(", ");
        if down.is_empty() {
            return Ok(true);
        }
        if start.elapsed() >= patience {
            tracing::warn!("no link: {down}; forwarding begins without, the link may come later");
            return Ok(true);
        }
        if start.elapsed() >= PATIENCE && said.as_ref() != Some(&down) {
            let left = patience.saturating_sub(start.elapsed()).as_secs_f64();
            tracing::info!("waiting for the link of {down}, {left:.0} s at most (--wait-link)");
            said = Some(down);
        }
        if wait::readable(signals, TICK)? {
            return Ok(false);
        }
    }
}

/// Starts a worker for each share of the paths.
fn start(
    args: &L2fwdArgs,
    options: &Options,
    shares: Vec<Vec<Path>>,
    drivers: &Drivers,
) -> Result<(Workers, Vec<Worker>), Failure> {
    let paths: usize = shares.iter().map(Vec::len).sum();
    let buffers = paths.saturating_mul(BUFFERS_PER_PATH).max(MIN_BUFFERS);
    let buffers = buffers.saturating_add(shares.len().saturating_mul(CACHE_SIZE));
    let buffers = u32::try_from(buffers).unwrap_or(u32::MAX);
    let pool = drivers.pool("l2fwd", buffers, DATA_ROOM).map_err(Failure::runtime)?;
    let mut workers = Workers::new().map_err(Failure::runtime)?;
    let mut seen = Vec::new();
    for (index, share) in shares.into_iter().enumerate() {
        let core = args.cores.as_ref().and_then(|cores| cores.iter().nth(index));
        let load = Arc::<Load>::default();
        seen.push(Worker { core, queues: share.len(), load: Arc::clone(&load) });
        let (pool, idle) = (pool.clone(), options.idle);
        let work = move |context: eal::WorkerContext| {
            if let Err(error) = forward::work(share, idle, &pool, load, &context) {
                tracing::error!("worker {index} cannot work: {error}");
            }
        };
        workers.start(&format!("l2fwd-{index}"), core, work).map_err(Failure::runtime)?;
    }
    Ok((workers, seen))
}

/// Calls `print` every `interval`, unless that is zero, until a signal comes.
fn watch(
    workers: &Workers,
    signals: &Signals,
    interval: Duration,
    mut print: impl FnMut(),
) -> Result<(), Failure> {
    let epoll = Epoll::new().map_err(Failure::runtime)?;
    epoll.add(signals.as_fd(), 0, Interest::READ).map_err(Failure::runtime)?;
    epoll.add(workers.exited(), 1, Interest::READ).map_err(Failure::runtime)?;
    let mut events = Events::new();
    let mut next = Instant::now().checked_add(interval).filter(|_| !interval.is_zero());
    loop {
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        epoll.wait(&mut events, left).map_err(Failure::runtime)?;
        if signals.received().is_some() {
            return Ok(());
        }
        if events.iter().any(|event| event.token == 1) {
            return Err(Failure::runtime("a worker has ended before its time; see the log"));
        }
        if next.is_some_and(|next| Instant::now() >= next) {
            print();
            next = next.and_then(|next| next.checked_add(interval));
        }
    }
}
