use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest::Guest;
use crate::image::ImageSpec;
use crate::peers::{find_program, target_dir, workspace};
use crate::process::run;

/// What the parser has made of the profiles, in a guest.
const POLICY: &str = "/etc/apparmor.policy";

/// Where the profile has the program: its place in packages.
const PROGRAM: &str = "/usr/bin/ringway";

/// Adds the profiles that our packages have, for [`load`].
///
/// # Errors
/// When AppArmor's parser is not installed, or does not understand them.
pub fn with_profiles(spec: ImageSpec) -> Result<ImageSpec> {
    Ok(spec.file(&compiled()?, Path::new(POLICY)))
}

/// The profiles as a kernel takes them, which need not be this machine's.
fn compiled() -> Result<PathBuf> {
    let parser = find_program("apparmor_parser").context("apparmor_parser is not installed")?;
    let packaging = workspace().join("packaging/apparmor");
    let includes = tempfile::tempdir()?;
    let abstractions = includes.path().join("abstractions");
    fs::create_dir(&abstractions)?;
    fs::copy(packaging.join("abstraction"), abstractions.join("ringway"))?;
    let made = includes.path().join("policy");
    let mut command = Command::new(parser);
    command.args(["--skip-kernel-load", "--skip-cache", "--Include"]).arg(includes.path());
    command.args(["--Include", "/etc/apparmor.d", "--ofile"]).arg(&made);
    run(command.arg(packaging.join("profile")))?;
    // An image is made anew when one of its files is another one.
    let kept = target_dir().join("apparmor.policy");
    let made = fs::read(made)?;
    if fs::read(&kept).ok().as_ref() != Some(&made) {
        fs::create_dir_all(target_dir())?;
        fs::write(&kept, made)?;
    }
    Ok(kept)
}

/// Has the guest's kernel take the profiles, and the program be where they have it.
///
/// # Errors
/// When the kernel refuses them, or has no AppArmor.
pub fn load(guest: &mut Guest) -> Result<()> {
    let directory = "/sys/kernel/security";
    guest.sh(&format!(
        "mount -t securityfs securityfs {directory} && cat {POLICY} >{directory}/apparmor/.load && \
         mkdir -p /usr/bin && ln /bin/ringway {PROGRAM}"
    ))?;
    Ok(())
}

/// A line for a guest's shell that has the program run under a profile instead of the shell.
#[must_use]
pub fn line(profile: &str, arguments: &str) -> String {
    format!("echo 'exec {profile}' >/proc/self/attr/apparmor/exec && exec {PROGRAM} {arguments}")
}
