use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rustix::fs::{FlockOperation, flock};

use crate::kernel::Kernel;
use crate::{collector, libvirt, ovn, ovs, ovs_suite, wait};

/// The variable that names the file in which skipped tests are listed.
pub const SKIPPED: &str = "RINGWAY_SKIPPED";

/// What DPDK needs free, in 2 MiB pages: a switch and the testpmd that drives it.
pub const HUGE_PAGES: u64 = 512;

/// Where the kernel tells and takes the number of 2 MiB pages.
pub const NR_HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Where the kernel tells how many of them nobody uses.
pub const FREE_HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Programs that [`Peer::Packages`] consists of, with Debian's packages that have them.
pub const PACKAGING: [(&str, &str); 8] = [
    ("dpkg-deb", "dpkg"),
    ("rpmbuild", "rpm"),
    ("buildah", "buildah"),
    ("objdump", "binutils"),
    ("xz", "xz-utils"),
    ("man", "man-db"),
    ("systemd-analyze", "systemd"),
    ("apparmor_parser", "apparmor"),
];

/// Something outside the project that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// QEMU with a Linux guest.
    Guest,
    /// DPDK's testpmd, with huge pages.
    Dpdk,
    /// DPDK's testpmd, for a guest to run: in huge pages of its own.
    Testpmd,
    /// Open vSwitch with DPDK, with huge pages.
    Ovs,
    /// The database of Open vSwitch and its tools.
    OvsDatabase,
    /// Its test-suite.
    OvsSuite,
    /// Network namespaces and TAP devices of the host's kernel.
    Netns,
    /// User Mode Linux.
    Uml,
    /// Valgrind, which counts instructions.
    Valgrind,
    /// A terminal: tmux.
    Terminal,
    /// What builds packages and checks them: dpkg, rpmbuild, buildah, systemd, man.
    /// tcpdump, with libpcap.
    Tcpdump,
    /// What builds packages and checks them: dpkg, rpmbuild, systemd, man, AppArmor.
    Packages,
    /// lldpd, which tells neighbours who it is.
    Lldpd,
    /// libvirt, and what makes a machine of namespaces for it.
    Libvirt,
    /// os-vif, by which OpenStack's compute service plugs guests into Open vSwitch.
    OsVif,
    /// The parsers of Prometheus' client for Python, and its validator of JSON schemas.
    Prometheus,
    /// Controllers for OpenFlow: os-ken and Faucet.
    Controllers,
    /// OVN, whose controller drives Open vSwitch.
    Ovn,
    /// nfdump: collectors of NetFlow, IPFIX and sFlow.
    Nfdump,
}

impl Peer {
    /// All peers.
    pub const ALL: [Self; 19] = [
        Self::Guest,
        Self::Dpdk,
        Self::Testpmd,
        Self::Ovs,
        Self::OvsDatabase,
        Self::OvsSuite,
        Self::Netns,
        Self::Uml,
        Self::Valgrind,
        Self::Terminal,
        Self::Tcpdump,
        Self::Packages,
        Self::Lldpd,
        Self::Libvirt,
        Self::OsVif,
        Self::Prometheus,
        Self::Controllers,
        Self::Ovn,
        Self::Nfdump,
    ];

