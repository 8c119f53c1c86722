use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use e2e::peers::workspace;
use e2e::process::run as output_of;

use super::tree::{CONFIGURATION, DOCS, Tree, put};

/// Makes a `.deb` of the tree, of this revision.
pub fn build(tree: &Tree<'_>, revision: u32, out: &Path) -> Result<PathBuf> {
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    tree.lay(&root, "usr/share/zsh/vendor-completions")?;
    let copyright = fs::read(workspace().join("packaging/deb/copyright"))?;
    put(&copyright, &root.join(DOCS).join("copyright"), 0o644)?;
    let (version, architecture) =
        (format!("{}-{revision}", tree.version.upstream), architecture()?);
    let about = root.join("DEBIAN");
    for script in ["postinst", "prerm", "postrm"] {
        let text = fs::read(workspace().join("packaging/deb").join(script))?;
        put(&text, &about.join(script), 0o755)?;
    }
    let conffiles: String = CONFIGURATION.iter().map(|path| format!("/{path}\n")).collect();
    put(conffiles.as_bytes(), &about.join("conffiles"), 0o644)?;
    put(sums(&root)?.as_bytes(), &about.join("md5sums"), 0o644)?;
    let control = control(&version, &architecture, &glibc(tree.program)?, kibibytes(&root)?);
    put(control.as_bytes(), &about.join("control"), 0o644)?;
    let path = out.join(format!("ringway_{version}_{architecture}.deb"));
    // Only the first revision is given to anybody; another is for tests to upgrade to.
    let format = if revision == 1 { "-Zxz" } else { "-Znone" };
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", tree.version.epoch.to_string());
    output_of(
        dpkg.args(["--root-owner-group", format, &format!("-z{}", tree.effort), "--build"])
            .arg(&root)
            .arg(&path),
    )?;
    Ok(path)
}

/// What Debian calls the machine's kind.
fn architecture() -> Result<String> {
    Ok(output_of(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned())
}

/// deb-control(5).
fn control(version: &str, architecture: &str, glibc: &str, size: u64) -> String {
    format!(
        "Package: ringway
Version: {version}
Architecture: {architecture}
Maintainer: The Ringway developers <ringway@localhost>
Installed-Size: {size}
Depends: libc6 (>= {glibc}), libgcc-s1, passwd
Recommends: libpcap0.8 | libpcap0.8t64, libssl3 | libssl3t64
Section: net
Priority: optional
Description: user-space packet path for virtual machines
 A learning switch with VLANs between virtual machines (vhost-user), network
 cards, and interfaces of the host and of containers. It polls their rings from
 cores of its own and copies a frame once; guests keep their network when it is
 restarted. A traffic generator and drivers for applications of one's own are
 part of it.
"
    )
}

/// The oldest glibc that has all that `program` calls.
fn glibc(program: &Path) -> Result<String> {
    let symbols = output_of(Command::new("objdump").arg("-T").arg(program))?;
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let number = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let parts = number.split('.').map(|part| part.parse().ok());
        Some((parts.collect::<Option<Vec<u32>>>()?, number.to_owned()))
    });
    let newest = versions.max().context("the program uses no glibc")?;
    Ok(newest.1)
}

/// The sums by which `dpkg --verify` knows files again.
fn sums(root: &Path) -> Result<String> {
    let script = "find etc usr -type f -print0 | sort -z | xargs -0 md5sum";
    output_of(Command::new("sh").arg("-euc").arg(script).current_dir(root))
}

fn kibibytes(root: &Path) -> Result<u64> {
    let text = output_of(Command::new("du").args(["-sk", "--apparent-size"]).arg(root))?;
    let number = text.split_whitespace().next().context("du printed nothing")?;
    Ok(number.parse()?)
}
