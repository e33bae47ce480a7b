//! A picture of one run: a lane for each node, in it the lives of VMs as bars and the faults as shades, and what broke as a line.

use std::collections::BTreeMap;

use discovery::engine::id::VmId;
use discovery::sim::faults::plan::{Step, What};
use discovery::sim::fuzz::Played;
use plotters::prelude::*;

const FONT: (&str, u32) = ("sans-serif", 12);
const SMALL: (&str, u32) = ("sans-serif", 10);
const WIDTH: u32 = 1200;
const LANE: u32 = 110;
/// Told apart by most colour-blind people (M. Okabe, K. Ito: *Color Universal Design*).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const FAULT: RGBColor = RGBColor(213, 94, 0);

/// The picture. Lane 0, at the top, is the network's and the API server's; then one for each node.
pub fn draw(steps: &[Step], played: &Played, nodes: usize) -> Result<String, String> {
    let mut svg = String::new();
    try_draw(&mut svg, steps, played, nodes).map_err(|error| error.to_string())?;
    Ok(svg)
}

type Problem<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn try_draw<'a>(
    svg: &'a mut String,
    steps: &[Step],
    played: &Played,
    nodes: usize,
) -> Result<(), Problem<'a>> {
    let end = (played.end.0 as f64 / 1e6).max(1.0);
    let size = (WIDTH, LANE * (nodes as u32 + 1) + 60);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let lanes = nodes as f64 + 1.0;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, lanes..0.0)?;
    let lane_name = |at: &f64| match at.floor() as usize {
        _ if (at.fract() - 0.5).abs() > 0.01 => String::new(),
        0 => "all".to_owned(),
        node => format!("n{node}"),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("time, s")
        .y_labels(2 * (nodes + 1) + 1)
        .y_label_formatter(&lane_name)
        .label_style(FONT)
        .draw()?;
    let number = |name: &str| name.trim_start_matches('n').parse::<f64>().unwrap_or(0.0);
    let mut written: BTreeMap<usize, u32> = BTreeMap::new();
    for step in steps {
        let from = step.at.as_secs_f64();
        let (lane, lasts, word) = match &step.what {
            What::Fault(kind, node, lasts) => {
                let lane = if kind.is_of_a_node() { number(node.as_str()) } else { 0.0 };
                (lane, lasts.as_secs_f64(), kind.to_string())
            }
            What::Apply(number) => (0.0, 0.0, format!("apply ve-{number}")),
            What::Change => (0.0, 0.0, "change".to_owned()),
            What::Cordon(node) => (number(node.as_str()), 0.0, "cordon".to_owned()),
            What::Maintenance(node) => (number(node.as_str()), 0.0, "maintenance".to_owned()),
        };
        let shade =
            [(from, lane + 0.03), ((from + lasts).min(end).max(from + end / 900.0), lane + 0.97)];
        chart.draw_series([Rectangle::new(shade, FAULT.mix(0.22).filled())])?;
        // Words of one lane below each other, so that they can be read.
        let row = written.entry(lane as usize).or_default();
        let at = (from, lane + 0.06 + 0.1 * f64::from(*row % 4));
        *row += 1;
        chart.draw_series([Text::new(word, at, SMALL)])?;
    }
    let mut vms: Vec<&VmId> = played.lives.iter().map(|life| &life.vm).collect();
    vms.sort();
    vms.dedup();
    for life in &played.lives {
        let Ok(row) = vms.binary_search(&&life.vm) else { continue };
        let colour = COLOURS[row % COLOURS.len()];
        let top = number(life.node.as_str()) + 0.48 + 0.48 * row as f64 / vms.len() as f64;
        let until = life.until.map_or(end, |until| until.0 as f64 / 1e6);
        let bar = [(life.from.0 as f64 / 1e6, top), (until, top + 0.4 / vms.len() as f64)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
    }
    if let Some(broken) = &played.outcome.broken {
        let at = broken.at.0 as f64 / 1e6;
        chart.draw_series([PathElement::new([(at, 0.0), (at, lanes)], RED.stroke_width(2))])?;
        let text = format!("{}: {}", broken.invariant, broken.what);
        chart.draw_series([Text::new(text, (0.0, 0.5), FONT)])?;
    }
    area.present()
}

#[cfg(test)]
mod tests {
    use discovery::sim::faults::FaultKind;
    use discovery::sim::faults::plan::{Shape, draw as plan};
    use discovery::sim::fuzz::play;

    #[test]
    fn a_run_has_a_lane_for_each_node_and_a_bar_for_each_life() {
        let kinds = vec![FaultKind::Power];
        let shape = Shape { nodes: 3, ves: 1, faults: 1, kinds };
        let steps = plan(1, &shape);
        let played = play(1, &shape, &steps, true);
        assert!(!played.lives.is_empty());
        let svg = super::draw(&steps, &played, 3).expect("it is drawn");
        assert!(svg.starts_with("<svg") && svg.contains("n3") && svg.contains("power"), "{svg}");
        let faults = svg.matches("#D55E00").count();
        assert!(svg.matches("<rect").count() >= played.lives.len() + faults, "{svg}");
    }
}
