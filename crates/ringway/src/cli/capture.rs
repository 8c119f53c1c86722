//! The command line of `ringway capture`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ControlArgs, number};

/// Arguments of `ringway capture`.
#[derive(Clone, Debug, Args)]
pub struct CaptureArgs {
    /// The ports, as in vm1,vm2; 'all' for all, and those that are added meanwhile.
    #[arg(value_name = "PORT[,PORT..]|all")]
    pub ports: String,

    /// Which frames, as tcpdump has it (pcap-filter(7)): 'udp port 53'. Needs libpcap [default: all].
    #[arg(value_name = "FILTER", num_args = 0..)]
    pub filter: Vec<String>,

    /// Write a capture file (pcapng), '-' for standard output [default: a line for each frame].
    #[arg(short = 'w', long = "write", value_name = "FILE|-")]
    pub write: Option<PathBuf>,

    /// Begin another file once one has so many millions of bytes; its number goes into its name.
    #[arg(short = 'C', long, value_name = "MILLIONS", requires = "write",
          value_parser = number::<u64>(1..))]
    pub file_size: Option<u64>,

    /// Begin another file with the first frame so many seconds after the first of the one before.
    #[arg(short = 'G', long, value_name = "SECS", requires = "write",
          value_parser = number::<u64>(1..))]
    pub file_seconds: Option<u64>,

    /// Keep so many files, the newest ones.
    #[arg(short = 'W', long, value_name = "N", requires = "write", value_parser = number::<usize>(1..))]
    pub files: Option<usize>,

    /// The most bytes of a frame that are kept [default: all].
    #[arg(short = 's', long, value_name = "BYTES", value_parser = number::<usize>(1..))]
    pub snaplen: Option<usize>,

    /// End after so many frames.
    #[arg(short = 'c', long, value_name = "N", value_parser = number::<u64>(1..))]
    pub count: Option<u64>,

    /// Which way frames go: in from the port, or out to it.
    #[arg(long, value_enum, default_value_t = Way::Both)]
    pub direction: Way,

    /// Only frames that the switch drops.
    #[arg(long)]
    pub dropped: bool,

    /// Show the addresses of the Ethernet header in each line.
    #[arg(short = 'e', long, conflicts_with = "write")]
    pub ethernet: bool,

    /// Print a JSON object for each frame.
    #[arg(long, conflicts_with_all = ["write", "ethernet"])]
    pub json: bool,

    /// Bytes that each worker of the switch has for frames that are not written yet, 131072 or more
    /// [default: 4 MiB].
    #[arg(long, value_name = "BYTES", value_parser = number::<usize>(131_072..))]
    pub buffer: Option<usize>,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Which way frames go, seen from the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// From the port into the switch.
    In,
    /// From the switch to the port.
    Out,
    /// Either.
    Both,
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<super::CaptureArgs, String> {
        let cli = Cli::of_words(format!("ringway capture {line}").split_whitespace());
        match cli.map_err(|error| error.to_string())?.command {
            Command::Capture(args) => Ok(*args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_may_stand_before_and_behind_the_filter() {
        for line in ["a,b udp port 53 -w - -c 5", "-c 5 -w - a,b udp port 53"] {
            let args = parse(line).unwrap();
            assert_eq!((args.ports.as_str(), args.filter), ("a,b", words("udp port 53")), "{line}");
            assert_eq!((args.count, args.write), (Some(5), Some("-".into())));
        }
        for (line, expected) in [
            ("", "PORT"),
            ("all -C 5", "--write"),
            ("all -W 5", "--write"),
            ("all -w f --json", "cannot be used with"),
            ("all -c 0", "1"),
            ("all --direction up", "possible values"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }
}
