//! Output: text for a terminal or a pipe, progress bars, JSON.

pub mod contents;
pub mod errors;
pub mod html;
pub mod progress;
pub mod terminal;
