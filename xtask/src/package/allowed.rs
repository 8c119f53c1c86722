//! What is linked in comes on terms that `deny.toml` allows.

use std::fs;

use e2e::peers::workspace;

use super::licences::{Crate, linked};

/// Whether an SPDX expression of names, AND, OR and brackets is met by licences out of `allowed`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut met = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

/// A name, with the exception that is granted, or what stands in brackets.
fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    match words.next() {
        Some("(") => any_of(words, allowed) & words.next_if_eq(&")").is_some(),
        Some(name) => {
            let exception = words.next_if_eq(&"WITH").and_then(|_| words.next());
            let whole = exception.map(|exception| format!("{name} WITH {exception}"));
            allowed.iter().any(|licence| *licence == *whole.as_deref().unwrap_or(name))
        }
        None => false,
    }
}

/// The licences that `deny.toml` allows.
fn allowed() -> Vec<String> {
    let text = fs::read_to_string(workspace().join("deny.toml")).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let allowed = file["licenses"]["allow"].as_array().unwrap().iter();
    allowed.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_linked_in_may_be() {
    let (crates, allowed) = (linked().unwrap(), allowed());
    assert!(crates.len() > 40, "{crates:?}");
    for Crate { name, licence, .. } in crates {
        assert!(is_allowed(&licence, &allowed), "{name} is {licence:?}; see deny.toml");
    }
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
    let allowed = allowed.map(str::to_owned);
    for good in [
        "MIT",
        "MIT OR GPL-2.0",
        "GPL-2.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR X",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-2.0", "MIT AND GPL-2.0", "(MIT", "MIT)", "MIT WITH X", "(MIT OR X) AND Y"]
    {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
