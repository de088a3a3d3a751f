//! The order in which a container stores the rows of a matrix, or its columns.
//!
//! GGUF's order is the canonical one. Hugging Face has others:
//!
//! - of llama's q and k, it stores the two rotary halves of each head apart, while GGUF interleaves them
//!   (`LlamaModel.permute` in convert_hf_to_gguf.py);
//! - of the gate and up projections of gpt-oss's experts, it stores the outputs in turn;
//! - of queries, keys and values in one matrix (GPT-NeoX, Falcon), it stores those of each key and value head together;
//! - of the value heads of linear attention, it stores those that share a key head together, while GGUF repeats the
//!   key heads (`_LinearAttentionVReorderBase` there).

use std::ops::Range;

/// The order of the rows of one matrix, or of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOrder(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Canonical,
    /// The halves of each head of so many rows are stored apart.
    Halves {
        head_rows: usize,
    },
    /// Other rows lie between: each is so many after the one before.
    Spaced {
        step: usize,
    },
    /// After `first` rows, heads of `width` rows: `groups` groups of `per_group` each are stored one after another, and
    /// the canonical order has the first of each group, then the second.
    Grouped {
        first: usize,
        groups: usize,
        per_group: usize,
        width: usize,
    },
    /// In each of `groups` groups, segments of `widths` rows are stored one after another. The canonical order has the
    /// segments `from..to` of all groups, one segment after the other; other rows may lie between. Of the heads of
    /// `head_rows` rows in the first `rotary` segments, the halves are stored apart.
    Segments {
        groups: usize,
        widths: [usize; MAX_SEGMENTS],
        from: usize,
        to: usize,
        rotary: usize,
        head_rows: usize,
    },
}

/// A group has no more segments.
const MAX_SEGMENTS: usize = 4;

impl RowOrder {
    /// GGUF's order.
    pub const CANONICAL: Self = Self(Kind::Canonical);

    /// The order of a matrix with `rows` rows in `heads` heads that stores the rotary halves of each head
    /// apart. `None` if the heads do not divide into halves.
    pub fn rotary_halves(rows: u64, heads: usize) -> Option<Self> {
        let heads = heads as u64;
        (heads > 0 && rows.is_multiple_of(2 * heads))
            .then(|| Self(Kind::Halves { head_rows: (rows / heads) as usize }))
    }

    /// The order of a matrix that stores `heads` heads of `width` rows, after its `first` rows, in `groups` groups. `None`
    /// if these are not all of its `rows`.
    pub fn grouped(rows: u64, first: usize, groups: usize, heads: usize, width: usize) -> Option<Self> {
        let whole = groups > 0
            && heads.is_multiple_of(groups)
            && heads.checked_mul(width)?.checked_add(first)? as u64 == rows;
        let per_group = heads / groups.max(1);
        let kind = match groups == 1 || per_group == 1 || width == 0 {
            true => Kind::Canonical,
            false => Kind::Grouped { first, groups, per_group, width },
        };
        whole.then_some(Self(kind))
    }

    /// The order of a matrix that stores, in each of `groups` groups, rows of several segments; `sizes` are those of all
    /// groups together. `None` if these are not whole groups of all `rows`.
    pub fn segments(rows: u64, groups: usize, sizes: &[usize]) -> Option<Self> {
        let mut widths = [0; MAX_SEGMENTS];
        let mut all = 0_usize;
        for (width, &size) in widths.iter_mut().zip(sizes) {
            if groups == 0 || size == 0 || !size.is_multiple_of(groups) {
                return None;
            }
            *width = size / groups;
            all = all.checked_add(size)?;
        }
        let kind = Kind::Segments { groups, widths, from: 0, to: sizes.len(), rotary: 0, head_rows: 0 };
        (sizes.len() <= MAX_SEGMENTS && all as u64 == rows).then_some(Self(kind))
    }

    /// The order of [`Self::segments`] that stores the rotary halves of each head of `head_rows` rows apart, in the first
    /// `rotary` segments. `None` if the heads do not divide into halves, or the segments into heads.
    pub fn with_rotary_halves(self, rotary: usize, head_rows: usize) -> Option<Self> {
        let Kind::Segments { groups, widths, from, to, .. } = self.0 else { return None };
        let whole =
            |width: &usize| head_rows > 0 && head_rows.is_multiple_of(2) && width.is_multiple_of(head_rows);
        let own = widths.get(..rotary)?;
        own.iter().all(whole).then_some(Self(Kind::Segments { groups, widths, from, to, rotary, head_rows }))
    }

