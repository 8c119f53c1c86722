//! The screen.

use ordered::Order as _;
use ratatui_core::style::{Modifier, Style};

use super::app::{App, Over};
use super::canvas::Canvas;
use super::columns::{View, bar};
use super::detail;
use super::help;
use super::model::{Rates, Snapshot};
use super::sheet::Sheet;
use super::value::short;
use crate::table::{Align, Tone, count, nanoseconds, seconds};

/// Lines above the table: three of the switch, the views, the headings.
const ABOVE: usize = 5;

/// Lines below it.
const BELOW: usize = 1;

/// What can be done, and by what rows are sorted, in the last line.
fn keys_of(app: &App) -> String {
    let order = app.place().order;
    let titles = app.view.titles();
    let title = titles.get(order.column).copied().unwrap_or_default();
    let reversed = if order.reversed { "reversed" } else { "reverse" };
    format!("? keys  Enter more  / filter  <> by {title}  r {reversed}  p pause  q quit")
}

/// How the curves are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether there are colours.
    pub colour: bool,
    /// Whether the terminal knows more characters than ASCII.
    pub unicode: bool,
}

/// Draws all of it; notes for how many rows there was room.
pub fn draw(app: &mut App, canvas: &mut Canvas<'_>, look: Look) {
    let room = canvas.height().saturating_sub(ABOVE + BELOW);
    app.page = room.max(1);
    let Some(snapshot) = app.snapshot.take() else {
        let text = app.lost.as_deref().unwrap_or("waiting for the switch ..");
        canvas.put(0, 0, usize::MAX, text, Style::new());
        return;
    };
    header(&snapshot, app, canvas);
    let mut filtered = None;
    match app.over.clone() {
        Over::Help => keys(canvas),
        Over::Detail(key, scroll) => {
            let lines = detail::lines(&snapshot, app, &key, canvas.width(), look);
            let first = scroll.min(lines.len().saturating_sub(room + 1));
            detail::put(&lines, first, room + 1, ABOVE - 1, canvas);
            app.over = Over::Detail(key, first);
        }
        Over::Nothing => {
            let order = app.place().order;
            let sheet = Sheet::of(&snapshot, app.view, app.filter(), order, canvas.width());
            views(&snapshot, app, canvas);
            table(app, &sheet, canvas, room);
            filtered = (!app.filter().is_empty()).then(|| found(&sheet));
        }
    }
    footer(app, filtered, canvas);
    app.snapshot = Some(snapshot);
}

/// Three lines of the switch as a whole.
fn header(snapshot: &Snapshot, app: &App, canvas: &mut Canvas<'_>) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let up = snapshot.ports.iter().filter(|row| row.port.enabled && row.port.link_up).count();
    let text = format!(
        "ringway {}  pid {}  up {}  ports {up} of {} up  addresses {}",
        snapshot.info.version,
        snapshot.info.pid,
        seconds(snapshot.info.uptime_seconds),
        snapshot.ports.len(),
        count(snapshot.addresses() as u64),
    );
    canvas.put(0, 0, usize::MAX, &text, bold);
    let every = nanoseconds(u64::try_from(app.interval.as_nanos()).unwrap_or(u64::MAX));
    let (text, tone) = match app.paused {
        true => (" PAUSED".to_owned(), Tone::Bad),
        false => (format!(" every {}", every.replace(".00", "").replace(".0 ", " ")), Tone::Faint),
    };
    if let Some(x) = canvas.width().checked_sub(text.len()) {
        let style = canvas.style(tone);
        canvas.put(x, 0, usize::MAX, &text, style);
    }
    traffic(snapshot, canvas);
    workers(snapshot, canvas);
}

