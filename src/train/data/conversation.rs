//! A conversation as tokens, and which of them the assistant has to learn.
//!
//! A chat template is a program, and does not say which of its output is the assistant's. But a turn of the assistant
//! is what the rendering grows by when the turn is added to a rendering that ends in the generation prompt; that is
//! also what the model will have to write after that prompt. A template that rewrites what it rendered before has no
//! such turns, and is refused.

use super::{Example, Problem};
use crate::tokenizer::{ChatTemplate, Message, Tokenizer};

/// The tokens of a conversation, with the assistant's turns as targets: their content and the token that ends them.
/// With `append_eos`, EOS follows a last turn for which the template writes no end.
pub(super) fn example(
    messages: &[Message],
    tokenizer: &Tokenizer,
    append_eos: bool,
) -> Result<Example, Problem> {
    let template = tokenizer.chat_template().ok_or_else(|| {
        Problem::new("has messages, but the model has no chat template", "use prompt and completion instead")
    })?;
    let whole = render(template, messages, false)?;
    let mut tokens: Vec<u32> = Vec::new();
    let mut targets: Vec<bool> = Vec::new();
    let mut done = 0;
    for (i, _) in messages.iter().enumerate().filter(|(_, message)| message.role() == "assistant") {
        let before = render(template, &messages[..i], true)?;
        let after = render(template, &messages[..=i], false)?;
        if before.len() < done || !after.starts_with(&before) || !whole.starts_with(&after) {
            return Err(Problem::new(
                format!("the chat template rewrites what stands before or in \"messages\"[{i}]"),
                "keep one assistant turn, the last, or use prompt and completion",
            ));
        }
        append(&mut tokens, tokenizer, &whole[done..before.len()])?;
        targets.resize(tokens.len(), false);
        append(&mut tokens, tokenizer, &whole[before.len()..after.len()])?;
        let turn = targets.len();
        // What the template writes behind the end token, such as a line break, the model never has to write.
        let end = tokens[turn..].iter().rposition(|&token| tokenizer.is_end(token));
        if let (true, None, true, Some(eos)) = (append_eos, end, i + 1 == messages.len(), tokenizer.eos()) {
            tokens.push(eos);
        }
        targets.resize(end.map_or(tokens.len(), |end| turn + end + 1), true);
        targets.resize(tokens.len(), false);
        done = after.len();
    }
    append(&mut tokens, tokenizer, &whole[done..])?;
    targets.resize(tokens.len(), false);
    Ok(Example { tokens, targets })
}

fn render(template: &ChatTemplate, messages: &[Message], prompt: bool) -> Result<String, Problem> {
    template.render(messages, prompt).map_err(|error| Problem::new(error.problem, error.mend))
}

/// Appends the tokens of the next stretch of the rendering.
fn append(tokens: &mut Vec<u32>, tokenizer: &Tokenizer, text: &str) -> Result<(), Problem> {
    let more = if tokens.is_empty() {
        tokenizer.encode_rendered(text)
    } else {
        tokenizer.encode_after(tokens, text)
    };
    tokens.extend(more.map_err(Problem::from)?);
    Ok(())
}
