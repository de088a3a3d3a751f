//! Which blocks of a GGUF file have something in place of attention, by the heads of keys and values that they have not;
//! and which have one part alone.

use curmerge_formats::gguf::{GgufModel, Value};

use super::{DAMAGED, counts};
use crate::arch::Architecture;
use crate::base::config::{Config, MAX_LAYERS, StateSpaceConfig};
use crate::{Error, Result};

impl Config {
    /// Sets them, of a family that has short convolutions or state spaces.
    ///
    /// # Errors
    /// A number of heads or a width that is missing; blocks that differ in theirs.
    pub(super) fn mixers(&mut self, model: &GgufModel, architecture: &Architecture) -> Result<()> {
        let gguf = model.first();
        let key = |name: &str| format!("{}.{name}", architecture.name);
        let get = |name: &str| gguf.get(&key(name));
        let number = |name: &str| get(name).and_then(Value::as_u64).map(|n| n as usize);
        let damaged = |name: &str, problem: &str| Error::input(gguf.path(), key(name), problem, DAMAGED);
        let needed = |name: &str| number(name).ok_or_else(|| damaged(name, "missing or not a whole number"));
        let layers = self.layers;
        // A number of every block: 0, or that of all others.
        let of_blocks = |name: &str, differ: &str| {
            // The dimensions are not checked yet: they must not size an allocation.
            let one = number(name).map(|one| vec![one; layers.min(MAX_LAYERS)]);
            let mut all = one.or_else(|| get(name).and_then(counts)).unwrap_or_default();
            if all.len() < layers {
                return Err(damaged(name, "not a number for every block"));
            }
            all.truncate(layers);
            let first = all.iter().find(|&&own| own > 0).copied();
            if all.iter().any(|&own| own > 0 && Some(own) != first) {
                let help = "this variant of the architecture is not supported yet";
                return Err(Error::input(gguf.path(), key(name), differ, help));
            }
            Ok(all)
        };
        let heads = "attention.head_count_kv";
        let heads = of_blocks(heads, "blocks with attention differ in their heads")?;
        let without: Vec<bool> = heads.iter().map(|&heads| heads == 0).collect();
        if architecture.gguf.convolutions {
            self.convolution_taps = needed("shortconv.l_cache")?;
            self.convolutions = without;
            return Ok(());
        }
        let heads = needed("ssm.time_step_rank")?;
        self.state_space = Some(StateSpaceConfig {
            heads,
            head_dim: needed("ssm.inner_size")? / heads.max(1),
            groups: needed("ssm.group_count")?,
            state: needed("ssm.state_size")?,
            taps: needed("ssm.conv_kernel")?,
        });
        self.state_spaces = without;
        if architecture.gguf.one_part {
            let widths = of_blocks("feed_forward_length", "blocks differ in the width of their MLPs")?;
            self.feed_forward_alone = widths.iter().map(|&width| width > 0).collect();
            let own = self.state_spaces.iter_mut().zip(&self.feed_forward_alone);
            own.for_each(|(state_space, &feed_forward)| *state_space &= !feed_forward);
        }
        Ok(())
    }
}
