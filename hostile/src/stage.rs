//! A back-end with four ports: the well-behaved pair on two, the attacker on the third, and on the
//! fourth a front-end that exchanges frames with the attacker.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::testpmd::RunningTestpmd;
use e2e::{Ovs, Peer, Ringway, Testpmd};
use tempfile::TempDir;

use crate::attack::{BROADCAST, OWN_MAC, WITNESS_MAC};
use crate::machine::{self, BACK_END_CPU};
use crate::pair::Pair;
use crate::port::{Port, frame};
use crate::ring::Format;

/// What is attacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// `ringway switch`.
    Ringway,
    /// DPDK's testpmd, which forwards between its ports in pairs.
    Dpdk,
    /// OVS-DPDK.
    Ovs,
    /// One that runs already.
    Given(Sockets),
}

/// The sockets of a back-end's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// The port that is attacked.
    pub attacked: PathBuf,
    /// The port beside it that exchanges frames with it.
    pub witness: Option<PathBuf>,
    /// The ports of the well-behaved pair.
    pub pair: Option<[PathBuf; 2]>,
}

impl BackEnd {
    /// Those that this program can start.
    pub const ALL: [Self; 3] = [Self::Ringway, Self::Dpdk, Self::Ovs];

    /// The name in tables and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Dpdk => "dpdk",
            Self::Ovs => "ovs",
            Self::Given(_) => "given",
        }
    }

    /// The back-end and its version, for people.
    pub fn describe(&self) -> String {
        let package = |name: &str| {
            let mut query = Command::new("dpkg-query");
            let version = e2e::process::run(query.args(["-W", "-f=${Version}", name]));
            version.unwrap_or_else(|_| "of unknown version".into())
        };
        match self {
            Self::Ringway => format!("Ringway {}", env!("CARGO_PKG_VERSION")),
            Self::Dpdk => format!("DPDK testpmd {}", package("dpdk")),
            Self::Ovs => {
                format!("OVS-DPDK {} on it", package("openvswitch-switch-dpdk"))
            }
            Self::Given(sockets) => sockets.attacked.display().to_string(),
        }
    }

    /// Whether several of them can run at the same time: others take all huge pages there are.
    pub fn can_be_several(&self) -> bool {
        *self == Self::Ringway
    }

    /// Why it cannot be started here, if it cannot.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Ringway | Self::Given(_) => None,
            Self::Dpdk => Peer::Dpdk.missing(),
            Self::Ovs => Peer::Ovs.missing(),
        }
    }
}

/// The process.
#[derive(Debug)]
enum Running {
    Ringway(Ringway),
    Dpdk(RunningTestpmd),
    Ovs(Ovs),
    Given,
}

/// A back-end that runs, with the pair on it.
#[derive(Debug)]
pub struct Stage {
    // The pair goes before its back-end does.
    pub pair: Option<Pair>,
    running: Running,
    pub sockets: Sockets,
    _dir: TempDir,
}

