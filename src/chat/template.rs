//! A model's own chat template (Jinja), rendered as Hugging Face transformers renders it.
//!
//! Templates come with the model and are written for transformers: `trim_blocks` and `lstrip_blocks` are on;
//! Python's string methods, `raise_exception`, `strftime_now`, `{% generation %}` and a `tojson` that does
//! not escape HTML are available (`jinja`). A template from the internet is hostile, so the work and memory
//! of a rendering are bounded.

use std::ops::Range;

use minijinja::Error;
use minijinja::value::Value;

use super::conversation::Variables;
use super::error::ChatError;
use super::generation;
use super::jinja::{self, Program, object};
use super::message::Message;
use crate::tokenizer::Tokenizer;

/// A rendering may be this many times as long as the messages, plus [`SPARE_BYTES`]: templates repeat little.
const MAX_GROWTH: usize = 16;
/// What a rendering may be longer than [`MAX_GROWTH`] allows, in bytes.
const SPARE_BYTES: usize = 1 << 20;

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// The compiled template, or why it cannot be used: a model can be used without its template.
    program: Result<Program, String>,
    /// Whether the template has `{% generation %}` blocks.
    has_generation_blocks: bool,
    bos: String,
    eos: String,
    /// What a conversation without a system message begins with.
    system: Option<Message>,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of these tokens, empty if the model has none. A
    /// template that cannot be parsed fails when it is rendered.
    pub fn new(source: String, bos: String, eos: String) -> Self {
        // Jinja reads every line ending as a line feed.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let (source, has_generation_blocks) = generation::as_calls(&source);
        let compile = || {
            let mut environment = jinja::environment()?;
            environment.add_function(generation::FUNCTION, generation::mark);
            Program::new(&source, environment)
        };
        let program = compile().map_err(|error| one_line(&error));
        ChatTemplate { program, has_generation_blocks, bos, eos, system: None }
    }

    /// The same template for conversations that begin with this system message, unless they begin with one of
    /// their own.
    #[must_use]
    pub fn with_system(self, text: &str) -> Self {
        Self { system: Some(Message::new("system", text)), ..self }
    }

    /// The text of the BOS token; empty if the model has none.
    pub fn bos(&self) -> &str {
        &self.bos
    }

    /// The text of the EOS token; empty if the model has none.
    pub fn eos(&self) -> &str {
        &self.eos
    }

    /// The conversation as one text. With `add_generation_prompt`, the beginning of the assistant's next turn
    /// follows.
    ///
    /// # Errors
    /// If the template cannot be parsed, refuses the messages, or exceeds the bounds of a rendering.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.render_with(messages, &Variables::default(), add_generation_prompt)
    }

    /// [`render`](Self::render) with further variables for the template, such as tools.
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

    /// The tokens of a conversation. `tokenizer` is the model's own.
    ///
    /// # Errors
    /// Those of [`render`](Self::render); a text that the tokenizer cannot encode.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, ChatError> {
        let text = self.render(messages, add_generation_prompt)?;
        Ok(tokenizer.encode_with_bos(&text)?)
    }

    /// The parts that the template marks as the assistant's with `{% generation %}`: byte ranges of `text`,
    /// which is the rendering without generation prompt. `None` if the template has no such blocks, or
    /// processes their content so that it has no place in the text.
    ///
    /// # Errors
    /// Those of [`render`](Self::render).
    pub fn generation_ranges(
        &self,
        messages: &[Message],
        variables: &Variables,
        text: &str,
    ) -> Result<Option<Vec<Range<usize>>>, ChatError> {
        let Some(marks) = generation::unused_marks(text).filter(|_| self.has_generation_blocks) else {
            return Ok(None);
        };
        let marked = self.run(messages, variables, false, Some(marks))?;
        Ok(generation::remove_marks(&marked, marks)
            .filter(|(plain, _)| plain == text)
            .map(|(_, ranges)| ranges))
    }

    fn run(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
        marks: Option<generation::Marks>,
    ) -> Result<String, ChatError> {
        let program = self
            .program
            .as_ref()
            .map_err(|problem| ChatError::InvalidTemplate { problem: problem.clone() })?;
        // As in transformers, a token that the model does not have is undefined.
        let tokens = [("bos_token", &self.bos), ("eos_token", &self.eos)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty());
        let mut defined: Vec<(Value, Value)> =
            tokens.map(|(name, text)| (name.into(), text.as_str().into())).collect();
        defined.extend(variables.others.iter().map(|(name, value)| (name.as_str().into(), value.clone())));
        let has_own = messages.first().is_some_and(|first| ["system", "developer"].contains(&first.role()));
        let system = self.system.iter().filter(|_| !has_own);
        let messages: Vec<&Message> = system.chain(messages).collect();
        defined.push(("messages".into(), messages.iter().map(|message| message.value()).collect()));
        defined.push(("tools".into(), variables.tools.clone()));
        defined.push(("documents".into(), variables.documents.clone()));
        defined.push(("add_generation_prompt".into(), add_generation_prompt.into()));
        defined.extend(marks.map(|marks| (generation::MARKS.into(), marks.value())));
        let text =
            program.run(object(defined)).map_err(|error| ChatError::Render { problem: one_line(&error) })?;
        let message_bytes = messages.iter().map(|message| message.size()).sum::<usize>() + variables.size();
        if text.len() > MAX_GROWTH * message_bytes + SPARE_BYTES {
            return Err(ChatError::OversizedText { bytes: text.len(), message_bytes });
        }
        Ok(text)
    }
}

