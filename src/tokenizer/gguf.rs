//! A tokenizer from the metadata of a GGUF file (`tokenizer.ggml.*`), with the ids that llama.cpp gives.

use std::collections::BTreeSet;

use curmerge_formats::gguf::{Gguf, Value};

use super::bpe::{Bpe, Spelling};
use super::pretokenizer::{Cut, PreTokenizer};
use super::special::{Part, Specials};
use super::spm::{SPACE, Spm};
use super::vocabulary::{Kind, Vocabulary, end_tokens};
use super::{Marks, Settings, TokenizerError, byte_level};

/// What a GGUF file says of its tokenizer, before any of it is believed. Absent arrays are empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    /// `tokenizer.ggml.model`.
    pub(super) model: String,
    /// `tokenizer.ggml.pre`.
    pub(super) pre: Option<String>,
    /// `tokenizer.ggml.tokens`.
    pub(super) tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`.
    pub(super) types: Vec<i32>,
    /// `tokenizer.ggml.scores`.
    pub(super) scores: Vec<f32>,
    /// `tokenizer.ggml.merges`.
    pub(super) merges: Option<Vec<String>>,
    /// `tokenizer.ggml.add_bos_token`.
    pub(super) add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub(super) add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub(super) add_space: Option<bool>,
    /// The keys that end in `_token_id`, with their values.
    pub(super) token_ids: Vec<(&'static str, u64)>,
    /// `general.name`, of which llama.cpp takes a hint.
    pub(super) name: String,
}

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const TURN_END: &str = "tokenizer.ggml.eot_token_id";
const MESSAGE_END: &str = "tokenizer.ggml.eom_token_id";
const TOKEN_IDS: [&str; 8] = [
    BOS,
    EOS,
    UNKNOWN,
    TURN_END,
    MESSAGE_END,
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

impl Metadata {
    /// Reads the keys; one of the wrong type is an error that names it.
    pub(super) fn read(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let tokens = "tokenizer.ggml.tokens";
        let missing = |key: &str| {
            TokenizerError::bad(key, "is missing", "the file has no tokenizer: convert the model with one")
        };
        Ok(Metadata {
            model: text(gguf, "tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?,
            pre: text(gguf, "tokenizer.ggml.pre")?,
            tokens: strings(gguf, tokens)?.ok_or_else(|| missing(tokens))?,
            types: typed(gguf, "tokenizer.ggml.token_type", "i32 values", Value::as_i32s)?
                .unwrap_or_default(),
            scores: typed(gguf, "tokenizer.ggml.scores", "f32 values", Value::as_f32s)?.unwrap_or_default(),
            merges: strings(gguf, "tokenizer.ggml.merges")?,
            add_bos: flag(gguf, "tokenizer.ggml.add_bos_token")?,
            add_eos: flag(gguf, "tokenizer.ggml.add_eos_token")?,
            add_space: flag(gguf, "tokenizer.ggml.add_space_prefix")?,
            token_ids: TOKEN_IDS
                .iter()
                .filter_map(|&key| {
                    typed(gguf, key, "a token id", Value::as_u64).map(|id| id.map(|id| (key, id))).transpose()
                })
                .collect::<Result<_, _>>()?,
            name: gguf.get("general.name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        })
    }

    /// The token that `key` names, or `default` if it is one of `count`; an id that names no token is an error.
    fn token_id(&self, key: &str, default: Option<u32>, count: usize) -> Result<Option<u32>, TokenizerError> {
        match self.token_ids.iter().find(|(name, _)| *name == key) {
            None => Ok(default.filter(|&id| (id as usize) < count)),
            Some(&(_, id)) => match u32::try_from(id) {
                Ok(id) if (id as usize) < count => Ok(Some(id)),
                _ => Err(TokenizerError::bad(
                    key,
                    format!("is {id}, but there are {count} tokens"),
                    "the file is damaged: fetch or convert it again",
                )),
            },
        }
    }
}

fn typed<T>(
    gguf: &Gguf,
    key: &str,
    wanted: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, TokenizerError> {
    let Some(value) = gguf.get(key) else { return Ok(None) };
    match read(value) {
        Some(value) => Ok(Some(value)),
        None => Err(TokenizerError::bad(
            key,
            format!("does not hold {wanted}"),
            "the file is damaged: fetch or convert it again",
        )),
    }
}

fn text(gguf: &Gguf, key: &str) -> Result<Option<String>, TokenizerError> {
    typed(gguf, key, "a string", |v| v.as_str().map(str::to_owned))
}

fn strings(gguf: &Gguf, key: &str) -> Result<Option<Vec<String>>, TokenizerError> {
    typed(gguf, key, "strings", |v| v.as_strings().map(<[String]>::to_vec))
}

fn flag(gguf: &Gguf, key: &str) -> Result<Option<bool>, TokenizerError> {
    typed(gguf, key, "true or false", Value::as_bool)
}

/// A GGUF file's tokenizer taken apart, to be written in another form.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// The tokens.
    pub(crate) vocabulary: &'a Vocabulary,
    /// How ordinary text is cut into them.
    pub(crate) algorithm: AlgorithmParts<'a>,
    /// Special tokens swallow the white space behind them.
    strips: bool,
}

/// How text is cut into tokens.
#[derive(Debug)]
pub(crate) enum AlgorithmParts<'a> {
    /// Byte-level byte-pair encoding.
    ByteLevel {
        /// What cuts a text into words.
        cuts: Vec<Cut>,
        /// A word that is a token is taken whole.
        ignore_merges: bool,
        /// Lines `left right`, each once, the first to be joined first.
        merges: Vec<&'a str>,
    },
    /// Byte-pair encoding over characters, as Gemma 4 has it.
    Characters,
    /// SentencePiece's byte-pair encoding, by the scores of the vocabulary.
    SentencePiece {
        /// A text is given a space in front, at the start and behind special tokens.
        adds_space: bool,
        /// Stands for what the vocabulary cannot spell.
        unknown: Option<u32>,
    },
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Bpe),
    Spm(Spm),
}

/// The tokenizer of a GGUF file, without BOS, EOS and chat template.
#[derive(Debug)]
pub(super) struct GgufTokenizer {
    vocabulary: Vocabulary,
    specials: Specials,
    /// Those of `specials` that are found even where marks are ordinary text.
    user_defined: Specials,
    algorithm: Algorithm,
    /// Special tokens swallow the white space behind them.
    strips: bool,
}

impl Parts<'_> {
    /// Whether this special token swallows the white space behind it.
    pub(crate) fn strips_right(&self, text: &str) -> bool {
        self.strips && !KEEPS_SPACE.contains(&text)
    }
}

impl GgufTokenizer {
    /// Builds the tokenizer, and what the file says of the tokens around a text.
    pub(super) fn new(mut metadata: Metadata) -> Result<(Self, Settings), TokenizerError> {
        let vocabulary = Vocabulary::new(
            std::mem::take(&mut metadata.tokens),
            &metadata.types,
            std::mem::take(&mut metadata.scores),
        )?;
        let spm_default = |id: u32| (metadata.model == "llama").then_some(id);
        let id = |key: &str, default| metadata.token_id(key, default, vocabulary.len());
        let bos = id(BOS, spm_default(1))?;
        let eos = id(EOS, spm_default(2))?;
        let unknown = id(UNKNOWN, spm_default(0))?;
        let named: BTreeSet<u32> =
            [eos, id(TURN_END, None)?, id(MESSAGE_END, None)?].into_iter().flatten().collect();
        let ends = end_tokens(named, |text| vocabulary.id(text), |key| id(key, None).ok().flatten());

        let (algorithm, adds_bos) = match metadata.model.as_str() {
            model @ ("gpt2" | "gemma4") => {
                let (pre, spelling) = match model {
                    "gemma4" => (PreTokenizer::gemma4()?, Spelling::Characters),
                    _ => (PreTokenizer::named(metadata.pre.as_deref().unwrap_or(OLDEST))?, Spelling::Bytes),
                };
                let merges = metadata.merges.ok_or_else(|| {
                    TokenizerError::bad(
                        "tokenizer.ggml.merges",
                        "is missing",
                        "the tokenizer is incomplete: convert the model again",
                    )
                })?;
                let adds_bos = pre.adds_bos;
                (Algorithm::Bpe(Bpe::new(pre, spelling, merges)), adds_bos)
            }
            "llama" => {
                (Algorithm::Spm(Spm { adds_space: metadata.add_space.unwrap_or(true), unknown }), true)
            }
            other => return Err(TokenizerError::UnknownModel { name: other.chars().take(40).collect() }),
        };

        let strips = strips_right(&metadata.name);
        let strip = |(id, text)| (id, text, strips && !KEEPS_SPACE.contains(&text));
        let specials = Specials::new(vocabulary.specials().map(strip))?;
        let user_defined = vocabulary.specials().filter(|(id, _)| !vocabulary.kind(*id).is_mark());
        let user_defined = Specials::new(user_defined.map(strip))?;
        let settings = Settings {
            bos,
            eos,
            // Gemma 4's files have said false by mistake, which llama.cpp mends.
            adds_bos: metadata.model == "gemma4" || metadata.add_bos.unwrap_or(adds_bos),
            adds_eos: metadata.add_eos.unwrap_or(false),
            ends,
        };
        for (adds, id, flag, key) in [
            (settings.adds_bos, bos, "tokenizer.ggml.add_bos_token", BOS),
            (settings.adds_eos, eos, "tokenizer.ggml.add_eos_token", EOS),
        ] {
            if adds && id.is_none() {
                return Err(TokenizerError::bad(
                    flag,
                    format!("asks for a token, but {key} names none"),
                    "the tokenizer is incomplete: convert the model again",
                ));
            }
        }
        Ok((GgufTokenizer { vocabulary, specials, user_defined, algorithm, strips }, settings))
    }

    /// The tokenizer taken apart.
    pub(super) fn parts(&self) -> Parts<'_> {
        let algorithm = match &self.algorithm {
            Algorithm::Bpe(bpe) if bpe.spelling == Spelling::Characters => AlgorithmParts::Characters,
            Algorithm::Bpe(bpe) => AlgorithmParts::ByteLevel {
                cuts: bpe.pre().cuts(),
                ignore_merges: bpe.pre().ignore_merges,
                merges: bpe.merges(),
            },
            Algorithm::Spm(spm) => {
                AlgorithmParts::SentencePiece { adds_space: spm.adds_space, unknown: spm.unknown }
            }
        };
        Parts { vocabulary: &self.vocabulary, algorithm, strips: self.strips }
    }

    /// The tokens of `text` where it stands behind `previous`.
    pub(super) fn encode_after(
        &self,
        previous: Option<u32>,
        text: &str,
        marks: Marks,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        let mut after_special = previous.is_none_or(|id| self.vocabulary.kind(id).is_special());
        let specials = match marks {
            Marks::Tokens => &self.specials,
            Marks::Text => &self.user_defined,
        };
        for part in specials.split(text) {
            match part {
                Part::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Part::Text(text) => {
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(text, &self.vocabulary, &mut out),
                        Algorithm::Spm(spm) => {
                            spm.encode(text, after_special, &self.vocabulary, &mut out)?;
                        }
                    }
                    after_special = false;
                }
            }
        }
        Ok(out)
    }

    /// The bytes that a token stands for; a special token stands for its text, an id out of range for nothing.
    pub(super) fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.vocabulary.text(id) else { return Vec::new() };
        match (self.vocabulary.kind(id), &self.algorithm) {
            (Kind::Unknown | Kind::Control | Kind::UserDefined, _) => text.as_bytes().to_vec(),
            (Kind::Byte, _) => match byte_of(text) {
                Some(byte) => vec![byte],
                None => text.as_bytes().to_vec(),
            },
            (Kind::Normal, Algorithm::Bpe(bpe)) if bpe.spelling == Spelling::Bytes => {
                byte_level::unspell(text)
            }
            (Kind::Normal, _) => text.replace(SPACE, " ").into_bytes(),
        }
    }

    /// Whether the text of `ids` begins with a space that encoding put there.
    pub(super) fn begins_with_added_space(&self, ids: &[u32]) -> bool {
        let first_is_text = ids.first().is_some_and(|&id| !self.vocabulary.kind(id).is_special());
        matches!(&self.algorithm, Algorithm::Spm(spm) if spm.adds_space) && first_is_text
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// How the vocabulary spells a token.
    pub(super) fn token_text(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }
}

/// Stands for `tokenizer.ggml.pre` in files older than the key, which are of llama.cpp's first BPE models.
const OLDEST: &str = "default";

/// Tokens of Phi-3 that keep the white space behind them.
const KEEPS_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// Whether special tokens swallow the white space behind them: Phi-3 is trained so, and llama.cpp knows it by name,
/// since GGUF has no key for it.
fn strips_right(model_name: &str) -> bool {
    let name = model_name.to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}

/// The byte of a token spelled `<0xAB>`.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && digits.is_ascii()).then(|| u8::from_str_radix(digits, 16).ok())?
}
