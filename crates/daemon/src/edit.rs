//! Changes of a TOML file that leave comments and everything else in it as they are.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use switch::DEFAULT_BRIDGE;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use crate::bridge::Bridge;
use crate::check::check;
use crate::file::parse;
use crate::state::State;
use crate::values::{document, plain};

/// What a bridge can be told.
const BRIDGE_KEYS: [&str; 6] =
    ["group-fwd-mask", "vlan-aware", "any-source", "fdb", "rstp", "mcast-snooping"];

/// A configuration file, to be changed.
#[derive(Clone, Debug)]
pub struct Edit {
    path: PathBuf,
    document: DocumentMut,
}

impl Edit {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no TOML.
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        let document = text.parse().map_err(|error| failed(&error))?;
        Ok(Self { path: path.to_owned(), document })
    }

    /// Has the file say of mirror `name` what `state` says: nothing if it has none.
    ///
    /// # Errors
    /// When the file has something else than sections in that place.
    pub fn set_mirror(&mut self, name: &str, state: &State) -> Result<(), String> {
        self.set_in("mirrors", name, state.mirrors.get(name))
    }

    /// Has the file say of port, or vDPA device, `name` what `state` says: nothing if it has none.
    ///
    /// # Errors
    /// When the file has something else than sections in that place.
    pub fn set(&mut self, name: &str, state: &State) -> Result<(), String> {
        self.set_in("ports", name, state.ports.get(name))?;
        self.set_in("vdpa", name, state.vdpa.get(name))
    }

    /// Has the file say of a bridge what `state` says: nothing if there is none.
    ///
    /// # Errors
    /// When the file has something else than sections in that place.
    pub fn set_bridge(&mut self, name: &str, state: &State) -> Result<(), String> {
        match name {
            DEFAULT_BRIDGE => self.set_default_bridge(&state.default_bridge()),
            _ => self.set_in("bridges", name, state.bridges.get(name)),
        }
    }

    /// The settings of the default bridge are those outside of sections for bridges.
    fn set_default_bridge(&mut self, bridge: &Bridge) -> Result<(), String> {
        let wanted = document(bridge)?;
        let root = self.document.as_table_mut();
        for key in BRIDGE_KEYS {
            match wanted.get(key).map(|item| (item, item.as_table_like())) {
                None => _ = root.remove(key),
                Some((item, None)) => update_value(root, key, item),
                Some((_, Some(wanted))) => {
                    let own = root.entry(key).or_insert_with(|| Item::Table(Table::new()));
                    let own = own.as_table_like_mut();
                    update(own.ok_or_else(|| format!("'{key}' in the file is no table"))?, wanted);
                }
            }
        }
        Ok(())
    }

    fn set_in(
        &mut self,
        section: &str,
        name: &str,
        wanted: Option<&impl Serialize>,
    ) -> Result<(), String> {
        let Some(wanted) = wanted else {
            let section = self.document.get_mut(section).and_then(Item::as_table_like_mut);
            section.map(|section| section.remove(name));
            return Ok(());
        };
        let wanted = document(wanted)?;
        let no_table = || format!("{}: '{section}' is no table", self.path.display());
        let implied = || {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        };
        let ports = self.document.entry(section).or_insert_with(implied);
        let ports = ports.as_table_like_mut().ok_or_else(no_table)?;
        let port = ports.entry(name).or_insert_with(|| Item::Table(Table::new()));
        let port = port
            .as_table_like_mut()
            .ok_or_else(|| format!("'{section}.{name}' in the file is no table"))?;
        update(port, wanted.as_table());
        Ok(())
    }

    /// Checks that a switch could start with what the file is to say. What it says as `running`
    /// does, it may say by what only the command line has.
    ///
    /// # Errors
    /// What would be wrong: it may depend on something that is not in the file, such as a bridge
    /// that was not saved, or one that a port there is still in.
    pub fn check(&self, running: &State) -> Result<(), String> {
        let wrong = |reason: &dyn std::fmt::Display| {
            format!("no switch could start with {} then: {reason}", self.path.display())
        };
        let state = parse(&self.text()).map_err(|problem| wrong(&problem.message))?;
        check(running, &state).map_err(|error| wrong(&error))
    }

    /// The text that the file is to have.
    #[must_use]
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Writes the file: another one in its place, with the same owner and permissions, so that
    /// nobody ever sees half of it.
    ///
    /// # Errors
    /// When that cannot be done; the file is as it was then.
    pub fn store(&self) -> Result<(), String> {
        // A link is to stay one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let stored = replace(&path, self.text().as_bytes());
        stored.map_err(|error| format!("{}: cannot write it: {error}", path.display()))
    }
}

