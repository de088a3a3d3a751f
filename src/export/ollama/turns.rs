//! What a chat template writes around each turn, found by asking it.
//!
//! A model's own template is a Jinja program, Ollama's are Go's, and programs cannot be translated in general. But nearly
//! every chat template only puts fixed text around the turns. That text is read off from renderings of marked
//! conversations, and proved on others: what is found must render them to the same text, or the template counts as not
//! understood. So no table of model families has to be kept, a model's own variant of a family is kept as it is, and so
//! is a system message that the template adds by itself.
//!
//! One thing is lost: where a template takes white space off both ends of what is said, Ollama's leaves it, for its Go
//! templates have no function for that.

use super::go_template::is_kept;
use crate::chat::{ChatTemplate, Message};

/// The longest template that is written: a longer one holds more than marks of turns.
const LONGEST: usize = 1 << 16;

/// Fixed text before and behind something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) before: String,
    pub(super) after: String,
}

/// Where the system message goes, and the text around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// From the start of the text to the words of the first user.
    First(Around),
    /// Within the turn of the last user, from that turn's start to the user's words.
    Last(Around),
}

/// The text around the turns of a conversation, as the tokenizer is given it: without a BOS that it adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    /// From the start to the words of the first user, where there is no system message.
    pub(super) first: String,
    /// The same of a system message.
    pub(super) system: System,
    /// Whether the template takes a system message; if not, it goes before the first user's words.
    pub(super) takes_system: bool,
    /// Around the words of later users; the first one's begin is `first`.
    pub(super) user: Around,
    /// Around the assistant's earlier answers.
    pub(super) assistant: Around,
    /// Before the answer that is to come.
    pub(super) prompt: String,
}

/// Marks that no template writes by itself, and nothing that a template does to words changes.
const SYSTEM: &str = "zqsystemzq";
const USERS: [&str; 3] = ["zquseraazq", "zquserbbzq", "zqusercczq"];
const ANSWERS: [&str; 2] = ["zqansweraazq", "zqanswerbbzq"];

