//! What to try next: a binary search for the largest value that passes.

/// The search for one result.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The largest value that has passed.
    passed: f64,
    /// The smallest one that has not; nothing beyond `most` is tried.
    failed: Option<f64>,
    most: f64,
    /// The smallest value of interest.
    least: f64,
    /// How near the two must come, as a part of the larger one.
    precision: f64,
    /// How near they need not come.
    grain: f64,
}

impl Search {
    /// Between `least` and `most`, as exact as `precision` says (0.01: to one percent).
    pub const fn new(least: f64, most: f64, precision: f64) -> Self {
        Self { passed: 0.0, failed: None, most, least, precision, grain: 0.0 }
    }

    /// The same for whole numbers, from 1 to `most`: two that are no more than 1 apart are near
    /// enough, and what is tried may be rounded.
    pub const fn whole(most: f64, precision: f64) -> Self {
        Self { grain: 1.0, ..Self::new(0.5, most, precision) }
    }

    /// The next value to try; `None` when the result is exact enough.
    pub fn next(&self) -> Option<f64> {
        let Some(failed) = self.failed else {
            return (self.passed < self.most).then_some(self.most);
        };
        let exact = failed - self.passed <= (self.precision * failed).max(self.grain);
        let next = f64::midpoint(self.passed, failed);
        (!exact && next >= self.least).then_some(next)
    }

    /// A value has passed; what was really tried may have been less than was asked for.
    pub const fn pass(&mut self, value: f64) {
        self.passed = self.passed.max(value);
    }

    /// A value has not passed, or could not be tried.
    pub fn fail(&mut self, value: f64) {
        self.failed = Some(self.failed.map_or(value, |failed| failed.min(value)));
    }

    /// The largest value that has passed; 0 if none has.
    pub const fn result(&self) -> f64 {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches in what passes up to `limit`; gives the result and how many trials it took.
    fn find(limit: f64, search: Search) -> (f64, u32) {
        let (mut search, mut trials) = (search, 0);
        while let Some(value) = search.next() {
            trials += 1;
            assert!(trials < 100, "{search:?}");
            if value <= limit { search.pass(value) } else { search.fail(value) }
        }
        (search.result(), trials)
    }

    #[test]
    fn all_that_goes_takes_one_trial_and_nothing_comes_to_an_end() {
        assert_eq!(find(2e6, Search::new(1.0, 1e6, 0.01)), (1e6, 1));
        let (result, trials) = find(0.0, Search::new(10.0, 1e6, 0.01));
        assert!(result == 0.0 && trials <= 18, "{trials}");
    }

    proptest! {
        #[test]
        fn of_whole_numbers_it_is_found_exactly(limit in 0..2000_u32) {
            let mut search = Search::whole(2000.0, 0.0001);
            for trials in 0.. {
                prop_assert!(trials < 20);
                let Some(value) = search.next() else { break };
                let tried = value.round();
                if tried <= f64::from(limit) { search.pass(tried) } else { search.fail(tried) }
            }
            prop_assert_eq!(search.result(), f64::from(limit));
        }

        #[test]
        fn the_largest_that_passes_is_found(limit in 100.0..1e7_f64, precision in 0.001..0.1_f64) {
            let (result, trials) = find(limit, Search::new(1.0, 1e7, precision));
            prop_assert!(result <= limit && result >= limit * (1.0 - 2.0 * precision), "{result}");
            prop_assert!(trials <= 30, "{trials}");
        }
    }
}