fn traffic(snapshot: &Snapshot, canvas: &mut Canvas<'_>) {
    let (rx, tx) = snapshot.totals();
    let side = |name: &str, rates: Option<Rates>| match rates {
        Some(rates) => format!("{name} {} pps {} b/s", short(rates.packets), short(rates.bits)),
        None => format!("{name} -"),
    };
    let text = format!("{}  {}  ", side("rx", rx), side("tx", tx));
    let x = canvas.put(0, 1, usize::MAX, &text, Style::new());
    let reasons = snapshot.reasons();
    let names: Vec<String> =
        reasons.iter().map(|(name, rate)| format!("{name} {}", short(*rate))).collect();
    let text = match reasons.is_empty() {
        true => "no drops".to_owned(),
        false => format!("dropped {}/s: {}", short(snapshot.drops()), names.join(", ")),
    };
    let tone = if reasons.is_empty() { Tone::Faint } else { Tone::Bad };
    let style = canvas.style(tone);
    canvas.put(x, 1, usize::MAX, &text, style);
}

/// As many bars as there is room for; where there are more workers, the busiest ones.
fn workers(snapshot: &Snapshot, canvas: &mut Canvas<'_>) {
    const PLACES: usize = 10;
    let mut rows: Vec<_> = snapshot.workers.iter().collect();
    let each = PLACES + "worker 0 [] 100%  ".len();
    let room = (canvas.width() / each).max(1);
    if rows.len() > room {
        rows.order_by(|one, other| other.load.unwrap_or(-1.0).total_cmp(&one.load.unwrap_or(-1.0)));
        rows.truncate(room);
        rows.order_by_key(|row| row.worker.index);
    }
    let mut x = 0;
    for row in rows {
        let load = row.load.unwrap_or_default();
        let tone = match row.worker.alive {
            false => Tone::Bad,
            true => {
                if load >= 90.0 {
                    Tone::Bad
                } else {
                    Tone::Good
                }
            }
        };
        let style = canvas.style(tone);
        x = canvas.put(x, 2, usize::MAX, &format!("worker {} [", row.worker.index), Style::new());
        x = canvas.put(x, 2, PLACES, &bar(load, PLACES), style);
        let share = match (row.worker.alive, row.load) {
            (false, _) => "DEAD".to_owned(),
            (true, Some(load)) => format!("{load:3.0}%"),
            (true, None) => "   -".to_owned(),
        };
        x = canvas.put(x, 2, usize::MAX, &format!("] {share}  "), Style::new());
    }
}

fn rows_of(snapshot: &Snapshot, view: View) -> usize {
    match view {
        View::Ports => snapshot.ports.len(),
        View::Workers => snapshot.workers.len(),
        View::Queues => snapshot.queues.len(),
        View::Bridges => snapshot.bridges.len(),
        View::Bonds => snapshot.bonds.len(),
        View::Mirrors => snapshot.mirrors.len(),
        View::Vdpa => snapshot.vdpa.len(),
    }
}

/// The views, with the number of rows of each where there is room for all of them.
fn views(snapshot: &Snapshot, app: &App, canvas: &mut Canvas<'_>) {
    let text = |view: View, counted: bool| {
        let (key, title) = (view.index() + 1, view.title());
        match counted {
            true => format!(" {key} {title} {} ", count(rows_of(snapshot, view) as u64)),
            false => format!(" {key} {title} "),
        }
    };
    let all: usize = View::ALL.iter().map(|view| text(*view, true).len()).sum();
    let mut x = 0;
    for view in View::ALL {
        let style = match view == app.view {
            true => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            false => canvas.style(Tone::Faint),
        };
        let text = text(view, all <= canvas.width() || view == app.view);
        x = canvas.put(x, ABOVE - 2, usize::MAX, &text, style);
    }
}

