//! Chat templates: conversations to the texts and tokens that a chat model is trained on.
//!
//! A model's own template is a Jinja program, rendered as Hugging Face transformers renders it
//! ([`ChatTemplate`]). [`Conversation`] is a row of a data file, [`tokenize`] turns one into tokens with a
//! loss mask, which marks the assistant's turns. `jinja` runs templates, which come from the internet, with
//! bounded work and memory.

mod base;
mod conversation;
mod error;
mod generation;
mod jinja;
mod loss_mask;
mod message;
mod template;
pub(crate) mod templates;

pub use conversation::{Conversation, InvalidConversation, Variables};
pub use error::ChatError;
pub use loss_mask::{MaskedTokens, tokenize};
pub use message::Message;
pub use template::ChatTemplate;
pub use templates::Templates;
