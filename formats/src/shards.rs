//! Distributes a model's tensors over files of limited size.
//!
//! A file takes tensors in order while their data stay within the limit, as in llama.cpp's `gguf-split` and
//! huggingface_hub: headers are not counted, and a tensor larger than the limit gets a file of its own.

use std::ops::Range;

/// Groups consecutive sizes so that each sum stays within `limit` if it can. No sizes give one empty group.
pub fn groups(sizes: impl Iterator<Item = u64>, limit: u64) -> Vec<Range<usize>> {
    let (mut groups, mut start, mut end, mut sum) = (Vec::new(), 0, 0, 0u64);
    for size in sizes {
        sum = sum.saturating_add(size);
        if sum > limit && start < end {
            groups.push(start..end);
            (start, sum) = (end, size);
        }
        end += 1;
    }
    groups.push(start..end);
    groups
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_keep_to_the_limit_where_they_can() {
        let cut = |sizes: &[u64], limit| {
            groups(sizes.iter().copied(), limit).iter().map(|g| sizes[g.clone()].to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[3, 3, 3, 1], 6), [vec![3, 3], vec![3, 1]]);
        assert_eq!(cut(&[9, 1, 9, 2, 2], 5), [vec![9], vec![1], vec![9], vec![2, 2]]);
        assert_eq!(cut(&[1, 2], u64::MAX), [vec![1, 2]]);
        assert_eq!(cut(&[u64::MAX, u64::MAX], 7), [[u64::MAX], [u64::MAX]]);
        assert_eq!(cut(&[], 5), [Vec::<u64>::new()]);
    }
}
