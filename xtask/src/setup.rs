use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use e2e::kernel::Kernel;
use e2e::peers::{
    self, CONTROLLERS, CONTROLLERS_NOTE, FAUCET, FREE_HUGE_PAGES, HUGE_PAGES, NR_HUGE_PAGES,
    PACKAGING, PYTHON, find_program, target_dir,
};
use e2e::process::run as output_of;
use e2e::{Peer, collector, libvirt, ovs, ovs_suite};

const SOURCES: &str = "/etc/apt/sources.list.d/ringway-backports.sources";
const POLICY: &str = "/usr/sbin/policy-rc.d";
const SUITE: &str = "bookworm-backports";

/// Programs that guests are made with, and the packages that have them.
const GUEST: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("ethtool", "ethtool"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Provides every peer that can be had; gives whether all could.
pub fn run() -> Result<bool> {
    fs::create_dir_all(target_dir())?;
    let mut all = true;
    for peer in Peer::ALL {
        let note = peer.setup_note();
        drop(fs::remove_file(&note));
        // Those that were enough may be too few beside what others take of them.
        if peer.missing().is_none() && !peer.takes_huge_pages() {
            println!("setup: {peer}: there");
            continue;
        }
        if let Err(error) = provide(peer) {
            let why = format!("{error:#}").replace('\n', " ");
            println!("setup: {peer}: unavailable: {why}");
            fs::write(note, why)?;
        } else if let Some(why) = peer.missing() {
            println!("setup: {peer}: still unavailable: {why}");
        } else {
            println!("setup: {peer}: ready");
            continue;
        }
        all = false;
    }
    Ok(all)
}

fn provide(peer: Peer) -> Result<()> {
    match peer {
        Peer::Guest => {
            need_all(GUEST)?;
            // Debian 12 itself has 7.2, which lacks the igb device.
            need("qemu-system-x86_64", "qemu-system-x86", Some(SUITE))?;
            guest_kernel()
        }
        Peer::Dpdk => {
            // Debian puts testpmd among the developers' files.
            need("dpdk-testpmd", "dpdk-dev", None)?;
            huge_pages()
        }
        Peer::Testpmd => need("dpdk-testpmd", "dpdk-dev", None),
        Peer::Ovs => {
            install_for(ovs::VSWITCHD, "openvswitch-switch-dpdk")?;
            huge_pages()
        }
        Peer::OvsDatabase => need("ovsdb-server", "openvswitch-switch", None),
        Peer::OvsSuite => {
            // What its tests on interfaces use.
            let tools = [("ethtool", "ethtool"), ("nc", "netcat-openbsd"), ("tcpdump", "tcpdump")];
            need_all(&tools)?;
            install_for(ovs_suite::TARBALL, "openvswitch-source")
        }
        Peer::Netns => need_all(&[("ip", "iproute2"), ("ping", "iputils-ping")]),
        Peer::Uml => need_all(&[
            ("busybox", "busybox-static"),
            ("cpio", "cpio"),
            ("linux.uml", "user-mode-linux"),
        ]),
        Peer::Valgrind => need("valgrind", "valgrind", None),
        Peer::Terminal => need("tmux", "tmux", None),
        Peer::Prometheus => {
            install("python3-prometheus-client", None)?;
            install("python3-jsonschema", None)
        }
        Peer::Controllers => controllers(),
        Peer::Ovn => need_all(&[
            ("ovn-northd", "ovn-central"),
            ("ovn-controller", "ovn-host"),
            ("ethtool", "ethtool"),
        ]),
        Peer::Nfdump => need_all(&collector::PROGRAMS),
        Peer::Lldpd => need("lldpd", "lldpd", None),
        Peer::OsVif => install("python3-os-vif", None),
        Peer::Tcpdump => need("tcpdump", "tcpdump", None),
        Peer::Packages => need_all(&PACKAGING),
        Peer::Libvirt => {
            need_all(&[
                ("systemd-sysusers", "systemd"),
                ("libvirtd", "libvirt-daemon"),
                ("virsh", "libvirt-clients"),
            ])?;
            install_for(libvirt::QEMU_DRIVER, "libvirt-daemon-driver-qemu")
        }
    }
}

/// Installs each package whose program is not there.
fn need_all(all: &[(&str, &str)]) -> Result<()> {
    all.iter().try_for_each(|(program, package)| need(program, package, None))
}

/// Installs `package` where its file is not there.
fn install_for(file: &str, package: &str) -> Result<()> {
    if Path::new(file).exists() { Ok(()) } else { install(package, None) }
}

/// Installs controllers for OpenFlow where nothing of the machine's is touched.
fn controllers() -> Result<()> {
    // Parts of them are built.
    need("gcc", "gcc", None)?;
    let missing = |module: &str| {
        output_of(Command::new(PYTHON).args(["-c", &format!("import {module}")])).is_err()
    };
    if missing("ensurepip") {
        install("python3-venv", None)?;
    }
    if missing("sysconfig, os; os.stat(sysconfig.get_path('include') + '/Python.h')") {
        install("python3-dev", None)?;
    }
    let dir = target_dir().join(CONTROLLERS);
    drop(fs::remove_dir_all(&dir));
    println!("setup: installing {FAUCET}");
    output_of(Command::new(PYTHON).args(["-m", "venv"]).arg(&dir))?;
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", FAUCET]);
    output_of(&mut pip)?;
    // Whole only if it can be run.
    output_of(Command::new(dir.join("bin/python")).args(["-c", "import faucet.faucet"]))?;
    fs::write(dir.join(CONTROLLERS_NOTE), FAUCET).context(CONTROLLERS_NOTE)
}

fn need(program: &str, package: &str, suite: Option<&str>) -> Result<()> {
    if find_program(program).is_some() { Ok(()) } else { install(package, suite) }
}

fn install(package: &str, suite: Option<&str>) -> Result<()> {
    prepare_apt()?;
    println!("setup: installing {package}");
    let _quiet = NoServices::new()?;
    let mut apt = apt_get();
    apt.args(["install", "--yes", "--no-install-recommends"]);
    if let Some(suite) = suite {
        apt.args(["--target-release", suite]);
    }
    output_of(apt.arg(package)).map(drop)
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
    apt
}

/// Adds the backports suite and reads the package lists, once per run.
fn prepare_apt() -> Result<()> {
    use std::sync::OnceLock;
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let prepare = || -> Result<()> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        ensure!(
            release.lines().any(|line| line == "VERSION_CODENAME=bookworm"),
            "packages are only installed on Debian 12 (bookworm): install them by hand"
        );
        ensure!(peers::is_root(), "packages can only be installed by root");
        let known = output_of(Command::new("apt-cache").arg("policy"))?;
        if !known.contains("bookworm-backports/main") {
            add_backports()?;
        }
        println!("setup: reading package lists");
        output_of(apt_get().arg("update")).map(drop)
    };
    DONE.get_or_init(|| prepare().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow::anyhow!(error))
}

