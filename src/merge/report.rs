//! How much of an adapter survives the rounding of a merge, measured on the bytes that are written.

use std::path::PathBuf;

use serde::Serialize;

use crate::cur::fingerprint::Deviation;
use crate::kernels::{Cpu, Multiversion};
use crate::rewrite::Companion;

/// Sums of products over some values of one matrix: W as the base stores it, d its change, Q as written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// `<Q - W, d>`
    moved_along: f64,
    /// `|Q - W|^2`
    moved: f64,
    /// `|d|^2`
    change: f64,
    /// `|W|^2`
    weight: f64,
}

impl Sums {
    /// Over one row: eight running sums each, added up in order.
    pub fn of_row(q: &[f32], w: &[f32], d: &[f32]) -> Self {
        Cpu::current().dispatch(Row { q, w, d })
    }

    /// Adds the sums of further values.
    pub fn add(&mut self, other: &Self) {
        self.moved_along += other.moved_along;
        self.moved += other.moved;
        self.change += other.change;
        self.weight += other.weight;
    }

    /// `<Q - W, d> / |d|^2`; 1 if d is zero.
    pub fn share(&self) -> f64 {
        if self.change == 0.0 { 1.0 } else { self.moved_along / self.change }
    }

    /// `|Q - W - d|^2`
    pub fn error(&self) -> f64 {
        (self.moved - 2.0 * self.moved_along + self.change).max(0.0)
    }

    /// `|Q - W - share d| / |d|`: 0 if d is zero.
    pub fn noise(&self) -> f64 {
        if self.change == 0.0 {
            return 0.0;
        }
        let across = self.moved - self.moved_along * self.share();
        (across.max(0.0) / self.change).sqrt()
    }

    /// `<Q - W, d> / (|Q - W| |d|)`: 1 if d is zero, 0 if nothing moved.
    pub fn fidelity(&self) -> f64 {
        if self.change == 0.0 {
            return 1.0;
        }
        if self.moved == 0.0 { 0.0 } else { self.moved_along / (self.moved * self.change).sqrt() }
    }

    /// `|d| / |W|`
    pub fn relative_change(&self) -> f64 {
        if self.weight == 0.0 { 0.0 } else { (self.change / self.weight).sqrt() }
    }
}

/// One row as written and as it was, and its change.
struct Row<'a> {
    q: &'a [f32],
    w: &'a [f32],
    d: &'a [f32],
}

impl Multiversion for Row<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run(self) -> Sums {
        const LANES: usize = 8;
        let mut lanes = [[0f64; LANES]; 4];
        let mut add = |lane: usize, q: f32, w: f32, d: f32| {
            let (q, w, d) = (f64::from(q), f64::from(w), f64::from(d));
            let moved = q - w;
            lanes[0][lane] += moved * d;
            lanes[1][lane] += moved * moved;
            lanes[2][lane] += d * d;
            lanes[3][lane] += w * w;
        };
        let Self { q, w, d } = self;
        let (q, rest_q) = q.as_chunks::<LANES>();
        let (w, rest_w) = w.as_chunks::<LANES>();
        let (d, rest_d) = d.as_chunks::<LANES>();
        for ((q, w), d) in q.iter().zip(w).zip(d) {
            for lane in 0..LANES {
                add(lane, q[lane], w[lane], d[lane]);
            }
        }
        for (lane, ((&q, &w), &d)) in rest_q.iter().zip(rest_w).zip(rest_d).enumerate() {
            add(lane, q, w, d);
        }
        let [moved_along, moved, change, weight] = lanes.map(|lanes| lanes.iter().sum());
        Sums { moved_along, moved, change, weight }
    }
}

/// What became of the change of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorReport {
    /// Canonical name.
    pub name: String,
    /// The changed parts of the tensor; empty if all of it was changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// The type it was written in.
    pub dtype: String,
    /// How much of the change survived rounding, in its own direction: `<Q - W, d> / |d|^2`, 1 for all of it.
    /// It says nothing of the noise that rounding added: judge a tensor by [`Self::fidelity`].
    pub share: f64,
    /// What rounding added across that direction, relative to the change: `|Q - W - share d| / |d|`.
    pub noise: f64,
    /// The size of the change relative to the matrix: `|d| / |W|`.
    pub change: f64,
    /// The cosine of the angle between what was written, Q - W, and the change d. Unlike [`Self::share`], it
    /// falls with the noise of rounding: 1 for the change alone, near 0 if noise outweighs it.
    pub fidelity: f64,
}

impl TensorReport {
    /// From the sums over the whole matrix.
    pub fn new(name: &str, parts: Vec<String>, dtype: &str, sums: &Sums) -> Self {
        Self {
            name: name.into(),
            parts,
            dtype: dtype.into(),
            share: sums.share(),
            noise: sums.noise(),
            change: sums.relative_change(),
            fidelity: sums.fidelity(),
        }
    }

    /// The name with the parts, such as `blk.0.attn_qkv[q,v]`.
    pub fn label(&self) -> String {
        match self.parts.as_slice() {
            [] => self.name.clone(),
            parts => format!("{}[{}]", self.name, parts.join(",")),
        }
    }
}

/// What a merge wrote, and what became of the adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MergeReport {
    /// What a program that runs the merged model is given: the file or folder, of splits the first.
    pub model: PathBuf,
    /// The changed tensors, in the order of the output file.
    pub tensors: Vec<TensorReport>,
    /// What a user should know of a change of types, one line each.
    pub notes: Vec<String>,
    /// Files of the base's folder that the output lacks or has in another form.
    pub companions: Vec<Companion>,
    /// For each adapter that was made on other values of the base: how far they differ.
    #[serde(skip)]
    pub deviations: Vec<Deviation>,
    /// Whether the base's container fixes the types.
    #[serde(skip)]
    pub types_are_fixed: bool,
}

impl MergeReport {
    /// The changed tensors, in the order of the program's table: first those that lost (or gained) most of
    /// their change, then the noisiest. A tensor near the end can still have a low
    /// [`TensorReport::fidelity`], because a share near 1 can hide rounding noise.
    pub fn worst_first(&self) -> Vec<&TensorReport> {
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        let off = |t: &TensorReport| (t.share - 1.0).abs();
        // Shares within a hundredth count as equal.
        let key = |t: &TensorReport| (off(t) * 100.0).round();
        tensors.sort_by(|a, b| key(b).total_cmp(&key(a)).then(b.noise.total_cmp(&a.noise)));
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_and_noise_are_those_of_the_definition() {
        // Of d = (1, 0) half survived, and 3 was added across it.
        let sums = Sums::of_row(&[2.5, 3.0], &[2.0, 0.0], &[1.0, 0.0]);
        assert_eq!((sums.share(), sums.noise()), (0.5, 3.0));
        assert_eq!(sums.error(), 0.25 + 9.0);
        assert_eq!(sums.relative_change(), 0.5);
        assert_eq!(sums.fidelity(), 0.5 / 9.25f64.sqrt());
        let none = Sums::of_row(&[2.0], &[2.0], &[0.0]);
        assert_eq!((none.share(), none.noise(), none.error(), none.fidelity()), (1.0, 0.0, 0.0, 1.0));
    }
}
