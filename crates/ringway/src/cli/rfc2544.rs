//! Arguments of the benchmarks of `ringway gen`.

use std::time::Duration;

use clap::Args;

use super::{number, parse_interval};

/// What the benchmarks try.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Benchmarks (throughput, back-to-back)")]
pub struct Rfc2544Args {
    /// Sizes in bytes of the frames, one after the other, with the 4 bytes of the frame check
    /// sequence.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = number(64..=9022_u16),
          default_value = "64,128,256,512,1024,1280,1518")]
    pub sizes: Vec<u16>,

    /// Seconds of a trial; RFC 2544 wants 60 for a figure that is published.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = parse_interval)]
    pub trial: Duration,

    /// In throughput, the part of the frames in percent that may be lost.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = parse_loss)]
    pub loss: f64,

    /// How exact the result is to be, in percent of it.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_precision)]
    pub precision: f64,

    /// In back-to-back, searches whose mean is the result; RFC 2544 wants 50.
    #[arg(long, value_name = "N", default_value = "5", value_parser = number(1..=1000_u32))]
    pub repeat: u32,
}

fn parse_loss(text: &str) -> Result<f64, String> {
    percent(text, 0.0, 99.0)
}

fn parse_precision(text: &str) -> Result<f64, String> {
    percent(text, 0.01, 50.0)
}

fn percent(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| format!("expected a number of percent from {least} to {most}"))
}
