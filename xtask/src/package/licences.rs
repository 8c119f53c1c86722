use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::test::cargo;

/// A crate of others that is linked into the program.
#[derive(Debug)]
pub struct Crate {
    /// Name and version.
    pub name: String,
    /// Its terms, as an SPDX expression.
    pub licence: String,
    /// Its licence files, as they are.
    texts: Vec<String>,
}

/// What is linked into `ringway`, by name.
pub fn linked() -> Result<Vec<Crate>> {
    let mut metadata = cargo(&["metadata", "--format-version", "1", "--locked"]);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = metadata.args(["--filter-platform", &target]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let wanted = reached(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let of_others = packages.iter().filter(|package| {
        let id = package["id"].as_str().unwrap_or_default();
        wanted.contains(id) && !package["source"].is_null()
    });
    let mut crates: Vec<Crate> = of_others.map(crate_of).collect::<Result<_>>()?;
    crates.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(crates)
}

/// The packages that `ringway` depends on, by whatever way, but for those that only its tests or
/// build need.
fn reached(metadata: &Value) -> Result<BTreeSet<&str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("no nodes")?;
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let root = nodes.keys().find(|id| id.contains("/crates/ringway#")).context("no ringway")?;
    let (mut reached, mut next) = (BTreeSet::new(), vec![*root]);
    while let Some(id) = next.pop() {
        if !reached.insert(id) {
            continue;
        }
        let deps = nodes.get(id).and_then(|node| node["deps"].as_array());
        for dep in deps.into_iter().flatten() {
            let kinds = dep["dep_kinds"].as_array();
            let is_linked = |kind: &Value| kind["kind"].is_null();
            if kinds.is_some_and(|kinds| kinds.iter().any(is_linked)) {
                next.extend(dep["pkg"].as_str());
            }
        }
    }
    Ok(reached)
}

fn crate_of(package: &Value) -> Result<Crate> {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let name = format!("{} {}", text("name"), text("version"));
    let folder = Path::new(text("manifest_path")).parent().context("no folder")?;
    let mut files: Vec<_> = fs::read_dir(folder)?.filter_map(Result::ok).collect();
    files.sort_by_key(fs::DirEntry::file_name);
    let is_licence = |file: &fs::DirEntry| {
        let name = file.file_name().to_string_lossy().to_uppercase();
        let begins = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        begins.iter().any(|begin| name.starts_with(begin)) && file.path().is_file()
    };
    let texts = files.iter().filter(|file| is_licence(file));
    let texts = texts.map(|file| fs::read_to_string(file.path())).collect::<Result<_, _>>()?;
    Ok(Crate { name, licence: text("license").to_owned(), texts })
}

/// Names, terms and texts, each text once: what many licences want to be told.
pub fn notices() -> Result<String> {
    let crates = linked()?;
    let mut out = String::from("Ringway contains these works of others:\n\n");
    let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Crate { name, licence, texts: files } in &crates {
        writeln!(out, "- {name}: {licence}")?;
        for text in files {
            texts.entry(text.trim()).or_default().push(name);
        }
    }
    for (text, names) in texts {
        writeln!(out, "\n{}\nOf {}:\n\n{text}", "-".repeat(80), names.join(", "))?;
    }
    Ok(out)
}
