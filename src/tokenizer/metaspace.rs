//! How SentencePiece vocabularies spell spaces and single bytes.

/// The character that stands for a space, `▁`.
pub(crate) const METASPACE: &str = "\u{2581}";

/// The byte-fallback token of a byte, such as `<0xAB>`.
pub(super) fn byte_token(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The byte of a byte-fallback token; `None` of any other text.
pub(super) fn parse_byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && digits.is_ascii()).then(|| u8::from_str_radix(digits, 16).ok())?
}
