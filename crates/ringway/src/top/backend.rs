//! What has changed on the screen, as a terminal's control sequences: those of ECMA-48, and xterm's
//! for more than eight colours.

use std::fmt::Write as _;
use std::io::{self, Stdout, Write as _};

use ratatui_core::backend::{Backend, ClearType, WindowSize};
use ratatui_core::buffer::Cell;
use ratatui_core::layout::{Position, Size};
use ratatui_core::style::{Color, Modifier};

/// Modifiers, and the numbers by which SGR (ECMA-48, 8.3.117) turns them on.
const MODIFIERS: [(Modifier, u8); 9] = [
    (Modifier::BOLD, 1),
    (Modifier::DIM, 2),
    (Modifier::ITALIC, 3),
    (Modifier::UNDERLINED, 4),
    (Modifier::SLOW_BLINK, 5),
    (Modifier::RAPID_BLINK, 6),
    (Modifier::REVERSED, 7),
    (Modifier::HIDDEN, 8),
    (Modifier::CROSSED_OUT, 9),
];

/// Standard output, which is a terminal.
#[derive(Debug)]
pub struct Output(Stdout);

impl Output {
    /// That of the process.
    pub fn new() -> Self {
        Self(io::stdout())
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())
    }
}

impl Backend for Output {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        self.send(&sequences(content))
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.send("\x1b[?25l")
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.send("\x1b[?25h")
    }

    /// Nobody asks the terminal: keys come where its answer would.
    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        self.send(&goto(x, y))
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, clear_type: ClearType) -> io::Result<()> {
        self.send(match clear_type {
            ClearType::All => "\x1b[2J",
            ClearType::AfterCursor => "\x1b[J",
            ClearType::BeforeCursor => "\x1b[1J",
            ClearType::CurrentLine => "\x1b[2K",
            ClearType::UntilNewLine => "\x1b[K",
        })
    }

    fn size(&self) -> io::Result<Size> {
        let size = rustix::termios::tcgetwinsize(&self.0)?;
        Ok(Size::new(size.ws_col, size.ws_row))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        let size = rustix::termios::tcgetwinsize(&self.0)?;
        Ok(WindowSize {
            columns_rows: Size::new(size.ws_col, size.ws_row),
            pixels: Size::new(size.ws_xpixel, size.ws_ypixel),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Moves the cursor to a place, of which the first is (0, 0).
fn goto(x: u16, y: u16) -> String {
    format!("\x1b[{};{}H", u32::from(y) + 1, u32::from(x) + 1)
}

/// Writes cells to their places; colours and modifiers are off before and after.
fn sequences<'a>(content: impl Iterator<Item = (u16, u16, &'a Cell)>) -> String {
    let plain = (Color::Reset, Color::Reset, Modifier::empty());
    let (mut text, mut style, mut next) = (String::new(), plain, None);
    for (x, y, cell) in content {
        // The terminal's cursor goes on by itself.
        if next != Some((x, y)) {
            text += &goto(x, y);
        }
        next = x.checked_add(1).map(|x| (x, y));
        let wanted = (cell.fg, cell.bg, cell.modifier);
        if wanted != style {
            text += &rendition(wanted);
            style = wanted;
        }
        text += cell.symbol();
    }
    if style != plain {
        text += &rendition(plain);
    }
    text
}

/// Turns off what is on, and on what is wanted: foreground, background and modifiers.
fn rendition((fg, bg, modifier): (Color, Color, Modifier)) -> String {
    let mut text = "\x1b[0".to_owned();
    for (_, number) in MODIFIERS.iter().filter(|(one, _)| modifier.contains(*one)) {
        // A string takes everything.
        let _ = write!(text, ";{number}");
    }
    text += &colour(fg, 30);
    text += &colour(bg, 40);
    text + "m"
}

/// A colour as parameters behind others; `first` is the number of black.
fn colour(colour: Color, first: u8) -> String {
    let light = first + 60;
    let number = match colour {
        Color::Reset => return String::new(),
        Color::Black => first,
        Color::Red => first + 1,
        Color::Green => first + 2,
        Color::Yellow => first + 3,
        Color::Blue => first + 4,
        Color::Magenta => first + 5,
        Color::Cyan => first + 6,
        Color::Gray => first + 7,
        Color::DarkGray => light,
        Color::LightRed => light + 1,
        Color::LightGreen => light + 2,
        Color::LightYellow => light + 3,
        Color::LightBlue => light + 4,
        Color::LightMagenta => light + 5,
        Color::LightCyan => light + 6,
        Color::White => light + 7,
        Color::Indexed(n) => return format!(";{};5;{n}", first + 8),
        Color::Rgb(r, g, b) => return format!(";{};2;{r};{g};{b}", first + 8),
    };
    format!(";{number}")
}

#[cfg(test)]
mod tests {
    use ratatui_core::buffer::Buffer;
    use ratatui_core::layout::Rect;
    use ratatui_core::style::Style;

    use super::*;

    fn changes(draw: impl FnOnce(&mut Buffer)) -> String {
        let before = Buffer::empty(Rect::new(0, 0, 12, 3));
        let mut after = before.clone();
        draw(&mut after);
        sequences(before.diff(&after).into_iter())
    }

    #[test]
    fn only_what_has_changed_is_written_and_neighbours_need_no_place() {
        assert_eq!(changes(|_| ()), "");
        let text = changes(|screen| {
            screen.set_string(0, 0, "ab", Style::new());
            screen.set_string(4, 2, "c", Style::new());
        });
        assert_eq!(text, "\x1b[1;1Hab\x1b[3;5Hc");
    }

    #[test]
    fn a_wide_character_takes_two_places_and_what_follows_is_put_behind_it() {
        let text = changes(|screen| {
            screen.set_string(0, 0, "\u{65e5}x", Style::new());
        });
        assert_eq!(text, "\x1b[1;1H\u{65e5}\x1b[1;3Hx");
    }

    #[test]
    fn a_style_is_set_once_and_taken_back_at_the_end() {
        let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        let text = changes(|screen| {
            screen.set_string(0, 0, "ab", bad);
            screen.set_string(2, 0, "c", Style::new().add_modifier(Modifier::REVERSED));
        });
        assert_eq!(text, "\x1b[1;1H\x1b[0;1;31mab\x1b[0;7mc\x1b[0m");
    }

    #[test]
    fn colours_have_the_numbers_that_terminals_know() {
        for (is, fg, bg) in [
            (Color::Reset, "", ""),
            (Color::Black, ";30", ";40"),
            (Color::Gray, ";37", ";47"),
            (Color::DarkGray, ";90", ";100"),
            (Color::White, ";97", ";107"),
            (Color::Indexed(200), ";38;5;200", ";48;5;200"),
            (Color::Rgb(1, 2, 3), ";38;2;1;2;3", ";48;2;1;2;3"),
        ] {
            assert_eq!((colour(is, 30).as_str(), colour(is, 40).as_str()), (fg, bg), "{is}");
        }
    }
}
