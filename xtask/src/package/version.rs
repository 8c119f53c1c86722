use std::process::Command;

use anyhow::{Context, Result};
use e2e::peers::workspace;
use e2e::process::run as output_of;

/// What a package is a version of.
pub struct Version {
    /// As Debian's and RPM's version without a revision: `0.1.0`, or `0.1.0~git20260131.0123456789ab`
    /// between releases, which is older than `0.1.0` to both.
    pub upstream: String,
    /// When its last commit was made, in seconds: files and packages are of this time, so that the
    /// same sources give the same packages.
    pub epoch: u64,
}

impl Version {
    /// That of the checkout, and the time of its last commit.
    ///
    /// # Errors
    /// When this is no checkout.
    pub fn of_checkout() -> Result<Self> {
        let package = env!("CARGO_PKG_VERSION");
        let last = git(&["log", "-1", "--format=%ct %cd %H", "--date=format-local:%Y%m%d"])?;
        let tags = git(&["tag", "--points-at", "HEAD"])?;
        Self::of(package, &last, &tags).with_context(|| format!("git log printed {last:?}"))
    }

    fn of(package: &str, last: &str, tags: &str) -> Option<Self> {
        let mut words = last.split_whitespace();
        let (epoch, date, commit) = (words.next()?, words.next()?, words.next()?);
        let is_release = tags.lines().any(|tag| tag.strip_prefix('v') == Some(package));
        let upstream = match is_release {
            true => package.to_owned(),
            false => format!("{package}~git{date}.{}", commit.get(..12)?),
        };
        Some(Self { upstream, epoch: epoch.parse().ok()? })
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    output_of(Command::new("git").current_dir(workspace()).env("TZ", "UTC").args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_between_releases_names_its_commit() {
        let last = "1700000000 20231114 0123456789abcdef0123456789abcdef01234567\n";
        let version = |tags| Version::of("1.2.3", last, tags).unwrap();
        assert_eq!(version("v1.2.3\n").upstream, "1.2.3");
        assert_eq!(version("v1.2.4\nx\n").upstream, "1.2.3~git20231114.0123456789ab");
        assert_eq!(version("").epoch, 1_700_000_000);
        assert!(Version::of("1.2.3", "", "").is_none());
    }
}
