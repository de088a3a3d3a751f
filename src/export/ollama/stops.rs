//! The texts at which Ollama ends an answer.

use super::modelfile::is_kept;
use super::turns::TurnFormat;
use crate::chat::ChatTemplate;

/// Texts at which an answer has ended: those that begin and end turns in the template.
pub(super) fn stops(format: &TurnFormat, template: &ChatTemplate) -> Vec<String> {
    // A user's turn may begin with EOS and BOS, as in Llama 2.
    let (bos, eos) = (template.bos(), template.eos());
    let user = format.user.before.trim_start();
    let user = user.strip_prefix(eos).unwrap_or(user);
    let user = user.strip_prefix(bos).unwrap_or(user);
    let candidates = [
        heading(user).or(leading_token(user)),
        leading_token(&format.assistant.after),
        leading_token(&format.user.after),
        heading(&format.generation_prompt).or(leading_token(&format.generation_prompt)),
    ];
    let mut stops: Vec<String> = Vec::new();
    for stop in candidates.into_iter().flatten().map(str::to_string) {
        // The model itself begins and ends its reasoning.
        if !stop.to_lowercase().contains("think") && !stops.contains(&stop) {
            stops.push(stop);
        }
    }
    stops
}

/// The token at the start of a text, such as `<|im_end|>`, `</s>` or `[INST]`.
fn leading_token(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let close = match text.chars().next()? {
        '<' => '>',
        '[' => ']',
        _ => return None,
    };
    let token = &text[..text.find(close)? + 1];
    (token.len() > 2 && can_be_stop(token)).then_some(token)
}

/// The words that begin a turn without a token, such as `### Instruction:` or `USER:`. A bare word does not
/// count: it would end answers that merely contain it.
fn heading(text: &str) -> Option<&str> {
    let line = text.trim_start().lines().next()?.trim();
    let words = line.find(':').map_or(line, |colon| &line[..=colon]);
    let marked = words.ends_with(':') || words.starts_with("###");
    let unlike_text = marked && !words.contains(['<', '[']) && words.len() > 3;
    (unlike_text && can_be_stop(words)).then_some(words)
}

/// Whether a Modelfile can have this text as a stop.
fn can_be_stop(text: &str) -> bool {
    text.len() <= 64 && text.chars().all(|c| is_kept(c) && c != '"')
}
