//! The project's own commands, run as `cargo xtask COMMAND`.

#![allow(
    clippy::indexing_slicing,
    reason = "works on the project's own files and tools, not on peer input"
)]

/// Cycles per packet, beside DPDK and OVS-DPDK.
mod bench;
/// Who may ask the system for the time.
#[cfg(test)]
mod clocks;
/// What documents say of tests.
#[cfg(test)]
mod docs;
/// Inputs that nobody has thought of, guided by coverage.
mod fuzz;
/// Back-ends under attack.
mod hostile;
/// Instructions per frame, which must not grow unnoticed.
mod instructions;
/// Which crate may use which.
#[cfg(test)]
mod layers;
/// Unit tests, interpreted.
mod miri;
/// Every order of threads, by loom.
mod models;
/// The same rules and packets into Open vSwitch and into ours.
mod ovs_fuzz;
/// Open vSwitch's own test-suite.
mod ovs_suite;
/// Packages for distributions.
mod package;
/// What Debian's packages and the kernel must provide for the peers of the tests.
mod setup;
/// The one test command.
mod test;
/// What the tests run on real peers.
mod tested;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the peers of the tests need (Debian 12, as root) and set up huge pages
    Setup,
    /// Build the image that test guests boot, and print its kernel and initramfs
    GuestImage {
        /// A module to load at boot, with all that it needs; may be repeated
        #[arg(long = "module", value_name = "NAME", default_value = "virtio_net")]
        modules: Vec<String>,
    },
    /// Run all tests: formatting, lints, units, properties and those on real peers
    Test(test::Options),
    /// Measure cycles per packet between two vhost-user ports, in turn with DPDK and OVS-DPDK
    Bench(bench::Options),
    /// Look for inputs that break something, and keep those that reach new code
    Fuzz(fuzz::Options),
    /// Check models of what threads share in every order of their steps, with loom
    Loom,
    /// Run the unit tests that Miri can run, which sees all undefined behaviour (nightly toolchain)
    Miri(miri::Options),
    /// Attack a back-end with every lie a front-end can tell, beside a well-behaved pair
    #[command(disable_help_flag = true)]
    Hostile {
        /// Options of the attacking program: see --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the .deb, the .rpm and the tarball, and try them
    Package(package::Options),
    /// Run Open vSwitch's own test-suite against `ringway ovs-vswitchd`; by default the tests that are
    /// known to pass, none of which may be lost
    OvsSuite(ovs_suite::Options),
    /// Send random packets through random OpenFlow rules in Open vSwitch and in `ringway ovs-vswitchd`,
    /// and compare what comes out and what rules count
    OvsFuzz(ovs_fuzz::Options),
    /// Count the instructions per frame and compare them with the stored counts
    Instructions(instructions::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::GuestImage { modules } => guest_image(&modules),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Loom => models::run().map(|()| true),
        Command::Miri(options) => miri::run(&options),
        Command::Hostile { arguments } => hostile::run(&arguments),
        Command::Package(options) => package::run(&options),
        Command::OvsSuite(options) => ovs_suite::run(&options),
        Command::OvsFuzz(options) => ovs_fuzz::run(&options),
        Command::Instructions(options) => instructions::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn guest_image(modules: &[String]) -> anyhow::Result<bool> {
    let names: Vec<&str> = modules.iter().map(String::as_str).collect();
    let image = e2e::GuestImage::with_modules(&names)?;
    println!("{}\n{}", image.kernel.display(), image.initramfs.display());
    Ok(true)
}