    /// The order of these rows of a matrix alone, counted from its first stored row; `None` if they are no rows that can be
    /// found so.
    pub fn part(self, rows: Range<usize>) -> Option<Self> {
        let Kind::Segments { groups, widths, from, to, rotary, head_rows } = self.0 else { return None };
        let mut starts = vec![0];
        for width in &widths[from..to] {
            starts.push(starts[starts.len() - 1] + groups * width);
        }
        let at = |row: usize| starts.iter().position(|&start| start == row).map(|number| from + number);
        let (from, to) = (at(rows.start)?, at(rows.end)?);
        (from < to).then_some(Self(Kind::Segments { groups, widths, from, to, rotary, head_rows }))
    }

    /// The order of rows each of which is stored `step` rows after the one before.
    pub fn spaced(step: usize) -> Self {
        Self(if step == 1 { Kind::Canonical } else { Kind::Spaced { step } })
    }

    /// Whether other rows may lie between.
    pub fn is_spaced(self) -> bool {
        matches!(self.0, Kind::Spaced { .. } | Kind::Segments { .. })
    }

    /// The number of the first of `rows` among those that are counted from the start of their [`Self::span`].
    pub fn first_within_span(self, rows: &Range<usize>) -> usize {
        match self.0 {
            Kind::Spaced { .. } => 0,
            _ => rows.start - self.span(rows.clone()).start,
        }
    }

    /// The stored position of a canonical row.
    pub fn stored_row(self, canonical: usize) -> usize {
        match self.0 {
            Kind::Canonical => canonical,
            Kind::Spaced { step } => canonical * step,
            Kind::Halves { head_rows } => apart(canonical, head_rows),
            Kind::Grouped { first, groups, per_group, width } => {
                moved(canonical, first, width, |head| head % groups * per_group + head / groups)
            }
            Kind::Segments { groups, widths, from, to, rotary, head_rows } => {
                let stride: usize = widths.iter().sum();
                let mut within = canonical;
                let mut segment = from;
                while segment + 1 < to && within >= groups * widths[segment] {
                    within -= groups * widths[segment];
                    segment += 1;
                }
                let (width, before) = (widths[segment], widths[..segment].iter().sum::<usize>());
                let (group, within) = (within / width, within % width);
                let within = if segment < rotary { apart(within, head_rows) } else { within };
                group * stride + before + within
            }
        }
    }

    /// The stored rows, in whole heads or groups, that contain these canonical rows.
    pub fn span(self, canonical: Range<usize>) -> Range<usize> {
        match self.0 {
            Kind::Canonical => canonical,
            Kind::Spaced { .. } if canonical.is_empty() => canonical,
            Kind::Spaced { step } => canonical.start * step..(canonical.end - 1) * step + 1,
            Kind::Halves { head_rows } => {
                canonical.start / head_rows * head_rows..canonical.end.div_ceil(head_rows) * head_rows
            }
            Kind::Grouped { first, .. } if canonical.end <= first => canonical,
            Kind::Grouped { first, groups, per_group, width } => {
                canonical.start.min(first)..first + groups * per_group * width
            }
            Kind::Segments { .. } if canonical.is_empty() => canonical,
            Kind::Segments { groups, widths, .. } => 0..groups * widths.iter().sum::<usize>(),
        }
    }

    /// The canonical row at the stored position `stored`, the inverse of [`Self::stored_row`].
    pub fn canonical_row(self, stored: usize) -> usize {
        match self.0 {
            Kind::Canonical => stored,
            Kind::Spaced { step } => stored / step,
            Kind::Halves { head_rows } => interleaved(stored, head_rows),
            Kind::Grouped { first, groups, per_group, width } => {
                moved(stored, first, width, |head| head % per_group * groups + head / per_group)
            }
            Kind::Segments { groups, widths, from, to, rotary, head_rows } => {
                let stride: usize = widths.iter().sum();
                let (group, mut within) = (stored / stride, stored % stride);
                let mut segment = 0;
                while segment + 1 < to && within >= widths[segment] {
                    within -= widths[segment];
                    segment += 1;
                }
                let before = groups * widths[from.min(segment)..segment].iter().sum::<usize>();
                let within = if segment < rotary { interleaved(within, head_rows) } else { within };
                before + group * widths[segment] + within
            }
        }
    }
}

/// Where a row goes if the halves of each head are stored apart.
fn apart(row: usize, head_rows: usize) -> usize {
    let (head, within) = (row / head_rows, row % head_rows);
    head * head_rows + (within % 2) * (head_rows / 2) + within / 2
}

/// The inverse of [`apart`].
fn interleaved(row: usize, head_rows: usize) -> usize {
    let (head, within) = (row / head_rows, row % head_rows);
    head * head_rows + 2 * (within % (head_rows / 2)) + within / (head_rows / 2)
}

