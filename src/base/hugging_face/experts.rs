//! The mixture of experts of a config.json.

use crate::arch::ClassOption;
use crate::base::config::{Experts, MAX_LAYERS};
use crate::{Error, Result};

use super::config::Fields;

impl Fields {
    /// The key that the class has for one of its options.
    fn key_of(&self, of: impl Fn(&ClassOption) -> Option<&'static str>) -> Option<&'static str> {
        self.architecture.hugging_face.options.iter().find_map(of)
    }

    /// The experts of a family that has some.
    ///
    /// # Errors
    /// Some blocks of Qwen that have none; a number that is missing.
    pub(super) fn experts(&self) -> Result<Experts> {
        let sparse_step = self.count("decoder_sparse_step").unwrap_or(1);
        let dense = self.json["mlp_only_layers"].as_array().is_some_and(|layers| !layers.is_empty());
        if sparse_step != 1 || dense {
            let problem = "some blocks have no experts";
            let help = "this variant of the architecture is not supported yet";
            return Err(Error::input(&self.path, "decoder_sparse_step", problem, help));
        }
        let ff = self.needed("moe_intermediate_size")?;
        let times = self.key_of(|option| match option {
            ClassOption::SharedExperts(key) => Some(key),
            _ => None,
        });
        let shared_ff = match times {
            Some(key) => {
                let times = self.count(key).filter(|&times| times > 0);
                // What is out of range is refused with the other sizes.
                times.map(|times| times.saturating_mul(ff))
            }
            None if self.architecture.has_shared_expert() => {
                Some(self.needed("shared_expert_intermediate_size")?)
            }
            None => None,
        };
        let class = &self.architecture.hugging_face;
        let groups = match class.has(ClassOption::ExpertGroups) {
            true => [self.needed("n_group")?, self.needed("topk_group")?],
            false => [1, 1],
        };
        let bias = self.key_of(|option| match option {
            ClassOption::SelectionBias(key) => Some(key),
            _ => None,
        });
        Ok(Experts {
            count: self.needed("num_experts")?,
            used: self.needed("num_experts_per_tok")?,
            ff,
            shared_ff,
            latent: match class.has(ClassOption::LatentExperts) {
                true => self.count("moe_latent_size").filter(|&width| width != 0),
                false => None,
            },
            normalized: self.flag("norm_topk_prob"),
            scale: match class.has(ClassOption::ExpertScale) {
                true => self.number("routed_scaling_factor").unwrap_or(1.0),
                false => 1.0,
            },
            groups,
            selection_bias: bias.is_none_or(|key| self.flag(key)),
        })
    }

    /// Whether each head of q and of k is normed, in classes that say so.
    pub(super) fn head_norms(&self) -> bool {
        let key = self.key_of(|option| match option {
            ClassOption::HeadNorms(key) => Some(key),
            _ => None,
        });
        key.is_some_and(|key| self.flag(key))
    }

    /// Whether each block has an MLP in place of experts; empty if none has.
    pub(super) fn dense(&self, layers: usize) -> Vec<bool> {
        // The dimensions are not checked yet: they must not size an allocation.
        let layers = 0..layers.min(MAX_LAYERS);
        let first = self.key_of(|option| match option {
            ClassOption::DenseFirst(key) => Some(key),
            _ => None,
        });
        if let Some(first) = first.and_then(|key| self.count(key)) {
            return layers.map(|layer| layer < first).collect();
        }
        if !self.architecture.hugging_face.has(ClassOption::ExpertInterval) {
            return Vec::new();
        }
        let first = self.count("moe_layer_start_index").unwrap_or(0);
        // -1 stands for the last block.
        let last = self.count("moe_layer_end_index").unwrap_or(usize::MAX);
        let interval = self.count("moe_layer_interval").unwrap_or(1).max(1);
        layers.map(|layer| layer < first || layer > last || !(layer + 1).is_multiple_of(interval)).collect()
    }
}
