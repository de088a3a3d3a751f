//! The types of tokens in GGUF files.

/// The purpose of a token: `tokenizer.ggml.token_type` of the GGUF specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenType {
    /// Ordinary text (1), or a type that the specification does not name.
    Normal,
    /// Stands for text that the vocabulary cannot spell (2).
    Unknown,
    /// A control token, such as the end of a turn (3).
    Control,
    /// Text that is one token wherever it occurs (4).
    UserDefined,
    /// One byte, spelled `<0xAB>` (6).
    Byte,
}

impl TokenType {
    /// The type with this code.
    pub(super) fn from_gguf(code: i32) -> Self {
        match code {
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            6 => TokenType::Byte,
            _ => TokenType::Normal,
        }
    }

    /// Whether the token is cut out of the raw text before the algorithm sees it.
    pub(crate) fn is_special(self) -> bool {
        self.is_control() || self == TokenType::UserDefined
    }

    /// Whether the token's text is ordinary text unless special tokens are parsed.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, TokenType::Unknown | TokenType::Control)
    }
}
