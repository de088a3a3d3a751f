//! Patterns of tensor names, in which `{}` stands for a number.

/// `name` rewritten from the pattern `from` to the pattern `to`, keeping its numbers; `None` if it does not
/// match `from`.
pub(crate) fn renamed(name: &str, from: &str, to: &str) -> Option<String> {
    let mut numbers = numbers(name, from)?.into_iter();
    let mut parts = to.split("{}");
    let first = parts.next()?.to_string();
    parts.try_fold(first, |made, part| Some(made + numbers.next()? + part))
}

/// Whether the name matches the pattern.
pub(super) fn matches(name: &str, pattern: &str) -> bool {
    numbers(name, pattern).is_some()
}

/// The numbers in `name` at the places of `{}` in the pattern.
fn numbers<'n>(name: &'n str, pattern: &str) -> Option<Vec<&'n str>> {
    let mut parts = pattern.split("{}");
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut found = Vec::new();
    for part in parts {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        // A number has one spelling, so that no two names mean the same tensor.
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
            assert!(!matches(other, to), "{other}");
        }
    }
}
