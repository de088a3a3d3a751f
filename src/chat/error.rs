//! What can go wrong with a chat template.

use crate::tokenizer::TokenizerError;

/// A chat template that cannot be used, or that fails at a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model has no chat template.
    #[error("the model has no chat template; use its chat-tuned version, or plain prompts")]
    NoTemplate,
    /// The template cannot be parsed, or is too large.
    #[error("chat template: {problem}; {}", self.help())]
    InvalidTemplate {
        /// The reason, in one line, with the line of the template if it is known.
        problem: String,
    },
    /// The template refuses the messages, or fails at them.
    #[error("chat template: {problem}; {}", self.help())]
    Render {
        /// The reason, in one line, with the line of the template if it is known.
        problem: String,
    },
    /// The template writes a text that is out of proportion to the messages.
    #[error("chat template: {}; {}", self.problem(), self.help())]
    OversizedText {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes of the messages and variables.
        message_bytes: usize,
    },
    /// The template changes the text before a message when it adds that message, so that the message has no
    /// context.
    #[error("{}; {}", self.problem(), self.help())]
    RewritesContext {
        /// Index of the message.
        message: usize,
    },
    /// The rendered text cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl ChatError {
    /// What is wrong, without what to do.
    pub fn problem(&self) -> String {
        match self {
            ChatError::NoTemplate => "the model has no chat template".into(),
            ChatError::InvalidTemplate { problem } | ChatError::Render { problem } => problem.clone(),
            ChatError::OversizedText { bytes, message_bytes } => {
                format!("it writes {bytes} bytes for {message_bytes} bytes of messages")
            }
            ChatError::RewritesContext { message } => {
                format!("the chat template rewrites the text before \"messages\"[{message}] when it adds it")
            }
            ChatError::Tokenizer(error) => error.to_string(),
        }
    }

    /// What to do about it, for a row of a data file.
    pub fn help(&self) -> &'static str {
        match self {
            ChatError::NoTemplate => "use prompt and completion instead of messages",
            ChatError::InvalidTemplate { .. } => {
                "the template cannot be read: use prompt and completion instead of messages"
            }
            ChatError::Render { .. } => {
                "change the messages to what the template takes, or use prompt and completion"
            }
            ChatError::OversizedText { .. } => {
                "the template cannot be trusted: use prompt and completion instead of messages"
            }
            ChatError::RewritesContext { .. } => "use prompt and completion",
            ChatError::Tokenizer(_) => "or leave the example out",
        }
    }
}
