//! The tables and their columns.

use ordered::Order as _;

use super::bonds::BONDS;
use super::column::Column;
use super::mirrors::MIRRORS;
use super::model::{BridgeRow, PortRow, QueueRow, Rates, WorkerRow};
use super::value::Value;
use super::vdpa::VDPA;
use crate::show::home;
use crate::table::{Tone, seconds};

/// A table that one can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// Ports with their rates and drops.
    Ports,
    /// Workers with their load.
    Workers,
    /// Queues with the load that they make.
    Queues,
    /// Bridges with their addresses.
    Bridges,
    /// Bonds with their members.
    Bonds,
    /// Mirrors with what they copy.
    Mirrors,
    /// vDPA devices with what they count.
    Vdpa,
}

impl View {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Ports,
        Self::Workers,
        Self::Queues,
        Self::Bridges,
        Self::Bonds,
        Self::Mirrors,
        Self::Vdpa,
    ];

    /// Its place among [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What it is called.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Ports => "Ports",
            Self::Workers => "Workers",
            Self::Queues => "Queues",
            Self::Bridges => "Bridges",
            Self::Bonds => "Bonds",
            Self::Mirrors => "Mirrors",
            Self::Vdpa => "vDPA",
        }
    }

    /// The columns' headings.
    pub fn titles(self) -> Vec<&'static str> {
        fn of<R>(columns: &[Column<R>]) -> Vec<&'static str> {
            columns.iter().map(|column| column.title).collect()
        }
        match self {
            Self::Ports => of(PORTS),
            Self::Workers => of(WORKERS),
            Self::Queues => of(QUEUES),
            Self::Bridges => of(BRIDGES),
            Self::Bonds => of(BONDS),
            Self::Mirrors => of(MIRRORS),
            Self::Vdpa => of(VDPA),
        }
    }

    /// The column that it is sorted by unless told otherwise: what is busiest comes first, but
    /// workers are looked for by their number.
    pub fn default_sort(self) -> usize {
        let title = match self {
            Self::Ports | Self::Bridges => "rx pps",
            Self::Workers => "worker",
            Self::Queues => "load",
            Self::Bonds => "bond",
            Self::Mirrors => "pps",
            Self::Vdpa => "name",
        };
        self.titles().iter().position(|other| *other == title).unwrap_or_default()
    }

    /// The column of that name.
    ///
    /// # Errors
    /// When there is none; names those that there are.
    pub fn column(self, name: &str) -> Result<usize, String> {
        let names = sortable(self);
        names.iter().position(|other| other == name).ok_or_else(|| {
            let hint = ethdev::hint(name, names.iter().map(String::as_str));
            let (what, all) = (self.title().to_lowercase(), names.join(", "));
            format!("there is no column '{name}'{hint} of {what}; there are: {all}")
        })
    }
}

/// The names of a view's columns for `--sort`.
fn sortable(view: View) -> Vec<String> {
    view.titles().iter().map(|title| title.replace([' ', '/'], "-")).collect()
}

/// Places for a rate.
pub const RATE: usize = 6;

/// A column: its title, rank, places and value, as [`Column`] has them.
pub const fn column<R>(
    title: &'static str,
    rank: u8,
    least: usize,
    value: fn(&R) -> Value,
) -> Column<R> {
    Column { title, rank, least, value }
}

/// One of some rates, as far as they are known.
pub fn rate(rates: Option<Rates>, take: fn(Rates) -> f64) -> Value {
    Value::Rate(rates.map(take))
}

/// A number of things.
pub fn size(count: usize) -> Value {
    Value::Count(Some(count as u64))
}

/// Whether a link is up.
pub fn link_of(is_up: bool) -> Value {
    let (text, tone) = if is_up { ("up", Tone::Good) } else { ("down", Tone::Bad) };
    Value::Text(text.to_owned(), tone)
}

