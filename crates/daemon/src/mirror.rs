//! Mirrors in a desired state.

use ethdev::hint;
use serde_json::Value;
use switch::{MAX_MIRRORS, Mirror, is_port_name};

use crate::diff::Change;
use crate::error::Error;
use crate::state::State;

impl State {
    /// Adds a mirror.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_mirror(&mut self, name: &str, mirror: Mirror) -> Result<(), Error> {
        if self.mirrors.contains_key(name) {
            let reason = "it exists already: choose another name or change it ('mirror set')";
            return Err(wrong(name, "", &reason));
        }
        self.mirrors.insert(name.to_owned(), mirror);
        Ok(())
    }

    /// Gives a mirror other settings.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn set_mirror(&mut self, name: &str, mirror: Mirror) -> Result<(), Error> {
        match self.mirrors.get_mut(name) {
            Some(place) => *place = mirror,
            None => return Err(self.no_mirror(name)),
        }
        Ok(())
    }

    /// Removes a mirror.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove_mirror(&mut self, name: &str) -> Result<(), Error> {
        self.mirrors.shift_remove(name).map(drop).ok_or_else(|| self.no_mirror(name))
    }

    fn no_mirror(&self, name: &str) -> Error {
        let names: Vec<&str> = self.mirrors.keys().map(String::as_str).collect();
        let list = match names.as_slice() {
            [] => "; there are no mirrors".to_owned(),
            names => format!("; there are: {}", names.join(", ")),
        };
        let hint = hint(name, names);
        Error::invalid(
            format!("mirrors.{name}"),
            format!("there is no mirror '{name}'{hint}{list}"),
        )
    }
}

fn wrong(name: &str, key: &str, reason: &dyn std::fmt::Display) -> Error {
    let dot = if key.is_empty() { "" } else { "." };
    Error::invalid(format!("mirrors.{name}{dot}{key}"), format!("mirror '{name}': {reason}"))
}

/// Checks all mirrors, with the ports that they name.
pub(crate) fn check(state: &State) -> Result<(), Error> {
    if state.mirrors.len() > MAX_MIRRORS {
        let count = state.mirrors.len();
        let reason = format!("{count} mirrors: a switch can have {MAX_MIRRORS}");
        return Err(Error::invalid("mirrors", reason));
    }
    for (name, mirror) in &state.mirrors {
        if !is_port_name(name) {
            let reason = "expected a name of 1 to 32 letters, digits, '-', '_', '.' and '+', beginning \
                          with a letter or digit";
            return Err(wrong(name, "", &reason));
        }
        mirror.check().map_err(|(key, reason)| wrong(name, key, &reason))?;
        check_file(state, name, mirror)?;
        check_ports(state, name, mirror)?;
    }
    Ok(())
}

/// No two write into the same file.
fn check_file(state: &State, name: &str, mirror: &Mirror) -> Result<(), Error> {
    let Some(file) = &mirror.output_file else { return Ok(()) };
    let others = state.mirrors.iter().take_while(|(other, _)| *other != name);
    let mut same = others.filter(|(_, other)| other.output_file.as_ref() == Some(file));
    match same.next() {
        None => Ok(()),
        Some((other, _)) => {
            let file = file.display();
            let reason = format!("output-file: mirror '{other}' writes '{file}' already");
            Err(wrong(name, "output-file", &reason))
        }
    }
}

fn check_ports(state: &State, name: &str, mirror: &Mirror) -> Result<(), Error> {
    let bridge = mirror.bridge_name();
    for (key, port) in mirror.ports() {
        let Some(found) = state.ports.get(port) else {
            let hint = hint(port, state.ports.keys().map(String::as_str));
            return Err(wrong(name, key, &format!("{key}: there is no port '{port}'{hint}")));
        };
        if found.bridge_name() != bridge {
            let of = found.bridge_name();
            let reason = format!("{key}: port '{port}' is of bridge '{of}', not of '{bridge}'");
            return Err(wrong(name, key, &reason));
        }
        if let Some(bond) = &found.bond {
            let reason = format!(
                "{key}: '{port}' is a member of bond '{bond}', which all its frames belong to: name that"
            );
            return Err(wrong(name, key, &reason));
        }
        if found.peer().is_some() {
            let reason = format!(
                "{key}: '{port}' is a patch port: name ports of the bridge where it leads instead"
            );
            return Err(wrong(name, key, &reason));
        }
        if key == "output-port" && !found.addresses.is_empty() {
            let reason = format!(
                "{key}: port '{port}' has static addresses, and it gets nothing but copies: remove \
                 them"
            );
            return Err(wrong(name, key, &reason));
        }
        let others = state.mirrors.iter().filter(|_| key != "output-port");
        let of_other = others.filter(|(_, other)| other.output_port.as_deref() == Some(port));
        if let Some((other, _)) = of_other.map(|(name, _)| (name, ())).next() {
            let reason = format!(
                "{key}: '{port}' is the output port of mirror '{other}', which has no frames of its \
                 own"
            );
            return Err(wrong(name, key, &reason));
        }
    }
    Ok(())
}

/// Mirrors that go, or no more, before ports come and behind those that go.
pub(crate) fn changes(old: &State, new: &State) -> Vec<Change> {
    let change = |name: &String, from: Option<&Mirror>, to: Option<&Mirror>| Change::Mirror {
        name: name.clone(),
        from: from.map(|mirror| Box::new(mirror.clone())),
        to: to.map(|mirror| Box::new(mirror.clone())),
    };
    let gone = old.mirrors.iter().filter(|(name, _)| !new.mirrors.contains_key(*name));
    let gone = gone.map(|(name, from)| change(name, Some(from), None));
    let other = new.mirrors.iter().filter(|(name, to)| old.mirrors.get(*name) != Some(to));
    let other = other.map(|(name, to)| change(name, old.mirrors.get(name), Some(to)));
    gone.chain(other).collect()
}

/// A change of a mirror in one line.
pub(crate) fn shown(name: &str, from: Option<&Mirror>, to: Option<&Mirror>) -> String {
    let text = |mirror: &Mirror| {
        serde_json::to_value(mirror).map(|value: Value| value.to_string()).unwrap_or_default()
    };
    match (from, to) {
        (None, None) => format!("mirror {name}"),
        (Some(_), None) => format!("mirror {name} removed"),
        (None, Some(to)) => format!("mirror {name} added: {}", text(to)),
        (Some(from), Some(to)) => format!("mirror {name}: {} -> {}", text(from), text(to)),
    }
}
