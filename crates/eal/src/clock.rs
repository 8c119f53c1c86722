//! The time-stamp counter, calibrated once against `CLOCK_MONOTONIC`.
//!
//! [`now`] costs a few nanoseconds and no system call, so a worker may read it once per burst.
//! Where the counter cannot be trusted (it stops in deep sleep, or cores disagree), the same
//! functions read `CLOCK_MONOTONIC` instead, and a cycle is a nanosecond.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long calibration takes: the error of two reads, below 100 ns, is then below 5 ppm.
const CALIBRATION: Duration = Duration::from_millis(20);

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// What the clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The CPU's counter: TSC on x86-64, the generic timer on AArch64.
    Counter,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    Monotonic,
}

const UNKNOWN: u8 = 0;
const COUNTER: u8 = 1;
const MONOTONIC: u8 = 2;

/// The source, where `now` finds it with one plain load.
static SOURCE: AtomicU8 = AtomicU8::new(UNKNOWN);
static CLOCK: OnceLock<Clock> = OnceLock::new();

/// Both clocks when calibration began.
static BEGIN: OnceLock<(u64, u64)> = OnceLock::new();

/// The process's clock: its source and rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    source: Source,
    hz: u64,
}

impl Clock {
    /// The clock. The first call in a process takes about 20 ms, less what has passed since [`begin`];
    /// call it before the workers start.
    pub fn get() -> Self {
        *CLOCK.get_or_init(|| {
            let clock = Self::calibrate();
            let source = if clock.source == Source::Counter { COUNTER } else { MONOTONIC };
            SOURCE.store(source, Relaxed);
            clock
        })
    }

    /// What it counts.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Cycles per second; never 0.
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// The duration of `cycles` cycles, exact to a nanosecond.
    #[must_use]
    pub fn duration(&self, cycles: u64) -> Duration {
        let rest = u128::from(cycles % self.hz) * u128::from(NANOS_PER_SEC) / u128::from(self.hz);
        // Less than a second, so it fits.
        Duration::new(cycles / self.hz, u32::try_from(rest).unwrap_or(0))
    }

    /// The number of cycles in `duration`, rounded down; `u64::MAX` if there are more than that.
    #[must_use]
    pub fn cycles(&self, duration: Duration) -> u64 {
        let whole = u128::from(duration.as_secs()) * u128::from(self.hz);
        let rest = u128::from(duration.subsec_nanos()) * u128::from(self.hz);
        u64::try_from(whole + rest / u128::from(NANOS_PER_SEC)).unwrap_or(u64::MAX)
    }

    fn calibrate() -> Self {
        if counter_is_reliable()
            && let Some(hz) = measure_counter(*BEGIN.get_or_init(both))
        {
            return Self { source: Source::Counter, hz };
        }
        Self { source: Source::Monotonic, hz: NANOS_PER_SEC }
    }
}

/// Begins to calibrate the clock: what a process does from here until it needs the clock is time that it
/// does not wait then. It need not be called.
pub fn begin() {
    BEGIN.get_or_init(both);
}

/// The current time in cycles, from an arbitrary start. Does not go back on one thread; between
/// threads it may be off by the time a cache line takes to travel, so subtract with
/// `wrapping_sub` or `saturating_sub`.
#[inline]
#[must_use]
pub fn now() -> u64 {
    if SOURCE.load(Relaxed) == COUNTER { counter() } else { now_slow() }
}

#[cold]
fn now_slow() -> u64 {
    match Clock::get().source {
        Source::Counter => counter(),
        Source::Monotonic => monotonic(),
    }
}

/// Cycles per second; see [`Clock::hz`].
#[must_use]
pub fn hz() -> u64 {
    Clock::get().hz
}

/// The duration of `cycles` cycles; see [`Clock::duration`].
#[must_use]
pub fn duration(cycles: u64) -> Duration {
    Clock::get().duration(cycles)
}

/// The number of cycles in `duration`; see [`Clock::cycles`].
#[must_use]
pub fn cycles(duration: Duration) -> u64 {
    Clock::get().cycles(duration)
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC, and Linux leaves it enabled in user mode.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn counter() -> u64 {
    let value: u64;
    // SAFETY: Linux gives user mode access to the virtual counter, and reading it changes
    // nothing.
    unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack)) };
    value
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn counter() -> u64 {
    monotonic()
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.wrapping_mul(NANOS_PER_SEC).wrapping_add(nanos)
}

