//! What a command shows: on a terminal, in a pipe, as JSON.

pub mod contents;
pub mod errors;
pub mod progress;
pub mod terminal;
