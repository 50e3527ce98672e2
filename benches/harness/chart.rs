//! A chart of latency against rate, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;

/// Colours that the colour-blind can tell apart.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#999999", "#e69f00"];

/// A line: its name, and its points from left to right.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws the lines; the upward axis is logarithmic.
pub(crate) fn draw(title: &str, right: &str, up: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = nice(points().map(|(x, _)| *x).fold(1.0, f64::max));
    let low = points().map(|(_, y)| *y).fold(f64::MAX, f64::min).max(1e-3).log10().floor();
    let high = points().map(|(_, y)| *y).fold(1e-3, f64::max).log10().ceil().max(low + 1.0);
    let x = |of: f64| LEFT + of / most * (WIDTH - LEFT - RIGHT);
    let y = |of: f64| HEIGHT - BOTTOM - (of.max(1e-3).log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, (LEFT, 24.0), "start", title);
    text(&mut svg, (x(most / 2.0), HEIGHT - 14.0), "middle", right);
    text(&mut svg, (LEFT - 50.0, TOP - 8.0), "start", up);
    for step in 0..=5 {
        let value = most / 5.0 * f64::from(step);
        stroke(&mut svg, (x(value), TOP), (x(value), HEIGHT - BOTTOM));
        text(&mut svg, (x(value), HEIGHT - BOTTOM + 18.0), "middle", &value.to_string());
    }
    for power in low as i32..=high as i32 {
        let value = 10f64.powi(power);
        stroke(&mut svg, (LEFT, y(value)), (WIDTH - RIGHT, y(value)));
        text(&mut svg, (LEFT - 8.0, y(value) + 4.0), "end", &value.to_string());
    }
    for (n, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let at: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            at.join(" ")
        );
        for (a, b) in &line.points {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*a), y(*b));
        }
        let (at, down) = (WIDTH - RIGHT + 14.0, TOP + 8.0 + 20.0 * n as f64);
        let _ = writeln!(svg, "<rect x=\"{at}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>", down - 6.0);
        text(&mut svg, (at + 18.0, down), "start", &line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The next number from 1, 2 or 5 times a power of ten, or a multiple of it, that is not below.
fn nice(most: f64) -> f64 {
    let step = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * step).into_iter().find(|step| step * 5.0 >= most);
    step.map_or(most, |step| step * 5.0)
}

fn stroke(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ddd\"/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}
