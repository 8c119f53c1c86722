use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Model, PciNic, Qemu, Vm, Wire, frames, pci, wait};

use super::progress;

/// Frames on the way: fewer than the rings of either program have room for.
const WINDOW: usize = 64;
/// Bytes of a frame without FCS.
const SIZE: usize = 64;
/// How long a program may take to open its devices.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

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

    /// The command that forwards between two devices, on the only CPU.
    fn command(self, model: Model, [a, b]: [&str; 2]) -> String {
        let driver = if model == Model::Igb { "igb" } else { "virtio-pci" };
        match self {
            Self::L2fwd => format!(
                "ringway l2fwd -P --port {driver}:{a} --port {driver}:{b} --cores 0 --busy-poll -T 0"
            ),
            Self::Testpmd => format!(
                "dpdk-testpmd --lcores 0@0,1@0 -m 128 --no-telemetry -a {a} -a {b} -- --forward-mode=mac \
                 --total-num-mbufs=8192 --disable-link-check --auto-start"
            ),
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

/// Measures each program on each kind of device once per round, in turn, all in one guest.
pub fn run(rounds: usize, seconds: u64) -> Result<Vec<Rate>> {
    let dir = tempfile::tempdir()?;
    let models = [("igb", Model::Igb), ("virtio-net", Model::Virtio)];
    let mut stages = Vec::new();
    for (bus, (device, model)) in (1..).step_by(2).zip(models) {
        stages.push((device, Stage::new(dir.path(), model, bus)?));
    }
    let nics = stages.iter().flat_map(|(_, stage)| &stage.nics);
    let image = pci::spec_with_testpmd()?.build()?;
    let machine = Qemu::new("bench", &image).iommu();
    let mut vm = nics.clone().fold(machine, Qemu::pci_nic).start(dir.path())?;
    vm.wait_boot()?;
    vm.sh(&pci::huge_pages(128))?;
    vm.sh("modprobe vfio-pci && modprobe vfio_iommu_type1")?;
    for nic in nics {
        vm.sh(&pci::give_to_vfio(&nic.address()))?;
    }
    let mut rates: Vec<Rate> = stages
        .iter()
        .flat_map(|(device, _)| Program::ALL.map(|program| Rate { device, program, kpps: vec![] }))
        .collect();
    let (all, started) = (rounds * rates.len(), Instant::now());
    for round in 0..rounds {
        let done = round * rates.len();
        for (index, rate) in rates.iter_mut().enumerate() {
            let what = format!("{}, {}", rate.device, rate.program);
            progress(&what, done + index, all, started);
            let (_, stage) = &stages[index / Program::ALL.len()];
            let time = Duration::from_secs(seconds);
            rate.kpps.push(stage.measure(&mut vm, rate.program, time).context(what)?);
        }
    }
    Ok(rates)
}

/// Two devices of a kind, and their cables.
struct Stage {
    model: Model,
    wires: [Wire; 2],
    nics: [PciNic; 2],
}

impl Stage {
    fn new(dir: &Path, model: Model, bus: u8) -> Result<Self> {
        let wire = |bus: u8| Wire::new(dir, &format!("w{bus}"));
        let wires = [wire(bus)?, wire(bus + 1)?];
        let nic = |bus: u8, wire| PciNic::new(model, bus, &format!("52:54:00:00:00:0{bus}"), wire);
        let nics = [nic(bus, &wires[0]), nic(bus + 1, &wires[1])];
        Ok(Self { model, wires, nics })
    }

    /// Thousand packets per second that go in at one device and come out at the other.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn measure(&self, vm: &mut Vm, program: Program, time: Duration) -> Result<f64> {
        let addresses = self.nics.each_ref().map(PciNic::address);
        let command = program.command(self.model, addresses.each_ref().map(String::as_str));
        // Testpmd ends when its standard input does.
        let line = "rm -f /tmp/in; mkfifo /tmp/in; sleep 1000 >/tmp/in & echo $! >/tmp/sleeper;";
        vm.sh(&format!("{line} {command} </tmp/in >/tmp/log 2>&1 & echo $! >/tmp/forwarder"))?;
        let [a, b] = &self.wires;
        let frame = frames::frame([0x52, 0x54, 0, 0, 0, 9], [2, 0, 0, 0, 0, 9], SIZE, 1);
        let mut alive = || vm.sh("[ -d /proc/$(cat /tmp/forwarder) ] || { cat /tmp/log; false; }");
        // It forwards when frames come through, whatever it has printed by then.
        wait::until("a frame", LIMIT, PAUSE, || {
            alive().context("it has ended")?;
            a.send(&frame)?;
            Ok(b.receive(PAUSE)?.map(drop))
        })
        .with_context(|| command.clone())?;
        b.drain(PAUSE)?;
        let go = |time| -> Result<f64> {
            let start = Instant::now();
            let arrived = a.circulate(b, &frame, WINDOW, time)?;
            let rate = arrived as f64 / start.elapsed().as_secs_f64() / 1e3;
            b.drain(PAUSE)?;
            Ok(rate)
        };
        let rate = go(time / 4).and_then(|_| go(time));
        let log = vm.sh("kill $(cat /tmp/forwarder) $(cat /tmp/sleeper); \
             while [ -d /proc/$(cat /tmp/forwarder) ]; do usleep 10000; done; cat /tmp/log")?;
        rate.with_context(|| log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_told_the_devices() {
        for program in Program::ALL {
            for model in [Model::Igb, Model::Virtio] {
                let command = program.command(model, ["0000:01:00.0", "0000:02:00.0"]);
                assert!(command.contains("0000:01:00.0") && command.contains("0000:02:00.0"));
            }
        }
    }
}