/// Where a row goes if heads of `width` rows, after the `first` rows, go `to` other places.
fn moved(row: usize, first: usize, width: usize, to: impl Fn(usize) -> usize) -> usize {
    match row.checked_sub(first) {
        None => row,
        Some(after) => first + to(after / width) * width + after % width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_halves_interleave_within_each_head() {
        // Two heads of four rows.
        let order = RowOrder::rotary_halves(8, 2).unwrap();
        let stored: Vec<usize> = (0..8).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert!((0..8).all(|row| order.canonical_row(order.stored_row(row)) == row));
        assert_eq!((order.span(1..3), order.span(1..5), RowOrder::CANONICAL.span(1..3)), (0..4, 0..8, 1..3));
        assert!(RowOrder::rotary_halves(8, 0).is_none() && RowOrder::rotary_halves(8, 3).is_none());
    }

    #[test]
    fn rows_between_are_left_out() {
        let order = RowOrder::spaced(2);
        let stored: Vec<usize> = (0..3).map(|row| order.stored_row(row)).collect();
        assert_eq!((stored, order.span(1..3), order.span(1..1)), (vec![0, 2, 4], 2..5, 1..1));
        assert!((0..3).all(|row| order.canonical_row(order.stored_row(row)) == row));
        assert_eq!(RowOrder::spaced(1), RowOrder::CANONICAL);
        let halves = RowOrder::rotary_halves(8, 2).unwrap();
        assert_eq!((order.first_within_span(&(1..3)), halves.first_within_span(&(5..7))), (0, 1));
    }

    #[test]
    fn segments_of_all_groups_follow_one_another() {
        // Two groups of two queries, a key and a value, of two rows each.
        let order = RowOrder::segments(16, 2, &[8, 4, 4]).unwrap();
        let stored: Vec<usize> = (0..16).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]);
        assert!((0..16).all(|row| order.canonical_row(order.stored_row(row)) == row));
        let keys = order.part(8..12).unwrap();
        let stored: Vec<usize> = (0..4).map(|row| keys.stored_row(row)).collect();
        assert_eq!((stored, keys.span(1..2)), (vec![4, 5, 12, 13], 0..16));
        assert!((0..4).all(|row| keys.canonical_row(keys.stored_row(row)) == row));
        let both = order.part(8..16).unwrap();
        assert!((0..8).all(|row| both.canonical_row(both.stored_row(row)) == row));
        assert!(order.part(1..8).is_none() && order.part(8..8).is_none());
        assert!(
            RowOrder::segments(16, 3, &[8, 4, 4]).is_none()
                && RowOrder::segments(15, 2, &[8, 4, 4]).is_none()
        );
    }

    #[test]
    fn rotary_halves_of_some_segments_are_apart() {
        // Two groups of two queries, a key and a value, of four rows each.
        let order = RowOrder::segments(32, 2, &[16, 8, 8]).unwrap().with_rotary_halves(2, 4).unwrap();
        let [keys, values] = [16..24, 24..32].map(|rows| order.part(rows).unwrap());
        let stored =
            |order: RowOrder, rows: usize| (0..rows).map(|row| order.stored_row(row)).collect::<Vec<_>>();
        assert_eq!(stored(order, 8), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(stored(keys, 8), [8, 10, 9, 11, 24, 26, 25, 27]);
        assert_eq!(stored(values, 8), [12, 13, 14, 15, 28, 29, 30, 31]);
        for (order, rows) in [(order, 32), (keys, 8), (values, 8)] {
            assert!((0..rows).all(|row| order.canonical_row(order.stored_row(row)) == row));
        }
        assert!(order.with_rotary_halves(2, 3).is_none() && order.with_rotary_halves(2, 6).is_none());
    }

    #[test]
    fn grouped_heads_become_one_of_each_group() {
        // After one row, two groups of three heads of two rows.
        let order = RowOrder::grouped(13, 1, 2, 6, 2).unwrap();
        let stored: Vec<usize> = (0..13).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 1, 2, 7, 8, 3, 4, 9, 10, 5, 6, 11, 12]);
        assert!((0..13).all(|row| order.canonical_row(order.stored_row(row)) == row));
        assert_eq!((order.span(0..1), order.span(0..2), order.span(5..7)), (0..1, 0..13, 1..13));
        assert_eq!(RowOrder::grouped(12, 0, 6, 6, 2), Some(RowOrder::CANONICAL));
        assert!(RowOrder::grouped(12, 1, 2, 6, 2).is_none() && RowOrder::grouped(12, 0, 4, 6, 2).is_none());
    }
}
