//! The command line of `ringway mirror`.

use std::path::{PathBuf, absolute};

use clap::{Args, Subcommand};
use ordered::Gather as _;
use switch::vlan::set::parse_vlan;
use switch::{Mirror, VlanSet};

use super::{ControlArgs, number};

/// Arguments of `ringway mirror`.
#[derive(Clone, Debug, Args)]
pub struct MirrorArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: MirrorAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway mirror` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum MirrorAction {
    /// Add a mirror: copy what passes through ports to another port, into a VLAN, or into a file.
    Add {
        /// Its name.
        name: String,
        /// What it copies, and where to.
        #[command(flatten)]
        settings: MirrorSettings,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Give a mirror other settings: options that are not given take their defaults.
    Set {
        /// Its name.
        name: String,
        /// What it copies, and where to.
        #[command(flatten)]
        settings: MirrorSettings,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Remove a mirror; its output port is one like any other then.
    Del {
        /// Its name.
        name: String,
        /// Take it from the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
}

/// Settings of a mirror, as in a configuration file.
#[derive(Clone, Debug, Args)]
pub struct MirrorSettings {
    /// Copy what comes in on any port of the bridge, and what goes out.
    #[arg(long, conflicts_with_all = ["src", "dst"])]
    pub all: bool,
    /// Copy what comes in on these ports.
    #[arg(long, value_name = "PORT,..", value_delimiter = ',')]
    pub src: Vec<String>,
    /// Copy what goes out on these ports.
    #[arg(long, value_name = "PORT,..", value_delimiter = ',')]
    pub dst: Vec<String>,
    /// Copy only frames of these VLANs, as in 10,20-29; 0 is for those without a tag.
    #[arg(long, value_name = "VLANS")]
    pub vlans: Option<VlanSet>,
    /// The port where copies go: it gets nothing else, and what comes in on it is dropped.
    #[arg(
        long,
        value_name = "PORT",
        required_unless_present_any = ["to_vlan", "to_file"],
        conflicts_with_all = ["to_vlan", "to_file"]
    )]
    pub to: Option<String>,
    /// The VLAN where copies go, with its tag in place of their own.
    #[arg(long, value_name = "VLAN", value_parser = parse_vlan, conflicts_with = "to_file")]
    pub to_vlan: Option<u16>,
    /// Send copies in that VLAN to the port that the frame came from, too.
    #[arg(long, requires = "to_vlan")]
    pub reflect: bool,
    /// The file where the switch writes copies (pcapng); what is there is written on.
    #[arg(long, value_name = "FILE")]
    pub to_file: Option<PathBuf>,
    /// Begin another file once one has so many millions of bytes; its number goes into its name.
    #[arg(long, value_name = "MILLIONS", requires = "to_file", value_parser = number::<u64>(1..))]
    pub file_size: Option<u64>,
    /// Begin another file with the first frame so many seconds after the first of the one before.
    #[arg(long, value_name = "SECS", requires = "to_file", value_parser = number::<u64>(1..))]
    pub file_seconds: Option<u64>,
    /// Keep so many files, the newest ones.
    #[arg(long, value_name = "N", requires = "to_file", value_parser = number::<usize>(1..))]
    pub files: Option<usize>,
    /// How many bytes of a frame are copied at most, 14 or more [default: all].
    #[arg(long, value_name = "BYTES", value_parser = number(14_u16..))]
    pub snaplen: Option<u16>,
    /// The bridge of the ports [default: the default one].
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,
}

impl MirrorSettings {
    /// The settings.
    pub fn mirror(&self) -> Mirror {
        Mirror {
            bridge: self.bridge.clone(),
            select_all: self.all,
            select_src_port: self.src.iter().cloned().gather(),
            select_dst_port: self.dst.iter().cloned().gather(),
            select_vlan: self.vlans.clone(),
            output_port: self.to.clone(),
            output_vlan: self.to_vlan,
            reflect: self.reflect,
            // From the folder of whoever asks; the switch says what is wrong with it.
            output_file: self.to_file.as_ref().map(|file| absolute(file).unwrap_or(file.clone())),
            file_size: self.file_size,
            file_seconds: self.file_seconds,
            files: self.files,
            snaplen: self.snaplen,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(options: &str) -> Result<Mirror, String> {
        let words = ["ringway", "mirror", "add", "m"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Mirror(MirrorArgs { action: MirrorAction::Add { settings, .. }, .. }) => {
                Ok(settings.mirror())
            }
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_are_the_settings() {
        let mirror = parse("--src a,b --dst a --vlans 5,7-8 --to w --snaplen 96").unwrap();
        assert_eq!(mirror.select_src_port, ["a", "b"].map(str::to_owned).into());
        assert_eq!(mirror.select_vlan.as_ref().unwrap().to_string(), "5,7-8");
        assert_eq!((mirror.output_port.as_deref(), mirror.snaplen), (Some("w"), Some(96)));
        assert_eq!(mirror.check(), Ok(()));
        assert_eq!(parse("--all --to-vlan 5").unwrap().check(), Ok(()));
        let files = parse("--all --to-file f --file-size 100 --files 9").unwrap();
        assert!(files.output_file.as_ref().unwrap().is_absolute());
        assert_eq!(files.check(), Ok(()));
        for (options, expected) in [
            ("--all", "--to"),
            ("--all --to w --to-vlan 5", "cannot be used with"),
            ("--all --src a --to w", "cannot be used with"),
            ("--all --to w --to-file f", "cannot be used with"),
            ("--all --to-vlan 5 --to-file f", "cannot be used with"),
            ("--all --to-file f --files 0", "1"),
            ("--all --to w --snaplen 13", "14"),
            ("--all --to-vlan 4095", "from 0 to 4094"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.contains(expected), "{options}: {error}");
        }
    }
}
