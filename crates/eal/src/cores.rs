//! CPU cores: lists of them as users write them, and pinning.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thiserror::Error;

/// Core numbers are below this.
pub const MAX_CORES: usize = CpuSet::MAX_CPU;

/// What is wrong with a core or a list of cores.
#[derive(Debug, Error)]
pub enum CoreError {
    /// A part of a list is neither a number nor a range of numbers.
    #[error("core list \"{list}\": \"{part}\" is no core; expected a list such as 0-3,5")]
    Syntax {
        /// The whole list.
        list: String,
        /// The part of it.
        part: String,
    },
    /// A core is named twice.
    #[error("core list \"{list}\": core {core} is listed twice")]
    Twice {
        /// The whole list.
        list: String,
        /// The core.
        core: usize,
    },
    /// A core number that no system can have.
    #[error("core {core} is out of range: cores are numbered 0 to {}", MAX_CORES - 1)]
    OutOfRange {
        /// The core.
        core: usize,
    },
    /// No thread of the process can be on the core, or there is no such core.
    #[error("core {core} is not available to this process; these are: {available}")]
    NotAvailable {
        /// The core.
        core: usize,
        /// Those that are available.
        available: CoreList,
    },
    /// The kernel refused to tell or set a thread's cores.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Cores in the order in which they were written, each at most once.
///
/// Written and shown as numbers and ranges, separated by commas: `0-3,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

impl CoreList {
    /// The cores that the process may run on now (`sched_getaffinity`), ascending.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell: only on systems with more than [`MAX_CORES`] cores.
    pub fn available() -> Result<Self, CoreError> {
        let set = sched_getaffinity(None).map_err(|errno| CoreError::System {
            action: "find out which cores are available".to_owned(),
            source: errno.into(),
        })?;
        Ok(Self((0..MAX_CORES).filter(|core| set.is_set(*core)).collect()))
    }

    /// The cores that a thread of the process can be bound to, ascending: those that are there, and in its
    /// cpuset.
    ///
    /// Where cores are kept for threads that are bound to them (`isolcpus=`, `CPUAffinity=` of systemd), these
    /// are more than the [`available`](Self::available) ones, which unbound threads run on.
    ///
    /// # Errors
    ///
    /// When no thread can be had that asks, or the kernel does not tell.
    pub fn usable() -> Result<Self, CoreError> {
        // Whoever asks for all is given what there is. A thread of its own asks, so that the caller stays
        // where it is.
        let ask = || {
            let mut all = CpuSet::new();
            (0..MAX_CORES).for_each(|core| all.set(core));
            // Where it is refused, the cores are those of the caller.
            let _ = sched_setaffinity(None, &all);
            Self::available()
        };
        let failed = |source| CoreError::System {
            action: "ask in a thread which cores there are".to_owned(),
            source,
        };
        let thread = std::thread::Builder::new().name("cores".to_owned()).spawn(ask);
        let asked = thread.map_err(failed)?.join();
        asked.unwrap_or_else(|_| Err(failed(io::Error::other("the thread ended early"))))
    }

    /// The cores, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }

    /// The cores, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// Number of cores.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `core` is one of them.
    #[must_use]
    pub fn contains(&self, core: usize) -> bool {
        self.0.contains(&core)
    }

    /// Checks that threads of the process can be bound to every one of them.
    ///
    /// # Errors
    ///
    /// Names the first core that is not available, and those that are.
    pub fn check_available(&self) -> Result<(), CoreError> {
        let available = Self::usable()?;
        match self.iter().find(|core| !available.contains(*core)) {
            None => Ok(()),
            Some(core) => Err(CoreError::NotAvailable { core, available }),
        }
    }
}

impl FromStr for CoreList {
    type Err = CoreError;

    fn from_str(list: &str) -> Result<Self, CoreError> {
        let mut cores = Vec::new();
        for part in list.split(',').map(str::trim) {
            let syntax = || CoreError::Syntax { list: list.to_owned(), part: part.to_owned() };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = parse_core(first).ok_or_else(syntax)?;
            let last = parse_core(last).filter(|last| *last >= first).ok_or_else(syntax)?;
            if last >= MAX_CORES {
                return Err(CoreError::OutOfRange { core: last });
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(CoreError::Twice { list: list.to_owned(), core });
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }
}

/// Digits only: `parse` alone would take "+1" too.
fn parse_core(text: &str) -> Option<usize> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for run in self.0.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            match run {
                [first, .., last] => write!(f, "{separator}{first}-{last}")?,
                [only] => write!(f, "{separator}{only}")?,
                [] => {}
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Binds the calling thread to `core` alone, which may be one that it does not run on now.
///
/// # Errors
///
/// Names the core, and those that are available if it is not.
pub fn pin_current(core: usize) -> Result<(), CoreError> {
    if core >= MAX_CORES {
        return Err(CoreError::OutOfRange { core });
    }
    let mut set = CpuSet::new();
    set.set(core);
    match sched_setaffinity(None, &set) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => Err(CoreError::NotAvailable { core, available: CoreList::usable()? }),
        Err(errno) => Err(CoreError::System {
            action: format!("bind a thread to core {core}"),
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_as_written() {
        let list: CoreList = "4, 0-2,7".parse().unwrap();
        assert_eq!(list.as_slice(), [4, 0, 1, 2, 7]);
        assert_eq!(list.to_string(), "4,0-2,7");
    }

    #[test]
    fn bad_lists_are_refused_with_the_part_named() {
        for (list, expected) in [
            ("", "\"\""),
            ("1,", "\"\""),
            ("a", "\"a\""),
            ("+1", "\"+1\""),
            ("-1", "\"-1\""),
            ("3-1", "\"3-1\""),
            ("1-2-3", "\"1-2-3\""),
            ("0-99999999", "core 99999999"),
            ("18446744073709551616", "18446744073709551616"),
            ("1,0-3", "core 1 is listed twice"),
        ] {
            let error = list.parse::<CoreList>().unwrap_err().to_string();
            assert!(error.contains(expected), "{list}: {error}");
        }
    }

    #[test]
    fn a_thread_runs_where_it_is_pinned() {
        let core = CoreList::available().unwrap().as_slice()[0];
        std::thread::spawn(move || {
            pin_current(core).unwrap();
            assert_eq!(CoreList::available().unwrap().as_slice(), [core]);
            assert_eq!(rustix::thread::sched_getcpu(), core);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_has_one_core_can_be_bound_to_others() {
        let all = CoreList::usable().unwrap();
        let (first, last) = (all.as_slice()[0], *all.as_slice().last().unwrap());
        std::thread::spawn(move || {
            pin_current(first).unwrap();
            assert_eq!(CoreList::usable().unwrap(), all);
            // To be asked has moved nobody.
            assert_eq!(CoreList::available().unwrap().as_slice(), [first]);
            all.check_available().unwrap();
            pin_current(last).unwrap();
            assert_eq!(CoreList::available().unwrap().as_slice(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let error = pin_current(MAX_CORES - 1).unwrap_err().to_string();
        assert!(error.contains(&format!("core {} is not available", MAX_CORES - 1)), "{error}");
        assert!(matches!(pin_current(MAX_CORES), Err(CoreError::OutOfRange { .. })));
        let list: CoreList = (MAX_CORES - 1).to_string().parse().unwrap();
        assert_eq!(list.check_available().unwrap_err().to_string(), error);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(cores in prop::collection::hash_set(0..64_usize, 1..20)) {
            let list = CoreList(cores.into_iter().collect());
            prop_assert_eq!(list.to_string().parse::<CoreList>().unwrap(), list);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<CoreList>();
        }
    }
}
