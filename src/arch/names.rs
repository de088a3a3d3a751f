//! One line of a table: a tensor, under both of its names.

use super::{HeadKind, Size};

/// How one canonical tensor is stored.
#[derive(Clone, Copy, Debug)]
pub struct TensorNames {
    /// Canonical name; `{}` stands for a number: the layer's, then the expert's.
    pub canonical: &'static str,
    /// Hugging Face's name, with the same `{}`.
    pub hugging_face: &'static str,
    /// `[out, in]` of a matrix, `[n]` of a vector.
    pub shape: &'static [Size],
    /// Hugging Face keeps the two rotary halves of each head apart where GGUF interleaves them.
    pub rotary_halves: Option<HeadKind>,
    /// Hugging Face stores the matrix as `[in, out]`.
    pub transposed: bool,
    /// Hugging Face stores one less than what the norm multiplies by.
    pub unit_offset: bool,
    /// Whether there may be, or must be, a bias beside it.
    pub bias: Option<Presence>,
    /// Whether the tensor itself must be there.
    pub presence: Presence,
}

/// Whether something must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In every model.
    Always,
    /// In some models.
    Sometimes,
}

impl TensorNames {
    /// A tensor that both containers store alike.
    pub(super) const fn new(
        canonical: &'static str,
        hugging_face: &'static str,
        shape: &'static [Size],
    ) -> Self {
        Self {
            canonical,
            hugging_face,
            shape,
            rotary_halves: None,
            transposed: false,
            unit_offset: false,
            bias: None,
            presence: Presence::Always,
        }
    }

    pub(super) const fn rotary(mut self, heads: HeadKind) -> Self {
        self.rotary_halves = Some(heads);
        self
    }

    pub(super) const fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    pub(super) const fn unit_offset(mut self) -> Self {
        self.unit_offset = true;
        self
    }

    pub(super) const fn biased(mut self) -> Self {
        self.bias = Some(Presence::Always);
        self
    }

    pub(super) const fn may_be_biased(mut self) -> Self {
        self.bias = Some(Presence::Sometimes);
        self
    }

    pub(super) const fn optional(mut self) -> Self {
        self.presence = Presence::Sometimes;
        self
    }
}

/// `name` under the pattern `to`, if it fits `from`: the same numbers in place of `{}`.
pub(crate) fn renamed(name: &str, from: &str, to: &str) -> Option<String> {
    let mut numbers = numbers(name, from)?.into_iter();
    let mut parts = to.split("{}");
    let first = parts.next()?.to_string();
    parts.try_fold(first, |made, part| Some(made + numbers.next()? + part))
}

/// Whether the name fits the pattern.
pub(super) fn fits(name: &str, pattern: &str) -> bool {
    numbers(name, pattern).is_some()
}

/// The numbers that stand in `name` for the `{}` of the pattern.
fn numbers<'n>(name: &'n str, pattern: &str) -> Option<Vec<&'n str>> {
    let mut parts = pattern.split("{}");
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut found = Vec::new();
    for part in parts {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        // One spelling of a number, so that two names never mean one tensor.
        if number.parse::<u32>().ok()?.to_string() != number {
            return None;
        }
        found.push(number);
        rest = after.strip_prefix(part)?;
    }
    rest.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_carried_over() {
        let (from, to) = ("model.layers.{}.mlp.experts.{}.up_proj", "blk.{}.ffn_up_exps[{}]");
        let canonical = renamed("model.layers.12.mlp.experts.3.up_proj", from, to).unwrap();
        assert_eq!(canonical, "blk.12.ffn_up_exps[3]");
        assert_eq!(renamed(&canonical, to, from).unwrap(), "model.layers.12.mlp.experts.3.up_proj");
        assert_eq!(renamed("model.norm", "model.norm", "output_norm").unwrap(), "output_norm");
        for other in
            ["blk.1.ffn_up_exps", "blk.01.ffn_up_exps[0]", "blk..ffn_up_exps[0]", "blk.1.ffn_up_exps[0]x"]
        {
            assert!(!fits(other, to), "{other}");
        }
    }
}
