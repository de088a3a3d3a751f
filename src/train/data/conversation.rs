//! A conversation as tokens and their loss mask.
//!
//! A chat template is a program and does not say which part of its output is the assistant's. But the model's
//! input for a turn is the rendering of the turns before it with the generation prompt, and the text to learn
//! is what the rendering gains when the turn is added, up to the token at which generation stops. Turns whose
//! contexts continue one another form one example. A template may render an earlier turn differently from the
//! last one (Qwen3's omits the reasoning of turns before the last question). Then a turn starts another
//! example, so that each is learnt in exactly the context that the model will see in use.
//!
//! A template that marks the assistant's text itself (`{% generation %}`) is trusted: the marked text is the
//! target, as in TRL.

use std::ops::Range;

use super::{Example, Problem};
use crate::tokenizer::{ChatTemplate, Conversation, Message, Tokenizer, Variables};

/// A turn of the assistant, rendered as the last one.
struct Turn {
    /// The context and the turn.
    text: String,
    /// Bytes of `text` to learn.
    targets: Vec<Range<usize>>,
    /// Where the context ends.
    begin: usize,
    /// Whether the turn ends with a token at which generation stops.
    ends: bool,
}

impl Turn {
    /// The prefix of any text that continues this turn. What the template writes after the end of the turn
    /// may depend on what follows.
    fn learnt(&self) -> &str {
        &self.text[..self.targets.last().map_or(self.begin, |range| range.end)]
    }
}

/// The examples of a conversation, with the assistant's turns as targets: their content and the token that
/// ends them. With `append_eos`, EOS follows a last turn for which the template writes no end.
pub(super) fn examples(
    conversation: &Conversation,
    tokenizer: &Tokenizer,
    append_eos: bool,
) -> Result<Vec<Example>, Problem> {
    let template = tokenizer.chat_template().ok_or_else(|| {
        Problem::new("has messages, but the model has no chat template", "use prompt and completion instead")
    })?;
    let Conversation { messages, variables } = conversation;
    let renderer = Renderer { template, tokenizer, messages, variables };
    let whole = renderer.render(messages.len(), false)?;
    let mut examples = Vec::new();
    // The targets of the turns of one example, and the last of these turns, whose text contains all of them.
    let mut targets: Vec<Range<usize>> = Vec::new();
    let mut last: Option<Turn> = None;
    for (i, _) in messages.iter().enumerate().filter(|(_, message)| message.role() == "assistant") {
        let turn = renderer.turn(i, last.as_ref())?;
        if let Some(last) = last.filter(|last| !turn.text[..turn.begin].starts_with(last.learnt())) {
            examples.push(example(&targets, &last.text, tokenizer, false)?);
            targets.clear();
        }
        targets.extend_from_slice(&turn.targets);
        last = Some(turn);
    }
    let Some(last) = last else {
        // It has no target, so it is counted among those left out.
        examples.push(example(&[], &whole, tokenizer, false)?);
        return Ok(examples);
    };
    let eos =
        append_eos && !last.ends && messages.last().is_some_and(|message| message.role() == "assistant");
    let text = if !eos && whole.starts_with(last.learnt()) { &whole } else { &last.text };
    examples.push(example(&targets, text, tokenizer, eos)?);
    Ok(examples)
}

struct Renderer<'a> {
    template: &'a ChatTemplate,
    tokenizer: &'a Tokenizer,
    messages: &'a [Message],
    variables: &'a Variables,
}