    /// Why this machine does not have the peer, if it does not.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let why = match self {
            Self::Guest => no_guest(),
            Self::Dpdk => no_program("dpdk-testpmd").or_else(no_huge_pages),
            Self::Testpmd => no_program("dpdk-testpmd"),
            Self::Ovs => no_ovs().or_else(no_huge_pages),
            Self::OvsDatabase => no_ovs_database(),
            Self::OvsSuite => no_ovs_suite(),
            Self::Netns => no_netns(),
            Self::Uml => no_uml(),
            Self::Valgrind => no_program("valgrind"),
            Self::Terminal => no_program("tmux"),
            Self::Tcpdump => no_program("tcpdump"),
            Self::Packages => PACKAGING.iter().find_map(|(program, _)| no_program(program)),
            Self::Lldpd => no_program("lldpd"),
            Self::Libvirt => no_libvirt(),
            Self::OsVif => no_python_module("vif_plug_ovs", "python3-os-vif"),
            Self::Prometheus => no_prometheus(),
            Self::Controllers => no_controllers(),
            Self::Ovn => ovn::PROGRAMS.into_iter().find_map(no_program),
            Self::Nfdump => collector::PROGRAMS.iter().find_map(|(program, _)| no_program(program)),
        }?;
        let setup = fs::read_to_string(self.setup_note()).unwrap_or_default();
        Some(if setup.is_empty() { why } else { format!("{why} (set-up: {})", setup.trim()) })
    }

    /// Whether it takes so many huge pages that one test at a time can have it.
    #[must_use]
    pub const fn takes_huge_pages(self) -> bool {
        matches!(self, Self::Dpdk | Self::Ovs)
    }

    /// The file in which `cargo xtask setup` says why it could not provide the peer.
    #[must_use]
    pub fn setup_note(self) -> PathBuf {
        target_dir().join(format!("peer-{self}.missing"))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guest => "guest",
            Self::Dpdk => "dpdk",
            Self::Testpmd => "testpmd",
            Self::Ovs => "ovs",
            Self::OvsDatabase => "ovs-database",
            Self::OvsSuite => "ovs-suite",
            Self::Netns => "netns",
            Self::Uml => "uml",
            Self::Valgrind => "valgrind",
            Self::Terminal => "terminal",
            Self::Tcpdump => "tcpdump",
            Self::Packages => "packages",
            Self::Lldpd => "lldpd",
            Self::Libvirt => "libvirt",
            Self::OsVif => "os-vif",
            Self::Prometheus => "prometheus",
            Self::Controllers => "controllers",
            Self::Ovn => "ovn",
            Self::Nfdump => "nfdump",
        })
    }
}

/// The right to use the machine, which holds for all test programs: a test has it to itself, or shares
/// it with others that do. With it comes the right to huge pages, which one test at a time has.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "a lock ends when it is closed")] Vec<File>);

/// Waits until this test has the machine to itself, or gives `None` when a peer is missing: then the
/// test returns and is listed as skipped. With `CI=true` a missing peer is a failure.
///
/// For tests that measure. Where a program has others, too, they are in a module `alone`, so that
/// `cargo xtask test` can run them when nothing else runs.
///
/// # Panics
/// When a peer is missing and `CI=true`.
#[must_use]
pub fn require(peers: &[Peer]) -> Option<Turn> {
    take(peers, FlockOperation::LockExclusive)
}

/// As [`require`], for a test that does not mind others beside it and that others do not mind: all
/// that it uses is its own, it waits for events, and nothing that it checks is a matter of time.
///
/// # Panics
/// As there.
#[must_use]
pub fn require_shared(peers: &[Peer]) -> Option<Turn> {
    take(peers, FlockOperation::LockShared)
}

fn take(peers: &[Peer], how: FlockOperation) -> Option<Turn> {
    // First, so that what another test holds at the moment does not count as missing.
    let mut locks = vec![turn(how).expect("the lock of the tests with peers")];
    if peers.iter().any(|peer| peer.takes_huge_pages()) {
        let pages = locked("pages", FlockOperation::LockExclusive);
        locks.push(pages.expect("the lock of huge pages"));
    }
    are_there(peers).then_some(Turn(locks))
}

/// Whether these peers are there, for what needs no turn, since it does not matter what else the
/// machine does meanwhile. When one is missing, the caller is listed as skipped.
///
/// # Panics
/// When a peer is missing and `CI=true`.
#[must_use]
pub fn are_there(peers: &[Peer]) -> bool {
    let missing: Vec<String> = peers
        .iter()
        .filter_map(|peer| peer.missing().map(|why| format!("no {peer}: {why}")))
        .collect();
    if !missing.is_empty() {
        skip(&missing.join("; "));
    }
    missing.is_empty()
}

fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let program = std::env::args().next().unwrap_or_default();
    let program = Path::new(&program).file_stem().unwrap_or_default().to_string_lossy();
    // The name of a test program ends with a hash: `guests-0123456789abcdef`.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{program}::{test} must not be skipped with CI=true: {why}");
    println!("skipped: {why}");
    if let Some(path) = std::env::var_os(SKIPPED) {
        let list = OpenOptions::new().create(true).append(true).open(path);
        list.and_then(|mut list| writeln!(list, "{program}::{test}: {why}"))
            .expect("the list of skipped tests");
    }
}

fn turn(how: FlockOperation) -> Result<File> {
    // Who waits for the machine holds the gate, so that one who wants it whole is not passed by
    // others who share it.
    let _gate = locked("gate", FlockOperation::LockExclusive)?;
    locked("lock", how)
}

/// A file of this name, locked until it is closed.
fn locked(name: &str, how: FlockOperation) -> Result<File> {
    fs::create_dir_all(target_dir())?;
    let file = File::create(target_dir().join(name))?;
    flock(&file, how)?;
    Ok(file)
}

