//! All there is to tell of one row.

use ordered::Order as _;
use ratatui_core::style::{Modifier, Style};
use ratatui_core::symbols::bar;

use super::app::App;
use super::bonds;
use super::canvas::Canvas;
use super::columns::{View, core};
use super::draw::Look;
use super::history::{History, Point};
use super::mirrors;
use super::model::{BridgeRow, PortRow, QueueRow, Rates, Snapshot, WorkerRow};
use super::sheet::Row;
use super::value::short;
use super::vdpa;
use crate::show::home;
use crate::table::{Align, Cell, Table, Tone, approximate, count, seconds, wrap};
use crate::{groups, guard, limits, vlan};

/// A line: a text and how it stands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    text: String,
    tone: Tone,
    bold: bool,
}

impl Line {
    /// One that stands over others.
    pub fn heading(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, bold: true }
    }

    /// One that stands out so.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone, bold: false }
    }

    /// One that does not.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Draws the lines from `first` on into `room` lines from `y` on.
pub fn put(lines: &[Line], first: usize, room: usize, y: usize, canvas: &mut Canvas<'_>) {
    for (index, line) in lines.iter().skip(first).take(room).enumerate() {
        let style = canvas.style(line.tone);
        let style = if line.bold { style.add_modifier(Modifier::BOLD) } else { style };
        canvas.put(0, y + index, usize::MAX, &line.text, style);
    }
    if lines.len() > first + room {
        let more = format!(" {} more lines ", lines.len() - first - room);
        let x = canvas.width().saturating_sub(more.len());
        let last = (y + room).saturating_sub(1);
        canvas.put(x, last, usize::MAX, &more, Style::new().add_modifier(Modifier::REVERSED));
    }
}

/// The lines about the row of the present view that is called `key`.
pub fn lines(snapshot: &Snapshot, app: &App, key: &str, width: usize, look: Look) -> Vec<Line> {
    let found = match app.view {
        View::Ports => find_port(snapshot, key).map(|row| port(snapshot, app, row, width, look)),
        View::Queues => {
            let name = key.rsplit_once(':').map_or(key, |(name, _)| name);
            find_port(snapshot, name).map(|row| port(snapshot, app, row, width, look))
        }
        View::Workers => {
            let row = snapshot.workers.iter().find(|row| row.worker.index.to_string() == key);
            row.map(|row| worker(snapshot, row))
        }
        View::Bridges => {
            let row = snapshot.bridges.iter().find(|row| row.bridge.name == key);
            row.map(|row| bridge(row, width))
        }
        View::Bonds => find(&snapshot.bonds, key).map(|row| bonds::detail(row, width)),
        View::Mirrors => find(&snapshot.mirrors, key).map(|row| mirrors::detail(row, width)),
        View::Vdpa => find(&snapshot.vdpa, key).map(|row| vdpa::detail(row, width)),
    };
    found.unwrap_or_else(|| vec![Line::toned(format!("{key} is not there any more"), Tone::Bad)])
}

fn find<'r, R: Row>(rows: &'r [R], key: &str) -> Option<&'r R> {
    rows.iter().find(|row| row.key() == key)
}

fn find_port<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s PortRow> {
    snapshot.ports.iter().find(|row| row.port.name == name)
}

fn port(snapshot: &Snapshot, app: &App, row: &PortRow, width: usize, look: Look) -> Vec<Line> {
    let mut lines = facts(row, width);
    let empty = History::default();
    let history = app.history(&row.port.name).unwrap_or(&empty);
    lines.push(Line::plain(""));
    lines.extend(curves(history, width, look));
    lines.push(Line::plain(""));
    lines.extend(rates(row, history));
    lines.push(Line::plain(""));
    lines.extend(drops(row));
    lines.push(Line::plain(""));
    lines.extend(queues(snapshot, &row.port.name));
    lines.push(Line::plain(""));
    lines.extend(sizes(row));
    if !row.stats.extended.is_empty() {
        lines.push(Line::heading("counters of the driver"));
        let all =
            row.stats.extended.iter().map(|(name, value)| format!("{name} {}", count(*value)));
        lines.extend(paragraph(&all.collect::<Vec<_>>().join(", "), width));
    }
    lines
}

