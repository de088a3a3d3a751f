//! A table of numbers as a map of squares, whose colour is as strong as each number is large.

use std::collections::BTreeMap;

use crate::commands::report::html::escaped;

const WIDTH: f64 = 640.0;
/// Room for the names of the rows.
const LEFT: f64 = 140.0;
const ROW: f64 = 26.0;
const BOTTOM: f64 = 48.0;

/// The map of `values[(row, column)]`, rows by their names. `unit` stands after each number, `columns` says what columns
/// are.
pub fn svg(title: &str, values: &BTreeMap<(String, usize), f64>, unit: &str, columns: &str) -> String {
    let mut rows: Vec<&String> = values.keys().map(|(row, _)| row).collect();
    rows.dedup();
    let count = values.keys().map(|(_, column)| column + 1).max().unwrap_or(0).max(1);
    let greatest = values.values().copied().filter(|x| x.is_finite()).fold(0.0, f64::max);
    let (cell, height) = ((WIDTH - LEFT - 8.0) / count as f64, ROW * rows.len() as f64 + BOTTOM);
    let title = escaped(title);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n"
    );
    for (number, row) in rows.iter().enumerate() {
        let y = ROW * number as f64;
        let name = escaped(row);
        svg += &format!(
            "<text text-anchor=\"end\" x=\"{}\" y=\"{}\">{name}</text>\n",
            LEFT - 8.0,
            y + ROW * 0.65
        );
        for ((_, column), value) in values.iter().filter(|((own, _), _)| own == *row) {
            let share = if greatest > 0.0 && value.is_finite() { value / greatest } else { 0.0 };
            let (x, width, tall) = (LEFT + cell * *column as f64, cell - 1.0, ROW - 2.0);
            svg += &format!(
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{tall}\" fill=\"var(--c0)\" \
                 fill-opacity=\"{:.3}\" stroke=\"var(--line)\" stroke-width=\"0.5\"><title>{name} {column}: \
                 {value:.3}{unit}</title></rect>\n",
                0.04 + 0.96 * share
            );
        }
    }
    let y = ROW * rows.len() as f64 + 16.0;
    let step = count.div_ceil(8);
    for column in (0..count).step_by(step) {
        let x = LEFT + cell * (column as f64 + 0.5);
        svg += &format!("<text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{column}</text>\n");
    }
    let (x, y) = ((LEFT + WIDTH) / 2.0, y + 22.0);
    svg += &format!("<text text-anchor=\"middle\" x=\"{x}\" y=\"{y}\">{}</text>\n", escaped(columns));
    svg + "</svg>\n"
}
