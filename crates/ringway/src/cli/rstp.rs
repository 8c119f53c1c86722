//! The command line of `ringway rstp`.

use clap::{Args, Subcommand};

use super::ControlArgs;

/// Arguments of `ringway rstp`.
#[derive(Clone, Debug, Args)]
pub struct RstpArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: RstpAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway rstp` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum RstpAction {
    /// Have a port find out anew whether its neighbour speaks RSTP, after the last one that spoke STP
    /// only has gone (mcheck of IEEE 802.1D).
    Mcheck {
        /// Its name.
        port: String,
    },
    /// Have a bridge tell its neighbours that the topology has changed, so that all forget where
    /// stations were.
    Tcn {
        /// Its name.
        #[arg(default_value = switch::DEFAULT_BRIDGE)]
        bridge: String,
    },
}