/// What it is.
fn facts(row: &PortRow, width: usize) -> Vec<Line> {
    let port = &row.port;
    let (link, tone) = match (port.enabled, port.link_up) {
        (false, _) => ("disabled", Tone::Faint),
        (true, true) => ("up", Tone::Good),
        (true, false) => ("DOWN", Tone::Bad),
    };
    let speed = port.speed_mbps.map(|speed| format!("{speed} Mbit/s"));
    let stations = match (port.stations.len(), port.fdb_entries.max(port.stations.len())) {
        (0, _) => "no addresses".to_owned(),
        (shown, all) if all > shown => {
            format!("addresses {} and {} more", port.stations.join(" "), all - shown)
        }
        _ => format!("addresses {}", port.stations.join(" ")),
    };
    let facts: Vec<String> = [
        Some(port.device.clone()),
        Some(format!("bridge {}", home(port))),
        row.front_end.as_ref().map(|process| format!("VMM {process}")),
        Some(format!("mtu {}", port.mtu)),
        speed,
        Some(format!("link changes {}", count(port.link_changes))),
        vlan::summary(&port.vlan).map(|vlan| format!("vlan {vlan}")),
        limits::summary(&port.limits).map(|limits| format!("limits {limits}")),
        guard::summary(&port.guard).map(|guard| format!("guard {guard}")),
        groups::summary(&port.mcast_snooping).map(|own| format!("mcast-snooping {own}")),
        port.shut.as_ref().map(|guard| format!("SHUT by {guard}")),
        Some(stations),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut lines =
        vec![Line { bold: true, ..Line::toned(format!("{}  {link}", port.name), tone) }];
    lines.extend(paragraph(&facts.join(", "), width));
    let known = |name: &str| ["front-end_pid", "socket", "guest_takes"].contains(&name);
    let details = port.details.iter().filter(|(name, _)| !known(name));
    let details: Vec<String> =
        details.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
    if !details.is_empty() {
        lines.extend(paragraph(&details.join(", "), width));
    }
    if let Some(takes) = port.details.get("guest_takes") {
        lines.extend(paragraph(&format!("guest takes {takes}"), width));
    }
    lines
}

/// A text in as many lines as it takes.
pub fn paragraph(text: &str, width: usize) -> Vec<Line> {
    wrap(text, width.max(20)).into_iter().map(Line::plain).collect()
}

/// What there is to see of a history.
type Look3 = (&'static str, fn(&Point) -> f64, Tone);

const CURVES: [Look3; 3] = [
    ("rx pps", |point| point.rx.packets, Tone::Good),
    ("tx pps", |point| point.tx.packets, Tone::Good),
    ("drop/s", |point| point.rx.drops + point.tx.drops, Tone::Bad),
];

fn curves(history: &History, width: usize, look: Look) -> Vec<Line> {
    let Some(room) = width.checked_sub("rx pps  max 99.9M".len()) else { return Vec::new() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few minutes")]
    let span = history.span().round() as u64;
    let mut lines = vec![Line::heading(format!("the last {}", seconds(span)))];
    for (name, take, tone) in CURVES {
        let most = history.most(take).unwrap_or_default();
        let curve = curve(&history.curve(room, take), most, look);
        let pad = " ".repeat(room.saturating_sub(curve.chars().count()));
        let text = format!("{name} {pad}{curve} max {:>5}", short(most));
        lines.push(Line::toned(text, if most > 0.0 { tone } else { Tone::Faint }));
    }
    lines
}

/// Heights as characters, from the lowest to the highest.
fn curve(heights: &[f64], most: f64, look: Look) -> String {
    const ASCII: [&str; 9] = [" ", ".", ":", "-", "=", "+", "*", "%", "#"];
    let set = bar::NINE_LEVELS;
    let levels = match look.unicode {
        true => [
            set.empty,
            set.one_eighth,
            set.one_quarter,
            set.three_eighths,
            set.half,
            set.five_eighths,
            set.three_quarters,
            set.seven_eighths,
            set.full,
        ],
        false => ASCII,
    };
    let level = |height: &f64| {
        // What is more than nothing can be seen.
        let least = if *height > 0.0 { 1.0 } else { 0.0 };
        let share = if most > 0.0 { height / most * 8.0 } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 8")]
        let index = share.max(least).min(8.0).round() as usize;
        levels.get(index).copied().unwrap_or(" ")
    };
    heights.iter().map(level).collect()
}

/// A table as lines.
pub fn table_lines(table: &Table, tone: Tone) -> Vec<Line> {
    let text = table.render(false);
    let mut lines: Vec<Line> = text.lines().map(|line| Line::toned(line, tone)).collect();
    if let Some(first) = lines.first_mut() {
        *first = Line::heading(first.text.clone());
    }
    lines
}

/// Now, on average, and in all.
fn rates(row: &PortRow, history: &History) -> Vec<Line> {
    let right = Align::Right;
    let titles = ["now", "10 s", "1 min", "5 min", "most", "in all"];
    let columns: Vec<_> =
        [("", Align::Left)].into_iter().chain(titles.map(|title| (title, right))).collect();
    let mut table = Table::new(&columns);
    let mut add = |name: &str, now: Option<f64>, take: fn(&Point) -> f64, total: String| {
        let show = |value: Option<f64>| Cell::from(value.map_or_else(|| "-".to_owned(), short));
        let mean = |seconds| show(history.mean(seconds, take));
        table.row(vec![
            name.into(),
            show(now),
            mean(10.0),
            mean(60.0),
            mean(300.0),
            show(history.most(take)),
            total.into(),
        ]);
    };
    let of = |rates: Option<Rates>, take: fn(Rates) -> f64| rates.map(take);
    let (rx, tx) = (&row.stats.rx, &row.stats.tx);
    let frames = |packets: u64| format!("{} frames", count(packets));
    let bytes = |bytes: u64| format!("{} bytes", count(bytes));
    add("rx pps", of(row.rx, |rx| rx.packets), |point| point.rx.packets, frames(rx.packets));
    add("rx b/s", of(row.rx, |rx| rx.bits), |point| point.rx.bits, bytes(rx.bytes));
    add("tx pps", of(row.tx, |tx| tx.packets), |point| point.tx.packets, frames(tx.packets));
    add("tx b/s", of(row.tx, |tx| tx.bits), |point| point.tx.bits, bytes(tx.bytes));
    let drops = |point: &Point| point.rx.drops + point.tx.drops;
    add("drop/s", row.drops(), drops, frames(row.dropped()));
    table_lines(&table, Tone::Plain)
}

/// Every reason for which a frame was ever dropped.
fn drops(row: &PortRow) -> Vec<Line> {
    if row.reasons.is_empty() {
        return vec![Line::toned("no frame was dropped", Tone::Faint)];
    }
    let right = Align::Right;
    let mut table = Table::new(&[
        ("dropped for", Align::Left),
        ("rx/s", right),
        ("rx in all", right),
        ("tx/s", right),
        ("tx in all", right),
    ]);
    for reason in &row.reasons {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), short);
        table.row(vec![
            reason.name.as_str().into(),
            rate(reason.rx.0).into(),
            count(reason.rx.1).into(),
            rate(reason.tx.0).into(),
            count(reason.tx.1).into(),
        ]);
    }
    table_lines(&table, Tone::Bad)
}

/// The queues of a port.
fn queues(snapshot: &Snapshot, port: &str) -> Vec<Line> {
    let right = Align::Right;
    let titles = ["worker", "core", "load", "rx pps", "rx b/s", "drop/s", "tx pps", "tx b/s"];
    let titles = titles.into_iter().chain(["drop/s"]).map(|title| (title, right));
    let columns: Vec<_> = [("queue", right)].into_iter().chain(titles).collect();
    let mut table = Table::new(&columns);
    for row in snapshot.queues.iter().filter(|row| row.port == port) {
        let rate = |rates: Option<Rates>, take: fn(Rates) -> f64| {
            Cell::from(rates.map_or_else(|| "-".to_owned(), |rates| short(take(rates))))
        };
        let worker = row.worker.map_or_else(|| "-".to_owned(), |(index, _)| index.to_string());
        let number = row.worker.map_or_else(|| "-".to_owned(), |(_, number)| core(number));
        let load = row.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.0}%"));
        table.row(vec![
            row.queue.to_string().into(),
            worker.into(),
            number.into(),
            load.into(),
            rate(row.rx, |rx| rx.packets),
            rate(row.rx, |rx| rx.bits),
            rate(row.rx, |rx| rx.drops),
            rate(row.tx, |tx| tx.packets),
            rate(row.tx, |tx| tx.bits),
            rate(row.tx, |tx| tx.drops),
        ]);
    }
    table_lines(&table, Tone::Plain)
}

