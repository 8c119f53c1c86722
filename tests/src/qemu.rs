use std::cmp::Reverse;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use eal::clock::{Clock, Source};
use serde_json::{Value, json};

use crate::guest::{Agent, BOOT, Guest, accept, listen};
use crate::image::GuestImage;
use crate::memory;
use crate::nic::Nic;
use crate::part::Part;
use crate::pci::PciNic;
use crate::peers::find_program;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::snapshot::Snapshot;

/// What a kernel does when it starts, and a guest of a test has no use for: self-tests of ciphers and
/// the keys of signed modules, which take a second under emulation.
const LEFT_OUT: &str = "cryptomgr.notests initcall_blacklist=jent_mod_init,crypto_kdf108_init,\
                        load_system_certificate_list,init_encrypted,bpf_tcp_ca_kfunc_init,\
                        bpf_dummy_struct_ops_init";

/// The program, which `cargo xtask setup` installs.
const PROGRAM: &str = "qemu-system-x86_64";

/// Root ports that a machine has at least: those with one network device and with several, or none,
/// can go on from one snapshot.
const ROOT_PORTS: u8 = 3;

/// How a machine comes to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It goes on from a snapshot of one that has booted, and its network devices are plugged in
    /// then.
    Snapshot,
    /// It boots, with all its devices.
    Boot,
    /// It waits for a guest that is migrated to it, which runs by itself or when it is told to.
    Migration { runs: bool },
}

/// A virtual machine to be started.
#[derive(Debug)]
pub struct Qemu {
    name: String,
    image: GuestImage,
    memory_mib: u32,
    /// Whether no back-end sees the memory.
    is_private: bool,
    cpus: u16,
    nics: Vec<Nic>,
    pci_nics: Vec<PciNic>,
    iommu: bool,
    kernel_arguments: String,
    arguments: Vec<String>,
    start: Start,
}

impl Qemu {
    /// A machine with one CPU and 256 MiB of memory that boots `image`.
    #[must_use]
    pub fn new(name: &str, image: &GuestImage) -> Self {
        Self {
            name: name.to_owned(),
            image: image.clone(),
            memory_mib: 256,
            is_private: false,
            cpus: 1,
            nics: Vec::new(),
            pci_nics: Vec::new(),
            iommu: false,
            kernel_arguments: "ipv6.disable=1".to_owned(),
            arguments: Vec::new(),
            start: Start::Snapshot,
        }
    }

    /// Adds a network device: `eth0`, `eth1` and so on.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Adds a network device whose cable is in the test's hands, at the PCI address that it says.
    #[must_use]
    pub fn pci_nic(mut self, nic: &PciNic) -> Self {
        self.pci_nics.push(nic.clone());
        self
    }

    /// Gives the machine an IOMMU, which lets the kernel's own drivers through (`iommu=pt`), the
    /// instructions that DPDK wants, and 1 GiB of memory. One CPU is all that such a machine can
    /// have: its devices are reset again and again, which moves their registers about. With two
    /// CPUs QEMU has been seen to send one's write to its timer elsewhere then ("vtd_mem_write:
    /// MMIO over range: addr=0x380"), and that CPU's clock stood still.
    #[must_use]
    pub fn iommu(mut self) -> Self {
        self.iommu = true;
        self.memory_mib = 1024;
        self.kernel_arguments += " intel_iommu=on iommu=pt";
        self
    }

    /// Gives the machine an IOMMU that translates for all devices behind it, the kernel's own
    /// drivers too, and takes each translation back when it is over (`iommu.strict=1`). By default
    /// Linux takes all of them back every 10 ms, those of the rings with them. As with
    /// [`iommu`](Self::iommu), one CPU is all that it can have.
    #[must_use]
    pub fn translating(mut self) -> Self {
        self.iommu = true;
        self.kernel_arguments += " intel_iommu=on iommu=nopt iommu.strict=1";
        self
    }

    /// The size of memory.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Memory that only the machine itself sees, which is a mistake, as it has it by default. The
    /// machine [boots](Self::booting), since nobody can put a snapshot there.
    #[must_use]
    pub const fn private_memory(mut self) -> Self {
        self.is_private = true;
        self.booting()
    }