fn table(app: &mut App, sheet: &Sheet, canvas: &mut Canvas<'_>, room: usize) {
    let heading = Style::new().add_modifier(Modifier::REVERSED);
    canvas.style_line(ABOVE - 1, heading);
    let mut x = 0;
    for column in &sheet.headings {
        let align = if column.is_number { Align::Right } else { Align::Left };
        let style = if column.sorted { heading.add_modifier(Modifier::BOLD) } else { heading };
        let style = if column.sorted { style.add_modifier(Modifier::UNDERLINED) } else { style };
        canvas.put_cell(x, ABOVE - 1, column.width, (column.title, align), style);
        x += column.width + super::column::GAP;
    }
    let place = app.place_mut();
    let last = sheet.rows.len().saturating_sub(1);
    place.selected = place.selected.min(last);
    place.first = place.first.min(sheet.rows.len().saturating_sub(room)).min(place.selected);
    place.first = place.first.max((place.selected + 1).saturating_sub(room.max(1)));
    let (first, selected) = (place.first, place.selected);
    let faded = app.lost.is_some();
    for (index, (_, cells)) in sheet.rows.iter().enumerate().skip(first).take(room) {
        let y = ABOVE + index - first;
        let mut x = 0;
        for (column, cell) in sheet.headings.iter().zip(cells) {
            let align = if column.is_number { Align::Right } else { Align::Left };
            let tone = if faded { Tone::Faint } else { cell.tone() };
            let style = canvas.style(tone);
            canvas.put_cell(x, y, column.width, (cell.text(), align), style);
            x += column.width + super::column::GAP;
        }
        if index == selected {
            canvas.style_line(y, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if sheet.rows.is_empty() {
        let text = match sheet.total {
            0 => match app.view {
                View::Bonds => "none; 'ringway bond add NAME --members PORT,PORT' makes one",
                View::Mirrors => "none; 'ringway mirror add NAME --src PORT --to PORT' adds one",
                View::Vdpa => "none; 'ringway port add NAME=vdpa:DEVICE,socket=PATH' adds one",
                _ => "none; 'ringway port add NAME=DEVICE' adds a port",
            },
            _ => "nothing has such a word; Esc shows all",
        };
        canvas.put(0, ABOVE, usize::MAX, text, Style::new());
    }
}

/// How many rows have what is looked for.
fn found(sheet: &Sheet) -> String {
    format!("{} of {}", count(sheet.rows.len() as u64), count(sheet.total as u64))
}

fn keys(canvas: &mut Canvas<'_>) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let width = help::LINES.iter().map(|(key, _)| key.len()).max().unwrap_or_default() + 2;
    for (index, (key, text)) in help::LINES.iter().enumerate() {
        canvas.put(0, ABOVE - 1 + index, width, key, bold);
        canvas.put(width, ABOVE - 1 + index, usize::MAX, text, Style::new());
    }
}

/// The last line: what is wrong, what is typed, or which keys there are.
fn footer(app: &App, filtered: Option<String>, canvas: &mut Canvas<'_>) {
    let Some(y) = canvas.height().checked_sub(BELOW) else { return };
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    if let Some(input) = &app.input {
        let x = canvas.put(0, y, usize::MAX, &format!("/{input}"), Style::new());
        canvas.put(x, y, 1, " ", reversed);
        let text = format!("{}  Enter: keep it  Esc: all rows", filtered.unwrap_or_default());
        canvas.put(x + 2, y, usize::MAX, &text, canvas.style(Tone::Faint));
        return;
    }
    if let Some(lost) = &app.lost {
        let text = format!("NO ANSWER, trying again: {lost}");
        let style = canvas.style(Tone::Bad);
        canvas.put(0, y, usize::MAX, &text, style);
        return;
    }
    if let Some(found) = filtered {
        let text = format!("with '{}': {found}  / other words  Esc all rows  ? keys", app.filter());
        canvas.put(0, y, usize::MAX, &text, Style::new());
        return;
    }
    let text = match app.over {
        Over::Nothing => keys_of(app),
        Over::Help => "any key: back".to_owned(),
        Over::Detail(..) => "Esc back  arrows scroll  p pause  + - interval  ? keys".to_owned(),
    };
    canvas.put(0, y, usize::MAX, &text, canvas.style(Tone::Faint));
}