/// minijinja's error in one line of limited length, with the line of the template.
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

    /// Found by the fuzz target: minijinja cuts a key without an end within a character.
    #[test]
    fn a_panic_of_the_library_is_an_error() {
        let source = "{{ '%(aϙ' | format('x') }}";
        let template = ChatTemplate::new(source.into(), String::new(), String::new());
        let error = template.render(&[Message::new("user", "a")], true).unwrap_err().to_string();
        assert!(error.contains("the minijinja library fails on it") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn broken_and_unbounded_templates_are_errors() {
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
    fn templates_have_what_transformers_provides() {
        let source = "{{ bos_token }}\n{% if tools is not none %}\nX\n{% endif %}\n\
            {{- messages[0].content.strip() + '|' + 'a,b'.split(',')[1] }}{{ 'x'.startswith('x') }}\
            {{ messages[0] | tojson }}{{ strftime_now('%d %b %Y') }}{{ messages[1:] | length }}{{ eos_token }}";
        let text = render(source, &hello()).unwrap();
        assert!(text.starts_with("<s>\nHi <b>|bTrue"), "{text}");
        assert!(text.contains("{\"role\": \"user\", \"content\": \" Hi <b> \"}"), "{text}");
        assert!(text.ends_with("26 Jul 20241</s>"), "{text}");
    }

    #[test]
    fn a_system_message_is_added_where_there_is_none() {
        let source = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}";
        let template =
            || ChatTemplate::new(source.into(), String::new(), String::new()).with_system("Be brief.");
        let user = Message::new("user", "a");
        let rendered = |messages: &[Message]| template().render(messages, false).unwrap();
        assert_eq!(rendered(std::slice::from_ref(&user)), "system=Be brief.;user=a;");
        assert_eq!(rendered(&[Message::new("system", "own"), user]), "system=own;user=a;");
    }

    #[test]
    fn none_is_not_iterable() {
        let source = "{% for x in [tools, missing, 1, 'a', [], messages] %}{{ x is iterable }} {% endfor %}";
        assert_eq!(render(source, &hello()).unwrap(), "False True False True True True ");
    }

    #[test]
    fn blocks_are_trimmed_and_generation_blocks_pass() {
        let source = "{% for m in messages %}\n  {%- generation -%}\n  {{ m.role }}\n  {% endgeneration %}\n{% endfor %}\n";
        assert_eq!(render(source, &hello()).unwrap(), "user\nassistant\n");
    }

    #[test]
    fn failures_are_one_line_that_says_what_to_do() {
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
        // A list that contains the same list many times over.
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
