//! A SentencePiece model, `tokenizer.model`: the pieces of a small protobuf message.
//!
//! ```text
//! ModelProto      1: SentencePiece, once for each piece       3: NormalizerSpec
//! SentencePiece   1: piece, a string   2: score, a float   3: type, an enum
//! NormalizerSpec  3: whether a space is put before texts, a bool
//! ```
//! Nothing else is read. <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>; a missing field has
//! its default. Four of protobuf's wire types take fifty lines, so no crate is used.

/// The types of pieces. SentencePiece and GGUF use the same numbers.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// One token of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: i32,
}

/// The pieces of a model in the order of their ids.
///
/// # Errors
/// The position of a malformed byte, and the problem.
pub(super) fn parse(model: &[u8]) -> Result<Vec<Token>, (usize, &'static str)> {
    let mut pieces = Vec::new();
    let mut message = Message { bytes: model, position: 0 };
    while let Some((field, value)) = message.next()? {
        if let (1, Wire::Bytes(bytes)) = (field, value) {
            let start = message.position - bytes.len();
            let piece = piece(bytes).map_err(|(position, problem)| (start + position, problem))?;
            pieces.push(piece);
        }
    }
    if pieces.is_empty() { Err((0, "a SentencePiece model without pieces")) } else { Ok(pieces) }
}

/// Whether the model puts a space before a text. One that cannot be read does.
pub(super) fn adds_space(model: &[u8]) -> bool {
    let last = |bytes, wanted| {
        let (mut found, mut message) = (None, Message { bytes, position: 0 });
        while let Ok(Some((field, value))) = message.next() {
            if field == wanted {
                found = Some(value);
            }
        }
        found
    };
    let Some(Wire::Bytes(normalizer)) = last(model, 3) else { return true };
    !matches!(last(normalizer, 3), Some(Wire::Varint(0)))
}

fn piece(bytes: &[u8]) -> Result<Token, (usize, &'static str)> {
    let mut piece = Token { text: String::new(), score: 0.0, kind: NORMAL };
    let mut message = Message { bytes, position: 0 };
    while let Some((field, value)) = message.next()? {
        match (field, value) {
            (1, Wire::Bytes(text)) => {
                let text = std::str::from_utf8(text);
                piece.text = text.map_err(|_| (message.position, "a piece is not UTF-8"))?.to_owned();
            }
            (2, Wire::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (3, Wire::Varint(kind)) => piece.kind = i32::try_from(kind).unwrap_or(NORMAL),
            _ => {}
        }
    }
    Ok(piece)
}

/// The value of a field.
enum Wire<'a> {
    Varint(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'a [u8]),
}

/// The rest of a message.
struct Message<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Message<'a> {
    /// The next field's number and value.
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, (usize, &'static str)> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Eight)?,
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => {
                let bytes = self.take(4)?.try_into();
                Wire::Four(bytes.map_err(|_| (self.position, "cut short"))?)
            }
            _ => return Err((self.position, "no protobuf message")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], (usize, &'static str)> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..count).ok_or((self.position, "a field goes past the end"))?;
        self.position += count;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, (usize, &'static str)> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err((self.position, "a number of more than 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_their_defaults_and_damage_is_named() {
        // Two pieces, and another field between them.
        let model = b"\x0a\x0c\x0a\x03abc\x15\0\0\x80\xbf\x18\x02\x12\x01x\x0a\x03\x0a\x01d";
        let expected = [
            Token { text: "abc".into(), score: -1.0, kind: UNKNOWN },
            Token { text: "d".into(), score: 0.0, kind: NORMAL },
        ];
        assert_eq!(parse(model).unwrap(), expected);
        // A normalizer without a space before texts.
        assert!(adds_space(model) && adds_space(b"\x1a\x02\x18\x01") && !adds_space(b"\x1a\x02\x18\0"));
        assert_eq!(parse(&model[..10]), Err((2, "a field goes past the end")));
        assert!(parse(b"").is_err() && parse(b"IQ== 0\n").is_err());
        assert!(parse(&[0xff; 30]).is_err());
        assert!(parse(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f").is_err());
    }
}