/// How long its frames are, and whom they are for.
fn sizes(row: &PortRow) -> Vec<Line> {
    let mut table =
        Table::new(&[("frames", Align::Left), ("rx", Align::Right), ("tx", Align::Right)]);
    let (rx, tx) = (&row.stats.rx, &row.stats.tx);
    let share = |part: u64, all: u64| match all {
        0 => "-".to_owned(),
        all => format!("{:.1}%", approximate(part) / approximate(all) * 100.0),
    };
    let mut add = |name: String, of_rx: u64, of_tx: u64| {
        let cells = [share(of_rx, rx.packets), share(of_tx, tx.packets)];
        table.row([Cell::from(name)].into_iter().chain(cells.map(Cell::from)).collect());
    };
    add("broadcast".to_owned(), rx.broadcast, tx.broadcast);
    add("multicast".to_owned(), rx.multicast, tx.multicast);
    let classes = ["undersize", "size_64", "size_65_127", "size_128_255", "size_256_511"];
    let classes = classes.into_iter().chain(["size_512_1023", "size_1024_1518", "size_1519_max"]);
    for class in classes {
        let of = |counters: &crate::control::protocol::Counters| {
            counters.sizes.get(class).copied().unwrap_or_default()
        };
        if of(rx) > 0 || of(tx) > 0 {
            let name = class.trim_start_matches("size_").replacen('_', " to ", 1);
            add(format!("{name} bytes"), of(rx), of(tx));
        }
    }
    table_lines(&table, Tone::Plain)
}

