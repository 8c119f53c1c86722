use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::guest::{Agent, Guest};
use crate::image::GuestImage;
use crate::process::Process;

/// A User Mode Linux machine to be started: a kernel that is a program of the host, needs no
/// emulation, and boots in a second or two. Its network devices are vhost-user front-ends of the
/// kernel's own (`virtio_uml`), which never connect again.
#[derive(Debug)]
pub struct Uml {
    name: String,
    image: GuestImage,
    sockets: Vec<PathBuf>,
}

impl Uml {
    /// A machine with one CPU and 256 MiB of memory that boots `image`.
    #[must_use]
    pub fn new(name: &str, image: &GuestImage) -> Self {
        Self { name: name.to_owned(), image: image.clone(), sockets: Vec::new() }
    }

    /// Adds a network device on a vhost-user socket, which somebody must listen on when the
    /// machine starts: `eth0`, `eth1` and so on.
    #[must_use]
    pub fn nic(mut self, socket: &Path) -> Self {
        self.sockets.push(socket.to_owned());
        self
    }

    /// Starts the machine and does not wait for it to boot. Its files go to `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, dir: &Path) -> Result<Guest> {
        let (ours, theirs) = UnixStream::pair()?;
        let line = theirs.as_raw_fd();
        // The processes of its user space outlive a kernel that is killed, unless they are in a
        // namespace that ends with it.
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"])
            // The first process of a namespace gets no signals, on which the kernel relies.
            .args(["sh", "-c", r#""$@"; exit"#, "sh"])
            .arg(&self.image.kernel)
            .args(["mem=256M", "quiet", "panic=-1", "net.ifnames=0", "ipv6.disable=1"])
            .args(["con=null", "con0=null,fd:1", "agent=/dev/ttyS0", "root=/dev/ram"])
            .arg(format!("ssl0=fd:{line},fd:{line}"))
            .arg(format!("initrd={}", self.image.initramfs.display()))
            .arg(format!("umid={}", self.name))
            .arg(format!("uml_dir={}/", dir.display()));
        for socket in &self.sockets {
            command.arg(format!("virtio_uml.device={}:1", socket.display()));
        }
        // Where its memory lies: tmpfs, which a back-end takes for memory that cannot wait.
        command.env("TMPDIR", "/dev/shm");
        let process =
            Process::start_with(format!("UML {}", self.name), command, &[theirs.as_fd()])?;
        Ok(Guest::new(&self.name, process, Agent::new(ours), None))
    }
}