/// Writes a source for backports, which are on the same mirror as the suite `bookworm`.
fn add_backports() -> Result<()> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    for entry in fs::read_dir("/etc/apt/sources.list.d")? {
        files.push(entry?.path());
    }
    let mirror = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| Mirror::of_bookworm(&text))
        .context("no source of the suite bookworm in /etc/apt")?;
    println!("setup: adding {SUITE} from {}", mirror.uri);
    let mut text = format!("Types: deb\nURIs: {}\nSuites: {SUITE}\nComponents: main\n", mirror.uri);
    if let Some(key) = mirror.signed_by {
        text += &format!("Signed-By: {key}\n");
    }
    fs::write(SOURCES, text).context(SOURCES)
}

/// Where a source entry gets its packages.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

impl Mirror {
    /// The mirror of the suite `bookworm` in a source file of either format (sources.list(5)).
    fn of_bookworm(text: &str) -> Option<Self> {
        text.split("\n\n")
            .find_map(Self::of_stanza)
            .or_else(|| text.lines().find_map(Self::of_line))
    }

    fn of_stanza(stanza: &str) -> Option<Self> {
        let field = |name: &str| {
            stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let is_binary = field("Types")?.split_whitespace().any(|word| word == "deb");
        let has_suite = field("Suites")?.split_whitespace().any(|word| word == "bookworm");
        let off = field("Enabled").is_some_and(|value| value == "no");
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        let signed_by = field("Signed-By").filter(|key| key.starts_with('/')).map(str::to_owned);
        (is_binary && has_suite && !off).then_some(Self { uri, signed_by })
    }

    fn of_line(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let key = options.split_whitespace().find_map(|word| word.strip_prefix("signed-by="));
        let signed_by = key.map(str::to_owned);
        (suite == "bookworm").then(|| Self { uri: uri.to_owned(), signed_by })
    }
}

/// Keeps packages from starting their services, while it lives.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        // One that is there already is the administrator's and stays as it is; should it
        // allow services, they are started, as on any other installation there.
        let ours = fs::symlink_metadata(POLICY).is_err();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").context(POLICY)?;
            fs::set_permissions(POLICY, Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            drop(fs::remove_file(POLICY));
        }
    }
}

/// Downloads the newest 6.12 kernel package and unpacks it, without installing it.
fn guest_kernel() -> Result<()> {
    if Kernel::find().is_ok() {
        return Ok(());
    }
    prepare_apt()?;
    let names = output_of(Command::new("apt-cache").args(["pkgnames", "linux-image-6.12."]))?;
    let mut packages: Vec<_> =
        names.lines().filter_map(|name| Some((kernel_version(name)?, name))).collect();
    packages.sort();
    let dir = tempfile::tempdir_in(target_dir())?;
    // The newest are tried first; a name without a package behind it is passed over.
    for (_, name) in packages.iter().rev().take(10) {
        println!("setup: downloading {name}");
        if output_of(apt_get().current_dir(dir.path()).args(["download", name])).is_ok() {
            return unpack_kernel(dir.path());
        }
    }
    bail!("no package linux-image-6.12.*-amd64 could be downloaded")
}

