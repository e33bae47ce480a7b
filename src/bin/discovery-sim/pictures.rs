//! Pictures as SVG, to be put into a page.

use plotters::prelude::*;

/// Pixels; a page shows two beside each other on a wide screen.
const SIZE: (u32, u32) = (640, 320);
const FONT: (&str, u32) = ("sans-serif", 13);
/// Told apart by most colour-blind people (M. Okabe, K. Ito: *Color Universal Design*).
const COLOURS: [RGBColor; 7] = [
    RGBColor(90, 90, 90),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Numbers under a name.
pub struct Curve<'a> {
    pub name: &'a str,
    pub values: Vec<f64>,
}

/// A curve per name over time, a value per step.
pub fn over_time(unit: &str, step_s: u64, curves: &[Curve<'_>]) -> Result<String, String> {
    let steps = curves.iter().map(|curve| curve.values.len()).max().unwrap_or(0);
    let seconds = (steps as u64 * step_s) as f64;
    let (width, height) = (seconds.max(1.0), height(curves));
    let axes = Axes { x: "time, s", y: unit, width, height, labels: 12 };
    draw(&axes, &|at: &f64| format!("{at:.0}"), curves, &|curve| {
        // A step's value is shown in its middle.
        let middle = |(step, value)| ((step as f64 + 0.5) * step_s as f64, value);
        Shape::Line(curve.values.iter().copied().enumerate().map(middle).collect())
    })
}

/// Bars beside each other: one group per label, one bar per name in it.
pub fn bars(x: &str, y: &str, labels: &[String], curves: &[Curve<'_>]) -> Result<String, String> {
    // A label in the middle of each group, and marks between them.
    let (width, height, marks) = (labels.len() as f64, height(curves), 2 * labels.len() + 1);
    let axes = Axes { x, y, width, height, labels: marks };
    let label = |at: &f64| match (at.fract() - 0.5).abs() < 0.01 {
        true => labels.get(*at as usize).cloned().unwrap_or_default(),
        false => String::new(),
    };
    let width = 0.8 / curves.len().max(1) as f64;
    draw(&axes, &label, curves, &|curve| {
        let place = curves.iter().position(|other| other.name == curve.name).unwrap_or(0);
        let left = 0.1 + place as f64 * width;
        let bar = |(group, value): (usize, &f64)| {
            let from = group as f64 + left;
            ([(from, 0.0), (from + width, *value)], *value > 0.0)
        };
        let bars = curve.values.iter().enumerate().map(bar);
        Shape::Bars(bars.filter(|(_, visible)| *visible).map(|(bar, _)| bar).collect())
    })
}

struct Axes<'a> {
    x: &'a str,
    y: &'a str,
    width: f64,
    height: f64,
    /// At most so many numbers below.
    labels: usize,
}

enum Shape {
    Line(Vec<(f64, f64)>),
    Bars(Vec<[(f64, f64); 2]>),
}

/// Some air above the highest value.
fn height(curves: &[Curve<'_>]) -> f64 {
    let highest = curves.iter().flat_map(|curve| &curve.values).copied().fold(0.0, f64::max);
    if highest > 0.0 { highest * 1.08 } else { 1.0 }
}

fn draw(
    axes: &Axes<'_>,
    x_label: &dyn Fn(&f64) -> String,
    curves: &[Curve<'_>],
    shape: &dyn Fn(&Curve<'_>) -> Shape,
) -> Result<String, String> {
    let mut svg = String::new();
    try_draw(&mut svg, axes, x_label, curves, shape).map_err(|error| error.to_string())?;
    Ok(svg)
}

type Problem<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn try_draw<'a>(
    svg: &'a mut String,
    axes: &Axes<'_>,
    x_label: &dyn Fn(&f64) -> String,
    curves: &[Curve<'_>],
    shape: &dyn Fn(&Curve<'_>) -> Shape,
) -> Result<(), Problem<'a>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..axes.width, 0.0..axes.height)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_labels(axes.labels)
        .x_label_formatter(x_label)
        .label_style(FONT)
        .draw()?;
    let mut bars = false;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let drawn = match shape(curve) {
            Shape::Line(points) => {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            }
            Shape::Bars(shapes) => {
                bars = true;
                let filled = shapes.into_iter().map(|bar| Rectangle::new(bar, colour.filled()));
                chart.draw_series(filled)?
            }
        };
        let colour = *colour;
        drawn
            .label(curve.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled()));
    }
    // Where least is: runs begin with all loads at zero, and few partitions are of middling size.
    let legend = match bars {
        true => SeriesLabelPosition::UpperMiddle,
        false => SeriesLabelPosition::UpperLeft,
    };
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_curve_and_a_legend_per_name() {
        let curves = ["none", "dvms"].map(|name| Curve { name, values: vec![1.0, 2.0, 0.5] });
        let svg = over_time("nodes", 30, &curves).expect("it is drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        // Curves alone are two wide.
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 2, "{svg}");
        assert!(svg.contains("dvms") && svg.contains("time, s"), "{svg}");
    }

    #[test]
    fn nothing_to_show_is_a_picture_too() {
        assert!(over_time("nodes", 30, &[]).is_ok());
        let none = Curve { name: "none", values: vec![0.0] };
        assert!(bars("size", "share", &["1".to_owned()], &[none]).is_ok());
    }
}
