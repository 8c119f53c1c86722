//! Configuration files, as an operator may have written them: what is read is what is written, and
//! the way from one state to another leads there and back.

use std::collections::BTreeSet;

use daemon::check::check;
use daemon::file::parse;
use daemon::{State, diff};

/// Stands between two files.
const BETWEEN: &str = "\n---\n";

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, second) = text.split_once(BETWEEN).unwrap_or((&text, ""));
    let (Some(first), Some(second)) = (read(first), read(second)) else { return };
    there_and_back(&first.resolved(), &second.resolved());
}

/// Checks that what is to be changed leads from one state to the other and back.
pub(super) fn there_and_back(first: &State, second: &State) {
    let changes = diff(first, second).changes;
    let mut state = first.clone();
    changes.iter().for_each(|change| change.apply(&mut state));
    assert_eq!(parts(&state), parts(second), "{changes:?}");
    changes.iter().rev().for_each(|change| change.inverse().apply(&mut state));
    assert_eq!(parts(&state), parts(first), "{changes:?}");
    assert!(diff(second, second).changes.is_empty());
}

/// What changes are about. Those of a bridge name what it has of the default one, too.
fn parts(state: &State) -> impl PartialEq + std::fmt::Debug + '_ {
    let bridges: BTreeSet<&String> = state.bridges.keys().collect();
    (bridges, &state.ports, &state.vdpa)
}

/// The state that a text means, if it means one that can be.
fn read(text: &str) -> Option<State> {
    let state = match parse(text) {
        Ok(state) => state,
        Err(problem) => {
            assert!(!problem.message.is_empty());
            let lines = text.lines().count() + 1;
            assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
            return None;
        }
    };
    let written = toml::to_string(&state).expect("what was read can be written");
    assert_eq!(parse(&written).as_ref(), Ok(&state), "{written}");
    match check(&State::default(), &state) {
        Ok(()) => Some(state),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}
