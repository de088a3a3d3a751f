//! Curves as drawings: SVG for a page or a file, Braille for a terminal.

mod axis;
pub mod heat;
pub mod svg;
pub mod terminal;

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// Its points `(x, y)`, by x. Those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub line: Line,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line.
    Plain,
    /// A pale line, behind others.
    Pale,
    /// A line with a dot at each point, for few points.
    Dotted,
}

/// Curves over one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What the chart shows.
    pub title: String,
    /// What x is, with its unit.
    pub x: String,
    /// What y is, with its unit.
    pub y: String,
    /// The curves.
    pub series: Vec<Series>,
}

/// The range of an axis: its least and its greatest number.
type Range = (f64, f64);

impl Chart {
    /// The ranges of x and y, neither of them empty; `None` without a point.
    fn ranges(&self) -> Option<(Range, Range)> {
        let points = || self.series.iter().flat_map(|series| finite(&series.points));
        let range = |numbers: &mut dyn Iterator<Item = f64>| {
            let all = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
            let half = if all.0 < all.1 { 0.0 } else { all.0.abs().max(1.0) / 2.0 };
            (all.0 - half, all.1 + half)
        };
        points().next()?;
        Some((range(&mut points().map(|(x, _)| x)), range(&mut points().map(|(_, y)| y))))
    }
}

fn finite(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// At most `most` points: the means of as many runs of neighbours.
pub fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(most.max(1)).max(1);
    let mean = |run: &[(f64, f64)]| {
        let (x, y) = run.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / run.len() as f64, y / run.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

/// At each point the mean of the last `window` points up to it.
pub fn smoothed(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let mean = |(i, &(x, _)): (usize, &(f64, f64))| {
        let run = &points[(i + 1).saturating_sub(window.max(1))..=i];
        (x, run.iter().map(|(_, y)| y).sum::<f64>() / run.len() as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_points_become_their_means() {
        let points: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(i * 2))).collect();
        assert_eq!(thinned(&points, 5), [(0.5, 1.0), (2.5, 5.0), (4.5, 9.0), (6.5, 13.0), (8.5, 17.0)]);
        assert_eq!(thinned(&points, 100), points);
        assert_eq!(smoothed(&points[..3], 2), [(0.0, 0.0), (1.0, 1.0), (2.0, 3.0)]);
        assert_eq!(thinned(&[], 5), []);
    }

    #[test]
    fn a_range_is_never_empty() {
        let chart = |points: Vec<(f64, f64)>| Chart {
            title: String::new(),
            x: String::new(),
            y: String::new(),
            series: vec![Series { name: String::new(), points, line: Line::Plain }],
        };
        assert_eq!(chart(vec![]).ranges(), None);
        assert_eq!(chart(vec![(1.0, f64::NAN)]).ranges(), None);
        assert_eq!(chart(vec![(1.0, 3.0)]).ranges(), Some(((0.5, 1.5), (1.5, 4.5))));
        assert_eq!(chart(vec![(0.0, 3.0), (2.0, 1.0)]).ranges(), Some(((0.0, 2.0), (1.0, 3.0))));
    }
}
