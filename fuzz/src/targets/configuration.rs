//! Configuration files, as an operator may have written them: what is read is what is written, and
//! the way from one state to another leads there and back.

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
    let (first, second) = (first.resolved(), second.resolved());
    let changes = diff(&first, &second).changes;
    let mut state = first.clone();
    changes.iter().for_each(|change| change.apply(&mut state));
    assert_eq!((&state.ports, &state.vdpa), (&second.ports, &second.vdpa), "{changes:?}");
    changes.iter().rev().for_each(|change| change.inverse().apply(&mut state));
    assert_eq!((&state.ports, &state.vdpa), (&first.ports, &first.vdpa), "{changes:?}");
    assert!(diff(&second, &second).changes.is_empty());
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
