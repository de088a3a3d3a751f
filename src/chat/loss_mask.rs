//! A conversation as tokens, with a loss mask over the assistant's turns.
//!
//! A chat template is a program, and does not say which part of its output is the assistant's. But before a
//! turn the model sees the rendering of the turns before it with the generation prompt. It has to write what
//! the rendering grows by when the turn is added, up to the token at which generation stops. Turns that
//! continue each other's context share one sequence. A template may render an earlier turn differently than
//! it rendered the turn as the last (Qwen3's drops the reasoning of turns before the last question). Then the
//! later turn begins another sequence, so that each turn is learned in the context in which the model is
//! asked for it.
//!
//! If a template marks the assistant's text itself (`{% generation %}`), the mask covers that text, as in TRL,
//! but not what the generation prompt says already, nor what follows the end of the turn.

use std::ops::Range;

use super::conversation::{Conversation, Variables};
use super::error::ChatError;
use super::message::Message;
use super::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A tokenized text, and the tokens in it that the model has to predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedTokens {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// As long as `tokens`: whether the loss includes the prediction of each token.
    pub loss_mask: Vec<bool>,
}

/// An assistant's turn, rendered as the last turn.
struct Turn {
    /// The context and the turn.
    text: String,
    /// The byte ranges of `text` to learn.
    learned: Vec<Range<usize>>,
    /// Where the context ends and the turn begins, in bytes.
    start: usize,
    /// Whether the turn ends with a token at which generation stops.
    has_end: bool,
}

impl Turn {
    /// The start of every text that continues this turn. What the template writes after the end of the turn
    /// may depend on the next turn.
    fn prefix(&self) -> &str {
        &self.text[..self.learned.last().map_or(self.start, |range| range.end)]
    }
}

/// The sequences of a conversation. Their masks cover the assistant's turns, except those of weight 0: the
/// content and the token that ends it. With `append_eos`, a last turn for which the template writes no end gets
/// the one before a next question, or else EOS.
///
/// # Errors
/// If the template fails at the messages, a turn has no fixed context, or a text cannot be encoded.
pub fn tokenize(
    conversation: &Conversation,
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    append_eos: bool,
) -> Result<Vec<MaskedTokens>, ChatError> {
    let Conversation { messages, variables } = conversation;
    let renderer = Renderer { template, tokenizer, messages, variables };
    let whole = renderer.render(messages.len(), false)?;
    let mut sequences = Vec::new();
    // The learned ranges of the turns in the current sequence, and the last of these turns, whose text
    // contains them.
    let mut learned: Vec<Range<usize>> = Vec::new();
    let mut last: Option<(usize, Turn)> = None;
    for (i, _) in messages.iter().enumerate().filter(|(_, message)| message.is_learned()) {
        let turn = renderer.turn(i, last.as_ref().map(|(_, turn)| turn))?;
        if let Some((number, last)) = last {
            if turn.text[..turn.start].starts_with(last.prefix()) {
                renderer.include_end(&mut learned, &last, &turn.text[..turn.start])?;
            } else {
                sequences.push(renderer.ended(&mut learned, number, &last, append_eos)?);
                learned.clear();
            }
        }
        learned.extend_from_slice(&turn.learned);
        last = Some((i, turn));
    }
    let Some((number, last)) = last else {
        // Nothing to learn. The caller counts such sequences.
        sequences.push(encode(&[], &whole, tokenizer, false)?);
        return Ok(sequences);
    };
    if (last.has_end || number + 1 < messages.len()) && whole.starts_with(last.prefix()) {
        renderer.include_end(&mut learned, &last, &whole)?;
        sequences.push(encode(&learned, &whole, tokenizer, false)?);
    } else {
        sequences.push(renderer.ended(&mut learned, number, &last, append_eos)?);
    }
    Ok(sequences)
}

struct Renderer<'a> {
    template: &'a ChatTemplate,
    tokenizer: &'a Tokenizer,
    messages: &'a [Message],
    variables: &'a Variables,
}