fn worker(snapshot: &Snapshot, row: &WorkerRow) -> Vec<Line> {
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{s:.0}%"));
    let mut lines = vec![
        Line::heading(format!(
            "worker {} on core {}, load {}, asleep {}",
            row.worker.index,
            core(row.worker.core),
            percent(row.load),
            percent(row.asleep)
        )),
        Line::plain(format!(
            "{} frames in {} rounds of {}; slept {} times",
            count(row.worker.packets),
            count(row.worker.busy_polls),
            count(row.worker.polls),
            count(row.worker.sleeps)
        )),
        Line::plain(""),
    ];
    let right = Align::Right;
    let mut table = Table::new(&[
        ("queue", Align::Left),
        ("load", right),
        ("share", right),
        ("rx pps", right),
        ("rx b/s", right),
        ("drop/s", right),
    ]);
    let is_own =
        |queue: &&QueueRow| queue.worker.is_some_and(|(index, _)| index == row.worker.index);
    let mut own: Vec<&QueueRow> = snapshot.queues.iter().filter(is_own).collect();
    own.order_by(|one, other| other.load.unwrap_or(-1.0).total_cmp(&one.load.unwrap_or(-1.0)));
    for queue in own {
        let rate = |take: fn(Rates) -> f64| queue.rx.map(take).map_or("-".to_owned(), short);
        table.row(vec![
            format!("{}:{}", queue.port, queue.queue).into(),
            percent(queue.load).into(),
            percent(queue.share).into(),
            rate(|rx| rx.packets).into(),
            rate(|rx| rx.bits).into(),
            rate(|rx| rx.drops).into(),
        ]);
    }
    lines.extend(table_lines(&table, Tone::Plain));
    lines
}

fn bridge(row: &BridgeRow, width: usize) -> Vec<Line> {
    let bridge = &row.bridge;
    let mut lines = vec![
        Line::heading(format!(
            "bridge {}, {} of {} ports up",
            bridge.name,
            row.up,
            bridge.ports.len()
        )),
        Line::plain(format!(
            "{} of {} addresses; learned {}, moved {}, expired {}, evicted {}",
            count(bridge.addresses as u64),
            count(bridge.limit as u64),
            count(bridge.learned),
            count(bridge.moved),
            count(bridge.expired),
            count(bridge.evicted)
        )),
        Line::plain(""),
        Line::heading("ports"),
    ];
    lines.extend(paragraph(&bridge.ports.join(" "), width));
    lines
}
