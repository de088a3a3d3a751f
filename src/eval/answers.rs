//! Exact match: the model answers questions greedily, and an answer counts if it is the right one.

use serde::Serialize;

use crate::Result;
use crate::kernels::Real;
use crate::model::Transformer;
use crate::tokenizer::Tokenizer;
use crate::train::data::Question;

/// Tokens of prompts and answers that are in the caches at a time; a longer question goes alone.
const MAX_TOKENS: usize = 2048;
/// The bytes of what linear attention and convolutions keep of all of them.
const MAX_STATE_BYTES: u64 = 1 << 28;

/// What a model answers to questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answers {
    /// Share of the questions whose answer is the right one, letter by letter. NaN without questions.
    pub exact_match: f64,
    /// The answer to each question, in order.
    pub answers: Vec<Answer>,
}

/// What a model answers to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The answer without white space around it: up to the end of its first line.
    pub text: String,
    /// Whether it is the right one.
    pub right: bool,
}

/// Asks every question, such as those of [`read_questions`](crate::train::data::read_questions). The answer
/// takes the likeliest token each time, until a token that ends a text, the end of a line, or `max_tokens`
/// tokens. `progress` gets the number of finished questions, and of all.
///
/// For a model with LongRoPE or learned positions, call [`Transformer::for_context`] with the length of the
/// longest prompt and answer first; it says what happens otherwise. Other models need no call.
///
/// # Errors
/// [`Error::NotFinite`](crate::Error::NotFinite).
pub fn answers<T: Real>(
    model: &Transformer<'_, T>,
    tokenizer: &Tokenizer,
    questions: &[Question],
    max_tokens: usize,
    mut progress: impl FnMut(usize, usize),
) -> Result<Answers> {
    let mut answers = vec![Answer { text: String::new(), right: false }; questions.len()];
    let mut done = 0;
    // What linear attention and convolutions keep of a text does not depend on its length.
    let most = (MAX_STATE_BYTES / model.cache_bytes_per_text(0).max(1)).max(1);
    for group in groups(questions, max_tokens, most as usize) {
        let prompts: Vec<Vec<u32>> = group.iter().map(|&i| questions[i].prompt.clone()).collect();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let max_tokens = max_tokens.min(model.config().context.saturating_sub(longest));
        let written = model.continue_greedily(&prompts, max_tokens, |tokens| {
            tokens.last().is_some_and(|&token| tokenizer.is_end(token))
                || tokenizer.decode(tokens).trim_start().contains('\n')
        })?;
        for (&i, mut tokens) in group.iter().zip(written) {
            tokens.pop_if(|token| tokenizer.is_end(*token));
            let text =
                tokenizer.decode(&tokens).trim_start().lines().next().unwrap_or_default().trim().to_owned();
            answers[i] = Answer { right: text == questions[i].answer, text };
        }
        done += group.len();
        progress(done, questions.len());
    }
    let right = answers.iter().filter(|answer| answer.right).count();
    Ok(Answers { exact_match: right as f64 / questions.len() as f64, answers })
}

/// The numbers of the questions that are asked together, at most `most`: those with prompts of about one length.
fn groups(questions: &[Question], max_tokens: usize, most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..questions.len()).collect();
    order.sort_by_key(|&i| questions[i].prompt.len());
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        // The last prompt of a group is its longest.
        let length = questions[i].prompt.len() + max_tokens;
        match groups.last_mut().filter(|group| group.len() < most && (group.len() + 1) * length <= MAX_TOKENS)
        {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_about_one_length_are_asked_together() {
        let lengths = [100, 3, 2500, 90, 4];
        let question = |length| Question { prompt: vec![1; length], answer: "a".into() };
        let questions: Vec<Question> = lengths.map(question).into();
        assert_eq!(groups(&questions, 500, 9), [vec![1, 4, 3], vec![0], vec![2]]);
        assert_eq!(groups(&questions, 500, 2), [vec![1, 4], vec![3, 0], vec![2]]);
        assert_eq!(groups(&[], 500, 9), Vec::<Vec<usize>>::new());
    }
}
