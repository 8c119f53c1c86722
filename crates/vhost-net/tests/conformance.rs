//! Compares `docs/vhost-user.md` with the code: what is said to be supported is, and nothing is left
//! out. (That the tests which are named exist is a test of xtask's.)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrayvec::ArrayVec;
use virtio::Features;

use vhost::backend::Backend;
use vhost::frontend::{LISTENING, ON_REQUEST, WANTED};
use vhost::protocol::{
    BackendMessage, BackendRequest, FrontendRequest, ProtocolError, ProtocolFeatures,
};
use vhost::session::{IMPLEMENTED, OPTIONAL};
use vhost_net::NetDevice;

const TABLES: &str = include_str!("../../../docs/vhost-user.md");

/// The highest numbers of the specification.
const LAST_FRONTEND_REQUEST: u32 = 45;
const LAST_BACKEND_REQUEST: u32 = 10;
const LAST_PROTOCOL_FEATURE: u32 = 23;

/// What vDPA devices offer beyond it.
const VDPA: ProtocolFeatures = ProtocolFeatures::CONFIG
    .union(ProtocolFeatures::BACKEND_SEND_FD)
    .union(ProtocolFeatures::HOST_NOTIFIER);

/// A row of a table, by its number.
struct Row<'a> {
    name: &'a str,
    needs: Option<ProtocolFeatures>,
    backend: &'a str,
    frontend: &'a str,
    /// What is left of the row.
    rest: &'a str,
}

/// The rows below the heading `title`, in the order of columns `[name, backend, frontend]`.
fn table<'a>(title: &str, [name, backend, frontend]: [usize; 3]) -> BTreeMap<u32, Row<'a>> {
    let heading = format!("\n## {title}\n");
    let (_, after) = TABLES.split_once(&heading).expect(title);
    let section = after.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Ok(number) = cells[1].parse() else { continue };
        let row = Row {
            name: cells[name].trim_matches('`'),
            needs: ProtocolFeatures::from_name(cells[name + 1].trim_matches('`')),
            backend: cells[backend],
            frontend: cells[frontend],
            rest: cells[frontend + 1],
        };
        assert!(["yes", "vdpa", "option", "ignored", "no"].contains(&row.backend), "{line}");
        assert!(["yes", "no"].contains(&row.frontend), "{line}");
        assert!(rows.insert(number, row).is_none(), "{title}: {number} twice");
    }
    rows
}

fn requests<'a>(title: &str) -> BTreeMap<u32, Row<'a>> {
    table(title, [2, 4, 5])
}

fn bits<'a>(title: &str) -> BTreeMap<u32, Row<'a>> {
    table(title, [2, 3, 4])
}

/// All files of Rust below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Who offers a protocol feature to front-ends.
fn offered(feature: ProtocolFeatures) -> &'static str {
    let network = NetDevice::new("test", 2).unwrap().protocol_features() & IMPLEMENTED;
    match () {
        () if network.contains(feature) => "yes",
        () if (IMPLEMENTED & VDPA).contains(feature) => "vdpa",
        () if OPTIONAL.contains(feature) => "option",
        () => "no",
    }
}

/// GET_FEATURES is `GetFeatures`.
fn camel_case(name: &str) -> String {
    let word = |word: &str| word[..1].to_owned() + &word[1..].to_lowercase();
    name.split('_').map(word).collect()
}

#[test]
fn messages_of_the_front_end_are_as_the_table_says() {
    let rows = requests("Messages of the front-end");
    assert!(rows.keys().copied().eq(1..=LAST_FRONTEND_REQUEST));
    let files = sources(&root().join("crates/vhost/src/frontend"));
    let files = files.into_iter().chain([root().join("crates/vhost/src/frontend.rs")]);
    let front_end: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    for (number, row) in rows {
        let known = FrontendRequest::try_from(number).ok();
        let state = match (known, row.needs) {
            (None, _) => "no",
            (Some(FrontendRequest::ResetOwner), _) => "ignored",
            (Some(_), needs) => needs.map_or("yes", offered),
        };
        assert_eq!(row.backend, state, "{number} {}", row.name);
        assert!(known.is_none_or(|request| request.name() == row.name), "{number} {}", row.name);
        let message = format!("FrontendMessage::{}", camel_case(row.name));
        let sends = front_end.match_indices(&message).any(|(at, _)| {
            // Not that of a longer name.
            !front_end[at + message.len()..].starts_with(char::is_alphanumeric)
        });
        assert_eq!(row.frontend == "yes", sends, "{number} {}", row.name);
        assert_eq!(row.backend == "no" && row.frontend == "no", row.rest.is_empty(), "{number}");
    }
}

#[test]
fn messages_of_the_back_end_are_as_the_table_says() {
    let rows = requests("Messages of the back-end");
    assert!(rows.keys().copied().eq(1..=LAST_BACKEND_REQUEST));
    for (number, row) in rows {
        let known = BackendRequest::try_from(number).ok();
        assert!(known.is_none_or(|request| request.name() == row.name), "{number} {}", row.name);
        let decoded = BackendMessage::decode(number, &[], ArrayVec::new());
        let unknown = decoded.err() == Some(ProtocolError::UnknownRequest(number));
        assert_eq!((row.backend, row.frontend) == ("no", "no"), unknown, "{number} {}", row.name);
        assert_eq!(unknown, row.rest.is_empty(), "{number} {}", row.name);
    }
}

#[test]
fn protocol_features_are_as_the_table_says() {
    let rows = bits("Protocol features");
    assert!(rows.keys().copied().eq(0..=LAST_PROTOCOL_FEATURE));
    for (bit, row) in rows {
        let feature = ProtocolFeatures::from_name(row.name).expect(row.name);
        assert_eq!(feature.bits(), 1 << bit, "{}", row.name);
        assert_eq!(row.backend, offered(feature), "{}", row.name);
        let front_end =
            if (WANTED | LISTENING | ON_REQUEST).contains(feature) { "yes" } else { "no" };
        assert_eq!(row.frontend, front_end, "{}", row.name);
    }
}

/// What the front-end takes of them is its driver's matter, and compared there.
#[test]
fn virtio_features_are_as_the_table_says() {
    let rows = bits("Features of virtio");
    let offered = NetDevice::new("test", 2).unwrap().with_iommu().unwrap().features();
    for (name, feature) in Features::all().iter_names() {
        let row = rows.get(&feature.bits().trailing_zeros()).expect(name);
        assert_eq!(row.name, name);
    }
    for (bit, row) in rows {
        assert_eq!(row.backend == "yes", offered & 1 << bit != 0, "{bit} {}", row.name);
        let known = Features::from_name(row.name).is_some();
        assert!(known || (row.backend, row.frontend) == ("no", "no"), "{bit} {}", row.name);
    }
}
