use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::image::GuestImage;
use crate::netns::Netns;
use crate::ovsdb::OvsDatabase;
use crate::peers::workspace;
use crate::process::{Process, run};
use crate::ringway::{self, Ringway};

/// The part of libvirt that starts QEMU, which is a package of its own.
pub const QEMU_DRIVER: &str =
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so";

/// What makes a machine of namespaces.
const SETUP: &str = include_str!("../host/setup");

/// Where libvirt is spoken to.
const SOCKET: &str = "run/libvirt/libvirt-sock";

/// The control socket of the switch, as a service has it.
const CONTROL: &str = "run/ringway-switch/control.sock";

/// How long libvirt may take to look at the QEMU that it finds, which it does when it starts.
const START: Duration = Duration::from_secs(120);

/// What the unit of the switch leaves it (`AmbientCapabilities=`).
const CAPABILITIES: &str = "-all,+net_admin,+net_raw,+bpf";

/// A machine with libvirt, made of namespaces: with users, files and interfaces of its own, and
/// users as the packages make them.
#[derive(Debug)]
pub struct Host {
    // All processes of the machine end with the first, QEMU too, which libvirt leaves running.
    init: Process,
    folder: PathBuf,
    netns: Netns,
    pid: u32,
}

impl Host {
    /// Starts a machine called `name` in `dir`, for guests that boot `image`.
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn start(name: &str, dir: &Path, image: &GuestImage) -> Result<Self> {
        let folder = dir.join(name);
        let netns = Netns::new()?;
        let mut command = netns.command("unshare");
        command.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", SETUP, "setup", name]).arg(&folder).arg(ringway::binary()?);
        command.args([&image.kernel, &image.initramfs]).arg(workspace().join("packaging"));
        // Their folder is there for those who wait.
        std::fs::create_dir_all(folder.join(SOCKET).with_file_name(""))?;
        let init = Process::start(name, command)?;
        init.wait_for_listener(&folder.join(SOCKET), START)?;
        let children = format!("/proc/{0}/task/{0}/children", init.id());
        let pid = std::fs::read_to_string(children)?;
        let pid = pid.trim().parse().with_context(|| format!("{name}: {pid:?}"))?;
        let host = Self { init, folder, netns, pid };
        host.sh("virsh version")?;
        Ok(host)
    }

    /// The network namespace that it has.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where its file `/PATH` is, for a path in `/etc`, `/run` or `/var`.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Writes a file to the folder that [`sh`](Self::sh) runs in.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.folder.join("var/tmp").join(name), text).context(name.to_owned())
    }

    /// Runs a shell line there, as root, in a folder of its own, and gives its standard output.
    ///
    /// # Errors
    /// When its status is not 0; the message has the log of libvirt.
    pub fn sh(&self, line: &str) -> Result<String> {
        let line = format!("cd /var/tmp && {line}");
        run(self.command().args(["sh", "-c", &line])).with_context(|| self.init.log())
    }

    /// Where the libvirt of another machine reaches this one's.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.path(SOCKET).display())
    }

    /// A command there, to be completed.
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.pid.to_string(),
            "--mount",
            "--uts",
            "--net",
            "--pid",
            "--",
        ]);
        command
    }

    /// Starts a database of Open vSwitch and the switch that it configures, where libvirt looks for them.
    ///
    /// # Errors
    /// When one does not come up; the message has what it wrote.
    pub fn vswitchd(&self) -> Result<(OvsDatabase, Ringway)> {
        let run = self.path("run/openvswitch");
        std::fs::create_dir_all(&run)?;
        let database = OvsDatabase::start(&run)?;
        let mut command = self.command();
        command.args(["/var/ringway", "ovs-vswitchd", "--pidfile"]);
        command.args(["--control", "/run/openvswitch/ringway.ctl"]);
        let switch = Ringway::vswitchd_by(command, &run.join("ringway.ctl"))?;
        Ok((database, switch))
    }

    /// Starts the switch as its unit does: as a user of its own, by `/etc/ringway/ringway.toml`.
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn switch(&self) -> Result<Ringway> {
        let mut command = self.command();
        command.args(["setpriv", "--reuid", "ringway", "--regid", "ringway", "--init-groups"]);
        command.args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]);
        command.args(["/var/ringway", "switch", "--config", "/etc/ringway/ringway.toml"]);
        command.args(["--control", &format!("/{CONTROL}")]);
        Ringway::service(command, &self.path(CONTROL))
    }
}
