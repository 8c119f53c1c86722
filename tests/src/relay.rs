use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::frames::{difference, frame, read_pcap, write_pcap};
use crate::testpmd::{RunningTestpmd, Testpmd};

const LIMIT: Duration = Duration::from_secs(60);

/// Frames from pcap files sent through something and back into pcap files, both ways at once:
///
/// ```text
/// left pcap <-> left port <-> what is tested <-> right port <-> right pcap
/// ```
///
/// One testpmd holds the pcap devices and the two ports, and forwards between them.
#[derive(Debug, Clone)]
pub struct Relay {
    left: String,
    right: String,
    queues: u16,
    sizes: Vec<usize>,
    count: u32,
    arguments: Vec<String>,
    addresses: Option<[Addresses; 2]>,
}

/// Destination and source address of a frame.
type Addresses = ([u8; 6], [u8; 6]);

/// A relay whose testpmd is up and does not forward yet.
#[derive(Debug)]
pub struct RunningRelay {
    /// Port 0 and 3 are the pcap devices, 1 and 2 the left and the right port.
    pub testpmd: RunningTestpmd,
    left: Side,
    right: Side,
    addresses: Option<[Addresses; 2]>,
}

/// What a pcap device sends, and where it writes what it gets, all queues together.
#[derive(Debug)]
struct Side {
    device: String,
    sent: Vec<Vec<u8>>,
    outputs: Vec<PathBuf>,
}

impl Relay {
    /// A relay with one queue over two virtual devices of DPDK.
    #[must_use]
    pub fn new(left: impl Into<String>, right: impl Into<String>) -> Self {
        Self {
            left: left.into(),
            right: right.into(),
            queues: 1,
            sizes: vec![60, 64, 65, 128, 300, 1000, 1514],
            // Fewer than a ring holds, so that nobody has a reason to drop one.
            count: 100,
            arguments: Vec::new(),
            addresses: None,
        }
    }

    /// The number of queue pairs; the devices must have as many.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// The sizes of the frames in turn, without FCS, and how many go through each queue
    /// in each direction.
    #[must_use]
    pub fn frames(mut self, sizes: &[usize], count: u32) -> Self {
        self.sizes = sizes.to_vec();
        self.count = count;
        self
    }

    /// Destination and source address of all frames that arrive, at the left and at the right,
    /// where what is tested changes them.
    #[must_use]
    pub fn addresses(mut self, left: Addresses, right: Addresses) -> Self {
        self.addresses = Some([left, right]);
        self
    }

    /// Further arguments of testpmd.
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Writes the pcap files to `dir` and starts testpmd on `cpu`.
    ///
    /// # Errors
    /// When testpmd does not come up.
    pub fn start(&self, dir: &Path, cpu: usize) -> Result<RunningRelay> {
        let (left, right) = (self.side(dir, 0)?, self.side(dir, 1)?);
        let testpmd = Testpmd::new()
            .cpu(cpu)
            .queues(self.queues)
            .vdev(&left.device)
            .vdev(&self.left)
            .vdev(&self.right)
            .vdev(&right.device)
            .arguments(self.arguments.iter().map(String::as_str))
            .start()?;
        Ok(RunningRelay { testpmd, left, right, addresses: self.addresses })
    }

    fn side(&self, dir: &Path, side: u8) -> Result<Side> {
        let mac = |side| [2, 0, 0, 0, 0, side];
        let (mut sent, mut outputs) = (Vec::new(), Vec::new());
        let mut device = format!("net_pcap{side}");
        for queue in 0..self.queues {
            let seed = |n: u32| n | u32::from(queue) << 16 | u32::from(side) << 24;
            let frames: Vec<_> = (0..self.count)
                .zip(self.sizes.iter().cycle())
                .map(|(n, &len)| frame(mac(1 - side), mac(side), len, seed(n)))
                .collect();
            let path = |what: &str| dir.join(format!("{what}{side}-{queue}.pcap"));
            let (input, output) = (path("in"), path("out"));
            write_pcap(&input, &frames)?;
            device += &format!(",rx_pcap={},tx_pcap={}", input.display(), output.display());
            sent.extend(frames);
            outputs.push(output);
        }
        Ok(Side { device, sent, outputs })
    }
}

impl Side {
    /// What arrived here; something in between may choose the queue, so all are one set.
    fn arrived(&self) -> Result<Vec<Vec<u8>>> {
        let frames: Result<Vec<_>> = self.outputs.iter().map(|path| read_pcap(path)).collect();
        Ok(frames?.concat())
    }
}

impl RunningRelay {
    /// Forwards until everything has arrived and compares what has.
    ///
    /// # Errors
    /// When a frame is lost, changed or made up.
    pub fn forward(mut self) -> Result<()> {
        self.testpmd.command("start")?;
        for (port, sent) in [(3, self.left.sent.len()), (0, self.right.sent.len())] {
            let arrived = self
                .testpmd
                .wait_stats(port, LIMIT, |stats| stats.tx_packets >= sent as u64)
                .with_context(|| format!("of {sent} frames to port {port} not all arrived"));
            if let Err(error) = arrived {
                let stats = self.testpmd.command("show port stats all")?;
                return Err(error.context(stats));
            }
        }
        self.testpmd.quit()?;
        let [at_left, at_right] = self.addresses.map_or([None; 2], |both| both.map(Some));
        for (from, to, addresses) in
            [(&self.left, &self.right, at_right), (&self.right, &self.left, at_left)]
        {
            let expected = from.sent.iter().map(|frame| match addresses {
                Some((to, from)) => [&to, &from, &frame[12..]].concat(),
                None => frame.clone(),
            });
            let expected: Vec<_> = expected.collect();
            if let Some(difference) = difference(&expected, &to.arrived()?) {
                bail!("{}: {difference}", from.device);
            }
        }
        Ok(())
    }
}
