//! Measuring a model: perplexity on a text, divergence from another model, accuracy on choices, answers that
//! match exactly, and what it has learned beside its base.
//! [`mean_loss`](crate::train::mean_loss) gives the loss on a [`Dataset`](crate::train::data::Dataset).
//!
//! ```
//! use std::path::Path;
//!
//! use curmerge::train::data::{Columns, read_choices};
//! use curmerge::{Base, Transformer};
//!
//! # fn main() -> curmerge::Result<()> {
//! let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
//! let base = Base::open(demo.join("model.gguf"))?;
//! let tokenizer = base.tokenizer()?;
//! let mut model = Transformer::new(&base)?;
//!
//! let examples = read_choices(demo.join("test.jsonl"), &tokenizer, &Columns::Usual)?;
//! let score = curmerge::accuracy(&model, &examples[..4], |_, _| ());
//! println!("accuracy {:.3}, loss {:.3}", score.accuracy, score.loss);
//!
//! let text = "A small text is enough for an example; the perplexity of a model takes far more of it.";
//! model.for_context(8)?;
//! let measured = curmerge::perplexity(&model, &tokenizer, text, 8, None, |_, _| ())?;
//! println!("perplexity {:.1} +/- {:.1}", measured.perplexity, measured.standard_error);
//! # assert!(score.examples == 4 && measured.chunks > 1);
//! # Ok(())
//! # }
//! ```

mod answers;
mod choices;
mod chunks;
mod divergence;
mod learned;
mod limit;
mod perplexity;

pub use answers::{Answer, Answers, answers};
pub use choices::{Accuracy, accuracy};
pub use chunks::Chunks;
pub use divergence::{Divergence, divergence};
pub use learned::{Learned, Score, learned};
pub use limit::limit_divergence;
pub use perplexity::{Perplexity, perplexity};
