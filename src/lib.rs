//! `curmerge` fine-tunes a language model that is already on disk with CURLoRA (Fawi 2024, arXiv 2408.14572) and hands
//! the result to llama.cpp or Ollama.
//!
//! The modules follow the way of the data: [`base`] opens a model over any container, [`cur`] chooses the columns and
//! rows of each target matrix, [`model`] is the frozen transformer with its backward pass, [`train`] fits the small
//! matrices U, [`merge`] and [`export`] write the result, [`eval`] measures it; [`lora`] reads adapters of other programs
//! for merging, and [`convert`] stores a model in other types. Calls point downwards only: commands to train, merge,
//! export, eval and convert; these to model, lora and cur; these to kernels and base; all to `curmerge-formats`.

pub mod arch;
pub mod base;
pub mod chat;
pub mod commands;
pub mod convert;
pub mod cur;
pub mod error;
pub mod eval;
pub mod export;
pub mod kernels;
pub mod lora;
pub mod merge;
pub mod model;
pub mod report;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};
