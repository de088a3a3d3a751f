//! Measuring a model: perplexity on a text, and accuracy on choices.

pub mod choices;
pub mod perplexity;