impl Stage {
    /// Starts a back-end and the pair on it.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn start(back_end: &BackEnd) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (running, sockets) = launch(back_end, dir.path())?;
        let mut stage = Self { pair: None, running, sockets, _dir: dir };
        if let Some(id) = stage.id() {
            machine::prefer(id);
        }
        if let Some(sockets) = &stage.sockets.pair {
            stage.pair = Some(Pair::start(sockets).with_context(|| stage.log())?);
        }
        stage.probe(Duration::from_secs(20)).with_context(|| stage.log())?;
        Ok(stage)
    }

    fn id(&self) -> Option<u32> {
        match &self.running {
            Running::Ringway(ringway) => Some(ringway.id()),
            Running::Dpdk(testpmd) => Some(testpmd.id()),
            Running::Ovs(ovs) => Some(ovs.id()),
            Running::Given => None,
        }
    }

    /// How the back-end has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.running {
            Running::Ringway(ringway) => ringway.ended(),
            Running::Dpdk(testpmd) => testpmd.ended(),
            Running::Ovs(ovs) => ovs.ended(),
            Running::Given => None,
        }
    }

    /// Everything that the back-end has written.
    pub fn log(&self) -> String {
        match &self.running {
            Running::Ringway(ringway) => ringway.log(),
            Running::Dpdk(testpmd) => testpmd.log(),
            Running::Ovs(ovs) => ovs.log(),
            Running::Given => String::new(),
        }
    }

    /// Whether a fresh front-end on the attacked port can send and receive a frame.
    ///
    /// # Errors
    /// When it cannot within `limit`: what the last attempt came to.
    pub fn probe(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let result = self.probe_once(deadline);
            if result.is_ok() || Instant::now() > deadline {
                return result;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn probe_once(&self, deadline: Instant) -> Result<()> {
        let mut attacked = Port::start(&self.sockets.attacked, Format::Split, 64)?;
        let Some(witness) = &self.sockets.witness else {
            return self.probe_alone(&mut attacked, deadline);
        };
        let mut witness = Port::start(witness, Format::Split, 64)?;
        let hello = frame(BROADCAST, OWN_MAC, b"hello, is anybody there?");
        let answer = frame(OWN_MAC, WITNESS_MAC, b"yes, and it has heard you");
        // A connection may have been closed while it was being made: then there is another one.
        let deadline = deadline.min(Instant::now() + Duration::from_secs(2));
        let (mut heard, mut answered) = (false, false);
        let mut sent: Option<Instant> = None;
        while !(heard && answered) {
            if Instant::now() > deadline {
                bail!("a fresh front-end's frames: sent {heard}, received {answered}");
            }
            if sent.is_none_or(|at| at.elapsed() > Duration::from_millis(20)) {
                sent = Some(Instant::now());
                attacked.send(&hello);
                attacked.flush();
                if heard {
                    witness.send(&answer);
                    witness.flush();
                }
            }
            while let Some(frame) = witness.receive() {
                if !heard && frame == hello {
                    (heard, sent) = (true, None);
                }
            }
            while let Some(frame) = attacked.receive() {
                answered |= frame == answer;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Without a witness: that the device takes a frame.
    fn probe_alone(&self, port: &mut Port, deadline: Instant) -> Result<()> {
        port.send(&frame(BROADCAST, OWN_MAC, b"hello, is anybody there?"));
        port.flush();
        while port.pending() > 0 {
            if Instant::now() > deadline {
                bail!("a fresh front-end's frame is not taken");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// Starts a back-end with its ports in `dir`.
fn launch(back_end: &BackEnd, dir: &Path) -> Result<(Running, Sockets)> {
    let names = ["pair-a", "pair-b", "attacked", "witness"];
    let paths = names.map(|name| dir.join(name));
    let cpu = u32::try_from(BACK_END_CPU)?;
    let (running, [a, b, attacked, witness]) = match back_end {
        BackEnd::Given(sockets) => return Ok((Running::Given, sockets.clone())),
        BackEnd::Ringway => {
            let ports: Vec<_> = names
                .iter()
                .zip(&paths)
                .map(|(name, path)| format!("{name}=vhost-user:{}", path.display()))
                .collect();
            let ports: Vec<_> = ports.iter().map(String::as_str).collect();
            (Running::Ringway(Ringway::switch(dir, &ports, &cpu.to_string())?), paths)
        }
        BackEnd::Dpdk => {
            let mut testpmd = Testpmd::new().cpu(BACK_END_CPU);
            for (number, path) in paths.iter().enumerate() {
                testpmd = testpmd.vdev(format!("net_vhost{number},iface={}", path.display()));
            }
            let mut testpmd = testpmd.start()?;
            testpmd.command("start")?;
            (Running::Dpdk(testpmd), paths)
        }
        BackEnd::Ovs => {
            let ovs = Ovs::start(dir, cpu)?;
            let mut paths = paths;
            for (name, path) in names.iter().zip(&mut paths) {
                *path = ovs.add_vhost_server(name)?;
            }
            (Running::Ovs(ovs), paths)
        }
    };
    Ok((running, Sockets { attacked, witness: Some(witness), pair: Some([a, b]) }))
}