/// Whether the counter runs at a constant rate in every power state, the same on all cores: the
/// CPU says so (CPUID 8000_0007h EDX bit 8, "invariant TSC"), or the kernel keeps time by it.
#[cfg(target_arch = "x86_64")]
fn counter_is_reliable() -> bool {
    use std::arch::x86_64::__cpuid;
    let invariant =
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0;
    invariant
        || std::fs::read_to_string(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        )
        .is_ok_and(|source| source.trim() == "tsc")
}

/// The generic timer is invariant by the architecture's definition.
#[cfg(not(target_arch = "x86_64"))]
const fn counter_is_reliable() -> bool {
    cfg!(target_arch = "aarch64")
}

/// The counter's rate, as measured since both clocks were as given, for as long as calibration takes at
/// least; `None` when it makes no sense.
fn measure_counter((counter_start, time_start): (u64, u64)) -> Option<u64> {
    let passed = Duration::from_nanos(monotonic().saturating_sub(time_start));
    std::thread::sleep(CALIBRATION.saturating_sub(passed));
    let (counter_end, time_end) = both();
    let nanos = time_end.checked_sub(time_start).filter(|nanos| *nanos > 0)?;
    let cycles = counter_end.checked_sub(counter_start)?;
    let hz = u128::from(cycles) * u128::from(NANOS_PER_SEC) / u128::from(nanos);
    // Slower than 1 MHz, it would be of no use; faster than 100 GHz, it does not exist.
    u64::try_from(hz).ok().filter(|hz| (1_000_000..100_000_000_000).contains(hz))
}

/// Both clocks at the same moment: the closest of a few tries, since an interrupt may come
/// between the reads.
fn both() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..16 {
        let before = counter();
        let time = monotonic();
        let gap = counter().saturating_sub(before);
        if gap < best.0 {
            best = (gap, before.wrapping_add(gap / 2), time);
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_has_passed_since_it_began_is_part_of_calibration() {
        let begin = both();
        let first = measure_counter(begin).unwrap();
        // Longer ago is as good.
        let second = measure_counter(begin).unwrap();
        assert!(first.abs_diff(second) < first / 1000, "{first} and {second}");
        assert!(both().1 - begin.1 >= 20_000_000);
    }

    #[test]
    fn it_agrees_with_the_kernel() {
        let _ = Clock::get();
        // The kernel's time between two of ours: this thread may lose its core in between.
        let reading = || (now(), Instant::now(), now());
        let start = reading();
        // A real interval has to pass for this one.
        std::thread::sleep(Duration::from_millis(50));
        let end = reading();
        let elapsed = end.1 - start.1;
        let (least, most) = (duration(end.0 - start.2), duration(end.2 - start.0));
        let error = Duration::from_millis(2);
        assert!(
            least < elapsed + error && elapsed < most + error,
            "{least:?} to {most:?}, expected {elapsed:?}"
        );
    }

    #[test]
    fn it_does_not_go_back() {
        let mut last = now();
        for _ in 0..100_000 {
            let time = now();
            assert!(time >= last);
            last = time;
        }
    }

    #[test]
    fn the_fallback_counts_nanoseconds() {
        let clock = Clock { source: Source::Monotonic, hz: NANOS_PER_SEC };
        assert_eq!(clock.duration(1_500_000_001), Duration::new(1, 500_000_001));
        assert_eq!(clock.cycles(Duration::MAX), u64::MAX);
        assert!(monotonic() <= monotonic());
    }

    proptest! {
        #[test]
        fn conversions_never_overflow_and_agree(
            cycles: u64, hz in 1_000_000_u64..100_000_000_000,
        ) {
            let clock = Clock { source: Source::Counter, hz };
            let back = clock.cycles(clock.duration(cycles));
            // Rounded down to a nanosecond: at most that many cycles, and one, are lost.
            prop_assert!(back <= cycles && cycles - back <= hz / NANOS_PER_SEC + 1);
        }
    }
}
