//! Whether the same commit gives the same packages, wherever they are built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::peers::{target_dir, workspace};
use e2e::process::run as output_of;

/// Refuses a checkout that has more than its last commit, of which packages would be built.
pub fn check_checkout() -> Result<()> {
    let changed = output_of(&mut git(&["status", "--porcelain", "--untracked-files=no"]))?;
    ensure!(changed.is_empty(), "packages of a commit are compared; these are in none:\n{changed}");
    Ok(())
}

/// Builds the packages once more, from a clone in another folder and with nothing that is built yet,
/// and compares them with those that were `made`, byte by byte.
pub fn run(made: &[PathBuf]) -> Result<()> {
    let folder = target_dir().with_file_name("reproduced");
    // What is left of an earlier time would be taken for built.
    let _ = fs::remove_dir_all(&folder);
    let (clone, out) = (folder.join("clone"), folder.join("packages"));
    fs::create_dir_all(&folder)?;
    let mut command = Command::new("git");
    output_of(command.args(["clone", "--quiet"]).arg(workspace()).arg(&clone))?;
    println!("package: building once more, in {}", clone.display());
    let mut cargo = crate::test::cargo(&["xtask", "package", "--out"]);
    cargo.arg(&out).current_dir(&clone).env("CARGO_TARGET_DIR", clone.join("target"));
    let status = cargo.status()?;
    ensure!(status.success(), "the packages do not build in {}: {status}", clone.display());
    compare(made, &out)?;
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
}

/// Compares each file with the one of its name in `other`.
fn compare(made: &[PathBuf], other: &Path) -> Result<()> {
    let mut different = Vec::new();
    for path in made {
        let name = path.file_name().context("a package without a name")?;
        let twin = other.join(name);
        let bytes = fs::read(&twin).with_context(|| format!("{}, built again", twin.display()))?;
        match fs::read(path)? == bytes {
            true => println!("package: {} is the same again", name.display()),
            false => different.push(format!("{} and {}", path.display(), twin.display())),
        }
    }
    let all = different.join("; ");
    ensure!(different.is_empty(), "not the same, which diffoscope(1) tells more of: {all}");
    Ok(())
}

fn git(arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(workspace()).args(arguments);
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_makes_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for folder in [&one, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("a.deb"), b"same").unwrap();
        }
        let made = [one.join("a.deb"), one.join("b.rpm")];
        compare(&made[..1], &other).unwrap();
        fs::write(&made[1], b"here").unwrap();
        assert!(compare(&made, &other).unwrap_err().to_string().contains("built again"));
        fs::write(other.join("b.rpm"), b"herE").unwrap();
        let error = compare(&made, &other).unwrap_err().to_string();
        assert!(error.contains("b.rpm and ") && !error.contains("a.deb"), "{error}");
    }
}
