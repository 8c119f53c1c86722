use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use e2e::peers::workspace;
use e2e::process::run as output_of;

use super::tree::Tree;

/// Makes an `.rpm` of the tree.
pub fn build(tree: &Tree<'_>, out: &Path) -> Result<PathBuf> {
    let dir = tempfile::tempdir()?;
    let (root, top) = (dir.path().join("root"), dir.path().join("rpm"));
    tree.lay(&root, "usr/share/zsh/site-functions")?;
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.env("SOURCE_DATE_EPOCH", tree.version.epoch.to_string());
    let payload = format!("w{}.xzdio", tree.effort);
    for (name, value) in [
        ("_topdir", top.as_path()),
        ("_binary_payload", payload.as_ref()),
        ("ringway_tree", &root),
        ("ringway_version", tree.version.upstream.as_ref()),
        ("_buildhost", "localhost".as_ref()),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {}", value.display()));
    }
    let spec = workspace().join("packaging/ringway.spec");
    output_of(rpmbuild.args(["-bb", "--quiet"]).arg(spec))?;
    let folder = top.join("RPMS").join(std::env::consts::ARCH);
    let made = fs::read_dir(folder)?.next().context("rpmbuild has made nothing")??;
    let path = out.join(made.file_name());
    fs::copy(made.path(), &path)?;
    Ok(path)
}
