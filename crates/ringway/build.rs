//! The version that the program tells: that of the package, and of which commit it was built.
//!
//! The commit is what `RINGWAY_COMMIT` says, else what cargo has noted in a published package, else
//! that of the checkout. Nothing of the time or the place goes in, so that the same sources give the
//! same program; and nothing fails where there is no git.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where this package is in the project's repository. In another repository, one that somebody has
/// copied the sources into, the commit would be one of theirs.
const PLACE: &str = "crates/ringway/";

/// As many digits of a commit as stay unique.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RINGWAY_COMMIT");
    let package = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let version = match commit(Path::new(&dir)) {
        Some(commit) => format!("{package} ({commit})"),
        None => package,
    };
    println!("cargo::rustc-env=RINGWAY_VERSION={version}");
}

fn commit(dir: &Path) -> Option<String> {
    let given = std::env::var("RINGWAY_COMMIT").ok();
    let commit = given.or_else(|| of_package(dir)).or_else(|| of_checkout(dir))?;
    let is_commit = commit.len() >= DIGITS && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    commit.get(..DIGITS).filter(|_| is_commit).map(str::to_owned)
}

/// What `cargo package` has noted.
fn of_package(dir: &Path) -> Option<String> {
    let note = std::fs::read_to_string(dir.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = note.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

fn of_checkout(dir: &Path) -> Option<String> {
    if git(dir, &["rev-parse", "--show-prefix"])? != PLACE {
        return None;
    }
    // Each commit, rebase and checkout adds to the log of HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        let path: PathBuf = dir.join(git(dir, &["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(dir, &["rev-parse", "HEAD"])
}

fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(dir).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
