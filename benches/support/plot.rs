//! Plots, drawn from what was measured.

use std::error::Error;
use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

const COLOURS: [RGBColor; 6] = [
    RGBColor(120, 120, 120),
    RGBColor(30, 110, 200),
    RGBColor(210, 80, 30),
    RGBColor(40, 150, 80),
    RGBColor(140, 70, 170),
    RGBColor(180, 140, 20),
];

/// One panel of cumulative distributions: how many in a hundred took at most how long.
pub struct Panel<'a> {
    pub title: String,
    pub curves: Vec<(&'a str, &'a Histogram<u64>)>,
}

/// Draws panels beside each other, with a logarithmic time axis in microseconds.
pub fn distributions(path: &Path, panels: &[Panel<'_>]) -> Result<(), Box<dyn Error>> {
    let drawing = SVGBackend::new(path, (520 * panels.len() as u32, 340)).into_drawing_area();
    drawing.fill(&WHITE)?;
    for (area, panel) in drawing.split_evenly((1, panels.len())).iter().zip(panels) {
        let microseconds = |histogram: &Histogram<u64>, quantile: f64| {
            histogram.value_at_quantile(quantile) as f64 / 1e3
        };
        let bounds = panel
            .curves
            .iter()
            .map(|(_, h)| (microseconds(h, 0.001), microseconds(h, 0.99)));
        let (least, most) = bounds.fold((f64::MAX, 0.0f64), |(least, most), (from, to)| {
            (least.min(from), most.max(to))
        });
        let mut chart = ChartBuilder::on(area)
            .caption(&panel.title, ("sans-serif", 15))
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(45)
            .build_cartesian_2d((least * 0.9..most * 1.1).log_scale(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .x_labels(8)
            .x_desc("microseconds")
            .y_desc("per cent of rounds")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw()?;
        for ((name, histogram), colour) in panel.curves.iter().zip(COLOURS) {
            let points = (0..=200).map(|step| {
                let share = f64::from(step) / 200.0;
                (microseconds(histogram, share), share * 100.0)
            });
            chart
                .draw_series(LineSeries::new(
                    points.filter(|(x, _)| *x <= most),
                    colour.stroke_width(2),
                ))?
                .label(*name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 15, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    drawing.present()?;
    Ok(())
}

/// One line of a plot.
pub struct Curve<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

/// Draws lines, with linear axes from zero.
pub fn lines(
    path: &Path,
    title: &str,
    (x, y): (&str, &str),
    curves: &[Curve<'_>],
) -> Result<(), Box<dyn Error>> {
    let drawing = SVGBackend::new(path, (620, 340)).into_drawing_area();
    drawing.fill(&WHITE)?;
    let points = curves.iter().flat_map(|curve| &curve.points);
    let (width, height) = points.fold((0.0f64, 0.0f64), |most, point| {
        (most.0.max(point.0), most.1.max(point.1))
    });
    let mut chart = ChartBuilder::on(&drawing)
        .caption(title, ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..width * 1.02, 0.0..height * 1.05)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], style));
        let marks = curve.points.iter();
        chart.draw_series(marks.map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    drawing.present()?;
    Ok(())
}
