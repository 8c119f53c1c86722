//! What the `ringway` command shares with programs that talk to a running switch: requests,
//! answers, and both ends of the control socket ([`control`]); how a command fails ([`exit`]); and the
//! program itself ([`main`]), whose parts are no library.
//!
//! ```
//! use ringway::control::protocol::{Request, Response};
//! use ringway::control::refusal::Code;
//!
//! // One object per line, in either direction.
//! let line = serde_json::to_string(&Request::PortDel { name: "vm1".to_owned() })?;
//! assert_eq!(line, r#"{"command":"port-del","name":"vm1"}"#);
//! let answer = r#"{"error":"there is no port 'vm1'","code":"not-found"}"#;
//! let answer = serde_json::from_str(answer)?;
//! assert!(matches!(answer, Response::Error(refusal) if refusal.code == Code::NotFound));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! - `cli`: the command line
//! - `config`: the switch's configuration, from file and command line
//! - `capture`: `ringway capture`
//! - `serve`, `answer`: `ringway switch`, and what it answers
//! - `sandbox`: what commands give up
//! - [`control`]: the control socket, both ends
//! - `show`, `rates`: `ringway show`
//! - `top`: `ringway top`
//! - `admin`, `relative`: `ringway port`, `fdb`, `config` and `reload`
//! - `orders`: what bonds and spanning tree are told to do at once
//! - `devices`: `ringway devices`
//! - `generate`: `ringway gen`
//! - `l2fwd`: `ringway l2fwd`
//! - `demo`: `ringway demo`
//! - `vdpa`: `ringway vdpa`
//! - `ovs`: `ringway ovs-vswitchd`
//! - `events`: what a switch tells those who have subscribed
//! - `metrics`: what programs that watch a switch read
//! - `log`: the log on standard error
//! - `notify`: what the service manager is told
//! - `pages`: man pages and completions
//! - `table`, `printable`, `output`, `wait`, `exit`: what they share

#![forbid(unsafe_code)]

mod admin;
mod answer;
mod bonds;
mod bridges;
mod capture;
mod cli;
mod config;
pub mod control;
mod demo;
mod devices;
mod events;
pub mod exit;
mod generate;
mod groups;
mod guard;
mod l2fwd;
mod limits;
mod log;
mod metrics;
mod mirrors;
mod neighbours;
mod notify;
mod orders;
mod output;
mod ovs;
#[cfg(test)]
mod pages;
mod pressures;
mod printable;
mod rates;
mod relative;
mod rstp;
mod sandbox;
mod serve;
mod show;
mod table;
mod top;
mod trace;
mod vdpa;
mod vlan;
mod wait;

use std::process::ExitCode;

use cli::{Cli, Command};

/// The program: does what the command line of the process says.
pub fn main() -> ExitCode {
    // A process that this program has started may be none of its commands.
    vhost::postcopy::serve_if_asked();
    tls::serve_if_asked();
    // Its command line is that of another program.
    if let Some(arguments) = ovs::arguments(std::env::args_os()) {
        return ovs::run::main(&arguments);
    }
    let cli = Cli::of_process();
    log::start(&cli);
    let result = match &cli.command {
        Command::Switch(args) => serve::run(args),
        Command::Show(args) => show::run(args),
        Command::Top(args) => top::run::run(args),
        Command::Port(args) => admin::port(args),
        Command::Bridge(args) => bridges::run(args),
        Command::Bond(args) => bonds::run(args),
        Command::Rstp(args) => orders::rstp(args),
        Command::Mirror(args) => mirrors::run(args),
        Command::Capture(args) => capture::run::run(args),
        Command::Fdb(args) => admin::fdb(args),
        Command::Trace(args) => trace::run(args),
        Command::Config(args) => admin::config(args),
        Command::Reload(args) => admin::reload(args),
        Command::Log(args) => admin::log(args),
        Command::Events(args) => events::command::run(args),
        Command::Time(args) => admin::time(args),
        Command::L2fwd(args) => l2fwd::run::run(args),
        Command::Gen(args) => generate::run::run(args),
        Command::Devices(args) => devices::run::run(args),
        Command::Demo(args) => demo::run::run(args),
        Command::OvsVswitchd { arguments } => return ovs::run::main(&ovs::called(arguments)),
        Command::Vdpa(args) => vdpa::run::run(args),
    };
    match result.and_then(|()| output::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::last_words(&failure);
            failure.code()
        }
    }
}
