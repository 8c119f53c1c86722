use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Model, PciNic, Qemu, Vm, Wire, frames, pci, wait};
use serde_json::{Value, json};

use super::progress;

/// Frames on the way: fewer than the rings of either program have room for.
const WINDOW: usize = 64;
/// Bytes of a frame without FCS.
const SIZE: usize = 64;
/// How long a program may take to open its devices.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// QEMU's names for the hub and for the wire to it.
const HUB: u8 = 1;
const WIRE: &str = "wire";

/// What forwards between two devices in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `ringway l2fwd`.
    L2fwd,
    /// DPDK's testpmd in `mac` mode.
    Testpmd,
}

impl Program {
    const ALL: [Self; 2] = [Self::L2fwd, Self::Testpmd];

    /// The command that forwards between two devices, on the only CPU, and prints its statistics
    /// every `seconds`.
    fn command(self, model: Model, [a, b]: [&str; 2], seconds: u64) -> String {
        let driver = if model == Model::Igb { "igb" } else { "virtio-pci" };
        match self {
            Self::L2fwd => format!(
                "ringway l2fwd -P --port {driver}:{a} --port {driver}:{b} --cores 0 --busy-poll \
                 -T {seconds} --json"
            ),
            Self::Testpmd => format!(
                "dpdk-testpmd --lcores 0@0,1@0 -m 128 --no-telemetry -a {a} -a {b} -- \
                 --forward-mode=mac --total-num-mbufs=8192 --disable-link-check --auto-start \
                 --stats-period {seconds}"
            ),
        }
    }

    /// Packets per second that both devices received between the last two statistics in `log`.
    fn rate(self, log: &str) -> Option<f64> {
        match self {
            Self::L2fwd => {
                let statistics = |line: &str| -> Option<(f64, f64)> {
                    let line: Value = serde_json::from_str(line).ok()?;
                    let now = line.get("statistics")?;
                    Some((now["seconds"].as_f64()?, now["total"]["received"].as_f64()?))
                };
                let mut last = log.lines().rev().filter_map(statistics);
                let ((end, after), (start, before)) = (last.next()?, last.next()?);
                Some((after - before) / (end - start))
            }
            Self::Testpmd => {
                let rate = |line: &str| {
                    line.split_once("Rx-pps:")?.1.split_whitespace().next()?.parse::<f64>().ok()
                };
                let mut last = log.lines().rev().filter_map(rate);
                Some(last.next()? + last.next()?)
            }
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L2fwd => "ringway l2fwd",
            Self::Testpmd => "testpmd mac",
        })
    }
}

/// What one program did with one kind of device.
#[derive(Debug, Clone)]
pub struct Rate {
    pub device: &'static str,
    pub program: Program,
    /// Thousand packets per second, of every round.
    pub kpps: Vec<f64>,
}

/// Measures each program on each kind of device once per round, in turn. Each kind has a guest of
/// its own: what the other's program has left going round would be at work too.
pub fn run(rounds: usize, seconds: u64) -> Result<Vec<Rate>> {
    let models = [("igb", Model::Igb), ("virtio-net", Model::Virtio)];
    let (all, started) = (models.len() * rounds * Program::ALL.len(), Instant::now());
    let mut rates = Vec::new();
    for (device, model) in models {
        let dir = tempfile::tempdir()?;
        let stage = Stage::new(dir.path(), model)?;
        let mut vm = stage.boot(dir.path())?;
        let first = rates.len();
        rates.extend(Program::ALL.map(|program| Rate { device, program, kpps: Vec::new() }));
        for round in 0..rounds {
            for (program, rate) in rates[first..].iter_mut().enumerate() {
                let what = format!("{device}, {}", rate.program);
                let done = first * rounds + round * Program::ALL.len() + program;
                progress(&what, done, all, started);
                rate.kpps.push(stage.measure(&mut vm, rate.program, seconds).context(what)?);
            }
        }
    }
    Ok(rates)
}

/// Two devices of a kind on a hub, so that what one of them sends the other one receives: frames go
/// round between them and the program, and nothing but these three is at work.
struct Stage {
    model: Model,
    /// By which frames get onto the hub.
    wire: Wire,
    nics: [PciNic; 2],
}