    /// The number of CPUs, all but one of which come up after the kernel: it changes its own code
    /// while it starts, and under emulation a second CPU has been seen to run into a breakpoint
    /// of such a change after that was over, which is a panic.
    #[must_use]
    pub fn cpus(mut self, cpus: u16) -> Self {
        self.cpus = cpus;
        self
    }

    /// Replaces `ipv6.disable=1`, which keeps a guest from sending frames unasked.
    #[must_use]
    pub fn kernel_arguments(mut self, arguments: &str) -> Self {
        self.kernel_arguments = arguments.to_owned();
        self
    }

    /// Boots, with all its devices. Otherwise a machine goes on from a snapshot of one that has
    /// booted, which takes a tenth of the time, and its network devices are plugged in then.
    #[must_use]
    pub const fn booting(mut self) -> Self {
        self.start = Start::Boot;
        self
    }

    /// Waits for a guest that is migrated to it instead of booting, and does not let it run by
    /// itself: see [`migrate`](crate::migration::migrate).
    #[must_use]
    pub const fn incoming(mut self) -> Self {
        self.start = Start::Migration { runs: false };
        self
    }

    /// Waits for a guest that is migrated to it and runs as soon as it can: see
    /// [`migrate_by_postcopy`](crate::migration::migrate_by_postcopy).
    #[must_use]
    pub const fn incoming_by_postcopy(mut self) -> Self {
        self.start = Start::Migration { runs: true };
        self
    }