fn link(row: &PortRow) -> Value {
    let (text, tone) = match row.port.enabled {
        // A guard has taken it out of service.
        _ if row.port.shut.is_some() => ("shut", Tone::Bad),
        false => ("off", Tone::Faint),
        true => return link_of(row.port.link_up),
    };
    Value::Text(text.to_owned(), tone)
}

/// Why frames are dropped, or were.
fn why(row: &PortRow) -> Value {
    row.why().map_or_else(
        || Value::text(""),
        |(name, now)| Value::Text(name.to_owned(), if now { Tone::Bad } else { Tone::Faint }),
    )
}

fn numbers(all: &[usize]) -> String {
    let mut all = all.to_vec();
    all.order();
    all.dedup();
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Columns of ports.
pub const PORTS: &[Column<PortRow>] = &[
    column("port", 99, 15, |row| Value::text(&row.port.name)),
    column("link", 98, 4, link),
    column("rx pps", 97, RATE, |row| rate(row.rx, |rx| rx.packets)),
    column("rx b/s", 95, RATE, |row| rate(row.rx, |rx| rx.bits)),
    column("tx pps", 96, RATE, |row| rate(row.tx, |tx| tx.packets)),
    column("tx b/s", 94, RATE, |row| rate(row.tx, |tx| tx.bits)),
    column("drop/s", 93, RATE, |row| Value::Trouble(row.drops())),
    column("why", 92, 11, why),
    column("vmm", 91, 11, |row| Value::text(row.front_end.as_deref().unwrap_or("-"))),
    column("load", 80, 4, |row| Value::Percent(row.load)),
    column("bridge", 79, 7, |row| Value::text(home(&row.port))),
    column("dropped", 78, RATE, |row| Value::Troubles(row.dropped())),
    column("addresses", 77, 5, |row| size(row.port.fdb_entries)),
    column("queues", 76, 2, |row| size(row.port.rx_queues)),
    column("workers", 75, 4, |row| Value::text(numbers(&row.port.rx_workers))),
    column("mtu", 74, 4, |row| size(row.port.mtu.into())),
    column("rx frames", 60, 10, |row| Value::Count(Some(row.stats.rx.packets))),
    column("tx frames", 59, 10, |row| Value::Count(Some(row.stats.tx.packets))),
    column("device", 58, 20, |row| Value::text(&row.port.device)),
];

fn state(row: &WorkerRow) -> Value {
    let (text, tone) = match row.worker.alive {
        true => ("running", Tone::Good),
        false => ("PANICKED", Tone::Bad),
    };
    Value::Text(text.to_owned(), tone)
}

/// A core, or that there is none in particular.
pub fn core(core: Option<usize>) -> String {
    core.map_or_else(|| "any".to_owned(), |core| core.to_string())
}

/// Places of the bar that shows a load.
const BAR: usize = 20;

/// A share in percent as a bar.
pub fn bar(percent: f64, places: usize) -> String {
    let most = crate::table::approximate(places as u64);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few places")]
    let full = (percent.clamp(0.0, 100.0) / 100.0 * most).round() as usize;
    format!("{}{}", "|".repeat(full.min(places)), " ".repeat(places.saturating_sub(full)))
}

fn load_bar(row: &WorkerRow) -> Value {
    let load = row.load.unwrap_or_default();
    let tone = if load >= 90.0 { Tone::Bad } else { Tone::Good };
    Value::Text(format!("[{}]", bar(load, BAR)), tone)
}

fn ports_of(row: &WorkerRow) -> Value {
    let mut names: Vec<&str> = row.worker.queues.iter().map(|queue| queue.port.as_str()).collect();
    names.dedup();
    Value::text(names.join(" "))
}

/// Columns of workers.
pub const WORKERS: &[Column<WorkerRow>] = &[
    column("worker", 99, 6, |row| Value::Index(Some(row.worker.index))),
    column("core", 98, 4, |row| Value::text(core(row.worker.core))),
    column("state", 97, 8, state),
    column("load", 96, 4, |row| Value::Percent(row.load)),
    column("load of the core", 90, BAR + 2, load_bar),
    column("pps", 95, RATE, |row| Value::Rate(row.packets)),
    column("cycles/frame", 94, RATE, |row| Value::Mean(row.cycles)),
    column("burst", 93, 5, |row| Value::Mean(row.burst)),
    column("asleep", 92, 4, |row| Value::Percent(row.asleep)),
    column("queues", 91, 3, |row| size(row.worker.queues.len())),
    column("ports", 60, 10, ports_of),
];

/// Columns of queues.
pub const QUEUES: &[Column<QueueRow>] = &[
    column("port", 99, 12, |row| Value::text(&row.port)),
    column("queue", 98, 5, |row| Value::Index(Some(row.queue))),
    column("worker", 97, 6, |row| Value::Index(row.worker.map(|(index, _)| index))),
    column("core", 96, 4, |row| {
        Value::text(row.worker.map_or_else(|| "-".to_owned(), |(_, number)| core(number)))
    }),
    column("load", 95, 4, |row| Value::Percent(row.load)),
    column("share", 94, 4, |row| Value::Percent(row.share)),
    column("rx pps", 93, RATE, |row| rate(row.rx, |rx| rx.packets)),
    column("rx b/s", 90, RATE, |row| rate(row.rx, |rx| rx.bits)),
    column("rx drop/s", 89, RATE, |row| Value::Trouble(row.rx.map(|rx| rx.drops))),
    column("tx pps", 92, RATE, |row| rate(row.tx, |tx| tx.packets)),
    column("tx b/s", 88, RATE, |row| rate(row.tx, |tx| tx.bits)),
    column("tx drop/s", 91, RATE, |row| Value::Trouble(row.tx.map(|tx| tx.drops))),
];

fn ageing(row: &BridgeRow) -> Value {
    Value::text(match row.bridge.ageing_seconds {
        0 => "never".to_owned(),
        ageing => seconds(u64::from(ageing)),
    })
}

/// Columns of bridges.
pub const BRIDGES: &[Column<BridgeRow>] = &[
    column("bridge", 99, 12, |row| Value::text(&row.bridge.name)),
    column("ports", 98, 5, |row| size(row.bridge.ports.len())),
    column("up", 97, 3, |row| size(row.up)),
    column("rx pps", 96, RATE, |row| rate(row.rx, |rx| rx.packets)),
    column("rx b/s", 90, RATE, |row| rate(row.rx, |rx| rx.bits)),
    column("drop/s", 95, RATE, |row| {
        Value::Trouble(row.rx.zip(row.tx).map(|(rx, tx)| rx.drops + tx.drops))
    }),
    column("addresses", 94, 5, |row| size(row.bridge.addresses)),
    column("of", 80, 5, |row| size(row.bridge.limit)),
    column("learnt/s", 93, RATE, |row| Value::Rate(row.learned)),
    column("moved/s", 92, RATE, |row| Value::Trouble(row.moved)),
    column("evicted/s", 91, RATE, |row| Value::Trouble(row.evicted)),
    column("ageing", 79, 5, ageing),
    column("tx pps", 70, RATE, |row| rate(row.tx, |tx| tx.packets)),
    column("tx b/s", 69, RATE, |row| rate(row.tx, |tx| tx.bits)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_others_are_refused_with_those_there_are() {
        for view in View::ALL {
            for (index, name) in sortable(view).iter().enumerate() {
                assert_eq!(view.column(name), Ok(index), "{view:?} {name}");
            }
            assert!(view.default_sort() < view.titles().len());
        }
        let error = View::Ports.column("rx-pp").unwrap_err();
        assert!(error.contains("'rx-pps'") && error.contains("drop-s"), "{error}");
    }

    #[test]
    fn a_bar_is_as_full_as_its_share() {
        assert_eq!(bar(0.0, 4), "    ");
        assert_eq!(bar(50.0, 4), "||  ");
        assert_eq!(bar(250.0, 4), "||||");
        assert_eq!(bar(f64::NAN, 4), "    ");
    }
}
