//! Adapters with a known U, made without training.

use curmerge::base::Base;
use curmerge::cur::{self, Selection, fingerprint};
use curmerge_formats::adapter::{Adapter, AdapterTarget};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::tiny::uniform;

/// The options of an adapter.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// The targets, as `--targets` takes them.
    pub targets: &'a str,
    /// How many rows and columns are chosen from each target.
    pub rank: u32,
    /// The factor s of the change `s C U R`.
    pub scale: f32,
    /// How rows and columns are chosen.
    pub selection: Selection,
    /// The seed of the selection.
    pub seed: u64,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self { targets: "all", rank: 4, scale: 0.5, selection: Selection::Inverse, seed: 1 }
    }
}

impl Recipe<'_> {
    /// Makes the adapter. `fill` gets each target with its index and a U of zeros.
    pub fn adapter(&self, base: &Base, fill: impl FnMut((usize, &mut AdapterTarget))) -> Adapter {
        self.adapter_of(base, &base.targets(self.targets, None).unwrap(), fill)
    }

    /// Makes the adapter on the targets with these canonical names.
    pub fn adapter_of(
        &self,
        base: &Base,
        names: &[String],
        fill: impl FnMut((usize, &mut AdapterTarget)),
    ) -> Adapter {
        let mut targets = cur::new_targets(base, names, self.rank, self.selection, self.seed).unwrap();
        targets.iter_mut().enumerate().for_each(fill);
        Adapter {
            base: fingerprint::base_info(base, &targets),
            rank: self.rank,
            scale: self.scale,
            selection: self.selection.to_string(),
            seed: self.seed,
            training: None,
            targets,
        }
    }
}

/// Fills U with random numbers in `[-size, size)`.
pub fn random(size: f32, seed: u64) -> impl FnMut((usize, &mut AdapterTarget)) {
    let mut stream = ChaCha20Rng::seed_from_u64(seed);
    move |(_, target)| target.u.fill_with(|| size * uniform(&mut stream))
}

/// Fills U with a single value.
pub fn constant(value: f32) -> impl FnMut((usize, &mut AdapterTarget)) {
    move |(_, target)| target.u.fill(value)
}
