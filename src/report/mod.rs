//! What a command shows: on a terminal, in a pipe, as JSON.

pub mod progress;
pub mod terminal;
