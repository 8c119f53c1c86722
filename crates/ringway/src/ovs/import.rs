//! `ringway config from-ovs`: the bridges and ports of an Open vSwitch as a configuration file.

use std::path::Path;

use daemon::file;
use ovs::import::{Imported, fetch, import};
use ovsdb::Remote;

use crate::exit::Failure;
use crate::output;

/// Prints the file; what is not taken along is logged as well.
pub fn print(database: Option<&Remote>, run: &Path) -> Result<(), Failure> {
    let usual = || Remote::Unix(run.join("db.sock"));
    let remote = database.cloned().unwrap_or_else(usual);
    let content = fetch(&remote).map_err(Failure::runtime)?;
    let imported = import(&content, run);
    for line in &imported.left_out {
        tracing::warn!("left out: {line}");
    }
    output::text(&text(&imported, &remote));
    Ok(())
}

fn text(imported: &Imported, remote: &Remote) -> String {
    let comments = imported.left_out.iter().flat_map(|reason| {
        // A comment is one line, whatever is in names of the database.
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        ["# left out: ".to_owned(), reason, "\n".to_owned()]
    });
    let comments: String = comments.collect();
    format!(
        "# The bridges and ports of Open vSwitch at {remote}\n{comments}\n{}",
        file::write(&imported.state)
    )
}

#[cfg(test)]
mod tests {
    use daemon::State;

    use super::*;

    #[test]
    fn what_is_left_out_is_a_comment() {
        let left_out = vec!["interface a: no\nports = 1".to_owned()];
        let imported = Imported { state: State::default(), left_out };
        let text = text(&imported, &"unix:/run/db.sock".parse().unwrap());
        assert_eq!(text.lines().filter(|line| line.starts_with("# left out: ")).count(), 1);
        assert_eq!(file::parse(&text).unwrap(), State::default());
    }
}
