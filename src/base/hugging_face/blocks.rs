//! What differs between the blocks of a model, by its config.json.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::config::Fields;
use crate::arch::{ClassOption, WindowedLayers, is_windowed};
use crate::base::config::{BlockSizes, Config, MAX_LAYERS, StateSpaceConfig};
use crate::{Error, Result};

/// The part of a block that has one alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    StateSpace,
    Attention,
    Mlp,
    Experts,
}

impl Fields {
    /// Whether all query heads have one key and value head, whatever their number is said to be.
    pub(super) fn shares_one_key_head(&self) -> bool {
        let class = &self.architecture.hugging_face;
        class.has(ClassOption::NewDecoder)
            && !self.flag("new_decoder_architecture")
            && self.flag("multi_query")
    }

    /// Whether each of the two parallel parts of a block has a norm of its own.
    pub(super) fn two_norms(&self) -> bool {
        let class = &self.architecture.hugging_face;
        let new = class.has(ClassOption::NewDecoder) && self.flag("new_decoder_architecture");
        new && self.count("num_ln_in_parallel_attn").unwrap_or(2) == 2
    }

    /// Whether each block has no rotary embedding, in classes that list such blocks.
    pub(super) fn unrotated(&self, layers: usize) -> Vec<bool> {
        if let Some(listed) = self.json["no_rope_layers"].as_array() {
            let rotates = |layer: usize| listed.get(layer).is_none_or(|flag| *flag != 0 && *flag != false);
            return (0..layers).map(|layer| !rotates(layer)).collect();
        }
        let period = self.count("no_rope_layer_interval").unwrap_or(0);
        (0..layers).map(|layer| !is_windowed(layer, period)).collect()
    }

    /// Whether each block has linear attention.
    ///
    /// # Errors
    /// A kind of block that the class does not have, or no kind.
    pub(super) fn linear_attention(&self, layers: usize) -> Result<Vec<bool>> {
        if let Some(listed) = self.listed_kinds(layers, "linear_attention") {
            return listed;
        }
        let interval = self.count("full_attention_interval").unwrap_or(0);
        Ok((0..layers).map(|layer| is_windowed(layer, interval)).collect())
    }

    /// Whether each block is of this kind by `layer_types`, which has no other than full attention.
    fn listed_kinds(&self, layers: usize, wanted: &str) -> Option<Result<Vec<bool>>> {
        let kinds = self.json["layer_types"].as_array()?;
        let kind = |layer: usize| match kinds.get(layer).and_then(Json::as_str) {
            Some("full_attention") => Ok(false),
            Some(other) if other == wanted => Ok(true),
            _ => {
                let problem = format!("block {layer} is neither {wanted} nor full_attention");
                Err(Error::input(&self.path, "layer_types", problem, "download the folder again"))
            }
        };
        Some((0..layers).map(kind).collect())
    }

    /// Whether each block has a short convolution in place of attention.
    ///
    /// # Errors
    /// A kind of block that the class does not have, or no kind.
    pub(super) fn convolutions(&self, layers: usize) -> Result<Vec<bool>> {
        if let Some(listed) = self.listed_kinds(layers, "conv") {
            return listed;
        }
        let listed = self.json["full_attn_idxs"].as_array();
        let attends = |layer: usize| listed.is_none_or(|listed| listed.iter().any(|own| *own == layer));
        Ok((0..layers).map(|layer| !attends(layer)).collect())
    }

    /// How many blocks the model has.
    ///
    /// # Errors
    /// The number is missing.
    pub(super) fn layers(&self) -> Result<usize> {
        match self.architecture.hugging_face.has(ClassOption::BlocksOfOnePart) {
            true => Ok(self.parts()?.len()),
            false => self.needed("num_hidden_layers"),
        }
    }

