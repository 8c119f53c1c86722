//! The same as lines, for scripts.

use super::app::App;
use super::sheet::Sheet;
use super::value::short;
use crate::table::{Align, Table, colour_stdout, seconds};

/// A line about the switch and the table that was asked for, with all its rows, in `width` places.
pub fn text(app: &App, width: usize) -> String {
    let Some(snapshot) = &app.snapshot else { return String::new() };
    let (rx, tx) = snapshot.totals();
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), short);
    let mut text = format!(
        "pid {} up {} rx {} pps {} b/s tx {} pps {} b/s dropped {}/s\n",
        snapshot.info.pid,
        seconds(snapshot.info.uptime_seconds),
        rate(rx.map(|rx| rx.packets)),
        rate(rx.map(|rx| rx.bits)),
        rate(tx.map(|tx| tx.packets)),
        rate(tx.map(|tx| tx.bits)),
        short(snapshot.drops()),
    );
    if let Some(sheet) = app.sheet(width) {
        text.push_str(&table(&sheet).render(colour_stdout()));
    }
    text
}

fn table(sheet: &Sheet) -> Table {
    let columns = sheet
        .headings
        .iter()
        .map(|column| (column.title, if column.is_number { Align::Right } else { Align::Left }));
    let mut table = Table::new(&columns.collect::<Vec<_>>()).with_gap(super::column::GAP);
    for (_, cells) in &sheet.rows {
        let cut = sheet.headings.iter().zip(cells).map(|(column, cell)| cell.cut(column.width));
        table.row(cut.collect());
    }
    table
}
