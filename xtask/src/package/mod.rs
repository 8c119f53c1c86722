/// Terms of what is linked in.
#[cfg(test)]
mod allowed;
/// What AppArmor lets the service do.
mod apparmor;
/// Installed, started, upgraded and removed.
mod check;
/// Debian's format.
mod deb;
/// The image of a container.
mod image;
/// Who has written what is linked in, and on which terms.
mod licences;
/// Man pages and completions.
mod pages;
/// The same commit, built again.
mod reproduce;
/// The format of Fedora, openSUSE and others.
mod rpm;
/// How large the program may be.
mod size;
/// A system that is ours alone, to install packages in.
mod stage;
/// What is installed where.
mod tree;
/// The version of a package.
mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::Peer;
use e2e::peers::{are_there, target_dir, workspace};
use e2e::process::run as output_of;

use self::tree::Tree;
use self::version::Version;

/// The profile of what is shipped.
const PROFILE: &str = "dist";

/// How `cargo xtask package` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the packages go [default: packages in the target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Install, start, upgrade and remove the packages, in namespaces of their own (as root)
    #[arg(long)]
    check: bool,
    /// Package this program instead of building one as it is shipped
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Build them once more in another folder, and compare
    #[arg(long, conflicts_with = "program")]
    reproduce: bool,
    /// The unit tests of `ringway`, which write man pages, instead of building them
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
}

/// Builds the packages; gives whether they pass what was asked for.
pub fn run(options: &Options) -> Result<bool> {
    let mut peers = vec![Peer::Packages];
    peers.extend(options.check.then_some(Peer::Netns));
    if !are_there(&peers) {
        return Ok(true);
    }
    if options.reproduce {
        reproduce::check_checkout()?;
    }
    let version = Version::of_checkout()?;
    let work = tempfile::tempdir()?;
    let program = work.path().join("ringway");
    strip(&built(options.program.as_deref(), &version)?, &program)?;
    size::check(&program, options.program.is_none())?;
    let pages = pages::write(options.tests.as_deref(), &work.path().join("pages"))?;
    // What is only tried is not worth much time.
    let effort = if options.program.is_some() { 0 } else { 9 };
    let tree = Tree { program: &program, pages: &pages, version: &version, effort };
    let out = target_dir().with_file_name("packages");
    let out = options.out.clone().unwrap_or(out);
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let made = [deb::build(&tree, 1, &out)?, rpm::build(&tree, &out)?, tarball(&tree, &out)?];
    for path in made.iter().chain([&program]) {
        println!("{:>10} {}", fs::metadata(path)?.len(), path.display());
    }
    if options.reproduce {
        reproduce::run(&made)?;
    }
    if options.check {
        let [deb, rpm, _] = &made;
        let next = deb::build(&tree, 2, work.path())?;
        check::run(&check::Packages { deb, next: &next, rpm }, &pages)?;
        println!("package: the image of a container");
        image::check(deb)?;
    }
    Ok(true)
}

/// The program that was given, or one that is built here.
fn built(given: Option<&Path>, version: &Version) -> Result<PathBuf> {
    if let Some(program) = given {
        return Ok(program.to_owned());
    }
    // Nothing of where it was built.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let places = [(Some(workspace()), "/ringway"), (home, "/cargo")];
    let mut flags: Vec<String> = places
        .iter()
        .filter_map(|(from, to)| {
            Some(format!("--remap-path-prefix={}={to}", from.as_ref()?.display()))
        })
        .collect();
    if cfg!(target_arch = "x86_64") {
        // One function for all that are alike, which the linker that Rust has there can do.
        flags.push("-Clink-arg=-Wl,--icf=all".to_owned());
    }
    // Its main function is built for speed, and with it the link, whatever the level of its library.
    let mut cargo = crate::test::cargo(&["rustc", "--locked", "--profile", PROFILE]);
    cargo.args(["--package", "ringway", "--bin", "ringway", "--", "-Copt-level=3"]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.env("RUSTC_WRAPPER", workspace().join("xtask/size-rustc"));
    cargo.env("SOURCE_DATE_EPOCH", version.epoch.to_string());
    let status = cargo.status()?;
    ensure!(status.success(), "the program does not build: {status}");
    Ok(target_dir().with_file_name(PROFILE).join("ringway"))
}

/// Leaves out what only debuggers read.
fn strip(from: &Path, to: &Path) -> Result<()> {
    output_of(Command::new("strip").args(["--strip-all", "-o"]).arg(to).arg(from)).map(drop)
}

/// The same files in a folder, for systems with other packages or none.
fn tarball(tree: &Tree<'_>, out: &Path) -> Result<PathBuf> {
    let dir = tempfile::tempdir()?;
    let name = format!("ringway-{}-{}-linux", tree.version.upstream, std::env::consts::ARCH);
    tree.lay(&dir.path().join(&name), "usr/share/zsh/site-functions")?;
    let path = out.join(format!("{name}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--xz", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{}", tree.version.epoch));
    tar.env("XZ_OPT", format!("-{}", tree.effort));
    tar.args(["--format=gnu", "--mode=go-w", "--file"]).arg(&path);
    output_of(tar.arg("--directory").arg(dir.path()).arg(&name))?;
    Ok(path)
}