    /// The part that each block has, in a class whose blocks have one.
    fn parts(&self) -> Result<Vec<Part>> {
        let (key, pattern) = ("layers_block_type", "hybrid_override_pattern");
        let unknown = |key: &str, layer: usize| {
            let problem = format!("block {layer} is of a kind that is not known");
            Error::input(&self.path, key, problem, "this variant of the architecture is not supported yet")
        };
        if let Some(kinds) = self.json[key].as_array() {
            let part = |(layer, kind): (usize, &Json)| match kind.as_str() {
                Some("linear_attention" | "mamba") => Ok(Part::StateSpace),
                Some("full_attention" | "attention") => Ok(Part::Attention),
                Some("mlp") => Ok(Part::Mlp),
                Some("moe") => Ok(Part::Experts),
                _ => Err(unknown(key, layer)),
            };
            return kinds.iter().enumerate().map(part).collect();
        }
        let kinds = self.json[pattern].as_str().ok_or_else(|| {
            let help = "the file is damaged; download it again";
            Error::input(&self.path, pattern, "missing", help)
        })?;
        let part = |(layer, kind)| match kind {
            'M' => Ok(Part::StateSpace),
            '*' => Ok(Part::Attention),
            '-' => Ok(Part::Mlp),
            'E' => Ok(Part::Experts),
            _ => Err(unknown(pattern, layer)),
        };
        kinds.chars().enumerate().map(part).collect()
    }

    /// Sets which part each block has, in a class whose blocks have one, and the heads of state spaces.
    ///
    /// # Errors
    /// A number that is missing; limited time steps; MLPs in a model with experts, which GGUF cannot express.
    pub(super) fn blocks_of_one_part(&self, config: &mut Config) -> Result<()> {
        let parts = self.parts()?;
        if let Some(layer) = parts.iter().position(|part| *part == Part::Mlp)
            && parts.contains(&Part::Experts)
        {
            let problem = format!("block {layer} is an MLP, in a model with experts");
            let help = "this variant of the architecture is not supported yet";
            return Err(Error::input(&self.path, "layers_block_type", problem, help));
        }
        config.state_spaces = parts.iter().map(|part| *part == Part::StateSpace).collect();
        config.feed_forward_alone =
            parts.iter().map(|part| matches!(part, Part::Mlp | Part::Experts)).collect();
        self.state_space_heads(config)
    }

    /// Sets the heads of state spaces, and which blocks have one.
    ///
    /// # Errors
    /// A kind of block that the class does not have; a number that is missing; limited time steps.
    pub(super) fn state_spaces(&self, config: &mut Config) -> Result<()> {
        self.state_space_heads(config)?;
        let layers = 0..config.layers.min(MAX_LAYERS);
        let Some(kinds) = self.json["layer_types"].as_array() else {
            config.state_spaces = layers.map(|_| true).collect();
            return Ok(());
        };
        let kind = |layer: usize| match kinds.get(layer).and_then(Json::as_str) {
            Some("attention" | "full_attention") => Ok(false),
            Some("mamba" | "linear_attention") => Ok(true),
            _ => {
                let problem = format!("block {layer} is neither mamba nor attention");
                Err(Error::input(&self.path, "layer_types", problem, "download the folder again"))
            }
        };
        config.state_spaces = layers.map(kind).collect::<Result<_>>()?;
        Ok(())
    }

    /// Sets the heads of state spaces.
    fn state_space_heads(&self, config: &mut Config) -> Result<()> {
        let heads = self.needed("mamba_n_heads")?;
        let inner = self.needed("mamba_expand")?.saturating_mul(config.d_model);
        config.state_space = Some(StateSpaceConfig {
            heads,
            // "auto" in some folders.
            head_dim: self.count("mamba_d_head").unwrap_or(inner / heads.max(1)),
            groups: self.needed("mamba_n_groups")?,
            state: self.needed("mamba_d_state")?,
            taps: self.needed("mamba_d_conv")?,
        });
        let unlimited = match self.json["time_step_limit"].as_array().map(Vec::as_slice) {
            // Infinity is no number of JSON.
            Some([least, most]) => *least == 0.0 && !most.is_number(),
            Some(_) => false,
            None => true,
        };
        if !unlimited {
            let help = "this variant of the architecture is not supported yet";
            return Err(Error::input(&self.path, "time_step_limit", "time steps are limited", help));
        }
        Ok(())
    }

