//! The format of turns as a template of Ollama: Go's text/template over `.System` and `.Messages`.
//!
//! Ollama joins all system messages into `.System`, and consecutive messages of one role into one (`collate`
//! in its template package). If the last message is the assistant's, the model continues it, so it gets no
//! end.

use std::fmt::Write;

use super::modelfile::is_kept;
use super::turns::{System, TurnFormat};

const EACH: &str = "{{ range $i, $_ := .Messages }}";

/// The template of this format.
pub(super) fn of(format: &TurnFormat) -> String {
    let mut text = String::new();
    let begin = &format.user.before;
    // The text before a user's content, which may depend on a system message for the first or the last user.
    let user = match &format.system {
        System::First(system) => match (format.first.strip_suffix(begin), system.after.strip_suffix(begin)) {
            (Some(start), Some(after)) => {
                text +=
                    &either("{{ if .System }}", &around(&system.before, ".System", after), &literal(start));
                text += EACH;
                literal(begin)
            }
            _ => {
                text += "{{ $first := true }}";
                text += EACH;
                let system = around(&system.before, "$.System", &system.after);
                let first = either("{{ if $.System }}", &system, &literal(&format.first));
                either("{{ if $first }}{{ $first = false }}", &first, &literal(begin))
            }
        },
        System::Last(system) => {
            text += &literal(format.start());
            text += "{{ $user := 0 }}";
            text += EACH;
            text += "{{ if eq .Role \"user\" }}{{ $user = $i }}{{ end }}{{ end }}";
            text += EACH;
            let system = around(&system.before, "$.System", &system.after);
            either("{{ if and $.System (eq $i $user) }}", &system, &literal(begin))
        }
    };
    let [user_end, answer, answer_end, prompt] =
        [&format.user.after, &format.assistant.before, &format.assistant.after, &format.generation_prompt]
            .map(|t| literal(t));
    text += "{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if eq .Role \"user\" }}";
    text += &format!(
        "{user}{{{{ .Content }}}}{user_end}{{{{ else if eq .Role \"assistant\" }}}}{answer}{{{{ .Content }}}}"
    );
    text += &either("{{ if not $last }}", &answer_end, "");
    text += "{{ end }}";
    text += &either("{{ if and $last (ne .Role \"assistant\") }}", &prompt, "");
    text + "{{ end }}"
}

fn around(before: &str, field: &str, after: &str) -> String {
    format!("{}{{{{ {field} }}}}{}", literal(before), literal(after))
}

fn either(condition: &str, then: &str, otherwise: &str) -> String {
    match (then, otherwise) {
        ("", "") => String::new(),
        (then, "") => format!("{condition}{then}{{{{ end }}}}"),
        (then, otherwise) => format!("{condition}{then}{{{{ else }}}}{otherwise}{{{{ end }}}}"),
    }
}

/// Text that the template writes verbatim. A Modelfile drops unprintable characters and ends a template at
/// three quotation marks; Go begins an action at two braces. Text with one of these becomes a Go string.
fn literal(text: &str) -> String {
    let plain = text.chars().all(|c| c == '\n' || is_kept(c));
    if plain && !text.contains("{{") && !text.ends_with('{') && !text.contains("\"\"\"") {
        return text.into();
    }
    let mut quoted = String::new();
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '\n' => write!(quoted, "\\n"),
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if is_kept(c) => write!(quoted, "{c}"),
            c => write!(quoted, "\\U{:08x}", u32::from(c)),
        };
    }
    format!("{{{{ \"{quoted}\" }}}}")
}