impl Renderer<'_> {
    /// The first `count` messages.
    fn render(&self, count: usize, prompt: bool) -> Result<String, Problem> {
        self.render_these(&self.messages[..count], prompt)
    }

    fn render_these(&self, messages: &[Message], prompt: bool) -> Result<String, Problem> {
        let text = self.template.render_with(messages, self.variables, prompt);
        text.map_err(|error| Problem::new(error.problem, error.help))
    }

    /// The assistant's turn `i`.
    fn turn(&self, i: usize, previous: Option<&Turn>) -> Result<Turn, Problem> {
        let after = self.render(i + 1, false)?;
        let earlier = previous.map_or("", Turn::learnt);
        let (text, begin) = match self.render(i, true) {
            Ok(before) if after.starts_with(&before) => (after.clone(), before.len()),
            Ok(before) => self.rejoined(i, &before, &after)?,
            // Templates read the first message even if there is none, and refuse what does not end with a
            // question.
            Err(problem) => match self.after_header(i, earlier.len(), &after) {
                Some(begin) => (after.clone(), begin),
                None => return Err(problem),
            },
        };
        let stop = self.stop(&text[begin..])?;
        let marks = self.template.marked(&self.messages[..=i], self.variables, &after);
        let marks = marks.map_err(|error| Problem::new(error.problem, error.help))?;
        let targets = match marks {
            // Of the ranges in `after`, those of this turn; they may begin with the generation prompt.
            Some(ranges) if text == after => ranges.into_iter().filter(|range| range.end > begin).collect(),
            _ => std::iter::once(begin..begin + stop.unwrap_or(text.len() - begin)).collect(),
        };
        Ok(Turn { text, targets, begin, ends: stop.is_some() })
    }

    /// The text and the start of a turn whose context the template renders differently from what the model
    /// sees in use.
    fn rejoined(&self, i: usize, before: &str, after: &str) -> Result<(String, usize), Problem> {
        let own = after[..self.parted(i, after)].trim_end().len();
        // If the question and the text after it are equal, the context of use takes precedence: some
        // templates put the system message there, at the last turn only.
        let question = i.checked_sub(1).and_then(|i| self.messages[i].content()).unwrap_or_default();
        let asked = before.trim_end();
        let same = asked.len() - common_end(asked, &after[..own]);
        if !question.trim().is_empty() && asked[same..].contains(question.trim()) {
            return Ok((
                before.to_owned()
                    + after[own..].strip_prefix(&before[asked.len()..]).unwrap_or(&after[own..]),
                before.len(),
            ));
        }
        // Otherwise the prompt opens the answer differently, such as with reasoning that is not in the data:
        // the target starts where they differ, after the earlier turns.
        let open = self.render(i, false)?;
        let parted = common(before, after);
        if after.starts_with(&open) && parted >= open.len() {
            return Ok((after.to_owned(), parted));
        }
        Err(Problem::new(
            format!("the chat template rewrites the text before \"messages\"[{i}] when it adds it"),
            "use prompt and completion",
        ))
    }

    /// Where in `after` the turn `i` itself starts, found by rendering another turn in its place; 0 if the
    /// template refuses that.
    fn parted(&self, i: usize, after: &str) -> usize {
        let content = self.messages[i].content().unwrap_or_default();
        let other = if content.trim_start().starts_with('#') { "$" } else { "#" };
        let mut replaced = self.messages[..i].to_vec();
        replaced.push(Message::new("assistant", other));
        self.render_these(&replaced, false).map(|other| common(after, &other)).unwrap_or(0)
    }

    /// Where in `after` the turn `i` starts, after the generation prompt, which comes after `start`. Earlier
    /// messages may contain text like that prompt, so it is the last one before the turn itself.
    fn after_header(&self, i: usize, start: usize, after: &str) -> Option<usize> {
        let prompted = self.render(i + 1, true).ok()?;
        let header = prompted.strip_prefix(after).filter(|header| !header.is_empty())?;
        let before = after.get(start..self.parted(i, after))?;
        Some(start + before.rfind(header)? + header.len())
    }

    /// The number of bytes of a turn up to the token at which generation stops. The model never has to write
    /// what the template adds after it, such as a line break.
    fn stop(&self, turn: &str) -> Result<Option<usize>, Problem> {
        let mut ends: Vec<String> = Vec::new();
        for token in self.tokenizer.encode_rendered(turn)? {
            if self.tokenizer.is_end(token) {
                ends.push(String::from_utf8_lossy(&self.tokenizer.token_bytes(token)).into_owned());
            }
        }
        let mut stop = None;
        let mut rest = turn.len();
        // Backwards from the last one, over those with only white space between them.
        for end in ends.iter().rev() {
            let Some(at) = turn[..rest].rfind(end.as_str()) else { break };
            let after_end = at + end.len();
            if stop.is_some() && !turn[after_end..rest].trim().is_empty() {
                break;
            }
            stop = Some(after_end);
            rest = at;
        }
        Ok(stop)
    }
}

/// The example of turns that share a text, with `ranges` as targets.
fn example(
    ranges: &[Range<usize>],
    text: &str,
    tokenizer: &Tokenizer,
    eos: bool,
) -> Result<Example, Problem> {
    let (mut tokens, mut loss_mask): (Vec<u32>, Vec<bool>) = (Vec::new(), Vec::new());
    // In use the context is tokenized separately, so no token lies across the start of a turn.
    let mut push = |range: Range<usize>, learnt: bool| -> Result<(), Problem> {
        let text = &text[range];
        let more = if tokens.is_empty() {
            tokenizer.encode_rendered(text)
        } else {
            tokenizer.encode_after(&tokens, text)
        };
        tokens.extend(more.map_err(Problem::from)?);
        loss_mask.resize(tokens.len(), learnt);
        Ok(())
    };
    let mut done = 0;
    for range in ranges {
        push(done..range.start.max(done), false)?;
        push(range.start.max(done)..range.end, true)?;
        done = range.end;
    }
    push(done..text.len(), false)?;
    if let (true, Some(eos)) = (eos, tokenizer.eos()) {
        tokens.push(eos);
        loss_mask.push(true);
    }
    Ok(Example { tokens, loss_mask })
}

/// The length of the common prefix of two texts, in bytes.
fn common(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// The length of the common suffix of two texts, in bytes.
fn common_end(a: &str, b: &str) -> usize {
    let same = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}
