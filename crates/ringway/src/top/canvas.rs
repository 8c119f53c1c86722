//! Writing into a screen that may be of any size.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use crate::printable::printable;
use crate::table::{Align, CUT, Tone};

/// A screen to write on. What does not fit is left out, and what a terminal would obey is replaced.
#[derive(Debug)]
pub struct Canvas<'b> {
    buffer: &'b mut Buffer,
    colour: bool,
}

impl<'b> Canvas<'b> {
    /// Writes into `buffer`, with colours or without.
    pub const fn new(buffer: &'b mut Buffer, colour: bool) -> Self {
        Self { buffer, colour }
    }

    /// Places of a line.
    pub const fn width(&self) -> usize {
        self.buffer.area.width as usize
    }

    /// Lines.
    pub const fn height(&self) -> usize {
        self.buffer.area.height as usize
    }

    /// How something stands out.
    pub const fn style(&self, tone: Tone) -> Style {
        match (tone, self.colour) {
            (Tone::Good, true) => Style::new().fg(Color::Green),
            (Tone::Bad, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            (Tone::Bad, false) => Style::new().add_modifier(Modifier::BOLD),
            (Tone::Faint, _) => Style::new().add_modifier(Modifier::DIM),
            (Tone::Plain, _) | (Tone::Good, false) => Style::new(),
        }
    }

    /// Writes a text at a place, into `width` places at most, and gives the place behind it.
    pub fn put(&mut self, x: usize, y: usize, width: usize, text: &str, style: Style) -> usize {
        let Some((column, line)) = self.place(x, y) else { return x };
        let (end, _) = self.buffer.set_stringn(column, line, printable(text), width, style);
        end.into()
    }

    /// Writes a text into `width` places, at their left or right; what does not fit is cut off
    /// visibly.
    pub fn put_cell(
        &mut self,
        x: usize,
        y: usize,
        width: usize,
        (text, align): (&str, Align),
        style: Style,
    ) {
        let text = printable(text);
        let taken = crate::table::width(&text);
        if taken > width {
            self.put(x, y, width.saturating_sub(1), &text, style);
            self.put(x + width.saturating_sub(1), y, 1, &CUT.to_string(), style);
            return;
        }
        let before = if align == Align::Right { width - taken } else { 0 };
        self.put(x + before, y, width, &text, style);
    }

    /// Gives a whole line a style.
    pub fn style_line(&mut self, y: usize, style: Style) {
        if let Some((_, line)) = self.place(0, y) {
            let area = Rect { y: line, height: 1, ..self.buffer.area };
            self.buffer.set_style(area, style);
        }
    }

    /// The place as the buffer has it, if it is one.
    fn place(&self, x: usize, y: usize) -> Option<(u16, u16)> {
        let inside = x < self.width() && y < self.height();
        let place = u16::try_from(x).ok().zip(u16::try_from(y).ok());
        place.filter(|_| inside)
    }
}
