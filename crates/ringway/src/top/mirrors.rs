//! Mirrors.

use super::column::Column;
use super::columns::{RATE, column};
use super::detail::{Line, paragraph};
use super::model::per_second;
use super::sample::Sample;
use super::sheet::{Row, contains};
use super::value::Value;
use crate::control::protocol::Mirror;
use crate::show::mirrors::{destination, selection};
use crate::table::{Tone, count};

/// A mirror. What is `None` has no earlier sample.
#[derive(Clone, Debug)]
pub struct MirrorRow {
    /// As the switch tells of it.
    pub mirror: Mirror,
    /// Copies per second.
    pub packets: Option<f64>,
    /// Bits of them.
    pub bits: Option<f64>,
    /// Those that are missing in its file.
    pub missed: Option<f64>,
}

/// All mirrors.
pub fn rows(now: &Sample, before: Option<&Sample>, seconds: Option<f64>) -> Vec<MirrorRow> {
    let all = now.mirrors.mirrors.iter().map(|mirror| {
        let others = before.map(|before| &before.mirrors.mirrors);
        let before = others.and_then(|all| all.iter().find(|one| one.name == mirror.name));
        let rate = |take: fn(&Mirror) -> u64| per_second(take(mirror), before.map(take), seconds);
        MirrorRow {
            mirror: mirror.clone(),
            packets: rate(|mirror| mirror.packets),
            bits: rate(|mirror| mirror.bytes).map(|bytes| bytes * 8.0),
            missed: rate(|mirror| mirror.missed),
        }
    });
    all.collect()
}

impl Row for MirrorRow {
    fn key(&self) -> String {
        self.mirror.name.clone()
    }

    fn has(&self, word: &str) -> bool {
        let texts = [self.mirror.name.clone(), selection(&self.mirror), destination(&self.mirror)];
        texts.iter().any(|text| contains(text, word))
            || contains(self.mirror.mirror.bridge_name(), word)
    }
}

fn state(row: &MirrorRow) -> Value {
    let (text, tone) = match (row.mirror.active, &row.mirror.trouble) {
        (true, _) => ("active", Tone::Good),
        (false, Some(_)) => ("TROUBLE", Tone::Bad),
        (false, None) => ("no output", Tone::Bad),
    };
    Value::Text(text.to_owned(), tone)
}

/// Columns of mirrors.
pub const MIRRORS: &[Column<MirrorRow>] = &[
    column("mirror", 99, 10, |row| Value::text(&row.mirror.name)),
    column("state", 98, 9, state),
    column("pps", 97, RATE, |row| Value::Rate(row.packets)),
    column("b/s", 96, RATE, |row| Value::Rate(row.bits)),
    column("missed/s", 95, RATE, |row| Value::Trouble(row.missed)),
    column("copies", 94, 12, |row| Value::text(selection(&row.mirror))),
    column("to", 93, 12, |row| Value::text(destination(&row.mirror))),
    column("missed", 80, RATE, |row| Value::Troubles(row.mirror.missed)),
    column("frames", 79, 10, |row| Value::Count(Some(row.mirror.packets))),
    column("bridge", 78, 7, |row| Value::text(row.mirror.mirror.bridge_name())),
];

/// All there is to tell of a mirror.
pub fn detail(row: &MirrorRow, width: usize) -> Vec<Line> {
    let mirror = &row.mirror;
    let mut lines = vec![Line::heading(format!("mirror {}", mirror.name))];
    let facts = format!(
        "bridge {}, copies {}, to {}",
        mirror.mirror.bridge_name(),
        selection(mirror),
        destination(mirror)
    );
    lines.extend(paragraph(&facts, width));
    lines.push(Line::plain(format!(
        "{} frames with {} bytes, {} missed",
        count(mirror.packets),
        count(mirror.bytes),
        count(mirror.missed)
    )));
    match &mirror.trouble {
        Some(trouble) => lines.push(Line::toned(trouble.clone(), Tone::Bad)),
        None if !mirror.active => lines.push(Line::toned("its output is not there", Tone::Bad)),
        None => {}
    }
    lines
}
