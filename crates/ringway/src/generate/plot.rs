//! Plots of lines, as SVG within an HTML page.
//!
//! Own code, since the crates that draw are larger than all of the generator.

use std::fmt::Write as _;

/// Places in units of the drawing: all of it, and what is around the plot itself.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

/// Points that a line has at most: more of them cannot be told apart.
const MOST_POINTS: usize = 800;

/// Colours that can be told apart by everyone (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten.
    Logarithmic,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What is on it.
    pub title: &'static str,
    /// How it is divided.
    pub scale: Scale,
    /// How a value is written.
    pub label: fn(f64) -> String,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it shows.
    pub name: &'static str,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Lines over an axis.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines; those without points are left out.
    pub lines: Vec<Line>,
}

/// From where to where an axis goes, and where its values are in the drawing.
struct Span {
    scale: Scale,
    from: f64,
    to: f64,
    start: f64,
    length: f64,
}

impl Span {
    fn of(scale: Scale, values: impl Iterator<Item = f64>, start: f64, length: f64) -> Self {
        let usable = |value: &f64| value.is_finite() && (scale == Scale::Linear || *value > 0.0);
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(usable) {
            (from, to) = (from.min(value), to.max(value));
        }
        let (from, to) = match scale {
            Scale::Linear => (0.0, if to > 0.0 { to } else { 1.0 }),
            Scale::Logarithmic if from > to => (1.0, 10.0),
            Scale::Logarithmic => {
                let (low, high) = (from.log10().floor(), to.log10().ceil());
                (10_f64.powf(low), 10_f64.powf(if high > low { high } else { low + 1.0 }))
            }
        };
        Self { scale, from, to, start, length }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic => {
                let value = value.max(self.from);
                (value / self.from).log10() / (self.to / self.from).log10()
            }
        };
        self.start + self.length * part.clamp(0.0, 1.0)
    }

    /// Values at which there is a line and a label.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        match self.scale {
            Scale::Linear => {
                let step = nice((self.to - self.from) / 5.0);
                let mut tick = self.from;
                while tick <= self.to * 1.0001 && ticks.len() < 20 {
                    ticks.push(tick);
                    tick += step;
                }
            }
            Scale::Logarithmic => {
                let mut tick = self.from;
                while tick <= self.to * 1.0001 && ticks.len() < 20 {
                    ticks.push(tick);
                    tick *= 10.0;
                }
            }
        }
        ticks
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is no smaller than `step`.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.into_iter().find(|factor| factor * power >= step * 0.9999);
    factor.unwrap_or(10.0) * power
}

impl Plot {
    /// The drawing; nothing where there is nothing to draw.
    pub fn svg(&self) -> String {
        let lines: Vec<&Line> = self.lines.iter().filter(|line| !line.points.is_empty()).collect();
        if lines.is_empty() {
            return String::new();
        }
        let points = || lines.iter().flat_map(|line| line.points.iter());
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x = Span::of(self.x.scale, points().map(|point| point.0), LEFT, width);
        let y = Span::of(self.y.scale, points().map(|point| point.1), HEIGHT - BOTTOM, -height);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"18\">{}</text>\n",
            escape(self.title),
            escape(self.title)
        );
        self.axes(&mut svg, &x, &y);
        for (index, line) in lines.iter().enumerate() {
            let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#000000");
            let points: Vec<String> = thinned(&line.points)
                .map(|(a, b)| format!("{:.1},{:.1}", x.place(a), y.place(b)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
                points.join(" ")
            );
            if line.points.len() <= 40 {
                for (a, b) in &line.points {
                    let (a, b) = (x.place(*a), y.place(*b));
                    let _ = writeln!(
                        svg,
                        "<circle fill=\"{colour}\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"2.5\"/>"
                    );
                }
            }
            let at =
                WIDTH - RIGHT - 110.0 * crate::table::approximate((lines.len() - index) as u64);
            let _ = writeln!(
                svg,
                "<rect fill=\"{colour}\" x=\"{at}\" y=\"9\" width=\"12\" height=\"9\"/>\
                 <text x=\"{}\" y=\"18\">{}</text>",
                at + 17.0,
                escape(line.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, x: &Span, y: &Span) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
                 <text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                escape(&(self.y.label)(tick))
            );
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
                 <text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>",
                bottom + 16.0,
                escape(&(self.x.label)(tick))
            );
        }
        let (middle, below) = (f64::midpoint(LEFT, right), HEIGHT - 6.0);
        let _ = writeln!(
            svg,
            "<text class=\"x\" x=\"{middle}\" y=\"{below}\">{}</text>\
             <text class=\"x\" transform=\"translate(12 {}) rotate(-90)\">{}</text>",
            escape(self.x.title),
            f64::midpoint(TOP, bottom),
            escape(self.y.title)
        );
    }
}

/// As many points as can be told apart: of each group the one that is highest, so that no peak is
/// lost.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let group = points.len().div_ceil(MOST_POINTS).max(1);
    points
        .chunks(group)
        .filter_map(|group| group.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1)))
}

/// Text that means nothing in HTML.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, points: Vec<(f64, f64)>) -> String {
        let axis = Axis { title: "a<b", scale, label: |value| format!("{value}") };
        let x = Axis { scale: Scale::Linear, ..axis };
        Plot { title: "t", x, y: axis, lines: vec![Line { name: "l", points }] }.svg()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let ticks = |scale, to| Span::of(scale, [1.0, to].into_iter(), 0.0, 100.0).ticks();
        assert_eq!(ticks(Scale::Linear, 47.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(ticks(Scale::Linear, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(Scale::Logarithmic, 900.0), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn places_are_within_the_drawing() {
        let svg = plot(Scale::Linear, vec![(0.0, 0.0), (10.0, 5.0), (20.0, 10.0)]);
        assert!(svg.contains("points=\"92.0,276.0 468.0,155.0 844.0,34.0\""), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{svg}");
        let svg = plot(Scale::Logarithmic, vec![(0.0, 1.0), (20.0, 100.0)]);
        assert!(svg.contains("points=\"92.0,276.0 844.0,34.0\""), "{svg}");
    }

    #[test]
    fn odd_values_are_no_trouble() {
        assert_eq!(plot(Scale::Linear, vec![]), "");
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for value in [0.0, -5.0, f64::NAN, f64::INFINITY, 1e300] {
                let svg = plot(scale, vec![(0.0, value), (value, 1.0)]);
                assert!(svg.ends_with("</svg>\n"), "{svg}");
            }
        }
    }

    #[test]
    fn long_lines_keep_their_peaks() {
        let points: Vec<(f64, f64)> = (0..100_000)
            .map(|index| (f64::from(index), if index == 77_777 { 9.0 } else { 1.0 }))
            .collect();
        let thin: Vec<(f64, f64)> = thinned(&points).collect();
        assert!(thin.len() <= MOST_POINTS && thin.contains(&(77_777.0, 9.0)));
    }
}
