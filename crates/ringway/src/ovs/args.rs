//! The command line of ovs-vswitchd(8).

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Parser};
use eal::CoreList;
use ovs::device::Dummies;
use ovsdb::Remote;

use super::tls::TlsArgs;
use crate::cli::MetricsArgs;

/// The folder of Open vSwitch's sockets and pid files.
const RUN_DIR: &str = "/run/openvswitch";

/// A switch that Open vSwitch's database configures.
///
/// What ovs-vsctl, libvirt and others write into the database is made true, and what they wait
/// for is written back.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ovs-vswitchd",
    bin_name = "ringway ovs-vswitchd",
    version = concat!("(Ringway) ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    max_term_width = 100,
    after_help = "Examples:\n  \
        ringway ovs-vswitchd unix:/run/openvswitch/db.sock --pidfile --detach --log-file\n  \
        ovs-vsctl add-br br0\n  \
        ovs-vsctl add-port br0 vm1 -- set Interface vm1 type=dpdkvhostuserclient \\\n      \
        options:vhost-server-path=/run/vm1.sock"
)]
pub struct OvsArgs {
    /// The database: unix:PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT; several, with commas between them, for one that
    /// several servers have [default: unix:db.sock in the run folder].
    #[arg(value_name = "DATABASE", value_delimiter = ',')]
    pub databases: Vec<Remote>,

    /// Run in the background, once the switch is as the database says.
    #[arg(long)]
    pub detach: bool,

    /// With --detach: stay in this folder, in place of the root.
    #[arg(long)]
    pub no_chdir: bool,

    /// Have a file with the process's number [default: ovs-vswitchd.pid in the run folder].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "as clap tells an option without its value")]
    pub pidfile: Option<Option<PathBuf>>,

    /// Replace a pid file of another process that runs.
    #[arg(long)]
    pub overwrite_pidfile: bool,

    /// Log to a file, too [default: ovs-vswitchd.log in the log folder].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "as clap tells an option without its value")]
    pub log_file: Option<Option<PathBuf>>,

    /// The socket of ovs-appctl [default: ovs-vswitchd.PID.ctl in the run folder].
    #[arg(long, value_name = "SOCKET")]
    pub unixctl: Option<PathBuf>,

    /// What to log, as in dbg, console:info or module:console:warn: the level of what is not for
    /// syslog or a file counts.
    #[arg(short, long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "dbg",
          action = ArgAction::Append)]
    pub verbose: Vec<Verbosity>,

    /// Control socket of Ringway's own commands [default: ringway.sock in the run folder].
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Where figures are read.
    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// By which keys the database knows us, and controllers where it names none.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Cores to run on, one worker each, as in 2-5,7.
    #[arg(long, value_name = "LIST", conflicts_with = "workers")]
    pub cores: Option<CoreList>,

    /// Number of workers, wherever the kernel puts them [default: 1].
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// For scripts that ask for it: nothing of the data path is ever paged out anyway.
    #[arg(long, overrides_with = "no_mlockall")]
    pub mlockall: bool,

    /// For scripts, too.
    #[arg(long)]
    pub no_mlockall: bool,

    /// For tests: have interfaces of type dummy, to which frames come by ovs-appctl, and a clock that
    /// it moves; system: in place of those of the system, too; override: of all but patch ports.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "as clap tells an option without its value")]
    pub enable_dummy: Option<Option<DummyLevel>>,

    /// For tests that ask for it: interfaces of the system are then dummies or not there.
    #[arg(long)]
    pub disable_system: bool,

    /// For tests, too: routes of the system are of no use here.
    #[arg(long)]
    pub disable_system_route: bool,

    /// For tests, too: on which nodes of memory cores are to be.
    #[arg(long, value_name = "LIST")]
    pub dummy_numa: Option<String>,

    /// Print name and version.
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What `--enable-dummy` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DummyLevel {
    /// In place of interfaces of the system.
    System,
    /// In place of all but patch ports.
    Override,
}

/// One option `-v`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verbosity {
    level: &'static str,
    /// What it is for: standard error, the log file.
    console: bool,
    file: bool,
}

/// Open vSwitch's levels and ours.
const LEVELS: [(&str, &str); 6] = [
    ("off", "off"),
    ("emer", "error"),
    ("err", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("dbg", "debug"),
];

/// Our word for one of Open vSwitch's levels.
pub fn level(word: &str) -> Option<&'static str> {
    LEVELS.into_iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| ours)
}

impl FromStr for Verbosity {
    type Err = String;

    /// Words with colons between them, in any order: a module, a destination, a level; or
    /// `FACILITY:..` and `PATTERN:..`, which are of no use here.
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<String> = text.split([':', ' ', ',']).map(str::to_ascii_lowercase).collect();
        let has = |word: &str| words.iter().any(|known| known == word);
        let everywhere = !(has("console") || has("syslog") || has("file"));
        let is_other = has("facility") || has("pattern");
        Ok(Self {
            level: words.iter().find_map(|word| level(word)).unwrap_or("debug"),
            console: !is_other && (everywhere || has("console")),
            file: !is_other && (everywhere || has("file")),
        })
    }
}

