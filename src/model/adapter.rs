//! Attaching an adapter to the transformer.

use curmerge_formats::adapter::AdapterTarget;
use ndarray::Array2;

use super::block::Block;
use super::linear::Linear;
use super::terms::{CurTerm, LoraTerm, LoraXsTerm, Probe};
use super::transformer::Transformer;
use crate::base::layer_part;
use crate::kernels::Real;
use crate::lora::LoraTarget;
use crate::{Error, Result};

impl<'b, T: Real> Transformer<'b, T> {
    /// Attaches a CURLoRA term to each target's matrix: C is gathered from the base, U is the target's.
    /// Gradients have the order of `targets`.
    ///
    /// Only names, indices and the shape of U must fit. If the adapter was read from a file, check first with
    /// [`fingerprint::check`](crate::cur::fingerprint::check) that it was made on the values of this base.
    ///
    /// # Errors
    /// A name that is not that of an adaptable matrix of the blocks; an index outside the matrix; a U of
    /// another shape.
    pub fn attach(&mut self, targets: &[AdapterTarget], scale: f32) -> Result<()> {
        for target in targets {
            let slot = self.trained_matrices();
            let refuse = |problem| misfit(&target.name, problem);
            let (layer, linear) = self.linear_mut(&target.name)?;
            let weight = linear.weight();
            let within = |index: &[u32], size: usize| index.iter().all(|&i| (i as usize) < size);
            if !within(&target.cols, weight.cols()) || !within(&target.rows, weight.rows()) {
                return Err(refuse("has indices outside the matrix of this model"));
            }
            let (m, c, r) = (weight.rows(), target.cols.len(), target.rows.len());
            let matrix = |rows, cols, values: Vec<f32>| {
                let values = values.into_iter().map(T::from_f32).collect();
                Array2::from_shape_vec((rows, cols), values).map_err(|_| refuse("has a U of another shape"))
            };
            linear.term = Some(Box::new(CurTerm {
                slot,
                rows: target.rows.clone(),
                c: matrix(m, c, weight.gather_columns(&target.cols))?,
                u: matrix(c, r, target.u.clone())?,
                scale: T::from_f32(scale),
            }));
            self.terms.push((layer, target.name.clone()));
        }
        Ok(())
    }

    /// Attaches the term of a LoRA to each target's matrix: `scale B A`, or `scale B U A` of LoRA-XS. Trained
    /// matrices have the order of `targets`; A comes before B.
    ///
    /// # Errors
    /// A name that is not that of an adaptable matrix of the blocks; matrices of other shapes.
    pub fn attach_lora(&mut self, targets: &[LoraTarget], scale: f32) -> Result<()> {
        for LoraTarget { name, a, b, u } in targets {
            let slot = self.trained_matrices();
            let (layer, linear) = self.linear_mut(name)?;
            let (weight, rank) = (linear.weight(), a.nrows());
            let fits = a.ncols() == weight.cols() && b.dim() == (weight.rows(), rank);
            if !fits || u.as_ref().is_some_and(|u| u.dim() != (rank, rank)) {
                return Err(misfit(name, "has matrices of another shape"));
            }
            let [a, b] = [a, b].map(|x| x.mapv(T::from_f32));
            let scale = T::from_f32(scale);
            linear.term = Some(match u {
                Some(u) => Box::new(LoraXsTerm { slot, a, b, u: u.mapv(T::from_f32), scale }),
                None => Box::new(LoraTerm { slot, a, b, scale }),
            });
            self.terms.push((layer, name.clone()));
        }
        Ok(())
    }

    /// Keeps the attached terms as they are, so that those of another adapter can be attached beside them. Each
    /// adds to the product with the base's matrix, as in a merge. Such a model runs, and is not trained.
    pub fn freeze_terms(&mut self) {
        self.terms.clear();
        self.blocks.iter_mut().flat_map(Block::adaptable_mut).for_each(Linear::freeze_term);
    }

