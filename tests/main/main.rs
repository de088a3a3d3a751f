//! Tests that need only this repository.

#![allow(clippy::print_stdout, reason = "tests print the figures they measure")]

#[allow(dead_code)] // Each test binary uses only a part.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod base;
mod chat;
mod cli;
mod combine;
mod convert;
mod export;
mod extract;
mod families;
mod merge;
mod model;
mod skipped;
mod tokenizer;
