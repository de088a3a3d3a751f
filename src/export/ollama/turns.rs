//! The fixed text that a chat template writes around each turn, found by rendering conversations.
//!
//! A model's own template is a Jinja program, Ollama's is a Go template, and programs cannot be translated in
//! general. But nearly every chat template only puts fixed text around the turns. That text is read from
//! renderings of conversations with placeholders, and checked on other conversations: the result must render
//! them to the same text, or the template is refused. So there is no table of model families to maintain. A
//! model's own variant of a family is kept, and so is a system message that the template adds by itself.
//!
//! One thing is lost: if a template strips white space from the messages, Ollama does not. Its Go templates
//! have no function for that.

use crate::chat::{ChatTemplate, Message};

/// The longest accepted rendering of a few words, in bytes. A longer one contains more than the format of
/// turns.
const MAX_LENGTH: usize = 1 << 16;

/// Fixed text before and after something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) before: String,
    pub(super) after: String,
}

/// The place of the system message, and the text around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// From the start of the text to the content of the first user.
    First(Around),
    /// Within the turn of the last user, from the start of that turn to the user's content.
    Last(Around),
}

/// The text around the turns of a conversation, without a BOS that the tokenizer adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TurnFormat {
    /// From the start to the content of the first user, without a system message.
    pub(super) first: String,
    /// The system message.
    pub(super) system: System,
    /// Whether the template takes a system message. If not, it goes before the content of the first user.
    pub(super) takes_system: bool,
    /// Around the content of later users; `first` is before that of the first user.
    pub(super) user: Around,
    /// Around the earlier answers of the assistant.
    pub(super) assistant: Around,
    /// Before the next answer.
    pub(super) generation_prompt: String,
}

/// Placeholders that no template writes by itself, and that no template changes.
const SYSTEM: &str = "zqsystemzq";
const USERS: [&str; 3] = ["zquseraazq", "zquserbbzq", "zqusercczq"];
const ANSWERS: [&str; 2] = ["zqansweraazq", "zqanswerbbzq"];

impl TurnFormat {
    /// The format of a template. `bos` is the text of the BOS token if the tokenizer adds it.
    ///
    /// # Errors
    /// The reason, in a few words, why the template is more than fixed text around turns.
    pub(super) fn of(template: &ChatTemplate, bos: Option<&str>) -> Result<Self, String> {
        let render = |messages: &[Message], prompt| -> Result<String, String> {
            let text = template.render(messages, prompt).map_err(|error| error.problem())?;
            if text.len() > MAX_LENGTH {
                return Err(format!("it writes {} bytes for a few words", text.len()));
            }
            Ok(match bos.and_then(|bos| text.strip_prefix(bos)) {
                Some(rest) => rest.into(),
                None => text,
            })
        };
        let found = Self::find(&render)?;
        for conversation in trials(found.takes_system) {
            if render(&conversation, true)? != found.render(&conversation) {
                return Err("what it writes around a turn depends on other turns".into());
            }
        }
        Ok(found)
    }

    fn find(render: &impl Fn(&[Message], bool) -> Result<String, String>) -> Result<Self, String> {
        let ([user, later, _], [answer, _]) = (USERS, ANSWERS);
        let lost = || "it does not write each turn once, in order".to_string();
        let placeholders = [user, answer, later, ANSWERS[1], USERS[2]];
        let whole = render(&conversation(&placeholders), true)?;
        let gaps = between(&whole, &placeholders).ok_or_else(lost)?;
        let [first, to_answer, to_user, to_answer_again, to_user_again, to_prompt] = gaps[..] else {
            return Err(lost());
        };
        if (to_answer, to_user) != (to_answer_again, to_user_again) {
            return Err("it writes earlier turns in another way than later ones".into());
        }
        // A conversation that stops after a turn shows where that turn ends and the next begins.
        let question = render(&conversation(&[user]), false)?;
        let end = common_prefix(common_prefix(to_answer, to_prompt), after(&question, user).unwrap_or(""));
        let answered = render(&conversation(&[user, answer]), false)?;
        let answer_end = common_prefix(to_user, after(&answered, answer).unwrap_or(""));
        let (user_start, generation_prompt) = (&to_user[answer_end.len()..], &to_prompt[end.len()..]);

        let placeholders = [user, answer, later];
        let mut with_system = conversation(&placeholders);
        with_system.insert(0, Message::new("system", SYSTEM));
        let around = |before: &str, after: &str| Around { before: before.into(), after: after.into() };
        // A template that refuses or omits a system message has no place for it. Then it goes before the
        // content of the first user, as in Gemma's documentation and llama.cpp.
        let text = render(&with_system, true).ok().filter(|text| text.contains(SYSTEM));
        let takes_system = text.is_some();
        let system = match text {
            None => System::First(around(first, "\n\n")),
            Some(text) => {
                if let Some(gaps) = between(&text, &[SYSTEM, user, answer, later]) {
                    System::First(around(gaps[0], gaps[1]))
                } else if let Some(gaps) = between(&text, &[user, answer, SYSTEM, later]) {
                    let begin = gaps[2].strip_prefix(answer_end).filter(|_| first.ends_with(user_start));
                    System::Last(around(begin.ok_or_else(lost)?, gaps[3]))
                } else {
                    return Err(lost());
                }
            }
        };
        Ok(TurnFormat {
            first: first.into(),
            system,
            takes_system,
            user: around(user_start, end),
            assistant: around(&to_answer[end.len()..], answer_end),
            generation_prompt: generation_prompt.into(),
        })
    }

