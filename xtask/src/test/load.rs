use std::fs;

/// How long the CPUs of the machine have run so far, all together, in ticks of the kernel.
#[derive(Debug, Default, Clone, Copy)]
pub struct Load {
    all: u64,
    idle: u64,
}

impl Load {
    /// What the kernel has counted until now; nothing where it does not tell.
    pub fn now() -> Self {
        Self::read(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Reads `/proc/stat`, whose first line has the ticks since the start: of programs, of nice ones,
    /// of the kernel, idle, idle with a disk to wait for, of two kinds of interrupts, of other machines.
    /// What guests got, which follows, is within the first.
    fn read(text: &str) -> Self {
        let ticks = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or("");
        let ticks: Vec<u64> =
            ticks.split_whitespace().take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        Self { all: ticks.iter().sum(), idle: ticks.iter().skip(3).take(2).sum() }
    }

    /// How much of the CPUs nobody has used since `earlier`, in percent.
    pub fn idle_since(self, earlier: Self) -> u64 {
        let all = self.all.saturating_sub(earlier.all);
        (self.idle.saturating_sub(earlier.idle) * 100).checked_div(all).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_idle_is_a_share_of_all_that_has_passed() {
        let earlier = Load::read("cpu  10 0 10 60 20 0 0 0 99 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!((earlier.all, earlier.idle), (100, 80));
        let later = Load::read("cpu  60 5 20 80 25 5 3 2 99 0\n");
        assert_eq!(later.idle_since(earlier), 25);
        assert_eq!(earlier.idle_since(earlier), 0);
        assert_eq!(Load::read("").idle_since(earlier), 0);
        assert!(Load::now().all > 0);
    }
}
