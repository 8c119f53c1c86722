//! From the words of a command line to a command, with what clap does not check by itself.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::{Cli, Command, Mode, headers};

impl Cli {
    /// The command line of this process; if it is wrong, that is told and the process ends.
    pub fn of_process() -> Self {
        Self::of_words(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// The same of any words, the first of which is the program's name.
    pub fn of_words<W: Into<std::ffi::OsString> + Clone>(
        words: impl IntoIterator<Item = W>,
    ) -> Result<Self, clap::Error> {
        let mut command = with_negatives(Self::command());
        let matches = command.try_get_matches_from_mut(words)?;
        let cli = Self::from_arg_matches(&matches)?;
        match unused(&cli, &matches) {
            Some(message) => Err(command.error(ErrorKind::ArgumentConflict, message)),
            None => Ok(cli),
        }
    }
}

/// Has negative numbers taken as values, so that whoever expects another number can say so.
fn with_negatives(command: clap::Command) -> clap::Command {
    command.allow_negative_numbers(true).mut_subcommands(with_negatives)
}

/// An option that was given and would be ignored.
fn unused(cli: &Cli, matches: &ArgMatches) -> Option<String> {
    let Command::Gen(args) = &cli.command else { return None };
    let (_, given) = matches.subcommand()?;
    let is_given = |option: &&&str| given.value_source(option) == Some(ValueSource::CommandLine);
    let (mut name, ignored) = ignored(args.mode);
    let mut found = ignored.iter().find(is_given);
    if found.is_none() && makes_nothing(args.mode) {
        found = headers::OPTIONS.iter().find(is_given);
    }
    if found.is_none() && !is_benchmark(args.mode) {
        name = "this mode, which is no benchmark";
        found = BENCHMARKS.iter().find(is_given);
    }
    let option = found?.replace('_', "-");
    Some(format!("--{option} is of no use with {name}"))
}

/// Options that only benchmarks have.
const BENCHMARKS: &[&str] = &["sizes", "trial", "loss", "precision", "repeat"];

const fn is_benchmark(mode: Mode) -> bool {
    matches!(mode, Mode::Throughput | Mode::BackToBack)
}

/// Whether a mode makes no frames of its own.
const fn makes_nothing(mode: Mode) -> bool {
    matches!(mode, Mode::Rxonly | Mode::Io)
}

/// What a mode is, in words, and the options that it makes no use of.
const fn ignored(mode: Mode) -> (&'static str, &'static [&'static str]) {
    match mode {
        Mode::Txonly => ("'gen txonly', which sends by one device", &["port2", "histogram"]),
        Mode::Rxonly => (
            "'gen rxonly', which sends nothing",
            &[
                "rate",
                "burst",
                "ramp_from",
                "ramp_time",
                "size",
                "flows",
                "no_pattern",
                "histogram",
            ],
        ),
        Mode::Io => (
            "'gen io', which sends what it receives",
            &["burst", "ramp_from", "ramp_time", "size", "flows", "no_pattern", "histogram"],
        ),
        Mode::Throughput => (
            "'gen throughput', which has --sizes and --trial",
            &[
                "size",
                "duration",
                "count",
                "repeat",
                "burst",
                "ramp_from",
                "ramp_time",
                "histogram",
            ],
        ),
        Mode::BackToBack => (
            "'gen back-to-back', which has --sizes and --repeat",
            &["size", "duration", "trial", "loss", "burst", "ramp_from", "ramp_time", "histogram"],
        ),
        Mode::Flowgen => ("'gen flowgen', which measures no latency", &["histogram"]),
        Mode::Latency => ("", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        Cli::of_words(line.split(' ')).unwrap_err().to_string()
    }

    #[test]
    fn a_negative_number_is_a_number_that_was_not_expected() {
        for (line, expected) in [
            ("ringway switch --ageing -5", "'-5' for '--ageing <SECS>': expected a whole number"),
            ("ringway switch --workers -1", "'-1' for '--workers <N>': expected a whole number"),
            ("ringway gen txonly -p null: -n -3", "expected a whole number, 1 or more"),
            (
                "ringway port set vm1 --mtu -1500",
                "'-1500' for '--mtu <BYTES|default>': expected a whole number",
            ),
            ("ringway time warp -1", "expected a whole number from 0"),
            ("ringway show stats --watch -2", "expected 0.1 seconds"),
        ] {
            let text = refusal(line);
            assert!(text.contains(expected), "{line}: {text}");
        }
    }

    #[test]
    fn options_that_a_mode_ignores_are_refused_and_its_own_are_not() {
        for (name, mode) in [
            ("txonly", Mode::Txonly),
            ("rxonly", Mode::Rxonly),
            ("io", Mode::Io),
            ("flowgen", Mode::Flowgen),
            ("latency", Mode::Latency),
            ("throughput", Mode::Throughput),
            ("back-to-back", Mode::BackToBack),
        ] {
            let (_, ignored) = ignored(mode);
            for (option, value) in [
                ("port2", " null:"),
                ("size", " 100"),
                ("flows", " 2"),
                ("rate", " 5k"),
                ("dst_mac", " 02:00:00:00:00:01"),
                ("src_mac", " 02:00:00:00:00:01"),
                ("no_pattern", ""),
                ("count", " 1"),
                ("duration", " 1"),
                ("sizes", " 64,1518"),
                ("trial", " 1"),
                ("loss", " 0.1"),
                ("precision", " 5"),
                ("repeat", " 2"),
                ("vlan", " 5"),
                ("ipv6", ""),
                ("burst", " 4 --rate 1k"),
                ("histogram", " out.csv"),
                ("report", " out.html"),
            ] {
                let shown = option.replace('_', "-");
                let line = format!("ringway gen {name} --port null: --{shown}{value}");
                let outcome = Cli::of_words(line.split(' ')).map_err(|error| error.to_string());
                let foreign = BENCHMARKS.contains(&option) && !is_benchmark(mode)
                    || headers::OPTIONS.contains(&option) && makes_nothing(mode);
                match foreign || ignored.contains(&option) {
                    true => assert!(outcome.unwrap_err().contains("is of no use with"), "{line}"),
                    false => assert!(outcome.is_ok(), "{line}"),
                }
            }
        }
        let text = refusal("ringway gen io -p null: --size 100");
        assert!(text.contains("--size is of no use with 'gen io', which sends"), "{text}");
    }
}
