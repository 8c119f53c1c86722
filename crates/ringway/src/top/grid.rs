//! What stands on the screen, place by place, and what has changed there as a terminal's control
//! sequences: those of ECMA-48.

use std::fmt::Write as _;

/// How a place stands out: parameters of SGR (ECMA-48, 8.3.117), as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style(u8);

impl Style {
    pub const PLAIN: Self = Self(0);
    pub const BOLD: Self = Self(1);
    pub const DIM: Self = Self(2);
    pub const UNDERLINED: Self = Self(4);
    pub const REVERSED: Self = Self(8);
    pub const RED: Self = Self(16);
    pub const GREEN: Self = Self(32);

    /// Each of them, with its number.
    const NUMBERS: [(Self, u8); 6] = [
        (Self::BOLD, 1),
        (Self::DIM, 2),
        (Self::UNDERLINED, 4),
        (Self::REVERSED, 7),
        (Self::RED, 31),
        (Self::GREEN, 32),
    ];

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Turns off what is on, and on what is wanted.
    fn sequence(self) -> String {
        let wanted = Self::NUMBERS.iter().filter(|(one, _)| self.0 & one.0 != 0);
        let numbers: String = wanted.map(|(_, number)| format!(";{number}")).collect();
        format!("\x1b[0{numbers}m")
    }
}

/// What is in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// [`REST`] behind a character that takes two places.
    symbol: char,
    /// What combines with it, as an accent.
    mark: Option<char>,
    style: Style,
}

const BLANK: Place = Place { symbol: ' ', mark: None, style: Style::PLAIN };

/// The second place of a wide character.
const REST: char = '\0';

/// All places of a screen.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    width: usize,
    lines: Vec<Vec<Place>>,
}

