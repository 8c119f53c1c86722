//! Tables for people: aligned columns, human units, colour only on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use crate::printable::printable;

/// Columns of a terminal, where there is none to ask.
const COLUMNS: usize = 80;

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// How a cell stands out on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// It does not.
    #[default]
    Plain,
    /// Something is as it should be.
    Good,
    /// Something deserves a look.
    Bad,
    /// Of little interest.
    Faint,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// One cell of a table, made fit for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Cell {
    /// A cell that stands out.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        let text = text.into();
        match printable(&text) {
            Cow::Borrowed(_) => Self { text, tone },
            Cow::Owned(text) => Self { text, tone },
        }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How it stands out.
    pub const fn tone(&self) -> Tone {
        self.tone
    }

    /// Places that it takes.
    pub fn width(&self) -> usize {
        width(&self.text)
    }

    /// The same in `room` places at most; that something is missing can be seen.
    pub fn cut(&self, room: usize) -> Self {
        if self.width() <= room {
            return self.clone();
        }
        let text: String = self.text.chars().take(room.saturating_sub(1)).chain([CUT]).collect();
        Self { text, tone: self.tone }
    }

    /// A counter of things that should not happen: faint at zero, red above.
    pub fn trouble(value: u64) -> Self {
        Self::trouble_of(count(value), value > 0)
    }

    /// The same of a text; `there_is` tells whether there is trouble.
    pub fn trouble_of(text: String, there_is: bool) -> Self {
        Self::toned(text, if there_is { Tone::Bad } else { Tone::Faint })
    }
}

