//! vDPA devices.

use std::collections::BTreeMap;

use ordered::Gather as _;

use super::column::Column;
use super::columns::{RATE, column, size};
use super::detail::{Line, paragraph, table_lines};
use super::model::per_second;
use super::sample::Sample;
use super::sheet::{Row, contains};
use super::value::{Value, short};
use crate::control::protocol::VdpaDevice;
use crate::table::{Align, Table, Tone, count};

/// A vDPA device.
#[derive(Clone, Debug)]
pub struct VdpaRow {
    /// As the switch tells of it.
    pub device: VdpaDevice,
    /// What it counts, per second, by its own names; none without an earlier sample.
    pub rates: BTreeMap<String, f64>,
}

/// All of them.
pub fn rows(now: &Sample, before: Option<&Sample>, seconds: Option<f64>) -> Vec<VdpaRow> {
    let all = now.vdpa.devices.iter().map(|device| {
        let others = before.map(|before| &before.vdpa.devices);
        let before = others.and_then(|all| all.iter().find(|one| one.name == device.name));
        let rate = |(name, count): (&String, &u64)| {
            let before = before.and_then(|before| before.statistics.get(name).copied());
            Some((name.clone(), per_second(*count, before, seconds)?))
        };
        VdpaRow {
            device: device.clone(),
            rates: device.statistics.iter().filter_map(rate).gather(),
        }
    });
    all.collect()
}

impl Row for VdpaRow {
    fn key(&self) -> String {
        self.device.name.clone()
    }

    fn has(&self, word: &str) -> bool {
        let VdpaDevice { name, device, socket, state, .. } = &self.device;
        [name, device, socket, state].into_iter().any(|text| contains(text, word))
    }
}

fn state(row: &VdpaRow) -> Value {
    let tone = match row.device.state.as_str() {
        "running" => Tone::Good,
        "failed" | "busy" => Tone::Bad,
        _ => Tone::Faint,
    };
    Value::Text(row.device.state.clone(), tone)
}

/// What it counts most of now, frames or kicks or whatever it is.
fn busiest(row: &VdpaRow) -> Option<(&str, f64)> {
    let rates = row.rates.iter().map(|(name, rate)| (name.as_str(), *rate));
    rates.filter(|(_, rate)| *rate > 0.0).max_by(|one, other| one.1.total_cmp(&other.1))
}

/// Columns of vDPA devices.
pub const VDPA: &[Column<VdpaRow>] = &[
    column("name", 99, 8, |row| Value::text(&row.device.name)),
    column("state", 98, 9, state),
    column("rings", 97, 5, |row| size(row.device.rings.len())),
    column("pairs", 96, 5, |row| size(row.device.queue_pairs.into())),
    column("most/s", 95, RATE, |row| Value::Rate(Some(busiest(row).map_or(0.0, |most| most.1)))),
    column("of", 94, 10, |row| Value::text(busiest(row).map_or("-", |most| most.0))),
    column("device", 93, 16, |row| Value::text(&row.device.device)),
    column("role", 80, 6, |row| Value::text(&row.device.role)),
    column("doorbells", 79, 5, |row| size(row.device.mapped_doorbells.len())),
    column("socket", 78, 12, |row| Value::text(&row.device.socket)),
];

/// All there is to tell of a device.
pub fn detail(row: &VdpaRow, width: usize) -> Vec<Line> {
    let device = &row.device;
    let mut lines = vec![Line::heading(format!("{}  {}", device.name, device.state))];
    lines.extend(device.reason.iter().map(|reason| Line::toned(reason.clone(), Tone::Bad)));
    let numbers = |all: &[u16]| match all.is_empty() {
        true => "none".to_owned(),
        false => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let facts = format!(
        "{}, {} at {}, {} queue pairs, rings {}, of these the guest rings the doorbell itself of {}",
        device.device,
        device.role,
        device.socket,
        device.queue_pairs,
        numbers(&device.rings),
        numbers(&device.mapped_doorbells)
    );
    lines.extend(paragraph(&facts, width));
    if !device.features.is_empty() {
        lines.extend(paragraph(&format!("features {}", device.features.join(" ")), width));
    }
    if device.statistics.is_empty() {
        return lines;
    }
    lines.push(Line::plain(""));
    let columns =
        [("counter", Align::Left), ("per second", Align::Right), ("in all", Align::Right)];
    let mut table = Table::new(&columns);
    for (name, value) in &device.statistics {
        let rate = row.rates.get(name).copied().map_or_else(|| "-".to_owned(), short);
        table.row(vec![name.as_str().into(), rate.into(), count(*value).into()]);
    }
    lines.extend(table_lines(&table, Tone::Plain));
    lines
}
