use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::guest::{Agent, Guest, accept, listen};
use crate::image::GuestImage;
use crate::pci::PciNic;
use crate::process::Process;
use crate::qmp::Qmp;

/// A network device of a guest, backed by a vhost-user socket.
#[derive(Debug, Clone)]
pub struct Nic {
    socket: PathBuf,
    mac: String,
    queues: u16,
    mtu: Option<u16>,
    server: bool,
    options: String,
}

impl Nic {
    /// A device with one queue pair; QEMU connects to `socket`, and connects again when it is lost.
    #[must_use]
    pub fn new(socket: &Path, mac: &str) -> Self {
        Self {
            socket: socket.to_owned(),
            mac: mac.to_owned(),
            queues: 1,
            mtu: None,
            server: false,
            options: String::new(),
        }
    }

    /// The number of queue pairs. Linux uses as many as the guest has CPUs.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// The MTU that the device offers the guest (`VIRTIO_NET_F_MTU`).
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// QEMU listens on the socket and the back-end connects.
    #[must_use]
    pub fn server(mut self) -> Self {
        self.server = true;
        self
    }

    /// Further properties of `virtio-net-pci`, such as `packed=on,mrg_rxbuf=off`.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        self.options = options.to_owned();
        self
    }

    fn arguments(&self, n: usize) -> Vec<String> {
        let Self { socket, mac, queues, .. } = self;
        // Connections of its own accord and again after a loss, or those of others.
        let mode = if self.server { "server=on,wait=off" } else { "reconnect-ms=200" };
        // A vector for each ring, one for the control queue and one for configuration changes.
        let vectors = 2 * queues + 2;
        let mut device =
            format!("virtio-net-pci,netdev=net{n},mac={mac},mq=on,vectors={vectors},romfile=");
        if let Some(mtu) = self.mtu {
            device += &format!(",host_mtu={mtu}");
        }
        if !self.options.is_empty() {
            device += &format!(",{}", self.options);
        }
        [
            "-chardev".to_owned(),
            format!("socket,id=char{n},path={},{mode}", socket.display()),
            "-netdev".to_owned(),
            format!("vhost-user,id=net{n},chardev=char{n},queues={queues}"),
            "-device".to_owned(),
            device,
        ]
        .into()
    }
}

/// What a kernel does when it starts, and a guest of a test has no use for: self-tests of ciphers and
/// the keys of signed modules, which take a second under emulation.
const LEFT_OUT: &str = "cryptomgr.notests initcall_blacklist=jent_mod_init,crypto_kdf108_init,\
                        load_system_certificate_list,init_encrypted,bpf_tcp_ca_kfunc_init,\
                        bpf_dummy_struct_ops_init";

/// A virtual machine to be started.
#[derive(Debug)]
pub struct Qemu {
    name: String,
    image: GuestImage,
    memory_mib: u32,
    /// Whether a back-end may see the memory: `on` or `off`.
    share: &'static str,
    cpus: u16,
    nics: Vec<Nic>,
    pci_nics: Vec<PciNic>,
    iommu: bool,
    kernel_arguments: String,
    arguments: Vec<String>,
}

impl Qemu {
    /// A machine with one CPU and 256 MiB of memory that boots `image`.
    #[must_use]
    pub fn new(name: &str, image: &GuestImage) -> Self {
        Self {
            name: name.to_owned(),
            image: image.clone(),
            memory_mib: 256,
            share: "on",
            cpus: 1,
            nics: Vec::new(),
            pci_nics: Vec::new(),
            iommu: false,
            kernel_arguments: "ipv6.disable=1".to_owned(),
            arguments: Vec::new(),
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

    /// Memory that only the machine itself sees, which is a mistake.
    #[must_use]
    pub const fn private_memory(mut self) -> Self {
        self.share = "off";
        self
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

    /// Waits for a guest that is migrated to it instead of booting, and does not let it run by
    /// itself: see [`migrate`](crate::migration::migrate).
    #[must_use]
    pub fn incoming(self) -> Self {
        self.arguments(["-S", "-incoming", "defer"])
    }

    /// Waits for a guest that is migrated to it and runs as soon as it can: see
    /// [`migrate_by_postcopy`](crate::migration::migrate_by_postcopy).
    #[must_use]
    pub fn incoming_by_postcopy(self) -> Self {
        self.arguments(["-incoming", "defer"])
    }

    /// Adds arguments of QEMU's command line.
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Starts the machine and does not wait for it to boot, so that several can boot at once.
    /// Sockets and the console's log go to `dir`.
    ///
    /// A vhost-user back-end that listens must be there: QEMU waits for it before it boots.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(&self, dir: &Path) -> Result<Vm> {
        let name = &self.name;
        let path = |what: &str| dir.join(format!("{name}.{what}"));
        let console = path("console");
        for stale in [path("agent"), path("qmp")] {
            drop(std::fs::remove_file(stale));
        }
        let agent = listen(&path("agent"))?;
        let qmp = listen(&path("qmp"))?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(self.machine(&console));
        command.args(["-qmp", &format!("unix:{}", path("qmp").display())]);
        command.args(["-chardev", &format!("socket,id=agent,path={}", path("agent").display())]);
        command.args(["-device", "virtio-serial-pci"]);
        command.args(["-device", "virtserialport,chardev=agent,name=agent"]);
        for (n, nic) in self.nics.iter().enumerate() {
            command.args(nic.arguments(n));
        }
        for nic in &self.pci_nics {
            command.args(nic.arguments());
        }
        command.args(&self.arguments);
        let process = Process::start(format!("QEMU {name}"), command)?;
        let limit = Duration::from_secs(20);
        let connect = || -> Result<_> {
            let agent = Agent::new(accept(&agent, limit).context("agent")?);
            Ok((agent, Qmp::new(accept(&qmp, limit).context("QMP")?)?))
        };
        let (agent, qmp) = connect().with_context(|| process.log())?;
        Ok(Vm { guest: Guest::new(name, process, agent, Some(console)), qmp })
    }

    fn machine(&self, console: &Path) -> Vec<String> {
        let memory = self.memory_mib;
        let kernel = format!(
            "console=ttyS0 quiet panic=0 mitigations=off nokaslr no_timer_check tsc=reliable \
             net.ifnames=0 maxcpus=1 {LEFT_OUT} {}",
            self.kernel_arguments
        );
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
            format!("-object memory-backend-memfd,id=mem,size={memory}M,share={}", self.share),
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .chain(["-kernel".to_owned(), self.image.kernel.display().to_string()])
        .chain(["-initrd".to_owned(), self.image.initramfs.display().to_string()])
        .chain(["-append".to_owned(), kernel])
        .chain(["-serial".to_owned(), format!("file:{}", console.display())])
        .collect()
    }
}

/// A running virtual machine.
#[derive(Debug)]
pub struct Vm {
    guest: Guest,
    qmp: Qmp,
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
    /// Presses the reset button. [`Self::wait_boot`] is next.
    ///
    /// # Errors
    /// When QEMU does not reset the machine.
    pub fn reset(&mut self) -> Result<()> {
        self.qmp("system_reset", &json!({}))?;
        self.qmp.wait_event("RESET", Duration::from_secs(20))?;
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
            if target.to_string_lossy().starts_with("/memfd:memory-backend-memfd") {
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