    /// The model without its terms. Both share the frozen weights and what is packed of them.
    #[must_use]
    pub fn without_terms(&self) -> Self {
        let mut base = self.clone();
        base.terms.clear();
        for linear in base.blocks.iter_mut().flat_map(Block::adaptable_mut) {
            (linear.term, linear.frozen_terms) = (None, Vec::new());
        }
        base
    }

    /// Attaches a probe to the matrix of this name, which must have no term.
    ///
    /// # Errors
    /// A name that is not that of an adaptable matrix of the blocks.
    ///
    /// # Panics
    /// In a pass, at an index outside the matrix.
    pub fn attach_probe(&mut self, name: &str, probe: Probe) -> Result<()> {
        let (layer, linear) = self.linear_mut(name)?;
        linear.term = Some(Box::new(probe));
        self.terms.push((layer, name.to_owned()));
        Ok(())
    }

    /// The block and the layer of the adaptable matrix of this name.
    fn linear_mut(&mut self, name: &str) -> Result<(usize, &mut Linear<'b, T>)> {
        let roles = self.architecture.tensors.targets;
        let found = layer_part(name).and_then(|(layer, part)| {
            let (role, _) = roles.iter().find(|(_, name)| *name == part)?;
            self.architecture.blocks_with(part).include(self.config.block_kind(layer)).then_some(())?;
            Some((layer, self.blocks.get_mut(layer)?.linear_mut(role)?))
        });
        found.ok_or_else(|| misfit(name, "is not a matrix of this model"))
    }

    /// The number of trained matrices.
    fn trained_matrices(&self) -> usize {
        self.blocks.iter().flat_map(Block::terms).map(|term| term.trained().len()).sum()
    }

    /// Copies the U of each attached term back into the targets that were given to [`Self::attach`].
    pub fn store(&mut self, targets: &mut [AdapterTarget])
    where
        T: Into<f32>,
    {
        for (target, u) in targets.iter_mut().zip(self.trainable_mut()) {
            target.u = u.iter().map(|&u| u.into()).collect();
        }
    }

    /// Copies the trained matrices back into the targets that were given to [`Self::attach_lora`].
    pub fn store_lora(&mut self, targets: &mut [LoraTarget])
    where
        T: Into<f32>,
    {
        let mut trained = self.trainable_mut().into_iter();
        for LoraTarget { a, b, u, .. } in targets {
            let matrices = match u {
                Some(u) => vec![u],
                None => vec![a, b],
            };
            for (matrix, trained) in matrices.into_iter().zip(&mut trained) {
                *matrix = trained.mapv(Into::into);
            }
        }
    }

    /// The trained matrices in the order of their slots: those of each term, in the order in which the terms
    /// were attached. CURLoRA has one, U `[c, r]`.
    pub fn trainable_mut(&mut self) -> Vec<&mut Array2<T>> {
        let mut terms: Vec<_> = self
            .blocks
            .iter_mut()
            .flat_map(Block::adaptable_mut)
            .filter_map(|linear| linear.term.as_mut())
            .collect();
        terms.sort_by_key(|term| term.first_slot());
        terms.into_iter().flat_map(|term| term.trained_mut()).collect()
    }

    /// The trained matrices that the change of the model is proportional to, one of each term: zeros in them
    /// change nothing, and a factor on all of them is one on the change. U of CURLoRA, B of LoRA.
    pub fn outer_mut(&mut self) -> Vec<&mut Array2<T>> {
        let outer = self.outer_slots();
        let trained = self.trainable_mut().into_iter().enumerate();
        trained.filter(|(slot, _)| outer.contains(slot)).map(|(_, matrix)| matrix).collect()
    }

    /// The slots of [`Self::outer_mut`].
    pub fn outer_slots(&self) -> Vec<usize> {
        let terms = self.blocks.iter().flat_map(Block::terms).filter(|term| !term.trained().is_empty());
        let mut slots: Vec<_> = terms.map(|term| term.first_slot() + term.outer()).collect();
        slots.sort_unstable();
        slots
    }
}

/// The error of a target that does not fit the model.
fn misfit(target: &str, problem: &str) -> Error {
    let help = "the adapter belongs to another model; use the base that it was trained on";
    Error::request(format!("target '{}' {problem}", target.escape_debug()), help)
}