impl Grid {
    /// An empty screen of this size.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, lines: vec![vec![BLANK; width]; height] }
    }

    /// Places of a line.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Lines.
    pub const fn height(&self) -> usize {
        self.lines.len()
    }

    /// Writes a text at a place, into `room` places at most, and gives the place behind it. What does
    /// not fit is left out.
    pub fn put(&mut self, mut x: usize, y: usize, room: usize, text: &str, style: Style) -> usize {
        let end = x.saturating_add(room).min(self.width);
        let Some(line) = self.lines.get_mut(y) else { return x };
        for symbol in text.chars() {
            let taken = places(symbol);
            if taken == 0 {
                let mut before = line.iter_mut().take(x);
                if let Some(letter) = before.rfind(|place| place.symbol != REST) {
                    letter.mark = Some(symbol);
                }
                continue;
            }
            if taken > end.saturating_sub(x) {
                break;
            }
            for (place, symbol) in line.iter_mut().skip(x).take(taken).zip([symbol, REST]) {
                *place = Place { symbol, mark: None, style: place.style.and(style) };
            }
            x += taken;
        }
        x
    }

    /// Has a whole line stand out so, too.
    pub fn style_line(&mut self, y: usize, style: Style) {
        let line = self.lines.get_mut(y).into_iter().flatten();
        line.for_each(|place| place.style = place.style.and(style));
    }

    /// What makes a screen that shows `shown`, which is as large, show this; nothing stands out before
    /// and after.
    pub fn changes(&self, shown: &Self) -> String {
        let (mut text, mut style, mut next) = (String::new(), Style::PLAIN, None);
        for (y, (line, shown)) in self.lines.iter().zip(&shown.lines).enumerate() {
            let changed = line.iter().zip(shown).enumerate().filter(|(_, (new, old))| new != old);
            for (x, (place, _)) in changed.filter(|(_, (new, _))| new.symbol != REST) {
                if next != Some((x, y)) {
                    // A string takes everything; the first place is (1, 1).
                    let _ = write!(text, "\x1b[{};{}H", y + 1, x + 1);
                }
                if place.style != style {
                    text += &place.style.sequence();
                    style = place.style;
                }
                text.push(place.symbol);
                text.extend(place.mark);
                // The cursor goes on by itself; how far, terminals may see otherwise.
                next = (places(place.symbol) == 1 && place.mark.is_none()).then_some((x + 1, y));
            }
        }
        if style != Style::PLAIN {
            text += &Style::PLAIN.sequence();
        }
        text
    }

    /// What each line shows.
    #[cfg(test)]
    pub fn text(&self) -> String {
        let symbols = |place: &Place| (place.symbol != REST).then_some(place.symbol);
        let line = |line: &Vec<Place>| line.iter().filter_map(symbols).collect::<String>();
        let lines: Vec<String> =
            self.lines.iter().map(|places| line(places).trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Characters that take no place of their own: the blocks of Unicode for what is combined, and what
/// chooses one of several shapes.
const MARKS: [(char, char); 6] = [
    ('\u{300}', '\u{36f}'),
    ('\u{1ab0}', '\u{1aff}'),
    ('\u{1dc0}', '\u{1dff}'),
    ('\u{20d0}', '\u{20ff}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{fe20}', '\u{fe2f}'),
];

/// Characters that take two: the blocks whose characters are wide (Unicode's annex 11), and pictures.
const WIDE: [(char, char); 12] = [
    ('\u{1100}', '\u{115f}'),
    ('\u{2e80}', '\u{303e}'),
    ('\u{3041}', '\u{a4cf}'),
    ('\u{a960}', '\u{a97f}'),
    ('\u{ac00}', '\u{d7a3}'),
    ('\u{f900}', '\u{faff}'),
    ('\u{fe30}', '\u{fe6f}'),
    ('\u{ff00}', '\u{ff60}'),
    ('\u{ffe0}', '\u{ffe6}'),
    ('\u{1f300}', '\u{1f64f}'),
    ('\u{1f680}', '\u{1faff}'),
    ('\u{20000}', '\u{3fffd}'),
];

/// How many places a character takes.
fn places(symbol: char) -> usize {
    let is_in = |blocks: &[(char, char)]| {
        blocks.iter().any(|(first, last)| (*first..=*last).contains(&symbol))
    };
    if is_in(&MARKS) { 0 } else { 1 + usize::from(is_in(&WIDE)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changes(draw: impl FnOnce(&mut Grid)) -> String {
        let mut after = Grid::new(12, 3);
        draw(&mut after);
        after.changes(&Grid::new(12, 3))
    }

    #[test]
    fn only_what_has_changed_is_written_and_neighbours_need_no_place() {
        assert_eq!(changes(|_| ()), "");
        let text = changes(|screen| {
            assert_eq!(screen.put(0, 0, 12, "ab", Style::PLAIN), 2);
            screen.put(4, 2, 12, "c", Style::PLAIN);
        });
        assert_eq!(text, "\x1b[1;1Hab\x1b[3;5Hc");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut screen = Grid::new(4, 1);
        assert_eq!(screen.put(1, 0, 2, "abc", Style::PLAIN), 3);
        assert_eq!(screen.put(3, 0, usize::MAX, "\u{65e5}", Style::PLAIN), 3);
        assert_eq!(
            (screen.put(9, 0, 1, "x", Style::PLAIN), screen.put(0, 9, 1, "x", Style::PLAIN)),
            (9, 0)
        );
        assert_eq!(screen.text(), " ab");
    }

    #[test]
    fn a_wide_character_takes_two_places_and_what_follows_is_put_behind_it() {
        let text = changes(|screen| {
            assert_eq!(screen.put(0, 0, 12, "\u{65e5}x", Style::PLAIN), 3);
        });
        assert_eq!(text, "\x1b[1;1H\u{65e5}\x1b[1;3Hx");
    }

    #[test]
    fn what_was_behind_a_wide_character_is_written_again() {
        let (mut wide, mut narrow) = (Grid::new(4, 1), Grid::new(4, 1));
        wide.put(0, 0, 4, "\u{65e5}", Style::PLAIN);
        narrow.put(0, 0, 4, "a", Style::PLAIN);
        assert_eq!(narrow.changes(&wide), "\x1b[1;1Ha ");
    }

    #[test]
    fn an_accent_stays_with_its_letter() {
        let text = changes(|screen| {
            assert_eq!(screen.put(0, 0, 12, "e\u{301}x\u{65e5}\u{20dd}", Style::PLAIN), 4);
        });
        assert_eq!(text, "\x1b[1;1He\u{301}\x1b[1;2Hx\u{65e5}\u{20dd}");
    }

    #[test]
    fn a_style_is_set_once_and_taken_back_at_the_end() {
        let text = changes(|screen| {
            screen.put(0, 0, 12, "ab", Style::RED.and(Style::BOLD));
            screen.put(2, 0, 12, "c", Style::REVERSED);
        });
        assert_eq!(text, "\x1b[1;1H\x1b[0;1;31mab\x1b[0;7mc\x1b[0m");
    }

    #[test]
    fn a_line_stands_out_with_what_is_there() {
        let mut screen = Grid::new(2, 1);
        screen.put(0, 0, 1, "a", Style::GREEN);
        screen.style_line(0, Style::UNDERLINED);
        screen.style_line(1, Style::DIM);
        assert_eq!(screen.changes(&Grid::new(2, 1)), "\x1b[1;1H\x1b[0;4;32ma\x1b[0;4m \x1b[0m");
    }

    proptest! {
        /// What is told a screen makes it that one, whatever stood there.
        #[test]
        fn changes_are_all_there_is_to_tell(
            texts in prop::collection::vec((0..9_usize, 0..3_usize, "[a-c ]{0,8}"), 0..6),
            later in prop::collection::vec((0..9_usize, 0..3_usize, "[a-c ]{0,8}"), 0..6),
        ) {
            let screen = |texts: &[(usize, usize, String)]| {
                let mut screen = Grid::new(9, 3);
                for (x, y, text) in texts {
                    screen.put(*x, *y, usize::MAX, text, Style::PLAIN);
                }
                screen
            };
            let (mut shown, wanted) = (screen(&texts), screen(&later));
            for part in wanted.changes(&shown).split("\x1b[").skip(1) {
                let (place, text) = part.split_once('H').unwrap();
                let (y, x) = place.split_once(';').unwrap();
                let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
                shown.put(x - 1, y - 1, usize::MAX, text, Style::PLAIN);
            }
            prop_assert_eq!(shown.text(), wanted.text());
        }
    }
}
