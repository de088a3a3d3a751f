//! How good a model is: perplexity on a text, accuracy on choices, and the probabilities behind both.

pub mod choices;
pub mod perplexity;