impl Renderer<'_> {
    /// The rendering of the first `count` messages.
    fn render(&self, count: usize, prompt: bool) -> Result<String, ChatError> {
        self.render_these(&self.messages[..count], prompt)
    }

    fn render_these(&self, messages: &[Message], prompt: bool) -> Result<String, ChatError> {
        self.template.render_with(messages, self.variables, prompt)
    }

    /// The assistant's turn `i`. `previous` is the assistant's turn before it.
    fn turn(&self, i: usize, previous: Option<&Turn>) -> Result<Turn, ChatError> {
        let after = self.render(i + 1, false)?;
        let earlier = previous.map_or("", Turn::prefix);
        let (text, start) = match self.render(i, true) {
            Ok(before) if after.starts_with(&before) => (after.clone(), before.len()),
            Ok(before) => self.rejoined(i, &before, &after)?,
            // Templates look at the first message even if there is none, or refuse messages that do not end
            // with a question.
            Err(error) => match self.without_context(i, earlier.len(), &after) {
                Some(start) => (after.clone(), start),
                None => return Err(error),
            },
        };
        let stop = self.stop(&text[start..])?;
        let end = start + stop.unwrap_or(text.len() - start);
        let generated = self.template.generation_ranges(&self.messages[..=i], self.variables, &after)?;
        let learned = match generated {
            // Of the ranges in `after`, what the model has to write in this turn.
            Some(ranges) if text == after => ranges
                .into_iter()
                .map(|range| range.start.max(start)..range.end.min(end))
                .filter(|range| !range.is_empty())
                .collect(),
            _ => std::iter::once(start..end).collect(),
        };
        Ok(Turn { text, learned, start, has_end: stop.is_some() })
    }

    /// The text and the start of a turn whose context the template renders differently once the turn is
    /// added.
    fn rejoined(&self, i: usize, before: &str, after: &str) -> Result<(String, usize), ChatError> {
        let content = self.content_start(i, after);
        let own = after[..content].trim_end().len();
        // If the question and the text after it are the same, the model is asked in the context as it is
        // without the turn: some templates put the system message before the last question only.
        let question = i.checked_sub(1).and_then(|i| self.messages[i].content()).unwrap_or_default();
        let asked = before.trim_end();
        let same = asked.len() - common_suffix(asked, &after[..own]);
        if !question.trim().is_empty() && asked[same..].contains(question.trim()) {
            return Ok((
                before.to_owned()
                    + after[own..].strip_prefix(&before[asked.len()..]).unwrap_or(&after[own..]),
                before.len(),
            ));
        }
        // A conversation that begins with the assistant: what the template writes before the first message,
        // such as a default system message, is not in `before`, which has no message.
        if i == 0 {
            let start = self.without_context(i, 0, after);
            return start
                .map(|start| (after.to_owned(), start))
                .ok_or(ChatError::RewritesContext { message: i });
        }
        // Otherwise the prompt begins the answer differently, such as with reasoning that the data do not
        // have. The learned text begins where the two differ, after the earlier turns.
        let open = self.render(i, false)?;
        // Not within a special token: the two may begin with different ones, such as <think> and </think>.
        let differs = self.tokenizer.start_of_special(after, common_prefix(before, after))?;
        if after.starts_with(&open) && differs >= open.len() {
            return Ok((after.to_owned(), differs));
        }
        Err(ChatError::RewritesContext { message: i })
    }

    /// Where in `after` the content of turn `i` begins: where another turn in its place makes a difference. 0
    /// if the template refuses the other turn.
    fn content_start(&self, i: usize, after: &str) -> usize {
        let content = self.messages[i].content().unwrap_or_default();
        let other = if content.trim_start().starts_with('#') { "$" } else { "#" };
        let mut replaced = self.messages[..i].to_vec();
        replaced.push(Message::new("assistant", other));
        self.render_these(&replaced, false).map(|other| common_prefix(after, &other)).unwrap_or(0)
    }

    /// Where in `after` the turn `i` begins if the template cannot render the messages before it with the
    /// generation prompt: after that prompt, which follows `start`; or, of the first message, at its content.
    fn without_context(&self, i: usize, start: usize, after: &str) -> Option<usize> {
        self.after_header(i, start, after).or_else(|| {
            let content = self.content_start(i, after);
            (i == 0 && content > 0).then_some(content)
        })
    }

    /// Where in `after` the turn `i` begins, after the generation prompt, which follows `start`. Earlier
    /// messages may contain the same text, so the last occurrence before the turn's content counts.
    fn after_header(&self, i: usize, start: usize, after: &str) -> Option<usize> {
        let prompted = self.render(i + 1, true).ok()?;
        let header = prompted.strip_prefix(after).filter(|header| !header.is_empty())?;
        let before = after.get(start..self.content_start(i, after))?;
        Some(start + before.rfind(header)? + header.len())
    }

    /// The sequence that ends with turn `i`. With `append_eos` a turn for which the template writes no end gets
    /// the one that the template writes before a next question, or else EOS.
    fn ended(
        &self,
        learned: &mut [Range<usize>],
        i: usize,
        turn: &Turn,
        append_eos: bool,
    ) -> Result<MaskedTokens, ChatError> {
        if turn.has_end || !append_eos {
            return encode(learned, &turn.text, self.tokenizer, false);
        }
        let mut asked = self.messages[..=i].to_vec();
        asked.push(Message::new("user", "#"));
        let next = self.render_these(&asked, false).ok().filter(|next| next.starts_with(turn.prefix()));
        let has_end = match &next {
            Some(next) => self.include_end(learned, turn, next)?,
            None => false,
        };
        match (next, learned.last()) {
            (Some(next), Some(range)) if has_end => {
                encode(learned, &next[..range.end], self.tokenizer, false)
            }
            _ => encode(learned, &turn.text, self.tokenizer, true),
        }
    }

    /// Adds the end of the turn to what is learned of it, if the template writes the end only before another
    /// turn. `text` continues the turn. Returns whether there was an end.
    fn include_end(&self, learned: &mut [Range<usize>], turn: &Turn, text: &str) -> Result<bool, ChatError> {
        let at = turn.prefix().len();
        let Some(range) = learned.last_mut().filter(|range| range.end == at && !turn.has_end) else {
            return Ok(false);
        };
        let rest = text[at..].trim_start();
        let first = self.tokenizer.encode(rest, false)?.first().copied();
        let end = first
            .filter(|&token| self.tokenizer.is_end(token))
            .map(|token| self.tokenizer.token_bytes(token));
        // A normalizer may have changed the text.
        let end = end.filter(|end| rest.as_bytes().starts_with(end));
        range.end = end.as_ref().map_or(at, |end| text.len() - rest.len() + end.len());
        Ok(end.is_some())
    }

    /// The length of a turn up to and including the token at which generation stops, in bytes. The model
    /// never writes what the template adds after it, such as a line break.
    fn stop(&self, turn: &str) -> Result<Option<usize>, ChatError> {
        let mut ends: Vec<String> = Vec::new();
        for token in self.tokenizer.encode_with_bos(turn)? {
            if self.tokenizer.is_end(token) {
                ends.push(String::from_utf8_lossy(&self.tokenizer.token_bytes(token)).into_owned());
            }
        }
        let mut stop = None;
        let mut rest = turn.len();
        // Goes back from the last end token over those that only white space separates.
        for end in ends.iter().rev() {
            let Some(at) = turn[..rest].rfind(end.as_str()) else { break };
            let after = at + end.len();
            if stop.is_some() && !turn[after..rest].trim().is_empty() {
                break;
            }
            stop = Some(after);
            rest = at;
        }
        Ok(stop)
    }
}