    /// Adds arguments of QEMU's command line, and has the machine [boot](Self::booting): nobody
    /// knows whether what they stand for could be added later.
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self.start = Start::Boot;
        self
    }

    /// Starts the machine and does not wait for its guest, so that several can boot at once.
    /// Sockets and the console's log go to `dir`.
    ///
    /// A vhost-user back-end that listens must be there: QEMU waits for it before the guest runs.
    ///
    /// # Errors
    /// When QEMU does not start, or does not take a device.
    pub fn start(&self, dir: &Path) -> Result<Vm> {
        match self.start {
            Start::Snapshot => self.start_from_snapshot(dir),
            Start::Boot => self.launch(dir, &self.nics(), &[], None),
            Start::Migration { runs: true } => {
                self.launch(dir, &self.nics(), &["-incoming", "defer"], None)
            }
            Start::Migration { runs: false } => {
                self.launch(dir, &self.nics(), &["-S", "-incoming", "defer"], None)
            }
        }
    }

    fn start_from_snapshot(&self, dir: &Path) -> Result<Vm> {
        let path = self.image.initramfs.with_extension(format!("{:016x}", self.kind()?));
        let snapshot = Snapshot::at(&path);
        let boot = tempfile::tempdir()?;
        snapshot.keep(|| self.launch(boot.path(), &[], &[], None))?;
        let waits = ["-S", "-incoming", "defer"];
        let mut vm = self.launch(dir, &[], &waits, Some(snapshot.memory()))?;
        snapshot.restore(&mut vm)?;
        for part in self.nics() {
            vm.plug(&part).with_context(|| vm.state())?;
        }
        vm.qmp("cont", &json!({}))?;
        vm.plugged = Some(self.addresses());
        Ok(vm)
    }

    /// Starts QEMU for the machine, with these network devices, and with what the file `memory` has.
    fn launch(
        &self,
        dir: &Path,
        nics: &[Part],
        more: &[&str],
        memory: Option<&Path>,
    ) -> Result<Vm> {
        let name = &self.name;
        let path = |what: &str| dir.join(format!("{name}.{what}"));
        let console = path("console");
        for stale in [path("agent"), path("qmp")] {
            drop(std::fs::remove_file(stale));
        }
        let agent = listen(&path("agent"))?;
        let qmp = listen(&path("qmp"))?;
        let memory = memory::new(self.memory_mib, memory)?;
        let mut command = Command::new(PROGRAM);
        command.args(["-object", &self.backend(&memory)]);
        command.args(self.machine());
        command.args(["-device", &format!("vmgenid,guid={}", self.generation())]);
        command.args(["-serial", &format!("file:{}", console.display())]);
        command.args(["-qmp", &format!("unix:{}", path("qmp").display())]);
        command.args(["-chardev", &format!("socket,id=agent,path={}", path("agent").display())]);
        command.args(["-device", "virtio-serial-pci"]);
        command.args(["-device", "virtserialport,chardev=agent,name=agent"]);
        command.args(nics.iter().flat_map(Part::arguments));
        command.args(&self.arguments).args(more);
        let process = Process::start_with(format!("QEMU {name}"), command, &[memory.as_fd()])?;
        let limit = Duration::from_secs(60);
        let connect = || -> Result<_> {
            let agent = Agent::new(accept(&agent, limit).context("agent")?);
            Ok((agent, Qmp::new(accept(&qmp, limit).context("QMP")?)?))
        };
        let (agent, qmp) = connect().with_context(|| process.log())?;
        Ok(Vm { guest: Guest::new(name, process, agent, Some(console)), qmp, plugged: None })
    }

    /// The network devices. Those on vhost-user sockets are behind the root ports that others leave.
    fn nics(&self) -> Vec<Part> {
        let mut by_function: Vec<_> = self.pci_nics.iter().collect();
        // The guest looks at a device that is plugged in when it has function 0.
        by_function.sort_by_key(|nic| (nic.bus(), Reverse(nic.address())));
        let pci_nics = by_function.into_iter().flat_map(PciNic::parts);
        let nics = self.nics.iter().zip(self.free_bus()..).enumerate();
        pci_nics.chain(nics.flat_map(|(n, (nic, bus))| nic.parts(n, bus))).collect()
    }

    /// The first bus without a device of the test's.
    fn free_bus(&self) -> u8 {
        self.pci_nics.iter().map(PciNic::bus).max().map_or(1, |bus| bus + 1)
    }

    /// The PCI addresses of those network devices.
    fn addresses(&self) -> Vec<String> {
        let nics = self.nics.iter().zip(self.free_bus()..);
        let nics = nics.map(|(_, bus)| format!("0000:{bus:02x}:00.0"));
        self.pci_nics.iter().map(PciNic::address).chain(nics).collect()
    }

    fn root_ports(&self) -> u8 {
        let used = (self.free_bus()..).nth(self.nics.len()).unwrap_or(u8::MAX) - 1;
        if self.start == Start::Boot { used } else { used.max(ROOT_PORTS) }
    }

    /// What tells this guest from others that go on from the same snapshot: it changes, and the
    /// kernel takes new random numbers in place of those that all of them have. A guest that moves
    /// to another QEMU stays the same one.
    fn generation(&self) -> String {
        let mut hash = DefaultHasher::new();
        let pci_nics = self.pci_nics.iter().map(PciNic::mac);
        pci_nics.chain(self.nics.iter().map(Nic::mac)).for_each(|mac| mac.hash(&mut hash));
        format!("00000000-0000-4000-8000-{:012x}", hash.finish() >> 16)
    }

    /// What machines have in common that can go on from one snapshot.
    fn kind(&self) -> Result<u64> {
        let program = find_program(PROGRAM).context("QEMU is not installed")?;
        let program = std::fs::metadata(program)?;
        let mut hash = DefaultHasher::new();
        (self.machine(), program.len(), program.modified()?).hash(&mut hash);
        Ok(hash.finish())
    }

    /// The memory, for QEMU.
    fn backend(&self, memory: &File) -> String {
        let size = format!("id=mem,size={}M", self.memory_mib);
        match self.is_private {
            true => format!("memory-backend-memfd,{size},share=off"),
            false => {
                format!("memory-backend-file,{size},share=on,mem-path={}", memory::path(memory))
            }
        }
    }

    /// Arguments for all but the parts that differ, and the files of one machine.
    fn machine(&self) -> Vec<String> {
        let memory = self.memory_mib;
        let kernel = kernel_arguments(&self.kernel_arguments);
        // The IOMMU comes before the devices that are to be behind it.
        let (irqchip, iommu) = match self.iommu {
            true => (
                ",kernel-irqchip=split",
                "-cpu max -device intel-iommu,intremap=on,device-iotlb=on",
            ),
            false => ("", "-cpu qemu64"),
        };
        [
            "-nodefaults -no-user-config -display none -accel tcg".to_owned(),
            format!(
                "-machine q35,memory-backend=mem,smbus=off,sata=off,usb=off,vmport=off{irqchip}"
            ),
            iommu.to_owned(),
            format!("-m {memory}M -smp {}", self.cpus),
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .chain(["-kernel".to_owned(), self.image.kernel.display().to_string()])
        .chain(["-initrd".to_owned(), self.image.initramfs.display().to_string()])
        .chain(["-append".to_owned(), kernel])
        .chain((1..=self.root_ports()).flat_map(root_port))
        .collect()
    }
}

