//! The Fisher information as a result that a cache keeps.

use curmerge_formats::SafeTensors;
use ndarray::Array2;

use super::smooth::Smooth;
use super::{Block, CONTIGUOUS, Fisher, MATRIX_LIMIT};
use crate::cache::{Cached, Element, Part, numbers};

impl Cached for Fisher {
    /// For the block of each matrix, by its number: `N.matrix`, or `N.samples`, `N.weight`, `N.left`,
    /// `N.right` and `N.along`.
    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            match block {
                Block::Matrix(f) => parts.push(part(number, "matrix", f)),
                Block::Samples { samples, weight, smooth } => parts.extend([
                    part(number, "samples", samples),
                    Part::new(name(number, "weight"), &[1], std::slice::from_ref(weight)),
                    part(number, "left", &smooth.left),
                    part(number, "right", &smooth.right),
                    part(number, "along", &smooth.along),
                ]),
            }
        }
        parts
    }
}

impl Fisher {
    /// The Fisher information in a cache's file, of matrices of these shapes on this many texts. `None` if
    /// it holds no such one.
    pub fn restore(file: &SafeTensors, shapes: &[(usize, usize)], texts: usize) -> Option<Self> {
        let block = |(number, &(c, r)): (usize, &(usize, usize))| {
            let size = c * r;
            if size <= MATRIX_LIMIT {
                return Some(Block::Matrix(array(file, number, "matrix", (size, size))?));
            }
            let [weight] = numbers(file, &name(number, "weight"), Some(&[1]))?[..] else { return None };
            let samples = array(file, number, "samples", (texts, size))?;
            let part = |kind, shape| array(file, number, kind, shape);
            let (left, right) = (part("left", (c, c))?, part("right", (r, r))?);
            let smooth = Smooth { left, right, along: part("along", (c, r))? };
            Some(Block::Samples { samples, weight, smooth })
        };
        let blocks = shapes.iter().enumerate().map(block).collect::<Option<_>>()?;
        Some(Self { blocks })
    }
}

fn name(number: usize, part: &str) -> String {
    format!("{number}.{part}")
}

fn part<'a, T: Element>(number: usize, kind: &str, array: &'a Array2<T>) -> Part<'a> {
    let numbers = array.as_slice().expect(CONTIGUOUS);
    Part::new(name(number, kind), array.shape(), numbers)
}

fn array<T: Element>(
    file: &SafeTensors,
    number: usize,
    kind: &str,
    shape: (usize, usize),
) -> Option<Array2<T>> {
    let numbers = numbers(file, &name(number, kind), Some(&[shape.0, shape.1]))?;
    Array2::from_shape_vec(shape, numbers).ok()
}
