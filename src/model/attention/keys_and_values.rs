//! Where attention has its keys and values from: matrices of the block, or an earlier block.

use ndarray::{Array2, ArrayView2, Axis};

use crate::kernels::{Precision, Real, SavedActivation};
use crate::model::linear::Linear;
use crate::model::norm::Norm;
use crate::model::residual::add;
use crate::model::terms::TermSink;

/// What rotates keys, or the gradients of rotated keys back.
type Rotation<'r, T> = dyn Fn(&mut Array2<T>) + 'r;

/// Where the keys and values of a block are from.
#[derive(Clone, Debug)]
pub enum KeysAndValues<'a, T: Real> {
    /// Matrices of its own.
    Own(Box<OwnKeysAndValues<'a, T>>),
    /// They are those of this block.
    Block(usize),
}

/// The frozen weights of keys and values, and the terms of the matrices.
#[derive(Clone, Debug)]
pub struct OwnKeysAndValues<'a, T: Real> {
    /// `[kv_heads * head_dim, d_model]`.
    pub k: Linear<'a, T>,
    /// `[kv_heads * head_dim, d_model]`; without it, the outputs of `k` are those of the values.
    pub v: Option<Linear<'a, T>>,
    /// Of each head of k.
    pub k_norm: Option<Norm<T>>,
    /// Whether keys are normed after their rotation; else before it.
    pub norms_rotated: bool,
    /// Of each head of v.
    pub v_norm: Option<Norm<T>>,
    /// The number of the block, if later blocks read its keys and values.
    pub shared_as: Option<usize>,
}

/// Keys, rotated, and values, `[tokens, kv_heads * head_dim]` each, with what the backward pass needs.
pub struct ProjectedKeysAndValues<T> {
    pub k: Array2<T>,
    pub v: Array2<T>,
    /// k and v before their norms, where a norm needs them.
    before_norm: [Option<Array2<T>>; 2],
    z: [Option<Array2<T>>; 2],
}

/// What the backward pass needs of the forward pass. The inputs of matrices are not among it.
#[derive(Debug)]
pub struct KeysAndValuesActivations<T: Real> {
    pub k: SavedActivation<T>,
    pub v: SavedActivation<T>,
    before_norm: [Option<SavedActivation<T>>; 2],
    z: [Option<Array2<T>>; 2],
}

#[cfg(test)]
impl<T: Real> KeysAndValuesActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let saved = [&self.k, &self.v].into_iter().chain(self.before_norm.iter().flatten());
        let full: usize = self.z.iter().flatten().map(Array2::len).sum();
        saved.map(SavedActivation::bytes).sum::<u64>() + (full * size_of::<T>()) as u64
    }
}

impl<T: Real> ProjectedKeysAndValues<T> {
    /// Saves what the backward pass needs, for products of this precision.
    pub fn save(self, precision: Precision) -> KeysAndValuesActivations<T> {
        let saved = |x| SavedActivation::save(x, precision);
        KeysAndValuesActivations {
            k: saved(self.k),
            v: saved(self.v),
            before_norm: self.before_norm.map(|x| x.map(saved)),
            z: self.z,
        }
    }
}

