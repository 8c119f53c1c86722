//! The rows and columns for which there is room, in the order that was asked for.

use ordered::Order as _;

use super::bonds::BONDS;
use super::column::{Column, Wish, share_out};
use super::columns::{BRIDGES, PORTS, QUEUES, View, WORKERS, core};
use super::mirrors::MIRRORS;
use super::model::{BridgeRow, PortRow, QueueRow, Snapshot, WorkerRow};
use super::value::{Value, natural};
use super::vdpa::VDPA;
use crate::table::Cell;

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: usize,
    /// The smallest number, or the last text, first.
    pub reversed: bool,
}

/// The heading of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Its text.
    pub title: &'static str,
    /// Places of the column.
    pub width: usize,
    /// Whether it is one of numbers, which end at the right.
    pub is_number: bool,
    /// Whether rows are sorted by it.
    pub sorted: bool,
}

/// A table as it is shown.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// The columns.
    pub headings: Vec<Heading>,
    /// The rows that match the filter, each with what it is called.
    pub rows: Vec<(String, Vec<Cell>)>,
    /// Rows that there are without a filter.
    pub total: usize,
}

/// What can be a row.
pub trait Row {
    /// What it is called, as nothing else in its table.
    fn key(&self) -> String;
    /// Whether a word that was looked for is in it; the word is in lower case.
    fn has(&self, word: &str) -> bool;
}

/// Whether a word, in lower case, is in a text in whatever case.
pub fn contains(text: &str, word: &str) -> bool {
    text.to_lowercase().contains(word)
}

impl Row for PortRow {
    fn key(&self) -> String {
        self.port.name.clone()
    }

    fn has(&self, word: &str) -> bool {
        let link = match (self.port.enabled, self.port.link_up) {
            _ if self.port.shut.is_some() => "shut",
            (false, _) => "off",
            (true, up) => {
                if up {
                    "up"
                } else {
                    "down"
                }
            }
        };
        let texts = [&self.port.name, &self.port.bridge, &self.port.device];
        link == word
            || texts.into_iter().chain(&self.front_end).any(|text| contains(text, word))
            || self.port.stations.iter().any(|mac| contains(mac, word))
    }
}

impl Row for WorkerRow {
    fn key(&self) -> String {
        self.worker.index.to_string()
    }

    fn has(&self, word: &str) -> bool {
        self.key() == word
            || core(self.worker.core) == word
            || self.worker.queues.iter().any(|queue| contains(&queue.port, word))
    }
}

impl Row for QueueRow {
    fn key(&self) -> String {
        format!("{}:{}", self.port, self.queue)
    }

    fn has(&self, word: &str) -> bool {
        contains(&self.key(), word)
    }
}

impl Row for BridgeRow {
    fn key(&self) -> String {
        self.bridge.name.clone()
    }

    fn has(&self, word: &str) -> bool {
        contains(&self.bridge.name, word)
            || self.bridge.ports.iter().any(|port| contains(port, word))
    }
}

impl Sheet {
    /// The rows of `view` that have all words of `filter`, in at most `width` places.
    pub fn of(snapshot: &Snapshot, view: View, filter: &str, order: Order, width: usize) -> Self {
        match view {
            View::Ports => make(&snapshot.ports, PORTS, filter, order, width),
            View::Workers => make(&snapshot.workers, WORKERS, filter, order, width),
            View::Queues => make(&snapshot.queues, QUEUES, filter, order, width),
            View::Bridges => make(&snapshot.bridges, BRIDGES, filter, order, width),
            View::Bonds => make(&snapshot.bonds, BONDS, filter, order, width),
            View::Mirrors => make(&snapshot.mirrors, MIRRORS, filter, order, width),
            View::Vdpa => make(&snapshot.vdpa, VDPA, filter, order, width),
        }
    }
}

fn make<R: Row>(
    rows: &[R],
    columns: &'static [Column<R>],
    filter: &str,
    order: Order,
    width: usize,
) -> Sheet {
    let filter = filter.to_lowercase();
    let total = rows.len();
    let rows: Vec<&R> =
        rows.iter().filter(|row| filter.split_whitespace().all(|word| row.has(word))).collect();
    let rows = sorted(rows, columns, order);
    let values: Vec<Vec<Value>> =
        columns.iter().map(|column| rows.iter().map(|row| (column.value)(row)).collect()).collect();
    let cells: Vec<Vec<Cell>> =
        values.iter().map(|column| column.iter().map(Value::cell).collect()).collect();
    let wishes = columns.iter().zip(&cells).enumerate().map(|(index, (column, cells))| {
        let title = column.title.chars().count();
        let widest = cells.iter().map(Cell::width).max().unwrap_or_default().max(title);
        let first = values.get(index).and_then(|column| column.first());
        // Names change seldom. All else keeps its places, lest columns come and go.
        let most = if index == 0 { widest } else { widest.max(column.least) };
        let least = match first.is_some_and(Value::is_number) {
            true => most,
            false => column.least.max(title),
        };
        // What it is sorted by can be seen.
        let rank = if index == order.column { 98 } else { column.rank };
        Wish { rank, least, most }
    });
    let widths = share_out(&wishes.collect::<Vec<_>>(), width);
    let shown = |index: &usize| widths.get(*index).is_some_and(Option::is_some);
    let headings = (0..columns.len()).filter(shown).filter_map(|index| {
        let first = values.get(index)?.first();
        Some(Heading {
            title: columns.get(index)?.title,
            width: (*widths.get(index)?)?,
            is_number: first.is_some_and(Value::is_number),
            sorted: index == order.column,
        })
    });
    let row_cells = |row: usize| {
        let cell = |index: usize| cells.get(index)?.get(row).cloned();
        (0..columns.len()).filter(shown).filter_map(cell).collect()
    };
    Sheet {
        headings: headings.collect(),
        rows: rows.iter().enumerate().map(|(index, row)| (row.key(), row_cells(index))).collect(),
        total,
    }
}

/// The largest amounts and the first texts first; those that are equal by what they are called.
fn sorted<'r, R: Row>(rows: Vec<&'r R>, columns: &[Column<R>], order: Order) -> Vec<&'r R> {
    let Some(column) = columns.get(order.column) else { return rows };
    let mut keyed: Vec<(Value, String, &R)> =
        rows.into_iter().map(|row| ((column.value)(row), row.key(), row)).collect();
    keyed.order_by(|(one, one_key, _), (other, other_key, _)| {
        let by_value = match one.is_amount() != order.reversed {
            true => other.compare(one),
            false => one.compare(other),
        };
        by_value.then_with(|| natural(one_key, other_key))
    });
    keyed.into_iter().map(|(_, _, row)| row).collect()
}
