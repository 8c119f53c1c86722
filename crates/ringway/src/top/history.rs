//! Rates of the last minutes, for curves and means.

use std::collections::VecDeque;

use super::model::Rates;

/// Samples that are kept: five minutes of one a second.
pub const KEPT: usize = 300;

/// What a port did at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since the start of the switch.
    pub at: f64,
    /// From the port into the switch.
    pub rx: Rates,
    /// From the switch to the port.
    pub tx: Rates,
}

/// The last [`KEPT`] points, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
    /// Points that were ever added.
    added: usize,
}

impl History {
    /// Adds a point, and forgets what is too old.
    pub fn add(&mut self, point: Point) {
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.added = self.added.wrapping_add(1);
    }

    /// The points, oldest first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.points.iter()
    }

    /// Seconds from the oldest point to the newest.
    pub fn span(&self) -> f64 {
        let ends = self.points.front().zip(self.points.back());
        ends.map_or(0.0, |(first, last)| (last.at - first.at).max(0.0))
    }

    /// At most `width` heights, oldest first: the largest of as many points each as are needed for
    /// all to fit. A point stays with its neighbours as time goes by, so that peaks do not flicker.
    pub fn curve(&self, width: usize, take: impl Fn(&Point) -> f64) -> Vec<f64> {
        if width == 0 {
            return Vec::new();
        }
        // One more column than there are whole groups: the first and last may be parts of one.
        let per = self.points.len().div_ceil(width.saturating_sub(1).max(1)).max(1);
        let first = self.added.wrapping_sub(self.points.len());
        let mut heights: Vec<(usize, f64)> = Vec::new();
        for (index, point) in self.points.iter().enumerate() {
            let group = first.wrapping_add(index) / per;
            let height = take(point);
            match heights.last_mut() {
                Some((last, most)) if *last == group => *most = most.max(height),
                _ => heights.push((group, height)),
            }
        }
        let surplus = heights.len().saturating_sub(width);
        heights.into_iter().skip(surplus).map(|(_, height)| height).collect()
    }

    /// The mean of the last `seconds`.
    pub fn mean(&self, seconds: f64, take: impl Fn(&Point) -> f64) -> Option<f64> {
        let last = self.points.back()?.at;
        let recent = self.points.iter().rev().take_while(|point| last - point.at < seconds);
        let (count, sum) = recent.fold((0_u32, 0.0), |(n, sum), point| (n + 1, sum + take(point)));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The largest.
    pub fn most(&self, take: impl Fn(&Point) -> f64) -> Option<f64> {
        self.points.iter().map(take).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(heights: impl IntoIterator<Item = f64>) -> History {
        let mut history = History::default();
        for (at, packets) in heights.into_iter().enumerate() {
            let rates = Rates { packets, ..Rates::default() };
            history.add(Point { at: at as f64, rx: rates, tx: Rates::default() });
        }
        history
    }

    #[test]
    fn it_is_bounded_and_means_are_of_the_end() {
        let history = history((0..1000).map(f64::from));
        assert_eq!(history.points().count(), KEPT);
        assert!((history.span() - 299.0).abs() < 1e-9);
        assert_eq!(history.mean(10.0, |point| point.rx.packets), Some(994.5));
        assert_eq!(history.most(|point| point.rx.packets), Some(999.0));
        assert_eq!(History::default().mean(10.0, |point| point.rx.packets), None);
    }

    #[test]
    fn a_curve_fits_keeps_peaks_and_does_not_flicker() {
        for count in [0, 1, 5, 59, 60, 61, 299, 300, 301, 777] {
            for width in [0, 1, 2, 7, 60, 500] {
                let peak = count * 2 / 3;
                let all = history((0..count).map(|n| if n == peak { 9.0 } else { 1.0 }));
                let curve = all.curve(width, |point| point.rx.packets);
                assert!(curve.len() <= width, "{count} in {width}: {}", curve.len());
                if width > 2 && count > 0 && count - peak < KEPT {
                    let peaks = curve.iter().filter(|height| **height > 8.0).count();
                    assert_eq!(peaks, 1, "{count} in {width}: {curve:?}");
                }
            }
        }
    }
}
