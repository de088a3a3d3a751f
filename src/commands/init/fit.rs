//! Settings that fit into a machine's memory.
//!
//! What training holds beside the mapped file, in bytes, for matrices of m outputs at rank r:
//!
//! ```text
//! C          4 m r a matrix
//! U, Adam    16 r^2 a matrix: U, its gradient and two moments
//! Fisher     4 r^4 a matrix up to r = 16, else its samples: 2 texts r^2
//! --memory   activations and packed weights
//! the rest   what the program itself and the rows of 1024 tokens take
//! ```
//!
//! docs/measurements.md and README.md have the peaks that this is compared with.

use crate::Result;
use crate::base::Base;
use crate::commands::report::terminal;

/// Texts of the anchor at most.
const TEXTS: u64 = 400;
/// The program, its tokenizer and the examples.
const PROGRAM: u64 = 50_000_000;
/// Writing the anchor's texts and measuring on them.
const ANCHOR: u64 = 100_000_000;
/// Rows of activations, as wide as the model, that 1024 tokens take beside `--memory`.
const ROWS: u64 = 8;
/// What `--memory` is at least, by default, and at most: more than that gains little.
const MEMORY: [u64; 3] = [200_000_000, 400_000_000, 4_000_000_000];
/// What is tried, from the most that can be learnt to the least: targets, rank, and whether there is an anchor.
const CHOICES: [(&str, u64, bool); 4] =
    [("all", 32, true), ("all", 16, true), ("q,k,v", 16, true), ("q,k,v", 16, false)];
/// Where the system does not say what is free.
const UNKNOWN: u64 = 4_000_000_000;

/// Settings and what they need.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit {
    pub(super) targets: String,
    pub(super) rank: u64,
    /// Whether what the model knows is kept by texts of its own.
    pub(super) anchor: bool,
    /// `--memory`.
    pub(super) memory: u64,
    /// What is needed beside `--memory`.
    rest: u64,
    /// Whether all of it fits.
    fits: bool,
}

impl Fit {
    /// The settings that learn most within these bytes.
    ///
    /// # Errors
    /// Those of [`Base::targets`].
    pub(super) fn new(base: &Base, available: u64) -> Result<Self> {
        let mut last = None;
        for (number, (targets, rank, anchor)) in CHOICES.into_iter().enumerate() {
            let Ok(outputs) = outputs(base, targets) else { continue };
            let rest = rest(&outputs, base.config().d_model as u64, rank, anchor);
            let least = if number + 1 < CHOICES.len() { MEMORY[1] } else { MEMORY[0] };
            let left = available.saturating_sub(rest);
            let memory = (left.min(MEMORY[2]) / 100_000_000 * 100_000_000).max(MEMORY[0]);
            let fit = Self { targets: targets.into(), rank, anchor, memory, rest, fits: left >= least };
            if fit.fits {
                return Ok(fit);
            }
            last = Some(fit);
        }
        // Where q, k and v are no words of the architecture, all is.
        match last {
            Some(fit) => Ok(fit),
            None => Err(base.targets("all", None).err().unwrap_or_else(|| {
                crate::Error::request("the model has no matrices to adapt", "name another model")
            })),
        }
    }

    /// Bytes that training takes with these settings, about.
    pub(super) fn needs(&self) -> u64 {
        self.rest + self.memory
    }

    /// What was chosen, and why.
    pub(super) fn text(&self, available: u64) -> String {
        let Self { targets, rank, anchor, .. } = self;
        let anchor = if *anchor { "" } else { ", without an anchor" };
        let (needs, available) = (size(self.needs()), size(available));
        let verdict = if self.fits { "of" } else { "more than the" };
        format!("rank {rank} on {targets}{anchor}: about {needs} {verdict} {available}")
    }

    /// Warns if nothing fits.
    pub(super) fn warn(&self, available: u64) {
        if !self.fits {
            terminal::warn(&format!("{}; a smaller model takes less", self.text(available)));
        }
    }
}

/// The outputs of each matrix of these targets.
fn outputs(base: &Base, targets: &str) -> Result<Vec<u64>> {
    let names = base.targets(targets, None)?;
    let rows = |name: &String| {
        let place = base.place(name)?;
        Some(
            place.rows.map_or(place.tensor.shape.first().copied().unwrap_or(0), |rows| rows.end - rows.start),
        )
    };
    Ok(names.iter().filter_map(rows).collect())
}

/// What is needed beside `--memory`.
fn rest(outputs: &[u64], width: u64, rank: u64, anchor: bool) -> u64 {
    let fisher = if rank <= 16 { 4 * rank.pow(4) } else { 2 * TEXTS * rank.pow(2) };
    let a_matrix = 16 * rank.pow(2) + if anchor { fisher } else { 0 };
    let matrices: u64 = outputs.iter().map(|m| 4 * m * rank + a_matrix).sum();
    PROGRAM + ROWS * 1024 * 4 * width + matrices + if anchor { ANCHOR } else { 0 }
}

/// What the system says is free, or a guess.
pub(super) fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    // Whole units of 100 MB, as sizes are typed.
    kilobytes.map_or(UNKNOWN, |kilobytes| (kilobytes * 1024 / 100_000_000).max(1) * 100_000_000)
}

/// Bytes as `--memory` takes them, rounded up to whole megabytes.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        whole if whole % 1_000_000_000 == 0 => format!("{}G", whole / 1_000_000_000),
        other => format!("{}M", other.div_ceil(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-135M: 30 blocks of these outputs.
    fn smollm2() -> Vec<u64> {
        [576u64, 192, 192, 576, 1536, 1536, 576].repeat(30)
    }

    #[test]
    fn estimates_are_near_the_measured_peaks() {
        // README.md: 0.75 GB at the defaults, 0.45 GB with rank 16 on q, k and v without an anchor; 0.6 GB for
        // Llama 2 7B with these.
        let near = |bytes: u64, measured: f64| (bytes as f64 / 1e9 / measured - 1.0).abs() < 0.1;
        let memory = MEMORY[1];
        assert!(near(memory + rest(&smollm2(), 576, 32, true), 0.75));
        let qkv = [576u64, 192, 192].repeat(30);
        assert!(near(memory + rest(&qkv, 576, 16, false), 0.45));
        assert!(near(memory + rest(&[4096; 96], 4096, 16, false), 0.6));
    }

    #[test]
    fn sizes_are_read_back() {
        for (bytes, text) in
            [(4_000_000_000, "4G"), (400_000_000, "400M"), (1, "1M"), (1_234_567_890, "1235M")]
        {
            assert_eq!(size(bytes), text);
            assert!(crate::commands::arguments::parse_size(text).unwrap() >= bytes);
        }
    }
}
