//! A chart as text: Braille, whose cells have two by four dots. Several curves have a colour each, or without colours a
//! letter each.

use super::axis::marks;
use super::{Chart, finite};
use crate::commands::report::terminal::plain;

/// The first dot of Braille's cells, and the bit of each dot: rows of two.
const BRAILLE: u32 = 0x2800;
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
/// Colours that terminals have on light and on dark backgrounds: blue, yellow, green, magenta, cyan, red.
const COLOURS: [u8; 6] = [34, 33, 32, 35, 36, 31];
const ROWS: usize = 16;
/// The room of the numbers beside the curves.
const LEFT: usize = 10;
const LEAST_COLUMNS: usize = 20;

/// The chart, at most `width` characters wide.
pub fn text(chart: &Chart, width: usize, coloured: bool) -> String {
    let Some(((x0, x1), (y0, y1))) = chart.ranges() else { return "no measurements\n".into() };
    let columns = width.saturating_sub(LEFT + 2).max(LEAST_COLUMNS);
    let letters = !coloured && chart.series.len() > 1;
    let mut cells = vec![vec![(0u8, 0usize); columns]; ROWS];
    for (number, series) in chart.series.iter().enumerate() {
        let dots: Vec<(usize, usize)> = finite(&series.points)
            .map(|(x, y)| {
                let across = ((x - x0) / (x1 - x0) * (columns * 2 - 1) as f64).round() as usize;
                let down = ((y1 - y) / (y1 - y0) * (ROWS * 4 - 1) as f64).round() as usize;
                (across.min(columns * 2 - 1), down.min(ROWS * 4 - 1))
            })
            .collect();
        let first = dots.first().map(|&dot| (dot, dot));
        for ((ax, ay), (bx, by)) in first.into_iter().chain(dots.windows(2).map(|pair| (pair[0], pair[1]))) {
            let length = ax.abs_diff(bx).max(ay.abs_diff(by)).max(1);
            for i in 0..=length {
                let along = |a: usize, b: usize| {
                    (a as f64 + (b as f64 - a as f64) * i as f64 / length as f64).round() as usize
                };
                let (x, y) = (along(ax, bx), along(ay, by));
                let cell = &mut cells[y / 4][x / 2];
                *cell = (cell.0 | DOTS[y % 4][x % 2], number);
            }
        }
    }
    let mut text = format!("{}\n", plain(&chart.title));
    let heights: Vec<(usize, String)> = marks((y0, y1), 4)
        .into_iter()
        .map(|(y, mark)| (((y1 - y) / (y1 - y0) * (ROWS - 1) as f64).round() as usize, mark))
        .collect();
    for (row, line) in cells.iter().enumerate() {
        let mark = heights.iter().find(|(at, _)| *at == row).map_or("", |(_, mark)| mark);
        text += &format!("{mark:>LEFT$} ┤");
        for &(dots, number) in line {
            match dots {
                0 => text.push(' '),
                _ if letters => text.push(letter(number)),
                _ if coloured && chart.series.len() > 1 => text += &painted(number, braille(dots)),
                _ => text.push(braille(dots)),
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text += &format!("{:>LEFT$} └{}\n", "", "─".repeat(columns));
    let mut below = vec![' '; LEFT + 2 + columns];
    let mut free = 0;
    for (x, mark) in marks((x0, x1), (columns / 16).clamp(2, 8)) {
        let middle = LEFT + 2 + ((x - x0) / (x1 - x0) * (columns - 1) as f64).round() as usize;
        let at = middle.saturating_sub(mark.len() / 2).min(below.len().saturating_sub(mark.len()));
        if at >= free && at + mark.len() <= below.len() {
            mark.chars().enumerate().for_each(|(i, c)| below[at + i] = c);
            free = at + mark.len() + 1;
        }
    }
    text += below.iter().collect::<String>().trim_end();
    text += &format!("   {}\n", plain(&chart.x));
    for (number, series) in chart.series.iter().enumerate() {
        let key = match (letters, coloured && chart.series.len() > 1) {
            (true, _) => letter(number).to_string(),
            (_, true) => painted(number, '━'),
            _ => "━".to_owned(),
        };
        text += &format!("{:>LEFT$} {key} {}\n", "", plain(&series.name));
    }
    text
}

fn braille(dots: u8) -> char {
    char::from_u32(BRAILLE + u32::from(dots)).unwrap_or(' ')
}

fn letter(number: usize) -> char {
    char::from(b'a' + (number % 26) as u8)
}

fn painted(number: usize, c: char) -> String {
    format!("\u{1b}[{}m{c}\u{1b}[39m", COLOURS[number % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::chart::{Line, Series};

    fn chart(series: usize) -> Chart {
        let line = |up: bool| (0..=20).map(move |i| (f64::from(i), f64::from(if up { i } else { 20 - i })));
        let series = (0..series).map(|i| Series {
            name: format!("run {i}\u{1b}[2J"),
            points: line(i % 2 == 0).collect(),
            line: Line::Plain,
        });
        Chart { title: "loss".into(), x: "step".into(), y: "loss".into(), series: series.collect() }
    }

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let shown = text(&chart(1), 60, false);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 1 + ROWS + 2 + 1, "{shown}");
        assert!(lines[1].ends_with('⠁') || lines[1].ends_with('⠉') || lines[1].ends_with('⠊'), "{shown}");
        assert_eq!(lines[1].chars().count(), 60, "{shown}");
        assert!(lines[1].trim_start().starts_with("20 ┤") && lines[ROWS].contains("0 ┤"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "a hostile name: {shown}");
    }

    #[test]
    fn several_lines_are_told_apart() {
        let plain = text(&chart(2), 60, false);
        assert!(plain.contains('a') && plain.contains("b run 1") && !plain.contains('\u{1b}'), "{plain}");
        let coloured = text(&chart(2), 60, true);
        assert!(coloured.contains("\u{1b}[34m") && coloured.contains("\u{1b}[33m"), "{coloured}");
        assert_eq!(text(&Chart { series: Vec::new(), ..chart(0) }, 60, true), "no measurements\n");
    }
}
