//! The curves of docs/fleet.svg: requests a second and hosts without a session, by the policy and before it.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::scenario::{Figures, HOSTS, Scenario};
use crate::simulation::Trouble;

/// Two rows, requests above hosts, and a column for each case.
const SIZE: (u32, u32) = (1200, 640);

/// The end of the curves, in minutes from the begin of the trouble.
const MINUTES: f64 = 100.0;

/// The least that the axis of requests shows; it is logarithmic.
const LEAST: f64 = 1.0;
const MOST: f64 = 20_000.0;

/// A shade that is seen on white and on black.
const BEFORE: RGBColor = RGBColor(200, 80, 60);
const POLICY: RGBColor = RGBColor(40, 120, 200);
const TEXT: RGBColor = RGBColor(110, 110, 110);

/// Draws the outage of an hour, with sessions of 1 h and of 12 h, and the boot of all hosts.
pub(crate) fn draw(file: &Path, scenarios: &[Scenario]) -> Result<()> {
    let cases = [
        (Trouble::Outage(3600.0), 1, 100),
        (Trouble::Outage(3600.0), 12, 10),
        (Trouble::Reboot, 1, 100),
    ];
    let chosen = cases.map(|(trouble, life, quota)| {
        scenarios
            .iter()
            .find(|one| one.trouble == trouble && one.life == life && one.quota == quota)
    });
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    let cells = area.split_evenly((2, cases.len()));
    let (above, below) = cells.split_at(cases.len());
    for ((above, below), scenario) in above.iter().zip(below).zip(chosen.into_iter().flatten()) {
        let (Some(policy), Some(previous)) = (&scenario.policy, &scenario.previous) else {
            continue;
        };
        let curves = [(previous, BEFORE, "before"), (policy, POLICY, "policy")];
        requests(above, &scenario.name(), &curves).context("cannot draw the requests")?;
        hosts(below, &curves).context("cannot draw the hosts")?;
    }
    area.present()
        .with_context(|| format!("cannot write {}", file.display()))
}

type Cell<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Curve<'f> = (&'f Figures, RGBColor, &'static str);

fn requests(cell: &Cell, title: &str, curves: &[Curve]) -> Result<()> {
    let range = (LEAST..MOST).log_scale();
    let mut chart = ChartBuilder::on(cell)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(75)
        .caption(title, ("sans-serif", 19, &TEXT))
        .build_cartesian_2d(0.0..MINUTES, range)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(TEXT.mix(0.3))
        .axis_style(TEXT)
        .label_style(("sans-serif", 16, &TEXT))
        .x_desc("minutes")
        .x_label_formatter(&|minutes| format!("{minutes:.0}"))
        .y_desc("requests a second")
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .y_labels(5)
        .draw()?;
    for (figures, color, name) in curves {
        let points = figures
            .curve
            .iter()
            .map(|(at, offered, _)| (at / 60.0, offered.max(LEAST)));
        let points = points.filter(|(at, _)| *at <= MINUTES);
        let line = chart.draw_series(LineSeries::new(points, color))?;
        let color = *color;
        line.label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 16, &TEXT))
        .draw()?;
    Ok(())
}

fn hosts(cell: &Cell, curves: &[Curve]) -> Result<()> {
    let mut chart = ChartBuilder::on(cell)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(75)
        .build_cartesian_2d(0.0..MINUTES, 0.0..f64::from(HOSTS))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(TEXT.mix(0.3))
        .axis_style(TEXT)
        .label_style(("sans-serif", 16, &TEXT))
        .x_desc("minutes")
        .x_label_formatter(&|minutes| format!("{minutes:.0}"))
        .y_desc("hosts without a session")
        .y_label_formatter(&|hosts| format!("{hosts:.0}"))
        .draw()?;
    for (figures, color, _) in curves {
        let points = figures
            .curve
            .iter()
            .map(|(at, _, without)| (at / 60.0, *without));
        let points = points.filter(|(at, _)| *at <= MINUTES);
        chart.draw_series(LineSeries::new(points, color))?;
    }
    Ok(())
}
