//! A tokenizer from the metadata of a GGUF file, with the ids that llama.cpp gives.

use std::collections::BTreeSet;

use super::bpe::{Bpe, Spelling};
use super::byte_level;
use super::error::TokenizerError;
use super::metadata::{BOS, END_OF_MESSAGE, END_OF_TURN, EOS, Metadata, UNKNOWN};
use super::metaspace::{METASPACE, parse_byte_token};
use super::parts::{self, RightStripping, TokenizerParts};
use super::pre_tokenizer::PreTokenizer;
use super::sentencepiece::SentencePieceBpe;
use super::special_token_splitter::{Fragment, SpecialTokenSplitter};
use super::special_tokens::SpecialTokens;
use super::token_type::TokenType;
use super::vocabulary::Vocabulary;
use super::well_known::end_of_generation;

/// The value of `tokenizer.ggml.pre` in files older than the key, which hold llama.cpp's first BPE models.
const DEFAULT_PRE_TOKENIZER: &str = "default";

#[derive(Debug)]
enum Algorithm {
    Bpe(Bpe),
    SentencePiece(SentencePieceBpe),
}

/// The tokenizer of a GGUF file, without BOS and EOS.
#[derive(Debug)]
pub(super) struct GgufTokenizer {
    vocabulary: Vocabulary,
    /// Finds all special tokens.
    all_special: SpecialTokenSplitter,
    /// Finds user-defined tokens only, which are tokens even where control tokens are ordinary text.
    user_defined: SpecialTokenSplitter,
    algorithm: Algorithm,
    right_stripping: RightStripping,
}

impl GgufTokenizer {
    /// Builds the tokenizer, and finds the special tokens around a text.
    pub(super) fn new(mut metadata: Metadata) -> Result<(Self, SpecialTokens), TokenizerError> {
        let vocabulary = Vocabulary::new(
            std::mem::take(&mut metadata.tokens),
            &metadata.types,
            std::mem::take(&mut metadata.scores),
        )?;
        let (algorithm, adds_bos) = Algorithm::new(&mut metadata, vocabulary.len())?;
        let special = special_tokens(&metadata, &vocabulary, adds_bos)?;

        let right_stripping = RightStripping::of_model(&metadata.name);
        let with_stripping = |(id, text)| (id, text, right_stripping.applies_to(text));
        let all_special = SpecialTokenSplitter::new(vocabulary.special_tokens().map(with_stripping))?;
        let user_defined =
            vocabulary.special_tokens().filter(|(id, _)| !vocabulary.token_type(*id).is_control());
        let user_defined = SpecialTokenSplitter::new(user_defined.map(with_stripping))?;
        Ok((GgufTokenizer { vocabulary, all_special, user_defined, algorithm, right_stripping }, special))
    }

