//! Seeded damage to sound files.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What is put into texts: words and numbers that parsers trip over.
const WORDS: &[&str] = &[
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "true",
    ",",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{200d}",
    "[[[[[[[[",
    "\"",
    "}",
    "4294967295",
    "0.1",
    "NaN",
];

/// Copies of `whole` with damage: flipped, removed, repeated and inserted bytes. The same number gives the
/// same damage.
pub fn damaged(whole: &[u8], number: u64) -> Vec<u8> {
    let mut stream = ChaCha20Rng::seed_from_u64(number);
    let mut below = |limit: usize| (stream.next_u64() % limit.max(1) as u64) as usize;
    let mut bytes = whole.to_vec();
    for _ in 0..1 + number % 4 {
        // Half of the places are where headers are.
        let range = if below(2) == 0 { bytes.len() } else { bytes.len().min(2000) };
        let at = below(range);
        let end = (at + 1 + below(40)).min(bytes.len());
        match below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            1 if at < bytes.len() => bytes[at] = 0xff,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 if number.is_multiple_of(3) => bytes.truncate(at),
            _ => {
                bytes.splice(at..at, WORDS[below(WORDS.len())].bytes());
            }
        }
    }
    bytes
}
