//! How much may be looked at in one go: a worker stands still meanwhile.

/// Steps for all paths when there is a new version: some 64 of each of the most paths that are seen to then.
pub(super) const STEPS_OF_VERSION: usize = 1 << 14;

/// Steps that may still be done.
#[derive(Debug)]
pub(super) struct Effort(usize);

impl Effort {
    /// What it takes to find out about a path: where that would be more, a walk through the tables is as good.
    pub(super) const fn of_path() -> Self {
        Self(1 << 15)
    }

    /// What is done for all paths when there is a new version.
    pub(super) const fn of_version() -> Self {
        Self(STEPS_OF_VERSION)
    }

    /// Takes some steps; gives whether they may be done. If not, fewer may.
    #[inline]
    pub(super) const fn take(&mut self, steps: usize) -> bool {
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}