    /// The tokenizer in parts.
    pub(super) fn parts(&self) -> TokenizerParts<'_> {
        let algorithm = match &self.algorithm {
            Algorithm::Bpe(bpe) if bpe.spelling == Spelling::Characters => parts::Algorithm::Characters {
                pre_tokenizer: bpe.pre_tokenizer().library_steps(),
                merges: bpe.merges(),
            },
            Algorithm::Bpe(bpe) => parts::Algorithm::ByteLevel {
                pre_tokenizer: bpe.pre_tokenizer().library_steps(),
                ignore_merges: bpe.pre_tokenizer().ignore_merges,
                merges: bpe.merges(),
            },
            Algorithm::SentencePiece(bpe) => parts::Algorithm::SentencePiece {
                add_space_prefix: bpe.add_space_prefix,
                unknown: bpe.unknown,
            },
        };
        TokenizerParts { vocabulary: &self.vocabulary, algorithm, right_stripping: self.right_stripping }
    }

    /// The tokens of `text` where it follows `previous`. Without `parse_special`, the texts of control tokens
    /// are ordinary text.
    pub(super) fn encode_after(
        &self,
        previous: Option<u32>,
        text: &str,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        let mut after_special = previous.is_none_or(|id| self.vocabulary.token_type(id).is_special());
        let splitter = if parse_special { &self.all_special } else { &self.user_defined };
        splitter.visit(text, |fragment| {
            match fragment {
                Fragment::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(text, &self.vocabulary, &mut out)?,
                        Algorithm::SentencePiece(bpe) => {
                            bpe.encode(text, after_special, &self.vocabulary, &mut out)?;
                        }
                    }
                    after_special = false;
                }
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Whether this is a control token or a user-defined one.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.vocabulary.token_type(id).is_special()
    }

    /// The bytes of a token: for a special token its text, for an id out of range nothing.
    pub(super) fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.vocabulary.text(id) else { return Vec::new() };
        match (self.vocabulary.token_type(id), &self.algorithm) {
            (TokenType::Unknown | TokenType::Control | TokenType::UserDefined, _) => text.as_bytes().to_vec(),
            (TokenType::Byte, _) => match parse_byte_token(text) {
                Some(byte) => vec![byte],
                None => text.as_bytes().to_vec(),
            },
            (TokenType::Normal, Algorithm::Bpe(bpe)) if bpe.spelling == Spelling::Bytes => {
                byte_level::unspell(text)
            }
            (TokenType::Normal, _) => text.replace(METASPACE, " ").into_bytes(),
        }
    }

    /// Whether the text of `ids` begins with a space that encoding added.
    pub(super) fn adds_space_before(&self, first: u32) -> bool {
        let is_text = !self.vocabulary.token_type(first).is_special();
        matches!(&self.algorithm, Algorithm::SentencePiece(bpe) if bpe.add_space_prefix) && is_text
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

impl Algorithm {
    /// The algorithm that `tokenizer.ggml.model` names, and whether it adds BOS by default. Takes the merges
    /// out of the metadata.
    fn new(metadata: &mut Metadata, token_count: usize) -> Result<(Self, bool), TokenizerError> {
        let unknown = metadata.token_id(UNKNOWN, Some(0), token_count)?;
        let (pre_tokenizer, spelling) = match metadata.model.as_str() {
            "gpt2" => {
                let name = metadata.pre.as_deref().unwrap_or(DEFAULT_PRE_TOKENIZER);
                (PreTokenizer::named(name)?, Spelling::Bytes)
            }
            "gemma4" => (PreTokenizer::gemma4()?, Spelling::Characters),
            "llama" => {
                let add_space_prefix = metadata.add_space_prefix.unwrap_or(true);
                return Ok((Algorithm::SentencePiece(SentencePieceBpe { add_space_prefix, unknown }), true));
            }
            other => return Err(TokenizerError::UnknownModel { name: other.chars().take(40).collect() }),
        };
        let merges = metadata.merges.take().ok_or_else(|| {
            TokenizerError::key(
                "tokenizer.ggml.merges",
                "is missing",
                "the tokenizer is incomplete: convert the model again",
            )
        })?;
        let adds_bos = pre_tokenizer.adds_bos;
        Ok((Algorithm::Bpe(Bpe::new(pre_tokenizer, spelling, merges)), adds_bos))
    }
}

/// The special tokens around a text. `adds_bos` is the algorithm's default.
fn special_tokens(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    adds_bos: bool,
) -> Result<SpecialTokens, TokenizerError> {
    let id = |key: &str, llama_default| metadata.token_id(key, llama_default, vocabulary.len());
    let (bos, eos) = (id(BOS, Some(1))?, id(EOS, Some(2))?);
    let named: BTreeSet<u32> =
        [eos, id(END_OF_TURN, None)?, id(END_OF_MESSAGE, None)?].into_iter().flatten().collect();
    let special = SpecialTokens {
        bos,
        eos,
        // Some files of Gemma 4 say false by mistake; llama.cpp ignores that.
        add_bos: metadata.model == "gemma4" || metadata.add_bos.unwrap_or(adds_bos),
        add_eos: metadata.add_eos.unwrap_or(false),
        end_of_generation: end_of_generation(
            named,
            |text| vocabulary.id(text),
            |key| id(key, None).ok().flatten(),
        ),
    };
    for (add, id, flag, key) in [
        (special.add_bos, bos, "tokenizer.ggml.add_bos_token", BOS),
        (special.add_eos, eos, "tokenizer.ggml.add_eos_token", EOS),
    ] {
        if add && id.is_none() {
            return Err(TokenizerError::key(
                flag,
                format!("asks for a token, but {key} names none"),
                "the tokenizer is incomplete: convert the model again",
            ));
        }
    }
    Ok(special)
}