/// Rows under a heading.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
    gap: usize,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), gap: GAP }
    }

    /// The same with `gap` blanks between two columns.
    pub fn with_gap(self, gap: usize) -> Self {
        Self { gap, ..self }
    }

    /// Adds a row; cells beyond the columns are not shown.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, one line per row, each ended by a newline. A text in the last column that
    /// does not fit beside the others goes on below.
    pub fn render(&self, colour: bool) -> String {
        self.render_within(colour, columns())
    }

    fn render_within(&self, colour: bool, columns: usize) -> String {
        let widths = self.narrowed(self.widths(), columns);
        let mut out = String::new();
        let heading: Vec<Cell> = self.columns.iter().map(|(name, _)| Cell::from(*name)).collect();
        let heading = (&heading, if colour { "\x1b[1m" } else { "" });
        let rows = self.rows.iter().map(|row| (row, if colour { "on" } else { "" }));
        for (row, style) in std::iter::once(heading).chain(rows) {
            let Wrapped { lines, below } = self.wrapped(row, &widths, columns);
            for line in &lines {
                self.render_row(&mut out, line, &widths, style);
            }
            below.into_iter().for_each(|line| out.extend([line, "\n".to_owned()]));
        }
        out
    }

    /// Whether all is in one line per row.
    pub fn fits(&self) -> bool {
        let gaps = self.columns.len().saturating_sub(1) * self.gap;
        self.widths().iter().sum::<usize>() + gaps <= columns()
    }

    /// The widths with which all fits, if that can be: the widest columns of texts become narrower,
    /// and their texts go on below. The last one of texts does so anyway.
    fn narrowed(&self, mut widths: Vec<usize>, columns: usize) -> Vec<usize> {
        let last = self.columns.len().saturating_sub(1);
        let ends_in_text = self.columns.last().is_some_and(|(_, align)| *align == Align::Left);
        let least = |index: usize| {
            let (name, align) = self.columns.get(index)?;
            let is_narrowed = *align == Align::Left && !(ends_in_text && index == last);
            is_narrowed.then(|| width(name).max(NARROWEST))
        };
        loop {
            let others: usize = widths.iter().take(last).map(|width| width + self.gap).sum();
            // A text may begin below.
            let needed = match ends_in_text {
                true => others.saturating_sub(self.gap),
                false => others + widths.last().copied().unwrap_or_default(),
            };
            let widest = widths
                .iter_mut()
                .enumerate()
                .filter(|(index, width)| least(*index).is_some_and(|least| **width > least))
                .max_by_key(|(_, width)| **width);
            match widest {
                Some((_, width)) if needed > columns => *width -= 1,
                _ => return widths,
            }
        }
    }

    /// A row in as many lines as it takes.
    fn wrapped(&self, row: &[Cell], widths: &[usize], columns: usize) -> Wrapped {
        let last = self.columns.len().saturating_sub(1);
        let at: usize = widths.iter().take(last).map(|width| width + self.gap).sum();
        let mut below = Vec::new();
        let mut pieces: Vec<Vec<String>> = Vec::new();
        for (index, ((cell, room), (heading, align))) in
            row.iter().zip(widths).zip(&self.columns).enumerate()
        {
            // All texts of the last column begin where its heading does.
            let fits = at + width(&cell.text).max(width(heading)) <= columns;
            pieces.push(match *align {
                Align::Left if index < last && width(&cell.text) > *room => chop(&cell.text, *room),
                Align::Left if index == last && !fits => match at <= columns / 2 {
                    true => wrap(&cell.text, columns.saturating_sub(at)),
                    // Where there is little room beside the others, it begins below them.
                    false => {
                        let lines = wrap(&cell.text, columns.saturating_sub(INDENT.len()));
                        below = lines.iter().map(|line| format!("{INDENT}{line}")).collect();
                        Vec::new()
                    }
                },
                _ => vec![cell.text.clone()],
            });
        }
        let height = pieces.iter().map(Vec::len).max().unwrap_or_default();
        let line = |number: usize| {
            let cell = |(pieces, cell): (&Vec<String>, &Cell)| Cell {
                text: pieces.get(number).cloned().unwrap_or_default(),
                tone: cell.tone,
            };
            pieces.iter().zip(row).map(cell).collect()
        };
        Wrapped { lines: (0..height).map(line).collect(), below }
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (room, cell) in widths.iter_mut().zip(row) {
                *room = (*room).max(width(&cell.text));
            }
        }
        widths
    }

    /// `style` is an escape sequence for the whole row, "on" for each cell's own, or "".
    fn render_row(&self, out: &mut String, cells: &[Cell], widths: &[usize], style: &str) {
        let mut line = String::new();
        for (index, ((cell, room), (_, align))) in
            cells.iter().zip(widths).zip(&self.columns).enumerate()
        {
            if index > 0 {
                line.push_str(&" ".repeat(self.gap));
            }
            let code = if style == "on" { cell.tone.code() } else { style };
            let pad = " ".repeat(room.saturating_sub(width(&cell.text)));
            let (before, after) = match align {
                Align::Left => ("", pad.as_str()),
                Align::Right => (pad.as_str(), ""),
            };
            let reset = if code.is_empty() { "" } else { "\x1b[0m" };
            // Writing to a String cannot fail.
            let _ = write!(line, "{before}{code}{}{reset}{after}", cell.text);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Between two columns.
const GAP: usize = 2;

/// Where a text was cut off.
pub const CUT: char = '~';

/// Places of a column of texts at least.
const NARROWEST: usize = 8;

/// A row of a table in lines.
struct Wrapped {
    lines: Vec<Vec<Cell>>,
    /// The text of the last column, where there is no room for it beside the others.
    below: Vec<String>,
}

/// Before what goes on in another line.
const INDENT: &str = "    ";

/// `text`, which may go on in further lines, ended by a newline.
pub fn paragraph(text: &str) -> String {
    paragraph_within(text, columns())
}

fn paragraph_within(text: &str, columns: usize) -> String {
    let text = &*printable(text);
    if width(text) <= columns {
        return format!("{text}\n");
    }
    let lines = wrap(text, columns.saturating_sub(INDENT.len()));
    let mut out = lines.join(&format!("\n{INDENT}"));
    out.push('\n');
    out
}

/// Breaks a text into lines of so many columns, behind blanks and commas. A word that is longer, as
/// a path, stays whole.
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in text.split_inclusive([' ', ',']) {
        match lines.last_mut() {
            Some(line) if line.is_empty() || width(line) + width(piece.trim_end()) <= room => {
                line.push_str(piece);
            }
            _ => lines.push(piece.trim_start().to_owned()),
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// The same, and words that are longer than a line are broken anywhere.
fn chop(text: &str, room: usize) -> Vec<String> {
    let pieces = |word: String| -> Vec<String> {
        let all: Vec<char> = word.chars().collect();
        all.chunks(room.max(1)).map(|piece| piece.iter().collect()).collect()
    };
    wrap(text, room).into_iter().flat_map(pieces).collect()
}

/// Columns of the terminal that is standard output.
pub fn columns() -> usize {
    let stdout = std::io::stdout();
    let size =
        if stdout.is_terminal() { rustix::termios::tcgetwinsize(&stdout).ok() } else { None };
    size.map(|size| size.ws_col.into()).filter(|columns| *columns >= 40).unwrap_or(COLUMNS)
}

/// Columns that a text takes on a terminal; good enough for the texts that we print.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// Whether standard output takes colours: it is a terminal, and NO_COLOR is not set.
pub fn colour_stdout() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// A whole number with thousands separated, as in `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with a decimal prefix and three significant digits, as in `14.9 M`.
pub fn si(value: f64) -> String {
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut scaled = value;
    let mut prefixes = PREFIXES.iter();
    let mut prefix = prefixes.next().copied().unwrap_or_default();
    // 999.5 would be rounded to 1000.
    while scaled.abs() >= 999.5 {
        let Some(next) = prefixes.next() else { break };
        scaled /= 1000.0;
        prefix = next;
    }
    let digits = match scaled.abs() {
        small if small < 9.995 && !prefix.is_empty() => 2,
        medium if medium < 99.95 && !prefix.is_empty() => 1,
        _ => 0,
    };
    if prefix.is_empty() {
        format!("{scaled:.digits$}")
    } else {
        format!("{scaled:.digits$} {prefix}")
    }
}

/// Bytes with a decimal unit, as in `1.50 GB`.
pub fn bytes(value: u64) -> String {
    let scaled = si(approximate(value));
    if scaled.contains(' ') { format!("{scaled}B") } else { format!("{scaled} B") }
}

/// Packets per second, as in `14.9 Mpps`.
pub fn packet_rate(per_second: f64) -> String {
    unit(per_second, "pps")
}

/// Bits per second, as in `9.87 Gbit/s`.
pub fn bit_rate(per_second: f64) -> String {
    unit(per_second, "bit/s")
}

fn unit(value: f64, unit: &str) -> String {
    let scaled = si(value);
    if scaled.contains(' ') { format!("{scaled}{unit}") } else { format!("{scaled} {unit}") }
}

/// Nanoseconds with the unit that suits, as in `12.3 µs`.
pub fn nanoseconds(value: u64) -> String {
    let value = approximate(value);
    match value {
        v if v < 1e3 => format!("{v:.0} ns"),
        v if v < 1e6 => format!("{:.1} µs", v / 1e3),
        v if v < 1e9 => format!("{:.2} ms", v / 1e6),
        v => format!("{:.2} s", v / 1e9),
    }
}

/// Seconds as `1d02h`, `3h04m`, `5m06s` or `7s`.
pub fn seconds(value: u64) -> String {
    let (minutes, hours, days) = (value / 60, value / 3600, value / 86_400);
    match value {
        0..60 => format!("{value}s"),
        60..3600 => format!("{minutes}m{:02}s", value % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A count as a floating-point number, for rates and units; exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub const fn approximate(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("port", Align::Left), ("packets", Align::Right)]);
        table.row(vec!["vm1".into(), "5".into()]);
        table.row(vec!["a-long-name".into(), "1,234,567,890".into()]);
        let expected = "\
port               packets
vm1                      5
a-long-name  1,234,567,890
";
        assert_eq!(table.render(false), expected);
    }

    #[test]
    fn a_text_that_does_not_fit_goes_on_below() {
        let mut table = Table::new(&[("port", Align::Left), ("device", Align::Left)]);
        table.row(vec!["a".into(), "null:".into()]);
        table.row(vec!["b".into(), "vhost-user:/run/b.sock,queues=2,mtu=1500".into()]);
        let expected = "\
port  device
a     null:
b     vhost-user:/run/b.sock,queues=2,
      mtu=1500
";
        assert_eq!(table.render_within(false, 40), expected);
        assert_eq!(table.render_within(false, 46).lines().count(), 3);

        let mut table = Table::new(&[("a column that is wide", Align::Left), ("x", Align::Left)]);
        table.row(vec!["1".into(), Cell::toned("a:0-1 b:0-1 c:0-1 d:0-1 e:0-1", Tone::Bad)]);
        let expected = "\
a column that is wide  x
1
    a:0-1 b:0-1 c:0-1 d:0-1
    e:0-1
";
        assert_eq!(table.render_within(false, 30), expected);
    }

    #[test]
    fn what_is_too_wide_goes_on_in_its_column() {
        let mut table = Table::new(&[
            ("port", Align::Left),
            ("stations", Align::Left),
            ("packets", Align::Right),
        ]);
        table.row(vec!["a-rather-long-name".into(), "52:54:00:00:00:01 +7".into(), "12".into()]);
        table.row(vec!["b".into(), "-".into(), "1,234".into()]);
        let expected = "\
port           stations       packets
a-rather-long  52:54:00:00:0       12
-name          0:01
               +7
b              -                1,234
";
        assert_eq!(table.render_within(false, 37), expected);
        // Numbers stay whole, however little room there is.
        assert!(table.render_within(false, 5).contains("1,234"));
        assert!(!table.fits() || columns() >= 47);
    }

    #[test]
    fn paragraphs_are_broken_where_words_end() {
        assert_eq!(paragraph_within("b: rings 0 of 2 running", 40), "b: rings 0 of 2 running\n");
        let long = "b: rings 0 of 2 running, socket /a/path/without/any/blank/in/it, role server";
        let expected = "\
b: rings 0 of 2
    running, socket
    /a/path/without/any/blank/in/it,
    role server
";
        assert_eq!(paragraph_within(long, 21), expected);
    }

    #[test]
    fn colour_changes_no_alignment() {
        let mut table = Table::new(&[("a", Align::Right), ("b", Align::Left)]);
        table.row(vec![Cell::trouble(3), Cell::toned("up", Tone::Good)]);
        table.row(vec![Cell::trouble(1000), "down".into()]);
        let plain = table.render(false);
        let mut coloured = table.render(true);
        assert!(coloured.contains("\x1b[31m3\x1b[0m"));
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"] {
            coloured = coloured.replace(code, "");
        }
        let trimmed: Vec<&str> = coloured.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, plain.lines().collect::<Vec<_>>());
    }

    #[test]
    fn units_suit_the_size() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(packet_rate(950.0), "950 pps");
        assert_eq!(packet_rate(14_880_952.0), "14.9 Mpps");
        assert_eq!(packet_rate(999_960.0), "1.00 Mpps");
        assert_eq!(bit_rate(1.5e9), "1.50 Gbit/s");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(1_500_000_000), "1.50 GB");
        assert_eq!(nanoseconds(870), "870 ns");
        assert_eq!(nanoseconds(12_340), "12.3 µs");
        assert_eq!(seconds(59), "59s");
        assert_eq!(seconds(3_605), "1h00m");
        assert_eq!(seconds(90_000), "1d01h");
    }
}
