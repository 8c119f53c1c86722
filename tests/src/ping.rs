use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// As many answers find room in a socket.
const FEW: u32 = 5;

/// How long answers may take on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell line that pings `address` with `program`, which is that of busybox, and ends well when each
/// request is answered; it prints what `program` does. `options` are its own: with `-W` all of it
/// takes no longer than that, for those who try again.
///
/// Who pings a fixed number of times waits for the last answer a second, if there were others, and a
/// guest gets no core for that long now and then. So this goes on until as many as were asked for have
/// been answered, those that were sent first.
///
/// The socket of that program has room for some six answers, and drops the others where it gets no core
/// while more come. So of more requests each is sent when the one before has been answered, or after a
/// second: `-i` is for fewer.
///
/// # Errors
/// When the options do not say how often.
pub fn line(program: &str, address: &str, options: &str) -> Result<String> {
    let (mut count, mut patience, mut rest) = (None, PATIENCE.as_secs(), String::new());
    let mut interval = None;
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{options:?}: {word} of what?"));
        match word {
            "-c" => count = Some(value()?.parse::<u32>()?),
            "-W" => patience = value()?.parse()?,
            "-i" => interval = Some(value()?),
            "-s" | "-I" => write!(rest, "{word} {} ", value()?)?,
            other => bail!("{options:?}: {other} is not known here"),
        }
    }
    let count = count.with_context(|| format!("{options:?}: no -c"))?;
    let pace = match interval {
        Some(interval) if count <= FEW => format!("-i {interval}"),
        _ => "-A -i 1".to_owned(),
    };
    // It has no single quotes, so that it can be put between such.
    Ok(format!(
        "{{ timeout {patience} {program} {pace} {rest}{address} 2>&1 & echo pid $!; wait; }} | {{ \
             pid= got=0; \
             while read -r line; do \
                 echo \"$line\"; \
                 case $line in \
                     pid\\ *) pid=${{line#pid }} ;; \
                     *DUP!*) ;; \
                     *\\ seq=*) line=${{line#* seq=}}; \
                         [ ${{line%% *}} -ge {count} ] || got=$((got + 1)) ;; \
                 esac; \
                 [ -z \"$pid\" ] || [ $got -lt {count} ] || {{ kill $pid; exit 0; }}; \
             done; exit 1; }}"
    ))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Whether the line ends well where a ping prints this.
    fn succeeds(count: u32, script: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("ping");
        std::fs::write(&program, script).unwrap();
        let line =
            line(&format!("sh {}", program.display()), "10.0.0.1", &format!("-c {count} -W 60"));
        let line = format!("sh -c '{}'", line.unwrap());
        Command::new("sh").args(["-c", &line]).output().unwrap().status.success()
    }

    #[test]
    fn each_of_the_first_requests_is_to_be_answered() {
        let answer =
            |seq: u32| format!("echo '64 bytes from 10.0.0.1: seq={seq} ttl=64 time=0.1 ms'\n");
        let answers = |list: &[u32]| list.iter().map(|seq| answer(*seq)).collect::<String>();
        let goes_on = "while :; do sleep 1000; done\n";
        assert!(succeeds(3, &answers(&[0, 1, 2])));
        // It goes on pinging, and is ended.
        assert!(succeeds(3, &(answers(&[0, 1, 2]) + goes_on)));
        // The last answers come late, and in another order.
        assert!(succeeds(3, &(answers(&[0, 3, 2, 5, 1]) + goes_on)));
        assert!(!succeeds(3, &answers(&[0, 2, 3, 4, 5])));
        let double = "echo '64 bytes from 10.0.0.1: seq=0 ttl=64 time=0.1 ms (DUP!)'\n";
        assert!(!succeeds(2, &(answers(&[0]) + double)));
        assert!(!succeeds(1, "echo 'ping: sendto: Network is unreachable'; exit 1\n"));
    }

    #[test]
    fn options_are_those_that_are_known() {
        let line = |options: &str| line("ping", "::1", options);
        assert!(line("-c 3 -i 0.1 -s 100").unwrap().contains("ping -i 0.1 -s 100 ::1"));
        assert!(line("-c 6 -i 0.1 -s 100").unwrap().contains("ping -A -i 1 -s 100 ::1"));
        for bad in ["", "-i 1", "-c", "-c x", "-c 1 -q"] {
            assert!(line(bad).is_err(), "{bad}");
        }
    }
}