/// The directory of guest images and of what the tests keep between runs.
#[must_use]
pub fn target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(PathBuf::from(dir)));
    target.join("guest")
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Where a program is found through `PATH` or in the directories of the administrator.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn no_program(name: &str) -> Option<String> {
    find_program(name).is_none().then(|| format!("{name} is not installed"))
}

fn no_guest() -> Option<String> {
    ["qemu-system-x86_64", "busybox", "cpio", "ethtool", "strip", "xz", "zstd"]
        .into_iter()
        .find_map(no_program)
        .or_else(|| Kernel::find().err().map(|error| format!("{error:#}")))
}

fn no_uml() -> Option<String> {
    ["busybox", "cpio"]
        .into_iter()
        .find_map(no_program)
        .or_else(|| Kernel::user_mode().err().map(|error| format!("{error:#}")))
}

fn no_ovs() -> Option<String> {
    no_ovs_database().or_else(|| {
        let found = Path::new(ovs::VSWITCHD).exists();
        (!found).then(|| format!("{} is not installed", ovs::VSWITCHD))
    })
}

fn no_ovs_database() -> Option<String> {
    let mut programs = ["ovsdb-server", "ovsdb-tool", "ovsdb-client", "ovs-vsctl"].into_iter();
    programs.find_map(no_program)
}

fn no_ovs_suite() -> Option<String> {
    let programs = ["ovs-ofctl", "ovs-dpctl", "tar", "unshare", "ethtool", "nc", "tcpdump"];
    let mut programs = programs.into_iter();
    no_ovs_database().or_else(|| programs.find_map(no_program)).or_else(|| {
        let found = Path::new(ovs_suite::TARBALL).exists();
        (!found).then(|| "openvswitch-source is not installed".to_owned())
    })
}

fn no_libvirt() -> Option<String> {
    let mut programs = ["libvirtd", "virsh", "systemd-sysusers", "systemd-tmpfiles"].into_iter();
    programs.find_map(no_program).or_else(|| {
        let found = Path::new(libvirt::QEMU_DRIVER).exists();
        (!found).then(|| format!("{} is not installed", libvirt::QEMU_DRIVER))
    })
}

fn no_huge_pages() -> Option<String> {
    if !is_root() {
        return Some("DPDK needs root".to_owned());
    }
    let free = || {
        let text = fs::read_to_string(FREE_HUGE_PAGES).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    // Whoever had some may just be ending.
    let enough = || Ok((free() >= HUGE_PAGES).then_some(()));
    let all = wait::until("huge pages", Duration::from_secs(60), Duration::from_millis(50), enough);
    let missing = || format!("{} of {HUGE_PAGES} huge pages of 2 MiB are free", free());
    all.is_err().then(missing)
}

fn no_netns() -> Option<String> {
    if !is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let tun = Path::new("/dev/net/tun").exists();
    let program = ["ip", "ping"].into_iter().find_map(no_program);
    program.or_else(|| (!tun).then(|| "there is no /dev/net/tun".to_owned()))
}

/// Debian's own Python, whatever else is in `PATH`.
pub const PYTHON: &str = "/usr/bin/python3";

/// The folder of the virtual environment of Python's that has os-ken and Faucet, in [`target_dir`].
pub const CONTROLLERS: &str = "controllers";

/// What is written into it when it is whole: what was installed.
pub const CONTROLLERS_NOTE: &str = "ringway-installed";

/// What `cargo xtask setup` installs in it, from the Python package index. Faucet says which os-ken.
pub const FAUCET: &str = "faucet==1.10.12";

fn no_controllers() -> Option<String> {
    let note = target_dir().join(CONTROLLERS).join(CONTROLLERS_NOTE);
    let is_there = fs::read_to_string(note).is_ok_and(|text| text.trim() == FAUCET);
    (!is_there).then(|| format!("{FAUCET} is not installed"))
}

fn no_prometheus() -> Option<String> {
    no_python_module("prometheus_client, jsonschema", "python3-prometheus-client and -jsonschema")
}

/// Debian's Python without modules that are in packages of Debian's.
fn no_python_module(modules: &str, packages: &str) -> Option<String> {
    let import = Command::new(PYTHON).arg("-c").arg(format!("import {modules}")).output();
    let is_there = import.is_ok_and(|output| output.status.success());
    (!is_there).then(|| format!("{packages}: not installed"))
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
