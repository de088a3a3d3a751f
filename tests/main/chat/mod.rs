//! Chat templates.

mod hostile;
mod templates;
