//! What training adds to a frozen matrix: one file for each method, with its mathematics and shapes.
//!
//! A [`Term`] changes the output of a [`Linear`](super::Linear), y = x W^T for rows of tokens x `[tokens, n]`
//! and W `[m, n]`. It holds the trained matrices, which are numbered across the model: a matrix's number is
//! its slot.

mod cur;
mod lora;
mod lora_xs;
mod probe;
mod term;

pub use cur::CurTerm;
pub use lora::LoraTerm;
pub use lora_xs::LoraXsTerm;
pub use probe::Probe;
pub use term::{BackwardPass, Term, TermSink, TimesWeight};
