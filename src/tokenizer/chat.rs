//! A model's own chat template (Jinja), rendered as Hugging Face transformers renders it.
//!
//! Templates come with the model and are written against transformers: `trim_blocks` and `lstrip_blocks` are on,
//! Python's string methods are there, and so are `raise_exception`, `strftime_now` and a `tojson` that leaves HTML
//! alone. A template from the internet is hostile: the work and memory of a rendering are bounded.
//!
//! `strftime_now` gives the time 2024-07-26 00:00:00, always: an adapter must not depend on the day it was trained.
//! That day is the one that Llama 3's own template falls back to.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context};
use serde::Serialize;

/// What a rendering may cost, in minijinja's fuel: about one an instruction, and one for 64 bytes of data. It bounds
/// the memory to some 64 MB; a conversation of a thousand turns takes less than a tenth of it.
const FUEL: u64 = 1_000_000;
/// A rendering may be so many times as long as the messages, and [`RENDERED_SPARE`] bytes more: templates repeat little.
const RENDERED_TIMES: usize = 16;
const RENDERED_SPARE: usize = 1 << 20;

/// The name of the template within the environment; without an ending, so that nothing is escaped.
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn from its parts.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

/// A chat template could not be parsed, or failed at a conversation.
#[derive(Debug, thiserror::Error)]
#[error("chat template: {problem}; {mend}")]
pub struct ChatError {
    /// The template's or minijinja's reason, in one line.
    pub problem: String,
    /// What the user can do.
    pub mend: &'static str,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// Why the template cannot be used; kept, for a model can be used without it.
    environment: Result<Environment<'static>, String>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Parses a template. `bos` and `eos` are the texts of these tokens, empty if the model has none. A template that
    /// cannot be parsed fails when it is rendered.
    pub fn new(source: String, bos: String, eos: String) -> Self {
        ChatTemplate { environment: environment(source).map_err(|error| one_line(&error)), bos, eos }
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
        let environment = self.environment.as_ref().map_err(|problem| ChatError {
            problem: problem.clone(),
            mend: "the template cannot be read: use prompt and completion instead of messages",
        })?;
        let variables = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        };
        let text = environment.get_template(NAME).and_then(|template| template.render(variables)).map_err(
            |error| ChatError {
                problem: one_line(&error),
                mend: "change the messages to what the template takes, or use prompt and completion",
            },
        )?;
        let said: usize = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        if text.len() > RENDERED_TIMES * said + RENDERED_SPARE {
            return Err(ChatError {
                problem: format!("it makes {} bytes of messages of {said}", text.len()),
                mend: "the template cannot be trusted: use prompt and completion instead of messages",
            });
        }
        Ok(text)
    }
}

fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: &str| strftime(format));
    environment.add_filter("tojson", tojson);
    // To minijinja nothing is iterable too, but templates ask that of `tools` before they count them.
    environment.add_test("iterable", |value: &Value| {
        !value.is_undefined() && !value.is_none() && value.try_iter().is_ok()
    });
    environment.add_template_owned(NAME, without_generation_marks(&source))?;
    Ok(environment)
}

/// Transformers' `{% generation %}` marks the assistant's text for its own use; here it is a block that does nothing.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start + 2..].find("%}").map(|end| start + 2 + end) else { break };
        let inside = &rest[start + 2..end];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let instead = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => word,
        };
        out.push_str(&rest[..start + 2]);
        match inside.find(word) {
            Some(at) if instead != word => {
                out.push_str(&inside[..at]);
                out.push_str(instead);
                out.push_str(&inside[at + word.len()..]);
            }
            _ => out.push_str(inside),
        }
        out.push_str("%}");
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    out
}

/// C's `strftime` at the fixed time that the module's opening gives; a code that is not known stands for itself.
fn strftime(format: &str) -> String {
    let mut out = String::with_capacity(format.len() + 16);
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => out.push_str("2024"),
            Some('y') => out.push_str("24"),
            Some('m') => out.push_str("07"),
            Some('d') => out.push_str("26"),
            Some('b' | 'h') => out.push_str("Jul"),
            Some('B') => out.push_str("July"),
            Some('a') => out.push_str("Fri"),
            Some('A') => out.push_str("Friday"),
            Some('j') => out.push_str("208"),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some('I') => out.push_str("12"),
            Some('p') => out.push_str("AM"),
            Some('F') => out.push_str("2024-07-26"),
            Some('T') => out.push_str("00:00:00"),
            Some('%') | None => out.push('%'),
            Some(other) => out.extend(['%', other]),
        }
    }
    out
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Both are transformers' parameters; the first is always as if false, the second has no effect on message order.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonSpacing)),
    };
    let failed = |problem: String| Error::new(ErrorKind::BadSerialization, problem);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(out).map(Value::from).map_err(|error| failed(error.to_string()))
}

/// JSON on one line with a space behind commas and colons.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: std::io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
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
        assert_eq!(render(source, &hello()).unwrap(), "False False False True True True ");
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
    }
}