impl<'a, T: Real> OwnKeysAndValues<'a, T> {
    /// The matrices, which read the normed input.
    pub fn matrices(&self) -> impl Iterator<Item = &Linear<'a, T>> {
        std::iter::once(&self.k).chain(&self.v)
    }

    /// [`Self::matrices`], to be changed.
    pub fn matrices_mut(&mut self) -> impl Iterator<Item = &mut Linear<'a, T>> {
        std::iter::once(&mut self.k).chain(&mut self.v)
    }

    /// Values saved of a token for the backward pass, which may be rounded to bfloat16.
    pub fn activation_values(&self) -> usize {
        let width = self.k.weight().rows();
        let own_v_norm = self.values_before_norm() == Some(1);
        (2 + usize::from(self.k_norm.is_some()) + usize::from(own_v_norm)) * width
    }

    /// Where the values before their norm are saved: apart (1), or with the keys before theirs (0), which they then are.
    fn values_before_norm(&self) -> Option<usize> {
        self.v_norm.as_ref()?;
        Some(usize::from(self.v.is_some() || self.k_norm.is_none() || self.norms_rotated))
    }

    /// The keys and values of the normed input; `rotate` rotates keys.
    pub fn project(&self, input: &T::PackedLhs<'_>, rotate: &Rotation<'_, T>) -> ProjectedKeysAndValues<T> {
        let (mut k, zk) = self.k.forward(input);
        let (mut v, zv) = match &self.v {
            Some(v) => v.forward(input),
            None => (k.clone(), None),
        };
        let mut before_norm = [None, None];
        if let Some(norm) = &self.v_norm {
            let normed = norm.forward(v.view());
            let before = std::mem::replace(&mut v, normed);
            // What both are made of is saved once.
            match self.values_before_norm() == Some(0) {
                true => T::recycle(before),
                false => before_norm[1] = Some(before),
            }
        }
        if self.norms_rotated {
            rotate(&mut k);
        }
        if let Some(norm) = &self.k_norm {
            let normed = norm.forward(k.view());
            before_norm[0] = Some(std::mem::replace(&mut k, normed));
        }
        if !self.norms_rotated {
            rotate(&mut k);
        }
        ProjectedKeysAndValues { k, v, before_norm, z: [zk, zv] }
    }

    /// From dk = dL/dk, and dv = dL/dv: gives the gradients of terms to `sink`, and adds the gradient with
    /// respect to the normed input, which is given if a matrix reads it, to `dinput`, if given.
    pub fn backward(
        &self,
        [mut dk, dv]: [Array2<T>; 2],
        saved: KeysAndValuesActivations<T>,
        input: Option<ArrayView2<T>>,
        (sink, rotate_back): (&mut dyn TermSink<T>, &Rotation<'_, T>),
        mut dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let KeysAndValuesActivations { before_norm: [k, v], z: [zk, zv], .. } = saved;
        let through = |norm: &Option<Norm<T>>, x: Option<&SavedActivation<T>>, d: Array2<T>| {
            let (Some(norm), Some(x)) = (norm, x) else { return d };
            let mut dx = Array2::zeros(d.dim());
            norm.backward(x, d.view(), &mut dx);
            T::recycle(d);
            dx
        };
        if !self.norms_rotated {
            rotate_back(&mut dk);
        }
        let mut dk = through(&self.k_norm, k.as_ref(), dk);
        if self.norms_rotated {
            rotate_back(&mut dk);
        }
        let dv = through(&self.v_norm, v.as_ref().or(k.as_ref()), dv);
        match &self.v {
            Some(v) => {
                self.k.backward(dk.into(), zk.as_ref(), input, sink, dinput.as_deref_mut());
                v.backward(dv.into(), zv.as_ref(), input, sink, dinput);
            }
            None => {
                add(&mut dk, dv.view());
                T::recycle(dv);
                self.k.backward(dk.into(), zk.as_ref(), input, sink, dinput);
            }
        }
    }
}

/// The keys and values that a block has computed, `[rows, kv_heads * head_dim]` each.
#[derive(Debug)]
pub struct KvCache<T> {
    pub(super) keys: Array2<T>,
    pub(super) values: Array2<T>,
}

impl<T: Real> KvCache<T> {
    /// For this many rows.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { keys: Array2::zeros((rows, width)), values: Array2::zeros((rows, width)) }
    }

    /// Makes room for at least this many rows.
    pub fn grow(&mut self, rows: usize) {
        for cache in [&mut self.keys, &mut self.values] {
            let missing = rows.saturating_sub(cache.nrows());
            cache.append(Axis(0), Array2::zeros((missing, cache.ncols())).view()).expect("the same width");
        }
    }
}
