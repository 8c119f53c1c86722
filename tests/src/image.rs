use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::peers::{find_program, target_dir};
use crate::process::run;

const INIT: &str = include_str!("../guest/init");

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` gives it.
    pub release: String,
    /// The bootable image.
    pub vmlinuz: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The directory into which `cargo xtask setup` unpacks the kernel package.
    #[must_use]
    pub fn dir() -> PathBuf {
        target_dir().join("kernel")
    }

    /// The kernel that has been unpacked.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self> {
        let none = "no guest kernel: run `cargo xtask setup`";
        let boot = Self::dir().join("boot");
        for entry in fs::read_dir(&boot).context(none)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(release) = name.strip_prefix("vmlinuz-") {
                return Ok(Self {
                    release: release.to_owned(),
                    vmlinuz: boot.join(&name),
                    modules: Self::dir().join("lib/modules").join(release),
                });
            }
        }
        anyhow::bail!(none)
    }

    /// All modules by name, with the path of their compressed files.
    fn modules(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.modules.join("kernel")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() {
                    dirs.push(path);
                } else if let Some(name) = name.strip_suffix(".ko.xz") {
                    found.insert(name.replace('-', "_"), path);
                }
            }
        }
        Ok(found)
    }
}

/// What a guest boots: a kernel, and an initramfs with busybox, modules and the agent.
#[derive(Debug, Clone)]
pub struct GuestImage {
    /// The kernel's bootable image.
    pub kernel: PathBuf,
    /// The initramfs, a cpio archive.
    pub initramfs: PathBuf,
}

impl GuestImage {
    /// The image for tests of network devices: with the driver of virtio-net.
    ///
    /// # Errors
    /// As [`Self::with_modules`].
    pub fn network() -> Result<Self> {
        Self::with_modules(&["virtio_net"])
    }

    /// An image with the modules named, and those that they need. They are loaded
    /// at boot in this order. Built once and kept.
    ///
    /// # Errors
    /// When the kernel, a module or a tool is missing.
    pub fn with_modules(names: &[&str]) -> Result<Self> {
        let kernel = Kernel::find()?;
        let busybox = find_program("busybox").context("busybox is not installed")?;
        let mut key = DefaultHasher::new();
        (INIT, names, &kernel.release, fs::metadata(&busybox)?.len()).hash(&mut key);
        let initramfs = target_dir().join(format!("initramfs-{:016x}.cpio", key.finish()));
        if !initramfs.exists() {
            build(&kernel, &busybox, names, &initramfs)?;
        }
        Ok(Self { kernel: kernel.vmlinuz, initramfs })
    }
}

fn build(kernel: &Kernel, busybox: &Path, names: &[&str], initramfs: &Path) -> Result<()> {
    let root = tempfile::tempdir_in(target_dir())?;
    let path = |name: &str| root.path().join(name);
    for dir in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
        fs::create_dir(path(dir))?;
    }
    fs::copy(busybox, path("bin/busybox"))?;
    for applet in run(Command::new(busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", path("bin").join(applet))?;
        }
    }
    let order = load_order(names, &unpack(kernel, names, &path("modules"))?);
    fs::write(path("modules.load"), order.join("\n") + "\n")?;
    fs::write(path("init"), INIT)?;
    fs::set_permissions(path("init"), fs::Permissions::from_mode(0o755))?;
    // Under another name until it is whole, so that no test boots half an archive.
    let part = tempfile::NamedTempFile::new_in(target_dir())?;
    run(Command::new("sh")
        .current_dir(root.path())
        .env("OUT", part.path())
        .args(["-c", r#"find . | cpio --quiet -o -H newc -R 0:0 >"$OUT""#]))?;
    part.persist(initramfs)?;
    Ok(())
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
        let output = Command::new("xz").arg("-dc").arg(path).output().context("xz")?;
        ensure!(output.status.success(), "cannot unpack {}", path.display());
        fs::write(into.join(format!("{name}.ko")), &output.stdout)?;
        let depends = depends(&output.stdout);
        wanted.extend(depends.iter().cloned());
        needs.insert(name, depends);
    }
    Ok(needs)
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
    fn a_module_is_loaded_after_what_it_needs_and_once() {
        let needs = [("c", vec!["b", "a"]), ("b", vec!["a"]), ("a", vec![]), ("d", vec!["a"])]
            .map(|(name, needs)| (name.to_owned(), needs.iter().map(|&n| n.to_owned()).collect()));
        assert_eq!(load_order(&["c", "d"], &needs.into()), ["a", "b", "c", "d"]);
    }
}