impl Turns {
    /// What the template writes. `bos` is the text of a token that the tokenizer adds by itself.
    ///
    /// # Errors
    /// In a few words, why the template is more than fixed text around turns.
    pub(super) fn of(template: &ChatTemplate, bos: Option<&str>) -> Result<Self, String> {
        let render = |messages: &[Message], prompt| -> Result<String, String> {
            let text = template.render(messages, prompt).map_err(|error| error.problem())?;
            if text.len() > LONGEST {
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
        let marks = [user, answer, later, ANSWERS[1], USERS[2]];
        let whole = render(&conversation(&marks), true)?;
        let gaps = between(&whole, &marks).ok_or_else(lost)?;
        let [first, to_answer, to_user, to_answer_again, to_user_again, to_prompt] = gaps[..] else {
            return Err(lost());
        };
        if (to_answer, to_user) != (to_answer_again, to_user_again) {
            return Err("it writes earlier turns in another way than later ones".into());
        }
        // Where a turn ends and the next begins shows in a conversation that stops there.
        let question = render(&conversation(&[user]), false)?;
        let end = common(common(to_answer, to_prompt), behind(&question, user).unwrap_or(""));
        let answered = render(&conversation(&[user, answer]), false)?;
        let answer_end = common(to_user, behind(&answered, answer).unwrap_or(""));
        let (user_begin, prompt) = (&to_user[answer_end.len()..], &to_prompt[end.len()..]);

        let marks = [user, answer, later];
        let mut with_system = conversation(&marks);
        with_system.insert(0, Message::new("system", SYSTEM));
        let around = |before: &str, after: &str| Around { before: before.into(), after: after.into() };
        // A template that refuses a system message or leaves it out has no place for it. Where Gemma's makers and
        // llama.cpp put it then, everyone does: before the first user's words.
        let text = render(&with_system, true).ok().filter(|text| text.contains(SYSTEM));
        let takes_system = text.is_some();
        let system = match text {
            None => System::First(around(first, "\n\n")),
            Some(text) => {
                if let Some(gaps) = between(&text, &[SYSTEM, user, answer, later]) {
                    System::First(around(gaps[0], gaps[1]))
                } else if let Some(gaps) = between(&text, &[user, answer, SYSTEM, later]) {
                    let begin = gaps[2].strip_prefix(answer_end).filter(|_| first.ends_with(user_begin));
                    System::Last(around(begin.ok_or_else(lost)?, gaps[3]))
                } else {
                    return Err(lost());
                }
            }
        };
        Ok(Turns {
            first: first.into(),
            system,
            takes_system,
            user: around(user_begin, end),
            assistant: around(&to_answer[end.len()..], answer_end),
            prompt: prompt.into(),
        })
    }

    /// What the Go template that is made of this writes, as Ollama calls it: up to the answer that is to come.
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
        text + &self.prompt
    }

    /// What stands before the first user's turn, where that turn begins like later ones; else nothing.
    pub(super) fn start(&self) -> &str {
        self.first.strip_suffix(&self.user.before).unwrap_or("")
    }

    /// Text at which an answer has ended: what begins and ends turns in this template.
    pub(super) fn stops(&self, template: &ChatTemplate) -> Vec<String> {
        // A user's turn may begin with the end of the text before and the begin of a new one, as llama 2's does.
        let (bos, eos) = (template.bos(), template.eos());
        let user = self.user.before.trim_start();
        let user = user.strip_prefix(eos).unwrap_or(user);
        let user = user.strip_prefix(bos).unwrap_or(user);
        let marks = [
            headline(user).or(leading_token(user)),
            leading_token(&self.assistant.after),
            leading_token(&self.user.after),
            headline(&self.prompt).or(leading_token(&self.prompt)),
        ];
        let mut stops: Vec<String> = Vec::new();
        for mark in marks.into_iter().flatten().map(str::to_string) {
            // Thoughts are for the model to begin and to end.
            if !mark.to_lowercase().contains("think") && !stops.contains(&mark) {
                stops.push(mark);
            }
        }
        stops
    }
}

/// The token that a text begins with, such as `<|im_end|>`, `</s>` or `[INST]`.
fn leading_token(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let close = match text.chars().next()? {
        '<' => '>',
        '[' => ']',
        _ => return None,
    };
    let token = &text[..text.find(close)? + 1];
    (token.len() > 2 && is_mark(token)).then_some(token)
}

/// The words that begin a turn where no token does, such as `### Instruction:` or `USER:`. A bare word would end answers
/// that only use it.
fn headline(text: &str) -> Option<&str> {
    let line = text.trim_start().lines().next()?.trim();
    let words = line.find(':').map_or(line, |colon| &line[..=colon]);
    let marked = words.ends_with(':') || words.starts_with("###");
    let unlike_text = marked && !words.contains(['<', '[']) && words.len() > 3;
    (unlike_text && is_mark(words)).then_some(words)
}

/// Whether this can stand in a Modelfile as text that ends an answer.
fn is_mark(text: &str) -> bool {
    text.len() <= 64 && text.chars().all(|c| is_kept(c) && c != '"')
}

/// Users and answers in turn.
fn conversation(contents: &[&str]) -> Vec<Message> {
    let roles = ["user", "assistant"].into_iter().cycle();
    roles.zip(contents).map(|(role, &content)| Message::new(role, content)).collect()
}

/// Conversations that what was found must render like the template: of one to four users, with and without a system
/// message, in words that would show if they were escaped, split or looked at.
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

/// The text before, between and behind the marks, each of which stands in it once, in this order.
fn between<'a>(text: &'a str, marks: &[&str]) -> Option<Vec<&'a str>> {
    let mut gaps = Vec::new();
    let mut rest = text;
    for mark in marks {
        let (gap, behind) = rest.split_once(mark)?;
        gaps.push(gap);
        rest = behind;
    }
    gaps.push(rest);
    let once = gaps.iter().all(|gap| marks.iter().all(|mark| !gap.contains(mark)));
    once.then_some(gaps)
}

fn behind<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    Some(text.split_once(mark)?.1)
}

/// The longest common beginning that does not end within a token.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let len = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let same = &a[..len];
    match same.rfind(['<', '[']) {
        Some(open) if len < a.len().max(b.len()) && !same[open..].contains(['>', ']']) => &same[..open],
        _ => same,
    }
}
