//! What the database says of workers and of the queues that they poll.

use eal::cores::MAX_CORES;

use super::balance;
use crate::content::Texts;

/// How queues are divided among workers (`pmd-rxq-assign`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assign {
    /// In turn.
    RoundRobin,
    /// Those with the most to do first, up the workers and down again.
    #[default]
    Cycles,
    /// Those with the most to do first, each to the worker that has the least.
    Group,
}

impl Assign {
    const ALL: [Self; 3] = [Self::RoundRobin, Self::Cycles, Self::Group];

    /// As Open vSwitch has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::Cycles => "cycles",
            Self::Group => "group",
        }
    }
}

/// Settings of all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cores to be on (`pmd-cpu-mask`).
    pub cores: Option<Vec<usize>>,
    /// How queues are divided.
    pub assign: Assign,
    /// Whether a worker polls nothing else when a queue is pinned to it (`pmd-rxq-isolate`).
    pub isolates: bool,
    /// Whether any of this is set.
    pub are_set: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cores: None, assign: Assign::default(), isolates: true, are_set: false }
    }
}

impl Settings {
    /// What `other_config` of the root table says, and what is wrong with it.
    #[must_use]
    pub fn of(other_config: &Texts) -> (Self, Vec<String>) {
        let mut wrong = Vec::new();
        let text = |key: &str| other_config.get(key).map(String::as_str);
        let mask = text("pmd-cpu-mask").filter(|mask| !mask.is_empty());
        let cores = mask.and_then(|mask| {
            let (cores, mut notes) = cores_of(mask);
            wrong.append(&mut notes);
            (!cores.is_empty()).then_some(cores)
        });
        let name = text("pmd-rxq-assign");
        let found = Assign::ALL.into_iter().find(|assign| name == Some(assign.name()));
        if let (Some(name), None) = (name, found) {
            wrong.push(format!("Unsupported pmd-rxq-assign '{name}'. Defaulting to 'cycles'."));
        }
        let assign = found.unwrap_or_default();
        let wants_others = text("pmd-rxq-isolate") == Some("false");
        if wants_others && assign != Assign::Group {
            let only = "pmd-rxq-isolate can only be set false when using pmd-rxq-assign=group";
            wrong.push(only.to_owned());
        }
        let isolates = !wants_others || assign != Assign::Group;
        let are_set = cores.is_some()
            || name.is_some()
            || text("pmd-rxq-isolate").is_some()
            || balance::is_enabled(other_config);
        (Self { cores, assign, isolates, are_set }, wrong)
    }
}

/// The cores of a mask, in order, and what is wrong with it. As in Open vSwitch, what is no digit is 0.
fn cores_of(mask: &str) -> (Vec<usize>, Vec<String>) {
    let digits = mask.strip_prefix("0x").or_else(|| mask.strip_prefix("0X")).unwrap_or(mask);
    let (mut cores, mut odd, mut goes_on) = (Vec::new(), None, false);
    for (place, digit) in digits.chars().rev().enumerate() {
        let value = digit.to_digit(16);
        odd = odd.or_else(|| value.is_none().then_some(digit));
        let value = value.unwrap_or(0);
        let first = place.saturating_mul(4);
        if first >= MAX_CORES {
            goes_on |= value != 0;
            continue;
        }
        let bits = (0..4).filter(|bit| value & 1 << bit != 0);
        cores.extend(bits.map(|bit| first.saturating_add(bit)));
    }
    let odd = odd.map(|digit| {
        format!("Invalid cpu mask: {digit:?}: expected digits of base 16; it counts as 0")
    });
    let beyond = goes_on.then(|| {
        format!("pmd-cpu-mask: cores from {MAX_CORES} on are passed over: there are none")
    });
    let empty = cores.is_empty().then(|| {
        "pmd-cpu-mask names no core: the workers are those of the command line".to_owned()
    });
    (cores, odd.into_iter().chain(beyond).chain(empty).collect())
}

/// The cores that queues of an interface are pinned to (`pmd-rxq-affinity`), as in `0:3,1:7`; what makes
/// no sense is left out.
#[must_use]
pub fn pins(other_config: &Texts) -> Vec<(usize, usize)> {
    let text = other_config.get("pmd-rxq-affinity").map_or("", String::as_str);
    let pin = |pair: &str| {
        let (queue, core) = pair.split_once(':')?;
        Some((queue.trim().parse().ok()?, core.trim().parse().ok()?))
    };
    text.split(',').filter_map(pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn masks_are_of_any_length() {
        let right = |mask: &str| {
            let (cores, wrong) = cores_of(mask);
            assert!(wrong.is_empty(), "{mask}: {wrong:?}");
            cores
        };
        assert_eq!(right("0x6"), [1, 2]);
        assert_eq!(right("1fe"), (1..9).collect::<Vec<_>>());
        assert_eq!(right("8000000000000000000000000"), [99]);
        let last = format!("8{}", "0".repeat(MAX_CORES / 4 - 1));
        assert_eq!(right(&last), [MAX_CORES - 1]);
    }

    #[test]
    fn masks_hold_as_far_as_they_make_sense() {
        let (cores, wrong) = cores_of("0xg6");
        assert_eq!((cores, wrong.len()), (vec![1, 2], 1));
        assert!(wrong[0].contains("Invalid cpu mask: 'g'"), "{wrong:?}");
        let (cores, wrong) = cores_of(&format!("1{}1", "0".repeat(MAX_CORES / 4 - 1)));
        assert_eq!((cores, wrong.len()), (vec![0], 1));
        assert!(wrong[0].contains(&format!("cores from {MAX_CORES} on")), "{wrong:?}");
        for mask in ["0x", "0x0", "000"] {
            let (settings, wrong) = Settings::of(&texts(&[("pmd-cpu-mask", mask)]));
            assert_eq!((settings, wrong.len()), (Settings::default(), 1), "{mask}");
            assert!(wrong[0].contains("names no core"), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_left_out() {
        let (settings, wrong) = Settings::of(&Texts::new());
        assert_eq!((settings, wrong.len()), (Settings::default(), 0));
        let all =
            [("pmd-cpu-mask", "c"), ("pmd-rxq-assign", "group"), ("pmd-rxq-isolate", "false")];
        let (settings, wrong) = Settings::of(&texts(&all));
        assert_eq!((settings.cores, wrong.len()), (Some(vec![2, 3]), 0));
        assert_eq!((settings.assign, settings.isolates), (Assign::Group, false));
        let (settings, wrong) = Settings::of(&texts(&[
            ("pmd-cpu-mask", "-"),
            ("pmd-rxq-assign", "best"),
            ("pmd-rxq-isolate", "false"),
        ]));
        assert_eq!(
            (settings.cores, settings.assign, settings.isolates),
            (None, Assign::Cycles, true)
        );
        assert!(settings.are_set && wrong.len() == 4, "{wrong:?}");
    }

    #[test]
    fn queues_are_pinned_as_far_as_it_makes_sense() {
        let pinned = texts(&[("pmd-rxq-affinity", "0:3, 1:7,x:1,2")]);
        assert_eq!(pins(&pinned), [(0, 3), (1, 7)]);
    }
}
