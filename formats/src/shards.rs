//! A model's tensors shared out over files of limited size.
//!
//! A file takes tensors in their order while their data keep to the limit, as llama.cpp's `gguf-split` and
//! huggingface_hub count it: headers come on top, and a tensor beyond the limit has a file of its own.

use std::ops::Range;

/// Cuts a row of sizes into stretches whose sums keep to the limit where they can; one stretch for an empty row.
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
