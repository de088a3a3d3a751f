//! A model's own chat template (Jinja), rendered as Hugging Face transformers renders it.
//!
//! Templates come with the model and are written against transformers: `trim_blocks` and `lstrip_blocks` are on,
//! Python's string methods are there, and so are `raise_exception`, `strftime_now`, `{% generation %}` and a `tojson` that
//! leaves HTML alone (`python`). A template from the internet is hostile: the work and memory of a rendering are
//! bounded (`program`, `operations`).
//!
//! `strftime_now` gives the time 2024-07-26 00:00:00, always: an adapter must not depend on the day it was trained.
//! That day is the one that Llama 3's own template falls back to.

mod generation;
mod json;
mod message;
mod operations;
mod program;
mod python;
mod strings;

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error};
use program::Program;

pub use message::{Conversation, Message, Variables};

/// What a rendering may cost, in minijinja's fuel: about one an instruction, and one for 64 bytes of data or a look at
/// four items. It bounds the time to some seconds and the texts and lists that are made to 64 MB, to which come, for each
/// rendering at work, a copy while one is put together and what the values of short lists take beside their places.
const FUEL: u64 = 1_000_000;
/// A rendering may be so many times as long as the messages, and [`RENDERED_SPARE`] bytes more: templates repeat little.
const RENDERED_TIMES: usize = 16;
const RENDERED_SPARE: usize = 1 << 20;

/// A chat template could not be parsed, or failed at a conversation.
#[derive(Debug, thiserror::Error)]
#[error("chat template: {problem}; {help}")]
pub struct ChatError {
    /// The template's or minijinja's reason, in one line.
    pub problem: String,
    /// What the user can do.
    pub help: &'static str,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// Why the template cannot be used; kept, for a model can be used without it.
    program: Result<Program, String>,
    has_marks: bool,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Parses a template. `bos` and `eos` are the texts of these tokens, empty if the model has none. A template that
    /// cannot be parsed fails when it is rendered.
    pub fn new(source: String, bos: String, eos: String) -> Self {
        // Jinja reads any line's end as this one.
        let (source, has_marks) = generation::as_calls(&source.replace("\r\n", "\n").replace('\r', "\n"));
        ChatTemplate {
            program: environment()
                .and_then(|environment| Program::new(&source, environment))
                .map_err(|error| one_line(&error)),
            has_marks,
            bos,
            eos,
        }
    }

    /// The text of the token that begins a text; empty if the model has none.
    pub fn bos(&self) -> &str {
        &self.bos
    }

    /// The text of the token that ends a text; empty if the model has none.
    pub fn eos(&self) -> &str {
        &self.eos
    }

    /// The conversation as one text; with `add_generation_prompt`, the beginning of the assistant's next turn follows.
    ///
    /// # Errors
    /// If the template cannot be parsed, refuses these messages, or works without end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.render_with(messages, &Variables::default(), add_generation_prompt)
    }

    /// [`render`](Self::render) with what else the template is to see, such as tools.
    ///
    /// # Errors
    /// Those of [`render`](Self::render).
    pub fn render_with(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        self.run(messages, variables, add_generation_prompt, None)
    }

    /// What the template marks as the assistant's with `{% generation %}`: ranges of bytes of the rendering without
    /// generation prompt, which is given as `text`. `None` if the template has no such marks, or builds on what is
    /// between them so that they have no place in the text.
    ///
    /// # Errors
    /// Those of [`render`](Self::render).
    pub fn marked(
        &self,
        messages: &[Message],
        variables: &Variables,
        text: &str,
    ) -> Result<Option<Vec<Range<usize>>>, ChatError> {
        let Some(marks) = generation::unused_marks(text).filter(|_| self.has_marks) else { return Ok(None) };
        let marked = self.run(messages, variables, false, Some(marks))?;
        Ok(generation::take_out(&marked, marks).filter(|(plain, _)| plain == text).map(|(_, ranges)| ranges))
    }

    fn run(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
        marks: Option<generation::Marks>,
    ) -> Result<String, ChatError> {
        let program = self.program.as_ref().map_err(|problem| ChatError {
            problem: problem.clone(),
            help: "the template cannot be read: use prompt and completion instead of messages",
        })?;
        // What the model does not have is not defined, as in transformers.
        let special = [("bos_token", &self.bos), ("eos_token", &self.eos)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty());
        let mut seen: Vec<(Value, Value)> =
            special.map(|(name, text)| (name.into(), text.as_str().into())).collect();
        seen.extend(variables.others.iter().map(|(name, value)| (name.as_str().into(), value.clone())));
        seen.push(("messages".into(), messages.iter().map(Message::value).collect()));
        seen.push(("tools".into(), variables.tools.clone()));
        seen.push(("documents".into(), variables.documents.clone()));
        seen.push(("add_generation_prompt".into(), add_generation_prompt.into()));
        seen.extend(marks.map(|marks| (generation::MARKS.into(), marks.value())));
        let seen = message::object(seen);
        let text = program.run(seen).map_err(|error| ChatError {
            problem: one_line(&error),
            help: "change the messages to what the template takes, or use prompt and completion",
        })?;
        let said = messages.iter().map(Message::size).sum::<usize>() + variables.size();
        if text.len() > RENDERED_TIMES * said + RENDERED_SPARE {
            return Err(ChatError {
                problem: format!("it makes {} bytes of messages of {said}", text.len()),
                help: "the template cannot be trusted: use prompt and completion instead of messages",
            });
        }
        Ok(text)
    }
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    python::add_to(&mut environment);
    environment.add_function(generation::FUNCTION, generation::mark);
    Ok(environment)
}

