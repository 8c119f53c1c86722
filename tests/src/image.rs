use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::kernel::Kernel;
use crate::peers::{find_program, target_dir};
use crate::process::run;

const INIT: &str = include_str!("../guest/init");

/// To be counted up when images are laid out anew.
const FORMAT: u32 = 7;

/// Users of a guest, for `su`: one of them has no privilege.
const USERS: &str = "root::0:0::/:/bin/sh\nuser::1000:1000::/tmp:/bin/sh\n";

/// What a guest boots: a kernel, and an initramfs with busybox, modules and the agent.
#[derive(Debug, Clone)]
pub struct GuestImage {
    /// The kernel, for QEMU, or a program.
    pub kernel: PathBuf,
    /// The initramfs, a cpio archive.
    pub initramfs: PathBuf,
}

impl GuestImage {
    /// The image for tests of network devices: with the driver of virtio-net, and what makes VLANs,
    /// for `modprobe` to load.
    ///
    /// # Errors
    /// When the kernel, a module or a tool is missing.
    pub fn network() -> Result<Self> {
        ImageSpec::new("network").modules(&["virtio_net"]).on_demand(&["8021q"]).build()
    }

    /// The same for User Mode Linux: its kernel is a program.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn user_mode() -> Result<Self> {
        let spec = ImageSpec::new("user-mode").modules(&["virtio_net"]);
        spec.build_for(Kernel::user_mode()?)
    }

    /// One for a User Mode Linux guest that makes a bond of its network devices.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn user_mode_bonding() -> Result<Self> {
        let ethtool = find_program("ethtool").context("ethtool is not installed")?;
        let spec = ImageSpec::new("user-mode-bonding").modules(&["virtio_net"]);
        spec.on_demand(&["bonding"]).program(&ethtool).build_for(Kernel::user_mode()?)
    }

    /// An image with the modules named, and those that they need. They are loaded
    /// at boot in this order. Built once and kept.
    ///
    /// # Errors
    /// When the kernel, a module or a tool is missing.
    pub fn with_modules(names: &[&str]) -> Result<Self> {
        ImageSpec::new(&names.join("+")).modules(names).build()
    }
}

/// What is to be in an image.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    name: String,
    modules: Vec<String>,
    on_demand: Vec<String>,
    /// From the host's path to the guest's.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Files whose shared libraries go along.
    linked: Vec<PathBuf>,
    /// Those which go without tables for debuggers.
    programs: Vec<PathBuf>,
}

impl ImageSpec {
    /// An image with nothing but busybox and the agent. `name` tells it from others on disk: of
    /// each name only the last image that was built is kept.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            modules: Vec::new(),
            on_demand: Vec::new(),
            files: BTreeMap::new(),
            linked: Vec::new(),
            programs: Vec::new(),
        }
    }

    /// Renames it, after more was added to what another one has.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Adds kernel modules, with those that they need, which are loaded at boot in this order.
    #[must_use]
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.modules.extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    /// Adds kernel modules, with those that they need, for `modprobe` to load.
    #[must_use]
    pub fn on_demand(mut self, names: &[&str]) -> Self {
        self.on_demand.extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    /// Adds a program of the host as `/bin/NAME`, with its shared libraries and without tables for
    /// debuggers.
    #[must_use]
    pub fn program(self, path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.program_named(path, &name)
    }

    /// As [`Self::program`], under another name.
    #[must_use]
    pub fn program_named(self, path: &Path, name: &str) -> Self {
        let mut this = self.file(path, &Path::new("/bin").join(name));
        this.linked.push(path.to_owned());
        this.programs.push(path.to_owned());
        this
    }

    /// Adds a shared library of the host in its place, with those that it needs.
    #[must_use]
    pub fn library(self, path: &Path) -> Self {
        let mut this = self.file(path, path);
        this.linked.push(path.to_owned());
        this
    }

    /// Adds a file of the host as `to`.
    #[must_use]
    pub fn file(mut self, path: &Path, to: &Path) -> Self {
        self.files.insert(path.to_owned(), to.to_owned());
        self
    }

    /// The image. Built once and kept, until a file or the kernel changes.
    ///
    /// # Errors
    /// When the kernel, a module, a file or a tool is missing.
    pub fn build(&self) -> Result<GuestImage> {
        self.build_for(Kernel::find()?)
    }

    fn build_for(&self, kernel: Kernel) -> Result<GuestImage> {
        let busybox = find_program("busybox").context("busybox is not installed")?;
        let mut files = self.files.clone();
        for library in libraries(&self.linked)? {
            files.insert(library.clone(), library);
        }
        let mut key = DefaultHasher::new();
        (INIT, USERS, FORMAT, &self.modules, &self.on_demand, &files, &kernel.release)
            .hash(&mut key);
        for path in files.keys().chain([&busybox]) {
            let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
            (meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut key);
        }
        let mut name = DefaultHasher::new();
        self.name.hash(&mut name);
        let prefix = format!("initramfs-{:016x}-", name.finish());
        let initramfs = target_dir().join(format!("{prefix}{:016x}.cpio", key.finish()));
        kept(&initramfs, |part| {
            remove_older(&prefix)?;
            Contents { kernel: &kernel, busybox: &busybox, spec: self, files }.build(part)
        })?;
        Ok(GuestImage { kernel: kernel.image, initramfs })
    }
}

