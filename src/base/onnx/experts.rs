//! The matrices of single experts within the tensors of MoE and QMoE.

use std::path::Path;

use super::uses::{self, Role, Side, Use};
use super::{Draft, Drafts, names};
use crate::arch::{Architecture, Gating};
use crate::base::config::Config;
use crate::base::tensor::Slice;
use crate::{Error, Result};

/// The block that a node is in, by its path.
fn layer_of(used: &Use<'_>) -> Option<usize> {
    let mut modules = names::modules_of_node(used.node);
    modules.extend(names::module_of_initializer(used.name));
    modules.iter().find_map(|module| {
        let (_, rest) = module.rsplit_once("layers.")?;
        rest.split('.').next()?.parse().ok()
    })
}

/// Records what a tensor has of each expert, under canonical names.
///
/// # Errors
/// Another shape or another choice of experts than the configuration says; a node whose path names no block.
pub(super) fn put(
    path: &Path,
    used: &Use<'_>,
    side: Side,
    (architecture, config): (&'static Architecture, &Config),
    found: &mut Drafts,
) -> Result<()> {
    let help = "the configuration beside it is of another model, or the file is damaged";
    let error = |problem: String| uses::error(path, used.node, problem, help);
    let Some(experts) = config.experts else { return Err(error("the model has no experts".into())) };
    let layer = layer_of(used).filter(|&layer| layer < config.layers);
    let layer = layer.ok_or_else(|| error("its path names no block of the model".into()))?;
    let chosen =
        (used.node.int("k").unwrap_or(1), used.node.int("normalize_routing_weights").unwrap_or(0) != 0);
    // Another router than a softmax makes weights itself.
    let makes_itself = architecture.forward.gating != Gating::Softmax;
    if chosen.0 != experts.used as i64 || chosen.1 != experts.normalized && !makes_itself {
        let problem = format!("it chooses {} experts, their weights normalized: {}", chosen.0, chosen.1);
        return Err(error(problem));
    }
    let joined = architecture.line("blk.0.ffn_gate_up_exps[0]").is_some();
    let (parts, rows, cols): (&[&str], usize, usize) = match side {
        Side::First { .. } => (&["gate", "up"], 2 * experts.ff, config.d_model),
        Side::Second => (&["down"], config.d_model, experts.ff),
    };
    let biases = matches!(used.role, Role::ExpertBiases(_));
    if biases
        && architecture
            .line(&format!("blk.0.ffn_{}_exps[0]", if parts.len() > 1 { "up" } else { "down" }))
            .is_none_or(|line| line.bias.is_none())
    {
        return Err(error("its experts have biases, which the family has not".into()));
    }
    let mut draft = Draft::new(used);
    if !biases && used.tensor.dims.first() != Some(&(experts.count as u64)) {
        return Err(error(format!("a tensor of {:?} for {} experts", used.tensor.dims, experts.count)));
    }
    let (count, rows) = (experts.count as u64, rows as u64);
    let wanted = match (biases, &used.nbits) {
        (true, _) => vec![count, rows],
        (false, None) => vec![count, rows, cols as u64],
        (false, Some(_)) => vec![count * rows, cols as u64],
    };
    if draft.shape != wanted {
        return Err(error(format!("a tensor of {:?} where the configuration says {wanted:?}", draft.shape)));
    }
    draft.shape = if biases { vec![count * rows] } else { vec![count * rows, cols as u64] };
    let own = rows / parts.len() as u64;
    for expert in 0..count {
        for (number, part) in parts.iter().enumerate() {
            let name = match joined && parts.len() > 1 {
                true => format!("blk.{layer}.ffn_gate_up_exps[{expert}][{part}]"),
                false => format!("blk.{layer}.ffn_{part}_exps[{expert}]"),
            };
            let name = if biases { name + ".bias" } else { name };
            let (first, step) = match side {
                Side::First { in_turn: true } => (number as u64, parts.len() as u64),
                _ => (number as u64 * own, 1),
            };
            let place = Slice { start: expert * rows + first, of: count * rows, step };
            let draft = Draft { part: Some((place, own)), ..draft.clone() };
            if found.insert(name.clone(), draft).is_some() {
                let problem = "two nodes have its experts";
                let help = "this variant of the architecture is not supported yet";
                return Err(Error::input(path, format!("tensor '{name}'"), problem, help));
            }
        }
    }
    Ok(())
}
