//! A chart as SVG, for a page or alone.

use super::axis::marks;
use super::{Chart, Line, finite};
use crate::commands::report::html::escaped;

/// Colours for a light and a dark background, and what the drawing is made of. It holds for all charts of a page.
pub const STYLE: &str = "
:root { color-scheme: light dark; --back: #fff; --front: #1f2328; --quiet: #59636e; --line: #d1d9e0;
  --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #bf3989; --c5: #7d4e00; }
@media (prefers-color-scheme: dark) {
  :root { --back: #0d1117; --front: #e6edf3; --quiet: #9198a1; --line: #3d444d;
    --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #a371f7; --c4: #f778ba; --c5: #d29922; } }
svg text { fill: var(--quiet); font: 13px system-ui, sans-serif; }
svg .title, svg .name { fill: var(--front); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .pale { stroke-width: 1; opacity: 0.4; }
svg .back { fill: var(--back); }
";

/// Colours that STYLE names.
const COLOURS: usize = 6;
const SIZE: [f64; 2] = [640.0, 360.0];
/// What the curves leave free: left, right, top without the names, bottom.
const MARGINS: [f64; 4] = [72.0, 16.0, 14.0, 52.0];
/// The height of a curve's name above the curves.
const NAME: f64 = 26.0;

/// The drawing. `alone` says that it is a file of its own, with a background, a title to be seen and its style.
pub fn svg(chart: &Chart, alone: bool) -> String {
    let [width, height] = SIZE;
    let [left, right, top, bottom] = MARGINS;
    let heads = chart.series.len() + usize::from(alone);
    let (top, height) = (top + NAME * heads as f64, height + NAME * heads as f64);
    let name = if alone { " xmlns=\"http://www.w3.org/2000/svg\"" } else { "" };
    let title = escaped(&chart.title);
    let mut svg = format!(
        "<svg{name} viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n"
    );
    if alone {
        svg += &format!(
            "<style>{STYLE}</style>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n"
        );
        svg += &format!("<text class=\"title\" x=\"{left}\" y=\"{NAME}\">{title}</text>\n");
    }
    let Some(((x0, x1), (y0, y1))) = chart.ranges() else {
        return svg + "<text x=\"20\" y=\"120\">no measurements</text>\n</svg>\n";
    };
    let place_x = |x: f64| left + (x - x0) / (x1 - x0) * (width - left - right);
    let place_y = |y: f64| height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom);
    for (y, text) in marks((y0, y1), 5) {
        let (at, end) = (place_y(y), width - right);
        svg += &format!("<line class=\"grid\" x1=\"{left}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let (x, y) = (left - 8.0, at + 4.0);
        svg += &format!("<text text-anchor=\"end\" x=\"{x}\" y=\"{y:.1}\">{text}</text>\n");
    }
    for (x, text) in marks((x0, x1), 5) {
        let (x, y) = (place_x(x), height - bottom + 20.0);
        svg += &format!("<text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{text}</text>\n");
    }
    let (middle, last) = ((left + width - right) / 2.0, height - 10.0);
    svg +=
        &format!("<text text-anchor=\"middle\" x=\"{middle}\" y=\"{last}\">{}</text>\n", escaped(&chart.x));
    let across = (top + height - bottom) / 2.0;
    svg += &format!(
        "<text text-anchor=\"middle\" transform=\"translate(16 {across}) rotate(-90)\">{}</text>\n",
        escaped(&chart.y)
    );
    for (number, series) in chart.series.iter().enumerate() {
        let colour = format!("var(--c{})", number % COLOURS);
        let points: Vec<(f64, f64)> = finite(&series.points).map(|(x, y)| (place_x(x), place_y(y))).collect();
        let listed: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let pale = if series.line == Line::Pale { " pale" } else { "" };
        svg += &format!(
            "<polyline class=\"curve{pale}\" stroke=\"{colour}\" points=\"{}\"/>\n",
            listed.join(" ")
        );
        if series.line == Line::Dotted || points.len() == 1 {
            for (x, y) in &points {
                svg += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
            }
            svg.push('\n');
        }
        let y = NAME * (number + 1 + usize::from(alone)) as f64;
        let (from, to, line) = (left, left + 24.0, y - 4.0);
        svg += &format!(
            "<line class=\"curve{pale}\" stroke=\"{colour}\" x1=\"{from}\" x2=\"{to}\" y1=\"{line}\" y2=\"{line}\"/>\
             <text class=\"name\" x=\"{}\" y=\"{y}\">{}</text>\n",
            to + 8.0,
            escaped(&series.name)
        );
    }
    svg + "</svg>\n"
}