    /// Whether each block has a sliding window.
    pub(super) fn windowed(&self, layers: usize, unrotated: &[bool]) -> Vec<bool> {
        let class = self.architecture.hugging_face.windows;
        let switched = matches!(
            class,
            WindowedLayers::Switched
                | WindowedLayers::SwitchedUpper
                | WindowedLayers::SwitchedEveryOther
                | WindowedLayers::SwitchedUnrotated
        );
        let off = switched && self.json["use_sliding_window"].as_bool() == Some(false);
        if class == WindowedLayers::None || off {
            return vec![false; layers];
        }
        // The class lets the last block attend to everything, whatever the list says.
        let always_global = self.architecture.hugging_face.has(ClassOption::HeadsByKind);
        let not_last = |layer: usize| !always_global || layer + 1 < layers;
        if let Some(kinds) = self.json["layer_types"].as_array() {
            let kind = |layer: usize| kinds.get(layer).and_then(Json::as_str);
            return (0..layers)
                .map(|layer| kind(layer) == Some("sliding_attention") && not_last(layer))
                .collect();
        }
        if let Some(kinds) = self.json["sliding_window_pattern"].as_str().filter(|kinds| !kinds.is_empty()) {
            return kinds.chars().cycle().take(layers).map(|kind| kind == 'L').collect();
        }
        let period = self.count("sliding_window_pattern");
        // Windows that are switched are off unless use_sliding_window is true.
        let asked = self.json["use_sliding_window"].as_bool() == Some(true);
        let first = self.count("max_window_layers").unwrap_or(if asked { 28 } else { 0 });
        let windowed = |layer: usize| match (period, class) {
            (Some(period), _) => is_windowed(layer, period) && not_last(layer),
            (None, WindowedLayers::SwitchedUnrotated) => asked && unrotated[layer],
            (None, WindowedLayers::SwitchedUpper) => asked && layer >= first,
            (None, WindowedLayers::SwitchedEveryOther) => asked && layer.is_multiple_of(2) && layer < first,
            (None, WindowedLayers::Switched) => asked,
            (None, _) => true,
        };
        (0..layers).map(windowed).collect()
    }

    /// Sets the sizes of blocks with a window and of those without, and which blocks share keys, in classes with two
    /// kinds of heads. Before, `config` has the sizes of blocks with a window.
    ///
    /// # Errors
    /// `per_layer_config` that is not read so.
    pub(super) fn heads_by_kind(&self, config: &mut Config) -> Result<()> {
        let layers = config.windowed.len();
        let local = config.sizes_of(0);
        let equal = self.json["attention_k_eq_v"] == true;
        // transformers 5.23 writes the sizes of blocks in place of the global keys.
        let listed = self.json["per_layer_config"].as_object();
        // Its keys may begin with zeros.
        let listed: Option<BTreeMap<usize, &Json>> = listed.map(|listed| {
            listed.iter().filter_map(|(block, own)| Some((block.parse().ok()?, own))).collect()
        });
        let own = |layer: usize, key: &str| match &listed {
            Some(listed) => listed.get(&layer).and_then(|own| own[key].as_u64()).map(|n| n as usize),
            None if config.windowed[layer] => None,
            None if key == "head_dim" => self.count("global_head_dim"),
            None => self.count("num_global_key_value_heads").filter(|_| equal),
        };
        config.sharing_blocks = self.count("num_kv_shared_layers").unwrap_or(0);
        let first_sharing = layers.saturating_sub(config.sharing_blocks);
        let wide = self.json["use_double_wide_mlp"] == true;
        let sizes = |layer: usize| BlockSizes {
            kv_heads: own(layer, "num_key_value_heads").unwrap_or(local.kv_heads),
            head_dim: own(layer, "head_dim").unwrap_or(local.head_dim),
            ff: if wide && layer >= first_sharing { 2 * local.ff } else { local.ff },
        };
        let sizes: Vec<BlockSizes> = (0..layers).map(sizes).collect();
        config.keys_as_values = (0..layers).map(|layer| equal && !config.windowed[layer]).collect();
        if let Some(global) = sizes.iter().zip(&config.windowed).find(|(_, windowed)| !**windowed) {
            (config.kv_heads, config.head_dim) = (global.0.kv_heads, global.0.head_dim);
        }
        for (layer, (own, &windowed)) in sizes.iter().zip(&config.windowed).enumerate() {
            let alike = sizes.iter().zip(&config.windowed).find(|(_, other)| **other == windowed);
            let like = |other: &BlockSizes| (own.kv_heads, own.head_dim) == (other.kv_heads, other.head_dim);
            if !alike.is_none_or(|(other, _)| like(other)) {
                let problem = format!("block {layer} has other heads than those of its kind before");
                let help = "this variant of the architecture is not supported yet";
                return Err(Error::input(&self.path, "per_layer_config", problem, help));
            }
        }
        config.own_sizes = sizes;
        Ok(())
    }
}
