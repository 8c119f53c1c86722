//! What a file has changed since it was read, in a state that others have changed meanwhile.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::object;
use crate::state::State;

/// `running` with whatever differs between `base` and `file` as `file` says. What both of them say,
/// or neither, stays as it is in `running`: ports that commands have added, and settings that they
/// have changed.
///
/// # Errors
/// Both together make no state, such as a name of a port and of a vDPA device.
pub fn merge(base: &State, file: &State, running: &State) -> Result<State, Error> {
    let value = |state: &State| serde_json::to_value(state).map_err(|error| wrong(&error));
    let (base, file, running) = (value(base)?, value(file)?, value(running)?);
    let merged = pick(Some(&base), Some(&file), Some(&running)).unwrap_or_default();
    object::read(merged).map_err(|error| wrong(&error))
}

fn wrong(error: &serde_json::Error) -> Error {
    Error::invalid("", error)
}

fn pick(base: Option<&Value>, file: Option<&Value>, running: Option<&Value>) -> Option<Value> {
    if base == file {
        return running.cloned();
    }
    let (Some(Value::Object(base)), Some(Value::Object(file)), Some(Value::Object(running))) =
        (base, file, running)
    else {
        return file.cloned();
    };
    let mut merged = Map::new();
    for key in base.keys().chain(file.keys()).chain(running.keys()) {
        if let Some(value) = pick(base.get(key), file.get(key), running.get(key)) {
            merged.insert(key.clone(), value);
        }
    }
    Some(Value::Object(merged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse;

    fn state(text: &str) -> State {
        parse(text).unwrap().resolved()
    }

    #[test]
    fn what_commands_have_done_stays_and_what_the_file_says_anew_comes() {
        let port = |name: &str, more: &str| format!("[ports.{name}]\ndevice = \"null:\"\n{more}\n");
        let base = port("a", "mtu = 1500") + &port("b", "") + &port("c", "") + &port("gone", "");
        let file = "[fdb]\nageing = 9\n".to_owned()
            + &port("a", "mtu = 9000")
            + &port("c", "")
            + &port("new", "")
            + &port("gone", "mtu = 2000");
        // a has other workers by command, c is gone, and late has come; b is as it was.
        let running = "busy-poll = true\n".to_owned()
            + &port("a", "mtu = 1500\nworkers = [0]")
            + &port("b", "")
            + &port("late", "enabled = false");
        let merged = merge(&state(&base), &state(&file), &state(&running)).unwrap();
        let expected = "busy-poll = true\n[fdb]\nageing = 9\n".to_owned()
            + &port("a", "mtu = 9000\nworkers = [0]")
            + &port("late", "enabled = false")
            + &port("new", "")
            + &port("gone", "mtu = 2000");
        assert_eq!(merged, state(&expected));
        let names: Vec<&String> = merged.ports.keys().collect();
        assert_eq!(names, ["a", "gone", "new", "late"], "in the order of the files");
    }

    #[test]
    fn a_file_that_has_not_changed_changes_nothing() {
        let file = state("[ports.a]\ndevice = \"null:\"\n");
        let running = state("[fdb]\nageing = 3\n[vdpa.v]\ndevice = \"x:y\"\nsocket = \"/s\"\n");
        assert_eq!(merge(&file, &file, &running).unwrap(), running);
    }
}