    /// What the Go template of this format writes when Ollama calls it: everything before the next answer.
    fn render(&self, messages: &[Message]) -> String {
        let content = |message: &Message| message.content().unwrap_or_default();
        let system = messages.iter().find(|m| m.role() == "system").map(content);
        let turns: Vec<&Message> = messages.iter().filter(|m| m.role() != "system").collect();
        let mut text = String::new();
        for (i, turn) in turns.iter().enumerate() {
            if turn.role() == "assistant" {
                text.extend(
                    [&self.assistant.before, &content(turn), &self.assistant.after].map(String::as_str),
                );
                continue;
            }
            let last = turns[i + 1..].iter().all(|m| m.role() != "user");
            match (&self.system, system.as_deref()) {
                (System::First(around), Some(system)) if i == 0 => {
                    text.extend([&around.before, system, &around.after]);
                }
                (System::Last(around), Some(system)) if last => {
                    text.extend([
                        if i == 0 { self.start() } else { "" },
                        &around.before,
                        system,
                        &around.after,
                    ]);
                }
                _ => text += if i == 0 { &self.first } else { &self.user.before },
            }
            text.extend([content(turn).as_str(), &self.user.after]);
        }
        text + &self.generation_prompt
    }

    /// The text before the first user's turn if that turn begins like later ones; otherwise empty.
    pub(super) fn start(&self) -> &str {
        self.first.strip_suffix(&self.user.before).unwrap_or("")
    }
}

/// A conversation whose roles alternate, beginning with the user.
fn conversation(contents: &[&str]) -> Vec<Message> {
    let roles = ["user", "assistant"].into_iter().cycle();
    roles.zip(contents).map(|(role, &content)| Message::new(role, content)).collect()
}

/// Conversations that the found format must render like the template: with one to four user turns, with and
/// without a system message, and with content that would reveal escaping, splitting or inspection.
fn trials(system: bool) -> Vec<Vec<Message>> {
    let words = [
        "What is 1 + 1?\nAnd {{ 2 }}?",
        "\"<b>2</b>\" & {% 4 %}",
        "a",
        "größe 模型 \\n 's",
        "Tell me more.\n\n- one\n- two",
        "# No",
        "You are",
    ];
    let mut trials = Vec::new();
    for count in [1, 3, 5, 7] {
        let plain = conversation(&words[..count]);
        if system {
            let message = Message::new("system", "Answer in French,\n\nor \"not\" at all.");
            trials.push([&[message][..], &plain].concat());
        }
        trials.push(plain);
    }
    trials
}

/// The text before, between and after the placeholders. `None` unless each occurs once, in this order.
fn between<'a>(text: &'a str, placeholders: &[&str]) -> Option<Vec<&'a str>> {
    let mut gaps = Vec::new();
    let mut rest = text;
    for placeholder in placeholders {
        let (gap, after) = rest.split_once(placeholder)?;
        gaps.push(gap);
        rest = after;
    }
    gaps.push(rest);
    let once = gaps.iter().all(|gap| placeholders.iter().all(|placeholder| !gap.contains(placeholder)));
    once.then_some(gaps)
}

/// The text after the first occurrence of a placeholder.
fn after<'a>(text: &'a str, placeholder: &str) -> Option<&'a str> {
    Some(text.split_once(placeholder)?.1)
}

/// The longest common prefix that does not end within a token.
fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let len = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let same = &a[..len];
    match same.rfind(['<', '[']) {
        Some(open) if len < a.len().max(b.len()) && !same[open..].contains(['>', ']']) => &same[..open],
        _ => same,
    }
}
