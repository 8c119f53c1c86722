//! Man pages and shell completions, from the definition of the command line.
//!
//! They are written by a unit test, into the folder that `RINGWAY_PAGES` names: that has the same
//! command line, and the program that is shipped carries no code for it. `cargo xtask package` has
//! them written.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

use crate::cli::Cli;

/// Where to write, instead of a folder that goes again.
const VARIABLE: &str = "RINGWAY_PAGES";

#[test]
fn every_command_has_a_page_and_completions() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = std::env::var_os(VARIABLE).map_or_else(|| scratch.path().into(), PathBuf::from);
    let man = folder.join("man");
    fs::create_dir_all(&man).unwrap();
    clap_mangen::generate_to(Cli::command(), &man).unwrap();
    for (shell, file) in
        [(Shell::Bash, "ringway.bash"), (Shell::Zsh, "_ringway"), (Shell::Fish, "ringway.fish")]
    {
        generate_to(shell, &mut Cli::command(), "ringway", &folder).unwrap();
        let text = fs::read_to_string(folder.join(file)).unwrap();
        for word in ["switch", "port", "devices"] {
            assert!(text.contains(word), "{file}: {word}");
        }
    }
    let page = |name: &str| fs::read_to_string(man.join(name)).unwrap();
    assert!(page("ringway.1").contains("ringway\\-switch(1)"));
    assert!(page("ringway-switch.1").contains("Configuration file:"));
    assert!(page("ringway-port-add.1").contains("\\-\\-save"));
}
