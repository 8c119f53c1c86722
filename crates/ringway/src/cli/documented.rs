//! The commands that the documentation shows are such as the command line takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use super::Cli;

/// The pages: those in `docs/`, and README.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/devices"] {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|end| end == "md")));
    }
    pages
}

/// The command of a line, if it is one of the program: behind a prompt in a terminal (`console`), on
/// a line by itself in a script (`sh`).
fn command<'l>(line: &'l str, kind: &str) -> Option<&'l str> {
    let line = line.trim();
    let command = match kind {
        "console" => line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "))?,
        "sh" | "bash" => line,
        _ => return None,
    };
    let command = command.strip_prefix("sudo ").unwrap_or(command);
    command.starts_with("ringway ").then_some(command)
}

/// The commands of a page, each on one line.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut kind): (Vec<String>, Option<&str>) = (Vec::new(), None);
    let mut goes_on = false;
    for line in text.lines() {
        if let Some(fence) = line.trim().strip_prefix("```") {
            kind = if kind.is_some() { None } else { Some(fence) };
            continue;
        }
        let part = if goes_on { Some(line.trim()) } else { command(line, kind.unwrap_or("")) };
        let Some(part) = part else { continue };
        let whole = part.strip_suffix('\\');
        match found.last_mut().filter(|_| goes_on) {
            Some(last) => *last += &format!(" {}", whole.unwrap_or(part)),
            None => found.push(whole.unwrap_or(part).to_owned()),
        }
        goes_on = whole.is_some();
    }
    found
}

/// The words of a command as a shell has them, up to a comment, a pipe or a redirection.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in command.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('#' | '|' | '>' | '<' | '&' | ';', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn words_are_those_of_a_shell() {
    assert_eq!(words("a 'b c' --d=\"e f\" '' # g"), ["a", "b c", "--d=e f", ""]);
    assert_eq!(words("a b >> c"), ["a", "b"]);
    let text = "ringway no\n```console\n$ ringway a \\\n    b\nringway c\n# sudo ringway d\n```\n\
                ```sh\n    ringway e || true\n```\n```toml\nringway f\n```\n";
    assert_eq!(commands(text), ["ringway a  b", "ringway d", "ringway e || true"]);
}

#[test]
fn commands_of_the_documentation_are_understood() {
    let mut count = 0;
    for page in pages() {
        for command in commands(&fs::read_to_string(&page).unwrap()) {
            // A script's first argument.
            let command = command.replace("$1", "100");
            let parsed = Cli::try_parse_from(words(&command));
            assert!(parsed.is_ok(), "{}: {command}: {}", page.display(), parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
