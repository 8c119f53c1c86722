//! Writing into a screen that may be of any size.

use super::grid::{Grid, Style};
use crate::printable::printable;
use crate::table::{Align, CUT, Tone};

/// A screen to write on. What does not fit is left out, and what a terminal would obey is replaced.
#[derive(Debug)]
pub struct Canvas<'b> {
    grid: &'b mut Grid,
    colour: bool,
}

impl<'b> Canvas<'b> {
    /// Writes into `grid`, with colours or without.
    pub const fn new(grid: &'b mut Grid, colour: bool) -> Self {
        Self { grid, colour }
    }

    /// Places of a line.
    pub const fn width(&self) -> usize {
        self.grid.width()
    }

    /// Lines.
    pub const fn height(&self) -> usize {
        self.grid.height()
    }

    /// How something stands out.
    pub const fn style(&self, tone: Tone) -> Style {
        match (tone, self.colour) {
            (Tone::Good, true) => Style::GREEN,
            (Tone::Bad, true) => Style::RED.and(Style::BOLD),
            (Tone::Bad, false) => Style::BOLD,
            (Tone::Faint, _) => Style::DIM,
            (Tone::Plain, _) | (Tone::Good, false) => Style::PLAIN,
        }
    }

    /// Writes a text at a place, into `width` places at most, and gives the place behind it.
    pub fn put(&mut self, x: usize, y: usize, width: usize, text: &str, style: Style) -> usize {
        self.grid.put(x, y, width, &printable(text), style)
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
        self.grid.style_line(y, style);
    }
}
