//! Uniform random numbers. Every draw of the program takes them from here, so that equal seeds give equal
//! draws.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

/// The next number of the stream in [0, 1): its upper 53 bits, as many as an f64 holds.
pub fn uniform(stream: &mut ChaCha20Rng) -> f64 {
    (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
