use clap::Args;

use super::ControlArgs;

/// Arguments of `ringway trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// The port where the packet comes in.
    pub port: String,

    /// The packet: its bytes in digits of base 16, or its fields as rules match them (without dl_src, it
    /// comes from 02:00:00:00:00:01).
    pub packet: String,

    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}
