//! Limits and contradictions: what no model has is damage or an attack.

use std::path::Path;

use super::{BlockSizes, Config, DeltaNetConfig, Experts, MAX_LAYERS, StateSpaceConfig};
use crate::base::rope::MAX_HEAD_DIM;
use crate::{Error, Result};

/// Larger dimensions are damage or an attack, not a model.
const MAX_DIMENSION: usize = 1 << 24;
/// Longer convolutions are damage, not a model.
const MAX_TAPS: usize = 256;
/// The experts of all blocks together.
const MAX_EXPERTS: usize = 1 << 17;

impl Config {
    /// Checks that every token has inputs for every block, if any has.
    pub(in crate::base) fn check_vocabularies(&self, path: &Path) -> Result<()> {
        let Some(inputs) = self.per_layer_inputs.filter(|inputs| inputs.vocab < self.vocab) else {
            return Ok(());
        };
        let problem = format!("{} tokens, where the model has {}", inputs.vocab, self.vocab);
        let help = "the file is damaged; download it again";
        Err(Error::input(path, "inputs of tokens for every block", problem, help))
    }

    pub(in crate::base) fn checked(mut self, path: &Path) -> Result<Self> {
        let bad = |place: &str, problem: String| {
            Err(Error::input(path, place, problem, "the file is damaged; download it again"))
        };
        let mut sizes = vec![
            ("embedding length", self.d_model),
            ("head count", self.heads),
            ("key/value head count", self.kv_heads),
            ("head length", self.head_dim),
            ("feed-forward length", self.ff),
            ("vocabulary size", self.vocab),
            ("context length", self.context),
        ];
        sizes.extend(self.window.map(|window| ("sliding window", window)));
        for own in &self.own_sizes {
            sizes.extend([
                ("key/value head count", own.kv_heads),
                ("head length", own.head_dim),
                ("feed-forward length", own.ff),
            ]);
        }
        if let Some(inputs) = self.per_layer_inputs {
            sizes.extend([
                ("width of the inputs for every block", inputs.width),
                ("tokens with inputs for every block", inputs.vocab),
            ]);
        }
        sizes.extend(self.experts.map(|experts| ("expert feed-forward length", experts.ff)));
        let latent = self.experts.and_then(|experts| experts.latent);
        sizes.extend(latent.map(|width| ("width of the experts' stream", width)));
        let shared = self.experts.and_then(|experts| experts.shared_ff);
        sizes.extend(shared.map(|ff| ("shared expert's feed-forward length", ff)));
        for (what, size) in sizes {
            if size == 0 || size > MAX_DIMENSION {
                return bad(what, format!("{size} is out of range"));
            }
        }
        let head_dims = self.own_sizes.iter().map(|own| own.head_dim).chain([self.head_dim]);
        for head_dim in head_dims {
            if head_dim > MAX_HEAD_DIM || self.heads > MAX_DIMENSION / head_dim {
                return bad(
                    "head length",
                    format!("{head_dim} of each of {} heads is out of range", self.heads),
                );
            }
        }
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return bad("block count", format!("{} is out of range", self.layers));
        }
        if self.prediction_blocks > MAX_LAYERS {
            return bad(
                "blocks that predict further tokens",
                format!("{} is out of range", self.prediction_blocks),
            );
        }
        if let Some(heads) = self.delta_net {
            let DeltaNetConfig { key_heads, value_heads, key_dim, value_dim, taps, .. } = heads;
            let most =
                |count: usize, width: usize| width > MAX_HEAD_DIM || count > MAX_DIMENSION / width.max(1);
            if [key_heads, value_heads, key_dim, value_dim, taps].contains(&0)
                || most(key_heads, key_dim)
                || most(value_heads, value_dim)
                || most(value_heads * key_dim, value_dim)
                || taps > MAX_TAPS
                || !value_heads.is_multiple_of(key_heads)
            {
                let problem = format!(
                    "{key_heads} of {key_dim} for keys, {value_heads} of {value_dim} for values, and {taps} taps are out of range"
                );
                return bad("heads of linear attention", problem);
            }
        }
        if let Some(space) = self.state_space {
            let StateSpaceConfig { heads, head_dim, groups, state, taps } = space;
            let most = |count: usize, width: usize| count > MAX_DIMENSION / width.max(1);
            if [heads, head_dim, groups, state, taps].contains(&0)
                || [head_dim, state].iter().any(|&width| width > MAX_HEAD_DIM)
                || most(heads, head_dim)
                || most(heads * state, head_dim)
                || most(groups, state)
                || taps > MAX_TAPS
                || !heads.is_multiple_of(groups)
            {
                let problem = format!(
                    "{heads} of {head_dim} in {groups} groups, states of {state}, and {taps} taps are out of range"
                );
                return bad("heads of state spaces", problem);
            }
        }
        let kv_heads = self.own_sizes.iter().map(|own| own.kv_heads).chain([self.kv_heads]);
        for kv_heads in kv_heads {
            if !self.heads.is_multiple_of(kv_heads) {
                return bad("key/value head count", format!("{kv_heads} does not divide {}", self.heads));
            }
        }
        if self.per_layer_inputs.is_some_and(|inputs| inputs.width > MAX_DIMENSION / self.layers) {
            return bad("width of the inputs for every block", "it is out of range".into());
        }
        if let Some(experts) = self.experts
            && (experts.count == 0
                || experts.count > MAX_EXPERTS / self.layers
                || !(1..=experts.count).contains(&experts.used))
        {
            return bad("experts", format!("{} of {} are used", experts.used, experts.count));
        }
        if let Some(Experts { count, used, groups: [groups, used_groups], .. }) = self.experts {
            let of_group = count / groups.max(1);
            let whole = groups > 0 && count.is_multiple_of(groups) && (1..=groups).contains(&used_groups);
            // A group is known by its two best.
            if !whole || groups > 1 && (of_group < 2 || used > used_groups * of_group) {
                let problem = format!("{used} of {count} are chosen from {used_groups} of {groups} groups");
                return bad("groups of experts", problem);
            }
        }
        let finite_positive = |x: f64| x.is_finite() && x > 0.0;
        if !(0.0..1.0).contains(&self.norm_eps) {
            return bad("norm epsilon", "not a usable number".into());
        }
        let factors = [
            ("attention scale", Some(self.attention_scale)),
            ("attention soft cap", self.attention_cap),
            ("logit soft cap", self.logit_cap),
            ("embedding scale", Some(self.embedding_scale)),
            ("residual scale", Some(self.residual_scale)),
            ("logit scale", Some(self.logit_scale)),
            ("factor of the experts' weights", self.experts.map(|experts| experts.scale)),
        ];
        for (what, factor) in factors {
            if !factor.is_none_or(finite_positive) {
                return bad(what, "not a positive number".into());
            }
        }
        if self.temperature.is_some_and(|t| !t.beta.is_finite() || t.beta < 0.0 || t.length == 0) {
            return bad("attention temperature", "not a usable number".into());
        }
        // Also those that no block has: they are computed with the others.
        let longest =
            (0..self.layers).map(|layer| self.sizes_of(layer).head_dim).max().unwrap_or(self.head_dim);
        let of_blocks =
            (0..self.layers).filter_map(|layer| Some((self.rope_of(layer)?, self.sizes_of(layer).head_dim)));
        let of_model = self.rope.iter().chain(&self.local_rope).map(|rope| (rope, longest));
        if let Some((place, problem)) =
            of_blocks.chain(of_model).find_map(|(rope, head_dim)| rope.problem(head_dim))
        {
            return bad(place, problem);
        }
        // Beyond every sequence that there may be, a window hides nothing.
        self.window = self.window.filter(|_| self.windowed.contains(&true));
        if self.window.is_none() {
            self.windowed.clear();
        }
        if !self.linear_attention.contains(&true) {
            self.linear_attention.clear();
        }
        if !self.dense.contains(&true) {
            self.dense.clear();
        } else if !self.dense.contains(&false) {
            return bad("blocks without experts", "no block has experts".into());
        }
        if !self.state_spaces.contains(&true) {
            self.state_spaces.clear();
        }
        if !self.keys_as_values.contains(&true) {
            self.keys_as_values.clear();
        }
        if !self.convolutions.contains(&true) {
            self.convolutions.clear();
        } else if !(1..=MAX_TAPS).contains(&self.convolution_taps) {
            return bad("taps of the convolutions", format!("{} is out of range", self.convolution_taps));
        }
        let usual = BlockSizes { kv_heads: self.kv_heads, head_dim: self.head_dim, ff: self.ff };
        if self.own_sizes.iter().all(|own| *own == usual) {
            self.own_sizes.clear();
        }
        self.check_vocabularies(path)?;
        if self.sharing_blocks >= self.layers {
            return bad("blocks that share keys", format!("{} of {}", self.sharing_blocks, self.layers));
        }
        for layer in self.layers - self.sharing_blocks..self.layers {
            let (source, [own, theirs]) =
                (self.keys_of(layer), [layer, self.keys_of(layer)].map(|i| self.sizes_of(i)));
            if source == layer {
                return bad("blocks that share keys", format!("none before has those of block {layer}"));
            }
            if (own.kv_heads, own.head_dim) != (theirs.kv_heads, theirs.head_dim) {
                return bad(
                    "blocks that share keys",
                    format!("block {layer} has other heads than block {source}"),
                );
            }
        }
        if !self.unrotated.contains(&true) {
            self.unrotated.clear();
        }
        Ok(self)
    }
}
