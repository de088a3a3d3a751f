//! Which characters a Modelfile keeps.

/// Whether a Modelfile certainly keeps this character. The list covers the characters of chat templates:
/// Latin, Greek, Cyrillic, Chinese, Japanese and Korean letters, and the two special ones in DeepSeek's
/// tokens. Ollama drops characters that Go's tables of Unicode do not call printable.
pub(super) fn is_kept(c: char) -> bool {
    matches!(c,
        ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{17f}' | '\u{391}'..='\u{3a1}' | '\u{3a3}'..='\u{3c9}'
        | '\u{400}'..='\u{45f}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fa5}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{ff5c}' | '\u{2581}')
}
