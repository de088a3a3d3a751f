//! `curmerge` fine-tunes a language model that is already on disk with CURLoRA (Fawi 2024, arXiv 2408.14572)
//! and writes the result for llama.cpp, Ollama and Hugging Face. This is the library. The program
//! `curmerge` is built on it, in [`commands`].
//!
//! # What CUR is
//!
//! A linear layer is `y = W x`, with W of m outputs and n inputs. CURLoRA selects c columns of W as C `[m,
//! c]` and r rows as R `[r, n]`, and trains only the small matrix U `[c, r]` between them:
//!
//! ```text
//! y = W x + s C U R x          U = 0 at first, so the model starts as it was
//! ```
//!
//! C and R are parts of W, so an adapter stores their indices and U, a few hundred numbers a matrix. `R x` is
//! already in the output of the base layer (`R x = (W x)[rows]`), so an adapted layer costs little more than
//! a frozen one, and the trainer need not keep the layer's input for the backward pass. Merging writes `W + s
//! C U R` in place of W.
//!
//! # Data flow
//!
//! ```text
//! GGUF, Hugging Face folder, ONNX          examples (JSONL, text)
//!               |                                    |
//!          base::Base  --- tokenizer --->  train::data::Dataset
//!          |    |    \                               |
//!          |    |     cur::new_adapter               |
//!          |    |          | columns, rows, U = 0    |
//!          |    |          v                         v
//!          |    +--> model::Transformer  --->  train::Trainer
//!          |                                         | U
//!          |                                         v
//!          |        eval  <-- Transformer ---  formats' Adapter
//!          v                                         |
//!        merge, export  <----------------------------+
//!          |
//!          v
//! a new model, or a LoRA for llama.cpp, PEFT, Ollama, onnxruntime
//! ```
//!
//! Modules import downwards only: `commands` from [`train`], [`merge()`], [`convert`], [`export`] and
//! [`eval`]; these from [`model`], [`lora`] and [`cur`]; these from [`kernels`], [`base`] and [`arch`]; all
//! from [`formats`], which knows containers and number formats but no model.
//!
//! # Train and merge
//!
//! ```
//! use std::path::Path;
//!
//! use curmerge::{
//!     Base, DataOptions, Dataset, Event, MergeOptions, SelectionOptions, Source, TrainOptions, Trainer,
//!     Transformer,
//! };
//!
//! # fn main() -> curmerge::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let out = folder.path();
//! let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
//! let base = Base::open(demo.join("model.gguf"))?;
//! let tokenizer = base.tokenizer()?;
//! let read = |name| Dataset::read(demo.join(name), &tokenizer, None, &DataOptions::default());
//! let (data, valid) = (read("train.jsonl")?, read("valid.jsonl")?);
//! # let mut valid = valid;
//! # valid.examples.truncate(4);
//!
//! let selection = SelectionOptions { rank: 4, targets: "q,v".into(), ..Default::default() };
//! let mut adapter = curmerge::new_adapter(&base, &selection)?;
//! let mut model = Transformer::new(&base)?;
//! model.attach(&adapter.targets, adapter.scale)?;
//!
//! let options = TrainOptions { max_steps: Some(2), batch_size: 2, ..Default::default() };
//! let mut trainer = Trainer::new(&mut model, &data, Some(&valid), &options)?;
//! while let Some(event) = trainer.advance()? {
//!     match event {
//!         Event::Step(step) => println!("loss {:.4}", step.loss),
//!         Event::Validation(validation) => println!("validation loss {:.4}", validation.loss),
//!     }
//! }
//! let report = trainer.finish();
//! model.store(&mut adapter.targets);
//! adapter.training = Some(report.record(&data, &options));
//! adapter.write(out.join("adapter.safetensors"), &base.inputs())?;
//!
//! let sources = [(Source::Cur(&adapter), 1.0)];
//! let options = MergeOptions { protect: vec![out.join("adapter.safetensors")], ..Default::default() };
//! curmerge::merge(&base, &sources, &options, out.join("merged.gguf"), |_, _| ())?;
//! # assert!(Base::open(out.join("merged.gguf")).is_ok());
//! # assert!(report.progress.steps() == 2 && report.kept_validation().is_some());
//! # Ok(())
//! # }
//! ```
//!
//! [`train::train`] drives a trainer with observers, checkpoints and a flag to stop it; its page has an
//! example. [`eval`] measures a model. `examples/train.rs` and `examples/merge.rs` are small programs on the
//! library.
//!
//! # Use an adapter
//!
//! C and R are parts of the base, so an adapter is valid only for the values that it was made on.
//! [`merge()`] checks that by default. Before [`Transformer::attach`](model::Transformer::attach) and
//! [`export`], which check names and shapes alone, call [`fingerprint::check`]:
//!
//! ```no_run
//! use curmerge::{Adapter, Base, BaseCheck, Transformer, fingerprint};
//!
//! # fn main() -> curmerge::Result<()> {
//! let (base, adapter) = (Base::open("model.gguf")?, Adapter::read("adapter.safetensors")?);
//! fingerprint::check(&base, &adapter, BaseCheck::SameValues)?;
//! let mut model = Transformer::new(&base)?;
//! model.attach(&adapter.targets, adapter.scale)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Every operation returns [`Error`], which prints as one line with the file, the place and what to do. Those
//! of [`formats`] return [`formats::Error`], which `?` wraps in [`Error::Format`]. Callers match on the
//! variants, such as [`Error::OtherValues`] for an adapter that was made on another quantization.
//!
//! Input files are not trusted: damaged or hostile ones give an error, not a panic.

pub mod arch;
pub mod base;
pub mod cache;
pub mod card;
pub mod chat;
pub mod combine;
pub mod commands;
pub mod compressed;
pub mod convert;
pub mod cur;
pub mod error;
pub mod eval;
pub mod export;
pub mod extract;
pub mod hub;
pub mod kernels;
pub mod lora;
pub mod merge;
pub mod model;
mod panics;
pub mod rewrite;
pub mod tokenizer;
pub mod train;

pub use base::Base;
pub use cur::fingerprint::{self, BaseCheck};
pub use cur::{Selection, SelectionOptions, new_adapter};
pub use curmerge_formats as formats;
pub use curmerge_formats::adapter::{Adapter, AdapterTarget, BaseInfo, Training};
pub use curmerge_formats::dtype::DType;
pub use error::{Error, Result};
pub use eval::{accuracy, perplexity};
pub use merge::{MergeOptions, Source, Storage, merge};
pub use train::data::{DataOptions, Dataset};
pub use train::{End, Event, Observer, TrainOptions, TrainReport, Trainer, mean_loss};

/// The model in f32, which training and the commands use. [`model::Transformer`] is generic, so that tests
/// can compute in f64.
pub type Transformer<'a> = model::Transformer<'a, f32>;