/// The command line of a guest's kernel, with `more`.
#[must_use]
pub fn kernel_arguments(more: &str) -> String {
    let rate = counter_rate();
    format!(
        "console=ttyS0 quiet panic=0 mitigations=off nokaslr no_timer_check tsc=reliable {rate}\
         net.ifnames=0 maxcpus=1 {LEFT_OUT} {more}"
    )
}

/// Tells the kernel how fast its counter is, which under emulation is the host's. What it measures
/// itself when it boots may be off by a factor of nine where the emulator has to wait for a core
/// meanwhile; its clock then runs that much too fast, and all limits of time in the guest are as much
/// shorter. It measures once more later, for longer, and takes what it finds if that is close to this.
fn counter_rate() -> String {
    const MEGA: u64 = 1_000_000;
    let clock = Clock::get();
    match clock.source() {
        // Rounded, so that snapshots fit the next time.
        Source::Counter => format!("tsc_early_khz={} ", (clock.hz() + MEGA / 2) / MEGA * 1000),
        Source::Monotonic => String::new(),
    }
}

/// Arguments for a port that a device can be plugged into, even one with a page for each doorbell, which
/// has 8 MiB of them.
fn root_port(n: u8) -> [String; 2] {
    let address = n + 15;
    let place = format!("id=port{n},bus=pcie.0,chassis={n},addr={address:#x}");
    let port = format!("pcie-root-port,{place},pref64-reserve=32M");
    ["-device".to_owned(), port]
}

/// A running virtual machine.
#[derive(Debug)]
pub struct Vm {
    guest: Guest,
    qmp: Qmp,
    /// PCI addresses that the guest, which has booted, has not been seen to know.
    plugged: Option<Vec<String>>,
}

impl Deref for Vm {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl DerefMut for Vm {
    fn deref_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
}

impl Vm {
    /// Waits until the guest takes commands and knows all its devices.
    ///
    /// # Errors
    /// When it does not within [`BOOT`]; the message has the end of its console.
    pub fn wait_boot(&mut self) -> Result<()> {
        let Some(addresses) = self.plugged.take() else { return self.guest.wait_boot() };
        if addresses.is_empty() {
            return Ok(());
        }
        // The kernel looks at its buses once more when it has done so the first time, which is when
        // it has told the drivers.
        let line = format!(
            "cd /sys/bus/pci/devices; for device in {}; do \
             until [ -e $device ]; do usleep 10000; done; done; echo 1 >/sys/bus/pci/rescan",
            addresses.join(" ")
        );
        self.sh_within(&line, BOOT).map(drop)
    }

    /// Adds a part to the machine.
    fn plug(&mut self, part: &Part) -> Result<()> {
        let (command, arguments) = part.command();
        let answer = self.qmp(command, &arguments)?;
        // The command for people says what went wrong instead of failing.
        ensure!(answer.as_str().is_none_or(str::is_empty), "{arguments}: {answer}");
        Ok(())
    }

    /// Presses the reset button. [`Self::wait_boot`] is next.
    ///
    /// # Errors
    /// When QEMU does not reset the machine.
    pub fn reset(&mut self) -> Result<()> {
        self.plugged = None;
        self.qmp("system_reset", &json!({}))?;
        self.qmp.wait_event("RESET", Duration::from_secs(60))?;
        Ok(())
    }

    /// Runs a QMP command.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub fn qmp(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.qmp.execute(command, arguments)
    }

    /// The file that is the guest's memory. It changes while the guest runs.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn memory(&self) -> Result<File> {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.id()))? {
            let path = entry?.path();
            let target = std::fs::read_link(&path).unwrap_or_default();
            if target.to_string_lossy().starts_with(&format!("/memfd:{}", memory::NAME)) {
                return File::open(path).context("the guest's memory");
            }
        }
        bail!("QEMU {} has no file for its memory", self.name())
    }

    /// Waits for a QMP event and gives it.
    ///
    /// # Errors
    /// When it does not come within `limit` of the one before.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        self.qmp.wait_event(name, limit).with_context(|| self.state())
    }
}
