//! Files that a run leaves behind: all latencies, and a report with plots.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use hdrhistogram::Histogram;

use super::page::{History, page};
use crate::cli::GenArgs;
use crate::exit::Failure;

/// How latencies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Counts of values, with commas between them.
    Csv,
    /// Percentiles, as HdrHistogram's tools write and read them.
    Percentiles,
}

/// Steps of percentiles in each half of what is left up to 100 %.
const TICKS: u32 = 5;

/// The files, opened before anything is given up.
#[derive(Debug)]
pub struct Files {
    histogram: Option<(File, Format)>,
    report: Option<File>,
}

impl Files {
    /// Makes the files that `args` ask for, empty.
    ///
    /// # Errors
    /// When one cannot be made, or its name tells no format.
    pub fn create(args: &GenArgs) -> Result<Self, Failure> {
        let histogram = match &args.histogram {
            None => None,
            Some(path) => Some((path, format(path)?)),
        };
        let histogram = histogram.map(|(path, format)| Ok::<_, Failure>((create(path)?, format)));
        let report = args.report.as_deref().map(create);
        Ok(Self { histogram: histogram.transpose()?, report: report.transpose()? })
    }

    /// Writes them.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn write(
        self,
        args: &GenArgs,
        latency: Option<&Histogram<u64>>,
        history: &History<'_>,
    ) -> Result<(), Failure> {
        let failed = |path: Option<&Path>, error: std::io::Error| {
            let path = path.unwrap_or(Path::new("")).display();
            Failure::runtime(format!("{path}: cannot be written: {error}"))
        };
        if let Some((mut file, format)) = self.histogram {
            let text = latency.map_or_else(String::new, |latency| match format {
                Format::Csv => csv(latency),
                Format::Percentiles => percentiles(latency),
            });
            let written = file.write_all(text.as_bytes());
            written.map_err(|error| failed(args.histogram.as_deref(), error))?;
        }
        if let Some(mut file) = self.report {
            let written = file.write_all(page(args, latency, history).as_bytes());
            written.map_err(|error| failed(args.report.as_deref(), error))?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path)
        .map_err(|error| Failure::usage(format!("{}: cannot be made: {error}", path.display())))
}

fn format(path: &Path) -> Result<Format, Failure> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("hgrm") => Ok(Format::Percentiles),
        _ => Err(Failure::usage(format!(
            "{}: expected a name that ends in .csv, or in .hgrm for HdrHistogram's tools",
            path.display()
        ))),
    }
}

/// A row for each value that was seen: from where to where it reaches, and how often.
fn csv(latency: &Histogram<u64>) -> String {
    let mut text = "from_ns,to_ns,frames\n".to_owned();
    for value in latency.iter_recorded() {
        let at = value.value_iterated_to();
        let (from, to) = (latency.lowest_equivalent(at), latency.highest_equivalent(at));
        let _ = writeln!(text, "{from},{to},{}", value.count_at_value());
    }
    text
}

/// What HdrHistogram's `outputPercentileDistribution` writes, with values in nanoseconds.
fn percentiles(latency: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for value in latency.iter_quantiles(TICKS) {
        total += value.count_since_last_iteration();
        let (at, part) = (value.value_iterated_to(), value.quantile_iterated_to());
        let _ = if part < 1.0 {
            writeln!(text, "{at:>12}.000 {part:.12} {total:>10} {:>14.2}", 1.0 / (1.0 - part))
        } else {
            writeln!(text, "{at:>12}.000 {part:.12} {total:>10}")
        };
    }
    let (mean, deviation, max) = (latency.mean(), latency.stdev(), latency.max());
    let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let _ = writeln!(text, "#[Max     = {max:>12}.000, Total count    = {:>12}]", latency.len());
    let buckets = latency.buckets();
    let _ = writeln!(text, "#[Buckets = {buckets:>12}, SubBuckets     = {:>12}]", 2048);
    text
}

#[cfg(test)]
mod tests {
    use super::super::receiver::new_histogram;
    use super::*;

    fn latencies() -> Histogram<u64> {
        let mut histogram = new_histogram().unwrap();
        for value in 1..=1000_u64 {
            histogram.record(value * 10).unwrap();
        }
        histogram.record_n(123_456_789, 24).unwrap();
        histogram
    }

    #[test]
    fn csv_has_all_frames() {
        let text = csv(&latencies());
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("from_ns,to_ns,frames"));
        assert_eq!(lines.next(), Some("10,10,1"));
        let rows: Vec<Vec<u64>> = lines
            .map(|line| line.split(',').map(|number| number.parse().unwrap()).collect())
            .collect();
        assert_eq!(rows.iter().map(|row| row[2]).sum::<u64>() + 1, 1024);
        let last = rows.last().unwrap();
        assert!((last[0]..=last[1]).contains(&123_456_789) && last[2] == 24, "{last:?}");
        assert!(rows.windows(2).all(|two| two[0][1] < two[1][0]));
    }

    #[test]
    fn percentiles_rise_to_all_frames() {
        let text = percentiles(&latencies());
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| line.starts_with(' ') && !line.contains("Value"))
            .map(|line| line.split_whitespace().map(|number| number.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 20, "{text}");
        assert!(rows.windows(2).all(|two| two[0][..3] <= two[1][..3]));
        let (last, before) = (rows.last().unwrap(), &rows[rows.len() - 2]);
        assert_eq!((last[1], last[2], last.len(), before.len()), (1.0, 1024.0, 3, 4));
        assert!(text.contains("Total count    =         1024]"), "{text}");
    }

    #[test]
    fn names_tell_the_format() {
        assert_eq!(format(Path::new("a.csv")).unwrap(), Format::Csv);
        assert_eq!(format(Path::new("x/a.b.hgrm")).unwrap(), Format::Percentiles);
        for name in ["a", "a.txt", ".csv"] {
            let error = format(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(".hgrm"), "{error}");
        }
    }
}