/// An error of minijinja in one line of moderate length, with the line of the template where it arose.
fn one_line(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let detail: String = detail.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    match error.line() {
        Some(line) => format!("line {line}: {detail}"),
        None => detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_and_boundless_templates_are_errors() {
        for broken in ["{%}", "a{%", "{%%}", "{% generation", "{{"] {
            assert!(render(broken, &[]).is_err() || !broken.contains("{%}"), "{broken}");
        }
        let boundless = "{% for i in range(3000) %}{{ 'x' * 1000 }}{% endfor %}";
        assert!(render(boundless, &[]).unwrap_err().to_string().contains("bytes"));
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, ChatError> {
        ChatTemplate::new(source.into(), "<s>".into(), "</s>".into()).render(messages, true)
    }

    fn hello() -> Vec<Message> {
        vec![Message::new("user", " Hi <b> "), Message::new("assistant", "\"Yo\"")]
    }

    #[test]
    fn a_chatml_template_renders_as_in_transformers() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
            {{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        assert_eq!(
            render(source, &hello()).unwrap(),
            "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\n Hi <b> <|im_end|>\n\
             <|im_start|>assistant\n\"Yo\"<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn what_transformers_gives_is_there() {
        let source = "{{ bos_token }}\n{% if tools is not none %}\nX\n{% endif %}\n\
            {{- messages[0].content.strip() + '|' + 'a,b'.split(',')[1] }}{{ 'x'.startswith('x') }}\
            {{ messages[0] | tojson }}{{ strftime_now('%d %b %Y') }}{{ messages[1:] | length }}{{ eos_token }}";
        let text = render(source, &hello()).unwrap();
        assert!(text.starts_with("<s>\nHi <b>|bTrue"), "{text}");
        assert!(text.contains("{\"role\": \"user\", \"content\": \" Hi <b> \"}"), "{text}");
        assert!(text.ends_with("26 Jul 20241</s>"), "{text}");
    }

    #[test]
    fn nothing_is_not_iterable() {
        let source = "{% for x in [tools, missing, 1, 'a', [], messages] %}{{ x is iterable }} {% endfor %}";
        assert_eq!(render(source, &hello()).unwrap(), "False True False True True True ");
    }

    #[test]
    fn blocks_are_trimmed_and_generation_marks_pass() {
        let source = "{% for m in messages %}\n  {%- generation -%}\n  {{ m.role }}\n  {% endgeneration %}\n{% endfor %}\n";
        assert_eq!(render(source, &hello()).unwrap(), "user\nassistant\n");
    }

    #[test]
    fn failures_are_one_line_with_a_mend() {
        let refused =
            render("{{ raise_exception('Roles must\nalternate') }}", &hello()).unwrap_err().to_string();
        assert!(
            refused.contains("Roles must alternate") && refused.contains("change the messages"),
            "{refused}"
        );
        let broken = render("a\n{% if %}", &hello()).unwrap_err().to_string();
        assert!(broken.contains("line 2") && broken.contains("prompt and completion"), "{broken}");
        assert!(!broken.contains('\n'));
    }

    #[test]
    fn a_hostile_template_is_stopped() {
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        assert!(render(loops, &hello()).is_err());
        assert!(render("{{ 'x' * 9999999999 }}", &hello()).is_err());
        assert!(render("{{ 'x'.ljust(9999999999) }}", &hello()).is_err());
        // A list that holds itself many times over.
        let list = "{% set ns = namespace(x=[messages]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
        for written in
            ["{{ ns.x }}", "{{ ns.x | string }}", "{{ ns.x | tojson }}", "{{ ns.x | tojson(indent=16) }}"]
        {
            assert!(render(&format!("{list}{written}"), &hello()).is_err(), "{written}");
        }
        let deep =
            "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}";
        assert!(render(&format!("{deep}{{{{ ns.x | tojson }}}}"), &hello()).is_err());
        assert!(render(&format!("{deep}{{{{ ns.x }}}}"), &hello()).is_err());
    }
}
