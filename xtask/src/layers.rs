//! Which crate may use which: only those above it in the list of the workspace's manifest.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, bail};
use e2e::peers::workspace;

/// A crate of the house, and those that it is built with.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    name: String,
    uses: Vec<String>,
}

/// Checks the crates of this workspace.
///
/// # Errors
/// Names the first crate that uses one that is not below it.
pub fn check() -> Result<()> {
    let manifest = manifest("Cargo.toml")?;
    let listed = manifest["workspace"]["dependencies"].as_table().context("no dependencies")?;
    let ours = listed.iter().filter_map(|(name, entry)| Some((name, entry.get("path")?.as_str()?)));
    let rooms = ours.map(|(name, path)| room(name, path)).collect::<Result<Vec<_>>>()?;
    if rooms.len() < 2 {
        bail!("the workspace lists no crates of its own");
    }
    in_order(&rooms)
}

fn manifest(path: &str) -> Result<toml::Table> {
    let text = fs::read_to_string(workspace().join(path)).context(path.to_owned())?;
    text.parse().context(path.to_owned())
}

/// What a crate is built with; what only its tests use may lie anywhere.
fn room(name: &str, path: &str) -> Result<Room> {
    let manifest = manifest(&format!("{path}/Cargo.toml"))?;
    let tables = ["dependencies", "build-dependencies"].iter();
    let uses = tables.filter_map(|table| manifest.get(*table)?.as_table());
    Ok(Room { name: name.to_owned(), uses: uses.flat_map(|table| table.keys().cloned()).collect() })
}

fn in_order(rooms: &[Room]) -> Result<()> {
    let place: HashMap<&str, usize> =
        rooms.iter().enumerate().map(|(at, room)| (room.name.as_str(), at)).collect();
    for (at, room) in rooms.iter().enumerate() {
        for used in &room.uses {
            if place.get(used.as_str()).is_some_and(|below| *below >= at) {
                let name = &room.name;
                bail!(
                    "{name} uses {used}, which is not above it in the workspace's list of crates"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_use_only_what_is_below_them() {
        check().unwrap();
    }

    #[test]
    fn a_crate_that_looks_up_is_named() {
        let room = |name: &str, uses: &[&str]| Room {
            name: name.to_owned(),
            uses: uses.iter().map(|name| (*name).to_owned()).collect(),
        };
        let eal = room("eal", &["libc"]);
        assert!(in_order(&[eal, room("packet", &["eal"])]).is_ok());
        let eal = room("eal", &["packet"]);
        let error = in_order(&[eal, room("packet", &[])]).unwrap_err().to_string();
        assert!(error.starts_with("eal uses packet"), "{error}");
    }
}
