//! tokenizer.model, the SentencePiece model of a vocabulary with scores. llama.cpp's converter needs it to
//! make a GGUF file from the folder again, because tokenizer.json has no scores.
//!
//! ```text
//! ModelProto      1: SentencePiece, once for each piece       2: TrainerSpec       3: NormalizerSpec
//! SentencePiece   1: piece, a string   2: score, a float   3: type, an enum
//! TrainerSpec     3: model_type, 2 for BPE   35: byte_fallback   40 to 43: unk_id, bos_id, eos_id, pad_id
//!                 45 to 48: their pieces
//! NormalizerSpec  1: name   3: add_dummy_prefix   4: remove_extra_whitespaces   5: escape_whitespaces
//! ```
//! <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>

use curmerge_formats::gguf::{Gguf, Value};

use crate::convert::config_json::Tokens;
use crate::tokenizer::{Algorithm, Tokenizer};

/// The types of pieces.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;
/// Protobuf's wire types.
const VARINT: u64 = 0;
const BYTES: u64 = 2;
const FOUR: u64 = 5;

/// The bytes of tokenizer.model; `None` if the vocabulary has no scores, or no unknown token, which
/// SentencePiece requires.
pub(super) fn model(gguf: &Gguf, tokenizer: &Tokenizer, tokens: &Tokens) -> Option<Vec<u8>> {
    let parts = tokenizer.parts()?;
    let Algorithm::SentencePiece { add_space_prefix, unknown } = &parts.algorithm else { return None };
    let unknown = (*unknown)?;
    let kinds = gguf.get("tokenizer.ggml.token_type").and_then(Value::as_i32s);
    let vocabulary = parts.vocabulary;
    let mut model = Message::default();
    let mut spelled = 0;
    for id in 0..vocabulary.len() as u32 {
        let mut piece = Message::default();
        piece.bytes(1, vocabulary.text(id).filter(|text| !text.is_empty())?.as_bytes());
        piece.float(2, vocabulary.score(id));
        // SentencePiece and GGUF use the same numbers. SentencePiece requires one unknown piece, which the
        // converter may have turned into a control token.
        let kind = kinds.as_ref().and_then(|kinds| kinds.get(id as usize)).copied();
        let kind = match kind {
            _ if id == unknown => UNKNOWN,
            Some(kind @ (CONTROL..=BYTE)) => kind as u64,
            _ => NORMAL,
        };
        spelled += u32::from(kind == BYTE as u64);
        piece.number(3, kind);
        model.bytes(1, &piece.0);
    }
    let mut trainer = Message::default();
    trainer.number(3, 2);
    trainer.number(35, u64::from(spelled == 256));
    let roles = [Some(unknown), tokens.bos, tokens.eos, tokens.pad];
    for (field, id) in (40..).zip(roles) {
        // No token is -1 as a protobuf int32.
        trainer.number(field, id.map_or(u64::MAX, u64::from));
    }
    for (field, text) in (45..).zip(roles.map(|id| vocabulary.text(id?))) {
        trainer.bytes(field, text.unwrap_or_default().as_bytes());
    }
    model.bytes(2, &trainer.0);
    let mut normalizer = Message::default();
    normalizer.bytes(1, b"identity");
    normalizer.number(3, u64::from(*add_space_prefix));
    normalizer.number(4, 0);
    normalizer.number(5, 1);
    model.bytes(3, &normalizer.0);
    Some(model.0)
}

/// A protobuf message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | FOUR);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}
