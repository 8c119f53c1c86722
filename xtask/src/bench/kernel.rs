use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::process::sh;
use e2e::{Netns, Process, Ringway, ringway};

use super::progress;

/// Sends, and, as far as that is done for it in the kernel, receives.
const SOURCE_CPU: u32 = 0;
/// Forwards.
const FORWARDER_CPU: u32 = 1;
/// Sizes of frames, in bytes without FCS.
const SIZES: [u16; 2] = [64, 1500];
/// How long the rate may settle.
const WARM_UP: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(30);

/// What forwards between two virtual Ethernet interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarder {
    /// The kernel's bridge, on whatever core a frame is on.
    Bridge,
    /// The same, but on the core where our switch runs (receive packet steering).
    SteeredBridge,
    /// Our switch between AF_XDP ports.
    AfXdp,
    /// The same, with interfaces that only the switch polls.
    PolledAfXdp,
    /// Our switch between AF_PACKET ports.
    AfPacket,
}

impl Forwarder {
    const ALL: [Self; 5] =
        [Self::Bridge, Self::SteeredBridge, Self::AfXdp, Self::PolledAfXdp, Self::AfPacket];
}

impl fmt::Display for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "kernel bridge",
            Self::SteeredBridge => "kernel bridge on a core of its own",
            Self::AfXdp => "ringway switch, AF_XDP",
            Self::PolledAfXdp => "ringway switch, AF_XDP, busy_poll=on",
            Self::AfPacket => "ringway switch, AF_PACKET",
        })
    }
}

/// What one forwarder did with frames of one size.
#[derive(Debug, Clone)]
pub struct Rate {
    pub forwarder: Forwarder,
    pub size: u16,
    /// Million packets per second that arrived, of every round.
    pub mpps: Vec<f64>,
}

/// Measures every forwarder once per round, in turn, for so many seconds.
pub fn run(rounds: usize, seconds: u64) -> Result<Vec<Rate>> {
    let mut rates: Vec<Rate> = SIZES
        .iter()
        .flat_map(|&size| Forwarder::ALL.map(|forwarder| Rate { forwarder, size, mpps: vec![] }))
        .collect();
    let (all, started) = (rounds * rates.len(), Instant::now());
    for round in 0..rounds {
        let done = round * rates.len();
        for (index, rate) in rates.iter_mut().enumerate() {
            let what = format!("{} bytes, {}", rate.size, rate.forwarder);
            progress(&what, done + index, all, started);
            let time = Duration::from_secs(seconds);
            rate.mpps.push(measure(rate.forwarder, rate.size, time).context(what)?);
        }
    }
    Ok(rates)
}

/// A source, a forwarder and a sink, each in a namespace, joined by virtual Ethernet:
/// `s0`-`pa`, `pb`-`k0`.
struct Stage {
    source: Netns,
    forwarder: Netns,
    sink: Netns,
}

impl Stage {
    fn new() -> Result<Self> {
        let (source, forwarder, sink) = (Netns::new()?, Netns::new()?, Netns::new()?);
        let stage = Self { source, forwarder, sink };
        let at = stage.forwarder.name();
        for (near, netns, far) in [("pa", &stage.source, "s0"), ("pb", &stage.sink, "k0")] {
            let to = netns.name();
            sh(&format!("ip link add {near} netns {at} type veth peer name {far} netns {to}"))?;
            stage.forwarder.sh(&format!("ip link set {near} addrgenmode none up"))?;
            netns.sh(&format!("ip link set {far} addrgenmode none up"))?;
        }
        Ok(stage)
    }

    fn bridge(&self, steered: bool) -> Result<()> {
        self.forwarder
            .sh("ip link add br0 type bridge && ip link set br0 addrgenmode none up && \
             ip link set pa master br0 && ip link set pb master br0")?;
        if steered {
            let mask = 1 << FORWARDER_CPU;
            self.forwarder.sh(&format!("echo {mask} >/sys/class/net/pa/queues/rx-0/rps_cpus"))?;
        }
        Ok(())
    }

    /// Teaches the forwarder where the sink is, so that it need not flood.
    fn introduce(&self) -> Result<()> {
        let binary = ringway::binary()?.display().to_string();
        let arguments = "gen txonly --port af-packet:k0 --count 100 --rate 1k --src-mac 02:52:57:00:00:02 \
             --dst-mac 02:52:57:00:00:01";
        self.sink.sh(&format!("{binary} {arguments} >/dev/null")).map(drop)
    }

    /// Starts to send all that goes.
    fn send(&self, size: u16) -> Result<Process> {
        let binary = ringway::binary()?.display().to_string();
        let line = format!(
            "{binary} gen txonly --port af-packet:s0 --size {size} --no-pattern --flows 1 \
             --cores {SOURCE_CPU}"
        );
        self.source.spawn(&line)
    }

    /// Frames that have arrived at the sink.
    fn arrived(&self) -> Result<u64> {
        let text = self.sink.sh("cat /sys/class/net/k0/statistics/rx_packets")?;
        text.trim().parse().with_context(|| text)
    }
}

/// Million packets per second that arrive.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn measure(forwarder: Forwarder, size: u16, time: Duration) -> Result<f64> {
    let stage = Stage::new()?;
    let dir = tempfile::tempdir()?;
    let switch = |ports: [&str; 2]| -> Result<Option<Ringway>> {
        let cores = FORWARDER_CPU.to_string();
        let ringway = Ringway::switch_in(&stage.forwarder, dir.path(), &ports, &cores)?;
        ringway.wait_links(&["a", "b"])?;
        Ok(Some(ringway))
    };
    let _running = match forwarder {
        Forwarder::Bridge | Forwarder::SteeredBridge => {
            stage.bridge(forwarder == Forwarder::SteeredBridge)?;
            None
        }
        Forwarder::AfXdp => switch(["a=af-xdp:pa", "b=af-xdp:pb"])?,
        Forwarder::PolledAfXdp => switch(["a=af-xdp:pa,busy_poll=on", "b=af-xdp:pb,busy_poll=on"])?,
        Forwarder::AfPacket => switch(["a=af-packet:pa", "b=af-packet:pb"])?,
    };
    stage.introduce()?;
    let known = stage.arrived()?;
    let _source = stage.send(size)?;
    e2e::wait::until("frames", LIMIT, Duration::from_millis(10), || {
        Ok((stage.arrived()? > known + 1000).then_some(()))
    })?;
    std::thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), stage.arrived()?);
    std::thread::sleep(time);
    let (time, after) = (start.elapsed(), stage.arrived()?);
    Ok((after - before) as f64 / time.as_secs_f64() / 1e6)
}
