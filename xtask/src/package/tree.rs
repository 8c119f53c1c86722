use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use e2e::peers::workspace;
use e2e::process::run as output_of;

use super::licences;
use super::version::Version;

/// Folder of what documents a package.
pub const DOCS: &str = "usr/share/doc/ringway";

/// The files that belong to the administrator once they are installed.
pub const CONFIGURATION: [&str; 3] =
    ["etc/ringway/ringway.toml", "etc/apparmor.d/ringway", "etc/apparmor.d/abstractions/ringway"];

const UNITS: &str = "usr/lib/systemd/system";

/// Files of the project, and where they are installed.
const FILES: [(&str, &str); 12] = [
    ("packaging/ringway.toml", CONFIGURATION[0]),
    ("packaging/apparmor/profile", CONFIGURATION[1]),
    ("packaging/apparmor/abstraction", CONFIGURATION[2]),
    ("packaging/ringway.service", "usr/lib/systemd/system/ringway.service"),
    ("packaging/sysusers.conf", "usr/lib/sysusers.d/ringway.conf"),
    ("packaging/tmpfiles.conf", "usr/lib/tmpfiles.d/ringway.conf"),
    ("contrib/grafana/ringway.json", "usr/share/doc/ringway/contrib/grafana/ringway.json"),
    (
        "contrib/prometheus/ringway.rules.yml",
        "usr/share/doc/ringway/contrib/prometheus/ringway.rules.yml",
    ),
    ("README.md", "usr/share/doc/ringway/README.md"),
    ("CHANGELOG.md", "usr/share/doc/ringway/CHANGELOG.md"),
    ("LICENSE-MIT", "usr/share/doc/ringway/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/ringway/LICENSE-APACHE"),
];

/// What a package is made of.
pub struct Tree<'a> {
    /// The stripped program.
    pub program: &'a Path,
    /// Man pages and completions, as [`super::pages`] writes them.
    pub pages: &'a Path,
    pub version: &'a Version,
    /// How hard packages are compressed, from 0 to 9 (xz(1)).
    pub effort: u8,
}

impl Tree<'_> {
    /// Lays all files under `root` as they are installed under `/`; zsh looks for completions in
    /// `zsh`, which is another folder with each distribution.
    pub fn lay(&self, root: &Path, zsh: &str) -> Result<()> {
        put(&fs::read(self.program)?, &root.join("usr/bin/ringway"), 0o755)?;
        for (from, to) in FILES {
            let bytes = fs::read(workspace().join(from)).with_context(|| from.to_owned())?;
            put(&bytes, &root.join(to), 0o644)?;
        }
        let unit = fs::read_to_string(workspace().join("packaging/ringway.service"))?;
        put(instance(&unit).as_bytes(), &root.join(UNITS).join("ringway@.service"), 0o644)?;
        self.lay_docs(root)?;
        self.lay_pages(root, zsh)
    }

    fn lay_docs(&self, root: &Path) -> Result<()> {
        let docs = root.join(DOCS);
        put(licences::notices()?.as_bytes(), &docs.join("THIRD-PARTY"), 0o644)?;
        for folder in ["docs", "docs/devices"] {
            for entry in fs::read_dir(workspace().join(folder))? {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == "md" || end == "json") {
                    let name = path.file_name().context("a document without a name")?;
                    let place = docs.join(folder).join(name);
                    put(&fs::read(&path)?, &place, 0o644)?;
                }
            }
        }
        Ok(())
    }

    fn lay_pages(&self, root: &Path, zsh: &str) -> Result<()> {
        for (name, place) in [
            ("ringway.bash", "usr/share/bash-completion/completions/ringway"),
            ("ringway.fish", "usr/share/fish/vendor_completions.d/ringway.fish"),
            ("_ringway", &format!("{zsh}/_ringway")),
        ] {
            put(&fs::read(self.pages.join(name))?, &root.join(place), 0o644)?;
        }
        for entry in fs::read_dir(self.pages.join("man"))? {
            let entry = entry?;
            let place = root.join("usr/share/man/man1").join(entry.file_name());
            put(&fs::read(entry.path())?, &place, 0o644)?;
            // Without a name and a time in it.
            output_of(Command::new("gzip").args(["-9", "--no-name"]).arg(&place))?;
        }
        Ok(())
    }
}

/// The unit of which there may be many, for switches with files and folders of their own.
fn instance(unit: &str) -> String {
    let unit = unit.replace("/etc/ringway/ringway.toml", "/etc/ringway/%i.toml");
    let unit = unit.replace("ringway-switch/", "ringway-switch-%i/");
    let unit = unit.replace("=ringway-switch\n", "=ringway-switch-%i\n");
    unit.replace("=Ringway switch\n", "=Ringway switch %i\n")
}

/// Writes a file, and the folders above it, for all to read.
pub fn put(bytes: &[u8], path: &Path, mode: u32) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_nothing() {
        let unit = fs::read_to_string(workspace().join("packaging/ringway.service")).unwrap();
        let instance = instance(&unit);
        assert!(unit.contains("=ringway-switch\n") && unit.contains("/ringway.toml "));
        for line in instance.lines().filter(|line| !line.starts_with('#')) {
            let shared = line.contains("ringway.toml") || line.contains("ringway-switch");
            let own = line.contains("%i") || line.starts_with("Documentation=");
            assert!(!shared || own, "{line}");
        }
    }
}
