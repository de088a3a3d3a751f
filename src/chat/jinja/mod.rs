//! Jinja with bounded work and memory, and with Python's and transformers' functions.
//!
//! [`environment`](environment()) offers functions, filters and methods (`strings`, `json`, `python_text`,
//! `strftime`). [`Program`] compiles a template so that everything that looks into values goes through
//! `operations`, which pay with `fuel` first.

mod environment;
mod fuel;
mod json;
mod operations;
mod program;
mod python_text;
mod strftime;
mod strings;
mod value;

pub(super) use environment::environment;
pub(super) use operations::ONE;
pub(super) use program::Program;
pub(super) use value::{kind, object, parse, size};