/// Gives `table` the values of `wanted` and no others; one that is the same already keeps the way
/// in which it is written, and so does a table in it: of its own, dotted or inline.
fn update(table: &mut dyn TableLike, wanted: &dyn TableLike) {
    let keys: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys.iter().filter(|key| !wanted.contains_key(key)) {
        table.remove(key);
    }
    for (key, item) in wanted.iter() {
        match item.as_table_like() {
            Some(wanted) => update_table(table, key, wanted),
            None => update_value(table, key, item),
        }
    }
}

/// Gives the table `key` of `parent` the values of `wanted`. A new one is dotted, so that it stays
/// among the keys of its parent.
fn update_table(parent: &mut dyn TableLike, key: &str, wanted: &dyn TableLike) {
    if parent.get(key).is_none_or(|old| !old.is_table_like()) {
        let mut dotted = Table::new();
        dotted.set_dotted(true);
        parent.insert(key, Item::Table(dotted));
    }
    if let Some(table) = parent.get_mut(key).and_then(Item::as_table_like_mut) {
        update(table, wanted);
    }
}

fn update_value(table: &mut dyn TableLike, key: &str, item: &Item) {
    // Whatever the way in which it is written.
    let is_same = table.get(key).map(plain) == Some(plain(item));
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(_) if is_same => {}
        Some(old) => {
            if let Some(new) = item.as_value() {
                // The comment behind it stays.
                let decor = old.decor().clone();
                *old = new.clone();
                *old.decor_mut() = decor;
            }
        }
        None => _ = table.insert(key, item.clone()),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let written = write_new(&new, &old, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_new(path: &Path, like: &fs::Metadata, bytes: &[u8]) -> io::Result<()> {
    let mut file: File =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# The switch of rack 7.
workers = 2   # two are enough

[ports.a]
device = 'null:'   # nothing
mtu = 0x5dc   # 1500
workers = [
  0,  # the first
]

[ports]
b = { device = \"null:\", mtu = 1500 }
";

    fn edited(change: impl FnOnce(&mut State)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, TEXT).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let mut edit = Edit::open(&path).unwrap();
        let mut state = parse(TEXT).unwrap();
        change(&mut state);
        for name in ["a", "b", "c", "v"] {
            edit.set(name, &state).unwrap();
        }
        edit.store().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(parse(&text).unwrap(), state, "{text}");
        text
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        assert_eq!(edited(|_| {}), TEXT);
        let text = edited(|state| {
            let a = state.port_mut("a").unwrap();
            (a.mtu, a.enabled) = (Some(9000), false);
            a.addresses.insert("52:54:00:00:00:01".parse().unwrap());
            state.port_mut("b").unwrap().mtu = None;
        });
        let expected = TEXT.replace("0x5dc   # 1500", "9000   # 1500").replace(
            "]\n\n[ports]",
            "]\nenabled = false\naddresses = [\"52:54:00:00:00:01\"]\n\n[ports]",
        );
        assert_eq!(text, expected.replace(", mtu = 1500 }", "}"));
    }

    /// The file `text`, after port `a` was set to the VLAN settings in `vlan`.
    fn with_vlan(text: &str, vlan: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, text).unwrap();
        let mut edit = Edit::open(&path).unwrap();
        let wanted = parse(&format!("[ports.a]\ndevice = 'null:'\n{vlan}")).unwrap();
        let mut state = parse(text).unwrap();
        state.port_mut("a").unwrap().vlan = wanted.ports["a"].vlan.clone();
        edit.set("a", &state).unwrap();
        assert_eq!(parse(&edit.text()).unwrap(), state, "{}", edit.text());
        edit.text()
    }

    #[test]
    fn tables_of_a_port_change_in_the_way_they_are_written() {
        let own = "[ports.a]\ndevice = 'null:'\n[ports.a.vlan] # ours\ntag = 1 # one\n[ports.b]\ndevice = 'null:'\n";
        let dotted =
            "[ports.a]\ndevice = 'null:'\nvlan.tag = 1 # one\n[ports.b]\ndevice = 'null:'\n";
        let inline = "[ports.a]\ndevice = 'null:'\nvlan = { tag = 1 } # one\n";
        let all = "[ports]\na = { device = 'null:', vlan.tag = 1 }\n";
        for text in [own, dotted, inline, all] {
            assert_eq!(with_vlan(text, "vlan.tag = 1"), text);
            assert_eq!(with_vlan(text, "vlan.tag = 2"), text.replace("tag = 1", "tag = 2"));
            assert!(!with_vlan(text, "").contains("tag"));
            with_vlan(text, "vlan = { mode = 'trunk', trunks = [5] }");
        }
        let without = "[ports.a]\ndevice = 'null:'\n[ports.b]\ndevice = 'null:'\n";
        let with = without.replacen("'null:'\n", "'null:'\nvlan.tag = 7\n", 1);
        assert_eq!(with_vlan(without, "vlan.tag = 7"), with);
        let text = "[ports]\na = { device = 'null:' }\n";
        assert!(with_vlan(text, "vlan.tag = 7").contains("tag = 7"));
    }

    #[test]
    fn the_default_bridge_is_what_stands_outside_of_sections() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text =
            "workers = 1 # one\n[fdb] # addresses\nageing = 60\n[ports.a]\ndevice = 'null:'\n";
        fs::write(&path, text).unwrap();
        let saved = |settings: serde_json::Value| {
            let mut state = parse(text).unwrap();
            let settings = settings.as_object().unwrap().clone();
            state.set_bridge(DEFAULT_BRIDGE, settings).unwrap();
            let mut edit = Edit::open(&path).unwrap();
            edit.set_bridge(DEFAULT_BRIDGE, &state).unwrap();
            assert_eq!(parse(&edit.text()).unwrap(), state, "{}", edit.text());
            edit.text()
        };
        assert_eq!(saved(serde_json::json!({})), text);
        assert_eq!(saved(serde_json::json!({"fdb.ageing": 7})), text.replace("60", "7"));
        assert!(!saved(serde_json::json!({"fdb.ageing": null})).contains("ageing"));
        for (settings, expected) in [
            (serde_json::json!({"group-fwd-mask": 1}), "group-fwd-mask = 1\n[fdb] # addresses"),
            (serde_json::json!({"rstp.enabled": true}), "[rstp]\nenabled = true\n"),
            (serde_json::json!({"mcast-snooping.enabled": true}), "[mcast-snooping]\nenabled ="),
        ] {
            let text = saved(settings);
            assert!(text.contains(expected), "{text}");
        }
        // There is no other setting of a bridge.
        let every = Bridge::from(&switch::BridgeOptions::default());
        for (key, _) in document(&every).unwrap().iter() {
            assert!(BRIDGE_KEYS.contains(&key), "{key}");
        }
    }

    #[test]
    fn a_file_that_no_switch_could_start_with_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text = "[bridges.red]\n[ports.a]\ndevice = 'null:'\nbridge = 'red'\n";
        fs::write(&path, text).unwrap();
        let mut running = parse(text).unwrap();
        let mut edit = Edit::open(&path).unwrap();
        assert_eq!(edit.check(&running), Ok(()));
        // What is saved is in a bridge that is not.
        let other =
            parse("[bridges.blue]\n[ports.a]\ndevice = 'null:'\nbridge = 'blue'\n").unwrap();
        edit.set("a", &other).unwrap();
        let error = edit.check(&other).unwrap_err();
        assert!(error.contains("no bridge 'blue'"), "{error}");
        // The command line may have workers of which the file says nothing.
        running.port_mut("a").unwrap().workers = vec![7];
        edit.set("a", &running).unwrap();
        assert_eq!(edit.check(&running), Ok(()));
    }

    #[test]
    fn ports_come_and_go_as_sections() {
        let text = edited(|state| {
            state.remove("a").unwrap();
            state.add_port("c", crate::Port::new("tap:x")).unwrap();
        });
        assert!(!text.contains("[ports.a]") && text.starts_with("# The switch of rack 7."));
        let text = edited(|state| {
            let device = crate::Vdpa::parse("vdpa:vhost-vdpa:n,socket=/s,client=on").unwrap();
            state.add_vdpa("v", device).unwrap();
        });
        let section = "[vdpa.v]\ndevice = \"vhost-vdpa:n\"\nsocket = \"/s\"\nclient = true\n";
        assert!(text.contains(section), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        assert!(Edit::open(&path).unwrap_err().contains("c.toml"));
        fs::write(&path, TEXT).unwrap();
        let edit = Edit::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(edit.store().unwrap_err().contains("cannot write it"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
