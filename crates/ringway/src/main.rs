//! The `ringway` command.
//!
//! - [`cli`]: the command line
//! - [`config`]: the switch's configuration, from file and command line
//! - [`serve`], [`answer`]: `ringway switch`, and what it answers
//! - [`sandbox`]: what commands give up
//! - [`control`]: the control socket, both ends
//! - [`show`], [`rates`]: `ringway show`
//! - [`admin`], [`relative`]: `ringway port`, `fdb`, `config` and `reload`
//! - [`devices`]: `ringway devices`
//! - [`generate`]: `ringway gen`
//! - [`l2fwd`]: `ringway l2fwd`
//! - [`demo`]: `ringway demo`
//! - [`vdpa`](mod@vdpa): `ringway vdpa`
//! - [`table`], [`output`], [`wait`], [`exit`]: what they share

#![forbid(unsafe_code)]

mod admin;
mod answer;
mod cli;
mod config;
mod control;
mod demo;
mod devices;
mod exit;
mod generate;
mod l2fwd;
mod output;
mod rates;
mod relative;
mod sandbox;
mod serve;
mod show;
mod table;
mod vdpa;
mod vlan;
mod wait;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};

fn main() -> ExitCode {
    // A process that this program has started may be none of its commands.
    vhost::postcopy::serve_if_asked();
    let cli = Cli::parse();
    start_log(&cli);
    let result = match &cli.command {
        Command::Switch(args) => serve::run(args),
        Command::Show(args) => show::run(args),
        Command::Port(args) => admin::port(args),
        Command::Fdb(args) => admin::fdb(args),
        Command::Config(args) => admin::config(args),
        Command::Reload(args) => admin::reload(args),
        Command::L2fwd(args) => l2fwd::run::run(args),
        Command::Gen(args) => generate::run::run(args),
        Command::Devices(args) => devices::run::run(args),
        Command::Demo(args) => demo::run::run(args),
        Command::Vdpa(args) => vdpa::run::run(args),
    };
    match result.and_then(|()| output::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringway: {failure}");
            failure.code()
        }
    }
}

/// Sends the log to standard error; only what runs for long has much to say unasked.
fn start_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose, &cli.command) {
        (true, ..) => "error",
        (false, 0, Command::Switch(_) | Command::L2fwd(_) | Command::Vdpa(_)) => "info",
        (false, 0, _) => "warn",
        (false, 1, _) => "debug",
        (false, ..) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