/// Makes the file `path` by `make`, unless it is there: by one program at a time, and under another
/// name until it is whole.
pub(crate) fn kept(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let lock = fs::File::create(target_dir().join("images.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if path.exists() {
        return Ok(());
    }
    let part = tempfile::NamedTempFile::new_in(target_dir())?;
    make(part.path())?;
    part.persist(path)?;
    Ok(())
}

/// Removes the images of which a newer one is about to be built, and the snapshots of guests that
/// have booted them: they are large.
fn remove_older(prefix: &str) -> Result<()> {
    for entry in fs::read_dir(target_dir())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The shared libraries that files need, as `ldd` finds them.
fn libraries(files: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for file in files {
        let text = run(Command::new("ldd").arg(file))?;
        ensure!(!text.contains("not found"), "{} lacks a library: {text}", file.display());
        found.extend(text.lines().filter_map(library).map(PathBuf::from));
    }
    Ok(found)
}

/// The path in a line of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x7f..)`, or of the loader itself,
/// which has no arrow. None for what the kernel brings.
fn library(line: &str) -> Option<&str> {
    let path = line.split_once("=>").map_or(line, |(_, path)| path);
    path.split_whitespace().next().filter(|path| path.starts_with('/'))
}

/// All that goes into an image.
struct Contents<'a> {
    kernel: &'a Kernel,
    busybox: &'a Path,
    spec: &'a ImageSpec,
    files: BTreeMap<PathBuf, PathBuf>,
}

impl Contents<'_> {
    fn build(&self, archive: &Path) -> Result<()> {
        let root = tempfile::tempdir_in(target_dir())?;
        let path = |name: &str| root.path().join(name);
        for dir in ["bin", "dev", "etc", "proc", "sys", "run", "tmp", "modules", "lib/modules"] {
            fs::create_dir_all(path(dir))?;
        }
        fs::create_dir(path("var"))?;
        symlink("../run", path("var/run"))?;
        // The kernel loads modules by a program there.
        symlink("bin", path("sbin"))?;
        fs::copy(self.busybox, path("bin/busybox"))?;
        for applet in run(Command::new(self.busybox).arg("--list"))?.lines() {
            if applet != "busybox" {
                symlink("busybox", path("bin").join(applet))?;
            }
        }
        self.modules(root.path())?;
        self.files(root.path())?;
        fs::write(path("etc/passwd"), USERS)?;
        fs::write(path("init"), INIT)?;
        fs::set_permissions(path("init"), fs::Permissions::from_mode(0o755))?;
        run(Command::new("sh")
            .current_dir(root.path())
            .env("OUT", archive)
            .args(["-c", r#"find . | cpio --quiet -o -H newc -R 0:0 >"$OUT""#]))
        .map(drop)
    }

    /// Puts the files in place. A file under two names, as a library may be, is one file there as
    /// well: the loader would take two for two libraries.
    fn files(&self, root: &Path) -> Result<()> {
        let mut there = BTreeMap::new();
        for (original, to) in &self.files {
            let path = root.join(to.strip_prefix("/").unwrap_or(to));
            fs::create_dir_all(path.parent().context("a file without a directory")?)?;
            let from = fs::canonicalize(original);
            let from = from.with_context(|| original.display().to_string())?;
            if let Some(first) = there.get(&from) {
                symlink(first, &path)?;
            } else {
                fs::copy(&from, &path).with_context(|| from.display().to_string())?;
                if self.spec.programs.contains(original) {
                    // Most of a program of ours, and a guest has to unpack all of it.
                    run(Command::new("strip").arg("--strip-debug").arg(&path))?;
                }
                there.insert(from, to);
            }
        }
        Ok(())
    }

    /// Puts the modules into `/modules`, which `modprobe` knows by the name of the kernel.
    fn modules(&self, root: &Path) -> Result<()> {
        let modules = root.join("modules");
        let names: Vec<&str> =
            self.spec.modules.iter().chain(&self.spec.on_demand).map(String::as_str).collect();
        let needs = unpack(self.kernel, &names, &modules)?;
        let at_boot: Vec<&str> = self.spec.modules.iter().map(String::as_str).collect();
        let order = load_order(&at_boot, &needs);
        let list: String = order.iter().map(|name| format!("{name}\n")).collect();
        fs::write(root.join("modules.load"), list)?;
        fs::write(modules.join("modules.dep"), dependencies(&needs))?;
        symlink("/modules", root.join("lib/modules").join(&self.kernel.release))?;
        Ok(())
    }
}

/// The file by which `modprobe` knows what a module needs, the nearest first.
fn dependencies(needs: &BTreeMap<String, Vec<String>>) -> String {
    let line = |name: &String| {
        let mut order = load_order(&[name], needs);
        order.pop();
        let needed: String = order.iter().rev().map(|need| format!(" {need}.ko")).collect();
        format!("{name}.ko:{needed}\n")
    };
    needs.keys().map(line).collect()
}

/// Unpacks the modules named and all that they depend on into `into`; gives the
/// dependencies of each.
fn unpack(kernel: &Kernel, names: &[&str], into: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let modules = kernel.modules()?;
    let mut needs = BTreeMap::new();
    let mut wanted: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    while let Some(name) = wanted.pop() {
        if needs.contains_key(&name) {
            continue;
        }
        let path = modules
            .get(&name)
            .with_context(|| format!("kernel {} has no module {name}", kernel.release))?;
        let module = read_module(path)?;
        fs::write(into.join(format!("{name}.ko")), &module)?;
        let depends = depends(&module);
        wanted.extend(depends.iter().cloned());
        needs.insert(name, depends);
    }
    Ok(needs)
}

/// A module's own bytes: Debian compresses those of kernels that are no program.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| path.display().to_string());
    }
    let output = Command::new("xz").arg("-dc").arg(path).output().context("xz")?;
    ensure!(output.status.success(), "cannot unpack {}", path.display());
    Ok(output.stdout)
}

/// The modules that a module needs, from the `depends=` entry of its `.modinfo` section.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// The modules named with all that they need, each after what it needs.
fn load_order(names: &[&str], needs: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    fn visit(name: &str, needs: &BTreeMap<String, Vec<String>>, order: &mut Vec<String>) {
        if order.iter().any(|done| done == name) {
            return;
        }
        for need in needs.get(name).into_iter().flatten() {
            visit(need, needs, order);
        }
        order.push(name.to_owned());
    }
    let mut order = Vec::new();
    for name in names {
        visit(&name.replace('-', "_"), needs, &mut order);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_the_module_itself() {
        let module = b"\x7fELF..\0license=GPL\0depends=net_failover,virtio-ring\0name=x\0";
        assert_eq!(depends(module), ["net_failover", "virtio_ring"]);
        assert_eq!(depends(b"..\0depends=\0name=x\0"), [""; 0]);
        assert_eq!(depends(b"no section"), [""; 0]);
    }

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007efe720bc000)"), None);
        let libc = "\tlibc.so.6 => /lib/libc.so.6 (0x00007efe71a1e000)";
        assert_eq!(library(libc), Some("/lib/libc.so.6"));
        assert_eq!(library("\t/lib64/ld.so.2 (0x00007efe720be000)"), Some("/lib64/ld.so.2"));
        assert_eq!(library("\tstatically linked"), None);
    }

    #[test]
    fn modprobe_is_told_all_that_a_module_needs() {
        let needs = [("c", vec!["b"]), ("b", vec!["a"]), ("a", vec![])]
            .map(|(name, needs)| (name.to_owned(), needs.iter().map(|&n| n.to_owned()).collect()));
        assert_eq!(dependencies(&needs.into()), "a.ko:\nb.ko: a.ko\nc.ko: b.ko a.ko\n");
    }

    #[test]
    fn a_module_is_loaded_after_what_it_needs_and_once() {
        let needs = [("c", vec!["b", "a"]), ("b", vec!["a"]), ("a", vec![]), ("d", vec!["a"])]
            .map(|(name, needs)| (name.to_owned(), needs.iter().map(|&n| n.to_owned()).collect()));
        assert_eq!(load_order(&["c", "d"], &needs.into()), ["a", "b", "c", "d"]);
    }
}