impl Stage {
    fn new(dir: &Path, model: Model) -> Result<Self> {
        let wire = Wire::new(dir, WIRE)?;
        let nic = |bus: u8| PciNic::on_hub(model, bus, &format!("52:54:00:00:00:0{bus}"), HUB);
        Ok(Self { model, wire, nics: [nic(1), nic(2)] })
    }

    /// Starts a guest with the devices, which programs can use.
    fn boot(&self, dir: &Path) -> Result<Vm> {
        let machine = Qemu::new("bench", &pci::spec_with_testpmd()?.build()?).iommu();
        let arguments = self.wire.plug_into_hub(WIRE, HUB);
        let machine = machine.arguments(arguments.iter().map(String::as_str));
        let mut vm = self.nics.iter().fold(machine, Qemu::pci_nic).start(dir)?;
        vm.wait_boot()?;
        vm.sh(&pci::huge_pages(128))?;
        vm.sh("modprobe vfio-pci && modprobe vfio_iommu_type1")?;
        for nic in &self.nics {
            vm.sh(&pci::give_to_vfio(&nic.address()))?;
        }
        Ok(vm)
    }

    fn plug(vm: &mut Vm, up: bool) -> Result<()> {
        vm.qmp("set_link", &json!({ "name": WIRE, "up": up })).map(drop)
    }

    /// Thousand packets per second that go in at one device and come out at the other.
    fn measure(&self, vm: &mut Vm, program: Program, seconds: u64) -> Result<f64> {
        let addresses = self.nics.each_ref().map(PciNic::address);
        let addresses = addresses.each_ref().map(String::as_str);
        let command = program.command(self.model, addresses, seconds);
        Self::plug(vm, true)?;
        vm.sh(&format!("{command} </dev/null >/tmp/log 2>&1 & echo $! >/tmp/forwarder"))?;
        let filled = self.fill(vm).with_context(|| command.clone());
        if filled.is_ok() {
            // The last period begins after the first of two.
            std::thread::sleep(Duration::from_secs(2 * seconds + 1));
        }
        let log = vm.sh("kill $(cat /tmp/forwarder); \
             while [ -d /proc/$(cat /tmp/forwarder) ]; do usleep 10000; done; cat /tmp/log")?;
        filled.with_context(|| log.clone())?;
        program.rate(&log).map(|rate| rate / 1e3).with_context(|| format!("no statistics: {log}"))
    }

    /// Has as many frames go round as there are to be, and the wire out of the way.
    fn fill(&self, vm: &mut Vm) -> Result<()> {
        let frame = frames::frame([0x52, 0x54, 0, 0, 0, 9], [2, 0, 0, 0, 0, 9], SIZE, 1);
        let mut sent = 0;
        // The program forwards when a frame comes back, whatever it has printed by then.
        wait::until("a frame", LIMIT, PAUSE, || {
            let alive = vm.sh("[ -d /proc/$(cat /tmp/forwarder) ]");
            alive.context("it has ended")?;
            self.wire.send(&frame)?;
            sent += 1;
            Ok(self.wire.receive(PAUSE)?.map(drop))
        })?;
        // Each goes both ways.
        for _ in sent..WINDOW / 2 {
            self.wire.send(&frame)?;
        }
        Self::plug(vm, false)?;
        self.wire.drain(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_told_the_devices() {
        for program in Program::ALL {
            for model in [Model::Igb, Model::Virtio] {
                let command = program.command(model, ["0000:01:00.0", "0000:02:00.0"], 2);
                assert!(command.contains("0000:01:00.0") && command.contains("0000:02:00.0"));
            }
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_period() {
        let line = |seconds: f64, received: u64| json!({ "statistics": { "seconds": seconds, "total": { "received": received } } });
        let log = format!("{}\n{}\n{}\nend", line(1.0, 5), line(2.0, 100), line(4.0, 300));
        assert_eq!(Program::L2fwd.rate(&log), Some(100.0));
        assert_eq!(Program::L2fwd.rate(&line(1.0, 5).to_string()), None);
        let log = "  Rx-pps:   7   Rx-bps:  9\n\n  Rx-pps:  8   Rx-bps:  9\n\
                   Rx-pps:   30   Rx-bps:  9\n  Tx-pps: 1\n  Rx-pps:  12   Rx-bps:  9\n";
        assert_eq!(Program::Testpmd.rate(log), Some(42.0));
        assert_eq!(Program::Testpmd.rate("Rx-pps: 1"), None);
    }
}
