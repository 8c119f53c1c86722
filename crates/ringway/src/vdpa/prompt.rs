//! The commands of `ringway vdpa --interactive`.

use daemon::{Hub, Vdpa};

use super::report;
use crate::sandbox::Sandbox;

/// What stands before a command on a terminal.
pub const PROMPT: &str = "vdpa> ";

const HELP: &str = "\
help                     this text
list                     devices of this machine and on sockets, with state and features
create SOCKET DEVICE     attach a device to a socket
stats DEVICE [QUEUE]     counters of an attached device, or of one of its queue pairs
quit                     detach all devices and end
";

/// What comes of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Text to print.
    Say(String),
    /// It was wrong or failed: why.
    Failed(String),
    /// The end.
    Quit,
}

/// Carries out a line, as far as `sandbox` lets it; `client` is how new sockets find their
/// front-ends.
pub fn execute(
    line: &str,
    hub: &mut Hub,
    sandbox: &Sandbox,
    client: bool,
    colour: bool,
) -> Outcome {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [] => Outcome::Say(String::new()),
        ["help" | "?"] => Outcome::Say(HELP.to_owned()),
        ["list"] => Outcome::Say(report::list(&vdpa::find(), &report::devices(hub), colour)),
        ["create", socket, device] => create(hub, sandbox, socket, device, client),
        ["stats", device] => stats(hub, device, None, colour),
        ["stats", device, queue] => match queue.parse() {
            Ok(queue) => stats(hub, device, Some(queue), colour),
            Err(_) => Outcome::Failed(format!("'{queue}' is no number of a queue pair")),
        },
        ["quit" | "exit"] => Outcome::Quit,
        [command @ ("create" | "stats" | "list" | "help" | "quit"), ..] => {
            let form = HELP.lines().find(|line| line.starts_with(command)).unwrap_or_default();
            let form = form.split("  ").next().unwrap_or_default();
            Outcome::Failed(format!("expected: {form}"))
        }
        [other, ..] => Outcome::Failed(format!("there is no command '{other}'; try help")),
    }
}

fn create(hub: &mut Hub, sandbox: &Sandbox, socket: &str, device: &str, client: bool) -> Outcome {
    let (path, text) = (socket.into(), device.to_owned());
    let vdpa = Vdpa { device: text, socket: path, client, group: None, mode: None };
    if let Err(why) = sandbox.check_vdpa(&vdpa) {
        return Outcome::Failed(why);
    }
    match hub.open(socket, &vdpa) {
        Ok(()) => Outcome::Say(format!("{socket}  {device}\n")),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// A device is known by its string, by what comes behind the driver's name there, or by its
/// socket.
fn stats(hub: &Hub, which: &str, queue: Option<u16>, colour: bool) -> Outcome {
    let devices = report::devices(hub);
    let found = devices.iter().find(|device| {
        let target = device.device.split_once(':').map(|(_, target)| target);
        device.device == which || target == Some(which) || device.socket == which
    });
    match (found, queue) {
        (None, _) => Outcome::Failed(format!("no device '{which}' is attached; try list")),
        (Some(device), Some(queue)) if queue >= device.queue_pairs => {
            let pairs = device.queue_pairs;
            Outcome::Failed(format!("it has {pairs} queue pairs, counted from 0; not {queue}"))
        }
        (Some(device), _) => Outcome::Say(report::statistics(&device.statistics, queue, colour)),
    }
}

#[cfg(test)]
mod tests {
    use daemon::testing::hub_with_idle;

    use super::*;

    fn say(hub: &mut Hub, line: &str) -> String {
        match execute(line, hub, &Sandbox::off(), false, false) {
            Outcome::Say(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(hub: &mut Hub, line: &str) -> String {
        match execute(line, hub, &Sandbox::off(), false, false) {
            Outcome::Failed(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_do_what_help_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = hub_with_idle(dir.path()).unwrap();
        for command in ["help", "list", "create", "stats", "quit"] {
            assert!(say(&mut hub, "help").contains(command));
        }
        assert!(say(&mut hub, " list ").contains("test:idle"));
        assert_eq!(say(&mut hub, ""), "");
        let socket = dir.path().join("a").display().to_string();
        for which in ["test:idle", "idle", &socket] {
            let text = say(&mut hub, &format!("stats {which}"));
            assert!(text.contains("device_starts") && text.contains("rx0_kicks"), "{text}");
        }
        let text = say(&mut hub, "stats idle 1");
        assert!(text.contains("tx1_kicks") && !text.contains("rx0"), "{text}");
        assert_eq!(execute("quit", &mut hub, &Sandbox::off(), false, false), Outcome::Quit);
    }

    #[test]
    fn wrong_commands_say_what_was_expected() {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = hub_with_idle(dir.path()).unwrap();
        for (line, expected) in [
            ("lits", "no command 'lits'"),
            ("create x", "expected: create SOCKET DEVICE"),
            ("create x y z", "expected: create SOCKET DEVICE"),
            ("stats", "expected: stats DEVICE [QUEUE]"),
            ("stats nobody", "no device 'nobody' is attached"),
            ("stats idle x", "'x' is no number"),
            ("stats idle 2", "2 queue pairs"),
            ("create /tmp/x vhostvdpa", "expected DRIVER:TARGET"),
            ("create /tmp/x xyz:1", "no vDPA driver 'xyz'"),
        ] {
            let error = refusal(&mut hub, line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
