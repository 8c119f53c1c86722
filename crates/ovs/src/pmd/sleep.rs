//! Whether workers sleep, as the database says: `pmd-sleep-max`, which was called `pmd-maxsleep`.
//!
//! Open vSwitch's threads poll for ever where nothing is said, and nap for so many microseconds at most where something
//! is. A worker sleeps until a frame comes. So what is said of that is whether it may: how long is for the frame to say.

use crate::content::Texts;

/// The keys, the newer one first.
const KEYS: [&str; 2] = ["pmd-sleep-max", "pmd-maxsleep"];

/// The most microseconds that Open vSwitch takes.
const MAX: u64 = 10_000;

/// What is said of all workers, and what is wrong with it. What is said of single cores (`CORE:MICROSECONDS`) is passed
/// over.
pub(super) fn of(other_config: &Texts) -> (Option<u64>, Vec<String>) {
    let found = KEYS.into_iter().find_map(|key| Some((key, other_config.get(key)?)));
    let Some((key, text)) = found else { return (None, Vec::new()) };
    let (of_cores, of_all): (Vec<&str>, Vec<&str>) =
        text.split(',').map(str::trim).partition(|part| part.contains(':'));
    let mut wrong = Vec::new();
    if !of_cores.is_empty() {
        let cores = of_cores.join(",");
        wrong.push(format!("{key}: {cores} is passed over: all workers sleep, or none"));
    }
    let Some(text) = of_all.last() else { return (None, wrong) };
    let asked = text.parse().ok().map(|asked: u64| asked.min(MAX));
    if asked.is_none() {
        wrong.push(format!("{key}={text}: expected microseconds, 0 for workers that never sleep"));
    }
    (asked, wrong)
}

/// Tells the log what is said, where that is something else than before.
pub(super) fn tell(before: Option<u64>, asked: Option<u64>) {
    if before == asked {
        return;
    }
    let Some(micros) = asked else {
        return tracing::info!("workers sleep where nothing comes");
    };
    tracing::info!("PMD max sleep request is {micros} usecs.");
    let are = if micros == 0 { "disabled" } else { "enabled" };
    tracing::info!("PMD load based sleeps are {are}.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_all_counts() {
        let of =
            |key: &str, text: &str| of(&[(key.to_owned(), text.to_owned())].into_iter().collect());
        for (key, text, expected, flaws) in [
            ("pmd-maxsleep", "0", Some(0), 0),
            ("pmd-sleep-max", "490", Some(490), 0),
            ("pmd-maxsleep", "10001", Some(10_000), 0),
            ("pmd-sleep-max", "5:100, 20,7:0", Some(20), 1),
            ("pmd-sleep-max", "5:100", None, 1),
            ("pmd-sleep-max", "long", None, 1),
            ("pmd-sleep", "1", None, 0),
        ] {
            let (asked, wrong) = of(key, text);
            assert_eq!((asked, wrong.len()), (expected, flaws), "{key}={text}: {wrong:?}");
        }
    }
}
