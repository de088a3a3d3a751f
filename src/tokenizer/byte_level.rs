//! GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are written.
//!
//! The printable bytes of Latin-1 spell themselves; the other 68 are spelled by the characters from U+0100
//! on, in order. The space is `Ġ`, for example, and the line feed `Ċ`.

/// The characters that spell the bytes 0 to 255.
const SPELLING: [char; 256] = spelling();

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

const fn spelling() -> [char; 256] {
    let mut table = ['\0'; 256];
    let (mut byte, mut others) = (0, 0x100);
    while byte < 256 {
        if is_printable(byte as u8) {
            table[byte] = byte as u8 as char;
        } else if let Some(character) = char::from_u32(others) {
            table[byte] = character;
            others += 1;
        }
        byte += 1;
    }
    table
}

/// `text` with each byte spelled as a character.
pub(super) fn spell(text: &str) -> String {
    text.bytes().map(|byte| SPELLING[usize::from(byte)]).collect()
}

/// The byte that `character` spells.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0..=0xff if is_printable(code as u8) => Some(code as u8),
        code @ 0x100..=0x143 => (0..=255).filter(|&byte| !is_printable(byte)).nth((code - 0x100) as usize),
        _ => None,
    }
}

/// The bytes that a spelled token stands for; a character that spells no byte stands for itself.
pub(super) fn unspell(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for character in token.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        for byte in 0..=255u8 {
            assert_eq!(byte_of(SPELLING[usize::from(byte)]), Some(byte));
        }
        assert_eq!(spell(" a\né"), "ĠaĊÃ©");
        assert_eq!(unspell("ĠaĊÃ©東"), " a\né東".as_bytes());
    }
}
