//! The steps of a tokenizer.json: normalizer, pre-tokenizer, post-processor and decoder.
//!
//! A step may be a `Sequence` of others. Steps that put text in are bounded together: twenty of them that
//! each double a text make a million times of it.

use serde_json::Value as Json;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::fault::{Fault, at_most};
use super::precompiled;

/// How deep sequences lie in each other, and how many steps a pipeline has. Usual are 1 and 5.
const MAX_DEPTH: usize = 8;
const MAX_STEPS: usize = 256;
/// How many regular expressions a pipeline has. DeepSeek has 4. One may take 10 MB.
const MAX_PATTERNS: usize = 24;
/// The longest pattern, in bytes. The longest in use has about 2 KB.
const MAX_PATTERN: usize = 1 << 14;
/// The greatest count in braces, as in `\p{N}{1,3}`. Every repetition takes memory and time.
const MAX_REPETITIONS: usize = 1024;
/// How many bytes a byte of text may become. `▁` for each space and before the text makes 12 of one.
const MAX_GROWTH: usize = 64;
/// The longest text put before, in place of, or around a text, in bytes.
const MAX_TEXT: usize = 1 << 10;
/// How many pieces a template has, and how many tokens a piece.
const MAX_PIECES: usize = 64;

/// One of the four parts of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Normalizer,
    PreTokenizer,
    PostProcessor,
    Decoder,
}

const PARTS: [(Part, &str, &str); 4] = [
    (Part::Normalizer, "normalizer", "normalizers"),
    (Part::PreTokenizer, "pre_tokenizer", "pretokenizers"),
    (Part::PostProcessor, "post_processor", "processors"),
    (Part::Decoder, "decoder", "decoders"),
];

/// What the steps need together.
#[derive(Default)]
struct Sum {
    steps: usize,
    patterns: usize,
    templates: usize,
    /// The bytes that one byte of text may become.
    growth: usize,
}

/// Checks all steps of the file. Returns how many bytes a byte of text may become before it is encoded.
pub(super) fn check(json: &Json) -> Result<usize, Fault> {
    let mut sum = Sum { growth: 1, ..Sum::default() };
    let mut growth = 1;
    for (part, name, list) in PARTS {
        if part == Part::Decoder {
            // It begins with single tokens.
            growth = std::mem::replace(&mut sum.growth, 1);
        }
        if let Some(step) = json.get(name).filter(|step| !step.is_null()) {
            check_step(part, list, step, name, 0, &mut sum)?;
        }
    }
    Ok(growth)
}

fn check_step(
    part: Part,
    list: &str,
    step: &Json,
    place: &str,
    depth: usize,
    sum: &mut Sum,
) -> Result<(), Fault> {
    sum.steps += 1;
    at_most(sum.steps, MAX_STEPS, place, "steps in one pipeline")?;
    at_most(depth, MAX_DEPTH, place, "sequences within each other")?;
    let kind = step
        .get("type")
        .and_then(Json::as_str)
        .ok_or_else(|| Fault::new(place, "a step without \"type\""))?;
    if kind == "Sequence" {
        let steps = step
            .get(list)
            .and_then(Json::as_array)
            .ok_or_else(|| Fault::new(place, format!("a Sequence without the list \"{list}\"")))?;
        return steps.iter().enumerate().try_for_each(|(at, step)| {
            check_step(part, list, step, &format!("{place}.{list}[{at}]"), depth + 1, sum)
        });
    }
    let text = |name: &str| step.get(name).and_then(Json::as_str).unwrap_or("");
    let growth = match (part, kind) {
        (_, "Precompiled") => {
            precompiled::check(text("precompiled_charsmap")).map_err(|problem| Fault::new(place, problem))?;
            1
        }
        (_, "Prepend") => {
            if text("prepend").is_empty() {
                let help = "set the step to null: it puts nothing before a text";
                return Err(Fault::new(place, "\"prepend\" is empty").mended_by(help));
            }
            1 + text("prepend").len()
        }
        (_, "Replace") => replacement(step, place, sum)?,
        (_, "Split") => {
            pattern(step, place, sum)?;
            1
        }
        (_, "FixedLength") if step.get("length").and_then(Json::as_u64) == Some(0) => {
            return Err(Fault::new(place, "\"length\" is 0, which makes no words").mended_by("use 1 or more"));
        }
        (_, "TemplateProcessing") => {
            template(step, place, sum)?;
            1
        }
        // A character of two bytes becomes two such characters.
        (Part::Normalizer | Part::PreTokenizer, "ByteLevel") => 2,
        // Spaces around each Chinese character.
        (_, "BertNormalizer") => 2,
        // An empty text to replace puts a space between all characters.
        (_, "BPEDecoder" | "CTC") => 2,
        _ => 1,
    };
    sum.growth = sum.growth.saturating_mul(growth);
    at_most(sum.growth, MAX_GROWTH, place, "bytes are made of one, with the steps before")
}