impl OvsArgs {
    /// The run folder.
    pub fn run_dir() -> PathBuf {
        folder("OVS_RUNDIR").unwrap_or_else(|| PathBuf::from(RUN_DIR))
    }

    /// Which interfaces are dummy ports.
    pub const fn dummies(&self) -> Dummies {
        match self.enable_dummy {
            None => Dummies::None,
            Some(None) => Dummies::Named,
            Some(Some(DummyLevel::System)) => Dummies::System,
            Some(Some(DummyLevel::Override)) => Dummies::All,
        }
    }

    /// Where the database is, and where else it is looked for.
    pub fn remotes(&self) -> (Remote, Vec<Remote>) {
        let default = || (Remote::Unix(Self::run_dir().join("db.sock")), Vec::new());
        let given = self.databases.split_first();
        given.map_or_else(default, |(first, others)| (first.clone(), others.to_vec()))
    }

    /// The pid file, if there is to be one.
    pub fn pid_path(&self) -> Option<PathBuf> {
        named(self.pidfile.as_ref()?, &Self::run_dir(), "ovs-vswitchd.pid")
    }

    /// The log file, if there is to be one.
    pub fn log_path(&self) -> Option<PathBuf> {
        let folder = folder("OVS_LOGDIR").unwrap_or_else(|| PathBuf::from("/var/log/openvswitch"));
        named(self.log_file.as_ref()?, &folder, "ovs-vswitchd.log")
    }

    /// The socket of `ovs-appctl`.
    pub fn unixctl_path(&self) -> PathBuf {
        let name = format!("ovs-vswitchd.{}.ctl", std::process::id());
        let given = self.unixctl.clone().unwrap_or_else(|| name.into());
        Self::run_dir().join(given)
    }

    /// The control socket of our own commands.
    pub fn control_path(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| Self::run_dir().join("ringway.sock"))
    }

    /// What to log: in the file where there is one, otherwise on standard error.
    pub fn level(&self) -> &'static str {
        let is_for = |verbosity: &&Verbosity| match self.log_file {
            Some(_) => verbosity.file,
            None => verbosity.console,
        };
        self.verbose.iter().rev().find(is_for).map_or("info", |verbosity| verbosity.level)
    }
}

fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// A file of which the name is given or the default one, in `folder` unless it says where it is.
fn named(given: &Option<PathBuf>, folder: &std::path::Path, default: &str) -> Option<PathBuf> {
    let name = given.clone().unwrap_or_else(|| default.into());
    Some(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> OvsArgs {
        OvsArgs::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn lines_of_scripts_are_understood() {
        let line = "ovs-vswitchd unix:/run/db.sock -vconsole:emer -vsyslog:err -vfile:info \
                    --mlockall --no-chdir --log-file=/tmp/a.log --pidfile=/tmp/a.pid --detach";
        let args = parse(line);
        assert_eq!(args.remotes(), (Remote::Unix("/run/db.sock".into()), vec![]));
        let several = parse("ovs-vswitchd unix:/a,tcp:127.0.0.1:6640 unix:/b").remotes().1;
        let unix = Remote::Unix("/b".into());
        assert_eq!(several, ["tcp:127.0.0.1:6640".parse().unwrap(), unix]);
        assert_eq!(args.level(), "info");
        assert_eq!(parse("ovs-vswitchd -vconsole:emer -vsyslog:off").level(), "error");
        assert!(args.detach && args.no_chdir);
        assert_eq!(args.pid_path(), Some("/tmp/a.pid".into()));
        assert_eq!(args.log_path(), Some("/tmp/a.log".into()));
        let args = parse("ovs-vswitchd --pidfile --log-file -vvconn -vofproto_dpif --unixctl=/a/b");
        assert_eq!(args.level(), "debug");
        assert_eq!(args.pid_path().unwrap().file_name().unwrap(), "ovs-vswitchd.pid");
        assert_eq!(args.unixctl_path(), PathBuf::from("/a/b"));
        assert_eq!(parse("ovs-vswitchd").level(), "info");
    }

    #[test]
    fn dummies_are_had_when_asked_for() {
        assert_eq!(parse("ovs-vswitchd").dummies(), Dummies::None);
        let line = "ovs-vswitchd --enable-dummy --disable-system --disable-system-route";
        assert_eq!(parse(line).dummies(), Dummies::Named);
        assert_eq!(parse("ovs-vswitchd --enable-dummy=system").dummies(), Dummies::System);
        assert_eq!(parse("ovs-vswitchd --enable-dummy=override").dummies(), Dummies::All);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |line: &str| OvsArgs::try_parse_from(line.split(' ')).unwrap_err().to_string();
        assert!(error("ovs-vswitchd tls:1.2.3.4:6640").contains("expected unix:PATH, tcp:"));
        assert!(error("ovs-vswitchd --detatch").contains("--detach"));
    }
}