/// `linux-image-6.12.95+deb12-amd64` gives `[95, 12]`; flavours and debug symbols give nothing.
fn kernel_version(name: &str) -> Option<Vec<u32>> {
    let version = name.strip_prefix("linux-image-6.12.")?.strip_suffix("-amd64")?;
    let (patch, build) = version.split_once("+deb")?;
    std::iter::once(patch).chain(build.split('.')).map(|part| part.parse().ok()).collect()
}

fn unpack_kernel(dir: &Path) -> Result<()> {
    let mut packages = fs::read_dir(dir)?.filter_map(Result::ok).map(|entry| entry.path());
    let package = packages
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no file")?;
    let tree = dir.join("kernel");
    output_of(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
    Kernel::unpack(&tree)?;
    // Renamed when whole, so that an interrupted run leaves no half kernel.
    drop(fs::remove_dir_all(Kernel::dir()));
    fs::rename(&tree, Kernel::dir()).context("kernel")?;
    let kernel = Kernel::find()?;
    println!("setup: guest kernel {}", kernel.release);
    Ok(())
}

/// Huge pages beyond what DPDK needs: Ringway's ports take some where there are any, in tests beside
/// those with DPDK.
const SPARE: u64 = 128;

/// Reserves huge pages for DPDK and mounts the file system that OVS looks for.
fn huge_pages() -> Result<()> {
    ensure!(peers::is_root(), "huge pages can only be reserved by root");
    let read = |path: &str| -> Result<u64> {
        Ok(fs::read_to_string(path).with_context(|| path.to_owned())?.trim().parse()?)
    };
    let free = read(FREE_HUGE_PAGES)?;
    let wanted = HUGE_PAGES + SPARE;
    if free < wanted {
        // On top of those that others use.
        let pages = read(NR_HUGE_PAGES)? + (wanted - free);
        println!("setup: reserving {pages} huge pages of 2 MiB");
        fs::write(NR_HUGE_PAGES, pages.to_string()).context(NR_HUGE_PAGES)?;
        let free = read(FREE_HUGE_PAGES)?;
        ensure!(free >= HUGE_PAGES, "{free} of {HUGE_PAGES} huge pages of 2 MiB are free");
    }
    let mounts = fs::read_to_string("/proc/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs")) {
        println!("setup: mounting hugetlbfs on /dev/hugepages");
        fs::create_dir_all("/dev/hugepages")?;
        output_of(Command::new("mount").args(["-t", "hugetlbfs", "nodev", "/dev/hugepages"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_formats() {
        let stanzas = "Types: deb\n# a comment\nURIs: http://mirror.test/security\n\
                       Suites: bookworm-security\nSigned-By: /k\n\n\
                       Types: deb\nURIs: http://mirror.test/debian\n\
                       Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k\n";
        let mirror = |key: Option<&str>| {
            let uri = "http://mirror.test/debian".to_owned();
            Some(Mirror { uri, signed_by: key.map(str::to_owned) })
        };
        assert_eq!(Mirror::of_bookworm(stanzas), mirror(Some("/k")));
        let lines = "# deb http://old.test bookworm main\n\
                     deb [arch=amd64 signed-by=/k] http://mirror.test/debian bookworm main\n";
        assert_eq!(Mirror::of_bookworm(lines), mirror(Some("/k")));
        let plain = "deb http://mirror.test/debian bookworm main contrib\n";
        assert_eq!(Mirror::of_bookworm(plain), mirror(None));
        assert_eq!(Mirror::of_bookworm("deb http://mirror.test/debian trixie main\n"), None);
        assert_eq!(Mirror::of_bookworm(""), None);
    }

    #[test]
    fn kernels_are_ordered_and_flavours_left_out() {
        let version = |name| kernel_version(name);
        assert_eq!(version("linux-image-6.12.95+deb12-amd64"), Some(vec![95, 12]));
        assert!(
            version("linux-image-6.12.90+deb12.1-amd64")
                > version("linux-image-6.12.90+deb12-amd64")
        );
        assert!(
            version("linux-image-6.12.117+deb12-amd64")
                > version("linux-image-6.12.95+deb12-amd64")
        );
        for other in [
            "linux-image-6.12.95+deb12-rt-amd64",
            "linux-image-6.12.95+deb12-amd64-dbg",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.1.0-50-amd64",
        ] {
            assert_eq!(version(other), None, "{other}");
        }
    }
}
