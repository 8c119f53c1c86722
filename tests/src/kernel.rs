use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::peers::target_dir;

/// What a kernel of its package is called in front of its release, and what it is without the
/// program that unpacks it.
const PACKED: &str = "vmlinuz-";
const UNPACKED: &str = "vmlinux-";

/// How data that `zstd` has compressed begin.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The kernel that is a program, and where its package has the modules.
const UML: &str = "/usr/bin/linux.uml";
const UML_MODULES: &str = "/usr/lib/uml/modules";

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` gives it.
    pub release: String,
    /// The kernel itself, an ELF file: QEMU starts it without a boot loader (PVH), or it is a
    /// program.
    pub image: PathBuf,
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
        let dir = Self::dir();
        let (release, image) =
            boot_file(&dir, UNPACKED).context("no guest kernel: run `cargo xtask setup`")?;
        let modules = dir.join("lib/modules").join(&release);
        Ok(Self { release, image, modules })
    }

    /// The kernel that runs as a program (User Mode Linux).
    ///
    /// # Errors
    /// When it is not installed.
    pub fn user_mode() -> Result<Self> {
        let image = PathBuf::from(UML);
        ensure!(image.exists(), "{UML} is not installed");
        let modules = fs::read_dir(UML_MODULES).context(UML_MODULES)?.next();
        let modules = modules.with_context(|| format!("no modules in {UML_MODULES}"))??;
        let release = modules.file_name().to_string_lossy().into_owned();
        Ok(Self { release, image, modules: modules.path() })
    }

    /// Unpacks the kernel in `dir`, which holds the files of a kernel package. A guest under
    /// emulation takes two seconds to do that, every time it boots.
    ///
    /// # Errors
    /// When there is no kernel, it has not been compressed with zstd, or `zstd` is not installed.
    pub fn unpack(dir: &Path) -> Result<()> {
        let (release, packed) = boot_file(dir, PACKED)?;
        let bytes = fs::read(&packed)?;
        let payload = payload(&bytes)
            .and_then(|range| bytes.get(range))
            .filter(|payload| payload.starts_with(&ZSTD))
            .with_context(|| format!("{}: no kernel compressed with zstd", packed.display()))?;
        let part = tempfile::NamedTempFile::new_in(dir)?;
        fs::write(part.path(), payload)?;
        let image = packed.with_file_name(format!("{UNPACKED}{release}"));
        let status = Command::new("zstd")
            .args(["-dc", "--no-progress"])
            .stdin(File::open(part.path())?)
            .stdout(Stdio::from(File::create(&image)?))
            .status()
            .context("zstd")?;
        ensure!(status.success(), "zstd cannot unpack {}", packed.display());
        Ok(())
    }

    /// All modules by name, with the path of their files, which may be compressed.
    pub(crate) fn modules(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.modules.join("kernel")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() {
                    dirs.push(path);
                } else if let Some(name) =
                    name.strip_suffix(".xz").unwrap_or(&name).strip_suffix(".ko")
                {
                    found.insert(name.replace('-', "_"), path);
                }
            }
        }
        Ok(found)
    }
}

/// The file of a kernel package in `boot` whose name is `prefix` and a release: release and path.
fn boot_file(dir: &Path, prefix: &str) -> Result<(String, PathBuf)> {
    let boot = dir.join("boot");
    for entry in fs::read_dir(&boot).with_context(|| boot.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix(prefix) {
            return Ok((release.to_owned(), boot.join(&name)));
        }
    }
    anyhow::bail!("no {prefix}* in {}", boot.display())
}

/// Where the compressed kernel lies in a bzImage, without the four bytes of its size behind it
/// ("The Linux/x86 Boot Protocol", 2.08: `setup_sects`, `payload_offset`, `payload_length`).
fn payload(image: &[u8]) -> Option<Range<usize>> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // 0 means 4, of 512 bytes each, and the boot sector in front of them.
    let sectors = match usize::from(*image.get(0x1f1)?) {
        0 => 4,
        sectors => sectors,
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    Some(start..start + word(0x24c)?.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_by_the_header() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 2;
        image[0x248..0x24c].copy_from_slice(&100_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&54_u32.to_le_bytes());
        assert_eq!(payload(&image), Some(1636..1686));
        image[0x1f1] = 0;
        assert_eq!(payload(&image), Some(2660..2710));
        assert_eq!(payload(&[0; 100]), None);
    }
}