/// A `Replace`, and the bytes that it makes of one.
fn replacement(step: &Json, place: &str, sum: &mut Sum) -> Result<usize, Fault> {
    let content = step.get("content").and_then(Json::as_str).unwrap_or("").len();
    at_most(content, MAX_TEXT, place, "bytes of \"content\"")?;
    let shortest = match pattern(step, place, sum)? {
        Some(text) => text.len(),
        None => 1,
    };
    Ok(content.div_ceil(shortest.max(1)).max(1))
}

/// Checks the pattern of a `Replace` or `Split`. Returns it if it is a text and no regular expression.
fn pattern<'a>(step: &'a Json, place: &str, sum: &mut Sum) -> Result<Option<&'a str>, Fault> {
    let place = &format!("{place}.pattern");
    let replaces = step.get("type").and_then(Json::as_str) == Some("Replace");
    let empty = || {
        let help = "use a pattern that matches at least one character";
        Err(Fault::new(place, "it matches the empty text").mended_by(help))
    };
    let part = |name: &str| step.get("pattern").and_then(|pattern| pattern.get(name)).and_then(Json::as_str);
    if let Some(text) = part("String") {
        at_most(text.len(), MAX_PATTERN, place, "bytes")?;
        return if text.is_empty() && replaces { empty() } else { Ok(Some(text)) };
    }
    // The library says what else is wrong.
    let Some(regex) = part("Regex") else { return Ok(None) };
    sum.patterns += 1;
    at_most(sum.patterns, MAX_PATTERNS, place, "regular expressions in one pipeline")?;
    at_most(regex.len(), MAX_PATTERN, place, "bytes")?;
    at_most(greatest_repetition(regex), MAX_REPETITIONS, place, "repetitions")?;
    let pattern = SplitPattern::Regex(regex.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .map_err(|error| Fault::new(place, error.to_string()).mended_by("correct the regular expression"))?;
    // Whether it can match nothing is found by trying: it may look ahead and behind.
    let probes = ["", "a", "a b", " A1.\n\té 東", "aa  11"];
    if replaces && probes.iter().any(|probe| split.regex.find_iter(probe).any(|(start, end)| start == end)) {
        return empty();
    }
    Ok(None)
}

/// The greatest count of repetitions. Braces also hold code points, as in `\x{3400}`.
fn greatest_repetition(regex: &str) -> usize {
    let braces = regex
        .match_indices('{')
        .filter(|&(at, _)| !["\\x", "\\u", "\\U"].iter().any(|escape| regex[..at].ends_with(escape)));
    let within = braces.filter_map(|(at, _)| regex[at + 1..].split_once('}'));
    let numbers = within.flat_map(|(counts, _)| counts.split(','));
    let is_count = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.map(str::trim).filter(is_count).map(|n| n.parse().unwrap_or(usize::MAX)).max().unwrap_or(0)
}

/// A `TemplateProcessing`: what is put around a single text. Pairs of texts are never encoded.
fn template(step: &Json, place: &str, sum: &mut Sum) -> Result<(), Fault> {
    sum.templates += 1;
    at_most(sum.templates, 1, place, "templates in one pipeline")?;
    let place = &format!("{place}.single");
    let pieces = step.get("single").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    at_most(pieces.len(), MAX_PIECES, place, "pieces")?;
    let mut texts = 0;
    for (at, piece) in pieces.iter().enumerate() {
        let place = &format!("{place}[{at}]");
        let id =
            |kind: &str| piece.get(kind).map(|piece| piece.get("id").and_then(Json::as_str).unwrap_or(""));
        match (id("Sequence"), id("SpecialToken")) {
            (Some("A"), _) => texts += 1,
            (Some(_), _) => return Err(Fault::new(place, "a second text, where there is one")),
            (None, Some(id)) => special_token(step, id, place)?,
            // The library says what is wrong with it.
            (None, None) => {}
        }
    }
    if texts != 1 {
        return Err(Fault::new(place, format!("the text has {texts} places in it, and needs one")));
    }
    Ok(())
}

fn special_token(step: &Json, id: &str, place: &str) -> Result<(), Fault> {
    let declared = step.get("special_tokens").and_then(|tokens| tokens.get(id));
    let Some(token) = declared else {
        let problem = format!("'{}' is not among its special_tokens", crate::error::shortened(id, 40));
        return Err(Fault::new(place, problem).mended_by("declare the token there"));
    };
    let list = |name: &str| token.get(name).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let (ids, texts) = (list("ids"), list("tokens"));
    at_most(ids.len(), MAX_PIECES, place, "ids of one special token")?;
    if ids.len() != texts.len() {
        return Err(Fault::new(place, format!("{} ids for {} tokens", ids.len(), texts.len())));
    }
    let bytes = texts.iter().filter_map(Json::as_str).map(str::len).sum();
    at_most(bytes, MAX_TEXT, place, "bytes in one special token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_braces_are_found() {
        for (regex, greatest) in
            [(r"\p{L}+", 0), (r"\p{N}{1,3}", 3), ("a{9}|b{2,}", 9), ("{", 0), (r"[\x{3400}-\x{4000}]", 0)]
        {
            assert_eq!(greatest_repetition(regex), greatest, "{regex}");
        }
        assert_eq!(greatest_repetition("a{99999999999999999999999}"), usize::MAX);
    }
}