/// The sequence of turns that share a text, of which the `ranges` are learned.
fn encode(
    ranges: &[Range<usize>],
    text: &str,
    tokenizer: &Tokenizer,
    eos: bool,
) -> Result<MaskedTokens, ChatError> {
    let (mut tokens, mut loss_mask): (Vec<u32>, Vec<bool>) = (Vec::new(), Vec::new());
    // At inference the context is tokenized by itself, so no token may cross the start of a turn.
    let mut append = |range: Range<usize>, learned: bool| -> Result<(), ChatError> {
        let text = &text[range];
        let more = if tokens.is_empty() {
            tokenizer.encode_with_bos(text)
        } else {
            tokenizer.encode_after(&tokens, text)
        };
        tokens.extend(more?);
        loss_mask.resize(tokens.len(), learned);
        Ok(())
    };
    let mut done = 0;
    for range in ranges {
        append(done..range.start.max(done), false)?;
        append(range.start.max(done)..range.end, true)?;
        done = range.end;
    }
    append(done..text.len(), false)?;
    if let (true, Some(eos)) = (eos, tokenizer.eos()) {
        tokens.push(eos);
        loss_mask.push(true);
    }
    Ok(MaskedTokens { tokens, loss_mask })
}

/// The length of the common prefix of two texts, in bytes.
fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// The length of the common suffix of two texts, in bytes.
fn common_suffix(a: &str, b: &str) -> usize {
    let same = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}
