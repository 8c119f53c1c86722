use std::path::Path;

use anyhow::{Result, anyhow};
use e2e::vswitch::Kind;
use plotters::prelude::*;

use super::cell::{Cell, Mergeable, Ring};
use super::growth::Growth;
use super::openflow;
use super::report::{Report, Row};

const SIZE: (u32, u32) = (860, 420);
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x1b, 0x6e, 0xb5),
    RGBColor(0x7f, 0xb8, 0xe0),
    RGBColor(0x9a, 0x9a, 0x9a),
    RGBColor(0xd9, 0x8e, 0x32),
    RGBColor(0x6b, 0x4e, 0x9b),
];

/// A figure that was drawn.
#[derive(Debug)]
pub struct Plot {
    /// The part of the report that it shows.
    pub part: &'static str,
    pub file: String,
    pub title: String,
}

/// Draws what `report` has into files in `dir`.
pub fn draw(report: &Report, dir: &Path) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for ring in [Ring::Split, Ring::Packed] {
        let wanted =
            |cell: &Cell| cell.ring == ring && cell.mergeable == Mergeable::On && cell.queues == 1;
        let rows: Vec<&Row> = report.rows.iter().filter(|row| wanted(&row.cell)).collect();
        if rows.is_empty() {
            continue;
        }
        let name = format!("{ring:?}").to_lowercase();
        let (file, title) = (format!("{name}.svg"), format!("Cycles per packet, {name} rings"));
        let bars: Vec<Bar> = rows.iter().copied().map(of_matrix).collect();
        bar_chart(&dir.join(&file), &title, "bytes of a frame", &bars)
            .map_err(|error| anyhow!("{file}: {error}"))?;
        plots.push(Plot { part: "matrix", file, title });
    }
    if !report.openflow.is_empty() {
        let (file, title) = ("openflow.svg".to_owned(), "Cycles per packet, 256 flows of packets");
        let rows = report.openflow.iter().filter(|row| row.flows == openflow::SHOWN);
        let bars: Vec<Bar> = rows.flat_map(of_bridge).collect();
        bar_chart(&dir.join(&file), title, "bridges", &bars)
            .map_err(|error| anyhow!("{file}: {error}"))?;
        plots.push(Plot { part: "openflow", file, title: title.to_owned() });
    }
    for (part, all) in [("growth", &report.growth), ("flows", &report.flows)] {
        for growth in all {
            let file = format!("{part}-{}.svg", growth.dimension);
            let title = title(&growth.dimension);
            line(&dir.join(&file), &title, growth).map_err(|error| anyhow!("{file}: {error}"))?;
            plots.push(Plot { part, file, title });
        }
    }
    Ok(plots)
}

/// What a line shows, by the number of what.
fn title(dimension: &str) -> String {
    match (dimension.split_once("-by-"), dimension.strip_prefix("left-")) {
        (Some((what, by)), _) => format!("Cycles for a {} by {by}", what.replace('-', " ")),
        (_, Some(when)) => format!("Per cent of the rate {}, by flows", when.replace('-', " ")),
        _ => format!("Cycles per packet by number of {}", dimension.replace('-', " ")),
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// One of the bars of a group; those of one name have one colour.
struct Bar {
    group: String,
    name: String,
    cycles: f64,
}

/// By size and back-end.
fn of_matrix(row: &Row) -> Bar {
    Bar { group: row.cell.size.to_string(), name: row.back_end.clone(), cycles: row.median() }
}

/// By bridge and switch.
fn of_bridge(row: &openflow::Row) -> [Bar; 2] {
    let (ovs, ringway) = row.medians();
    [(Kind::Ovs, ovs), (Kind::Ringway, ringway)].map(|(kind, cycles)| Bar {
        group: row.bridge.to_string(),
        name: kind.to_string(),
        cycles,
    })
}

/// Groups of bars, from left to right as they come; `what` they are of.
fn bar_chart(path: &Path, title: &str, what: &str, bars: &[Bar]) -> Drawn {
    let mut groups: Vec<&str> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for bar in bars {
        if !groups.contains(&bar.group.as_str()) {
            groups.push(&bar.group);
        }
        if !names.contains(&bar.name.as_str()) {
            names.push(&bar.name);
        }
    }
    let top = bars.iter().map(|bar| bar.cycles).fold(0.0, f64::max) * 1.1;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let width = as_number(groups.len());
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..width, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .x_desc(format!("{what}: {}", groups.join(", ")))
        .y_desc("cycles")
        .draw()?;
    let wide = 0.8 / as_number(names.len());
    for (index, name) in names.iter().enumerate() {
        let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or(BLACK);
        let of_name = bars.iter().filter(|bar| bar.name == *name);
        let places = of_name.filter_map(|bar| {
            let group = groups.iter().position(|group| *group == bar.group)?;
            let left = as_number(group) + 0.1 + wide * as_number(index);
            Some(Rectangle::new([(left, 0.0), (left + wide, bar.cycles)], colour.filled()))
        });
        let series = chart.draw_series(places)?.label(*name);
        series.legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}

fn unit(growth: &Growth) -> &'static str {
    if growth.dimension.starts_with("left-") { "per cent" } else { "cycles" }
}

/// A line over a logarithmic axis.
fn line(path: &Path, title: &str, growth: &Growth) -> Drawn {
    #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
    let points: Vec<(f64, f64)> =
        growth.points.iter().map(|&(number, cycles)| (number as f64, cycles)).collect();
    let (first, last) = match (points.first(), points.last()) {
        (Some(first), Some(last)) => (first.0, last.0),
        _ => return Ok(()),
    };
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.2;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((first..last.max(first + 1.0)).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc(growth.dimension.as_str()).y_desc(unit(growth)).draw()?;
    let colour = COLOURS[0];
    chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
    root.present()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for a drawing")]
const fn as_number(count: usize) -> f64 {
    count as f64
}
