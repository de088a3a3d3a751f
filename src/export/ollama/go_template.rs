//! The text around turns as a template of Ollama's: Go's text/template over `.System` and `.Messages`.
//!
//! Ollama joins all system messages into `.System` and neighbouring messages of one role into one (`collate` in its
//! template package). A last message of the assistant is an answer that is to be continued: it gets no end.

use std::fmt::Write;

use super::turns::{System, Turns};

const EACH: &str = "{{ range $i, $_ := .Messages }}";

/// The template that writes these turns.
pub(super) fn of(turns: &Turns) -> String {
    let mut text = String::new();
    let begin = &turns.user.before;
    // Before the user's words: what differs for the first or the last user where there is a system message.
    let user = match &turns.system {
        System::First(system) => match (turns.first.strip_suffix(begin), system.after.strip_suffix(begin)) {
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
                let first = either("{{ if $.System }}", &system, &literal(&turns.first));
                either("{{ if $first }}{{ $first = false }}", &first, &literal(begin))
            }
        },
        System::Last(system) => {
            text += &literal(turns.start());
            text += "{{ $user := 0 }}";
            text += EACH;
            text += "{{ if eq .Role \"user\" }}{{ $user = $i }}{{ end }}{{ end }}";
            text += EACH;
            let system = around(&system.before, "$.System", &system.after);
            either("{{ if and $.System (eq $i $user) }}", &system, &literal(begin))
        }
    };
    let [user_end, answer, answer_end, prompt] =
        [&turns.user.after, &turns.assistant.before, &turns.assistant.after, &turns.prompt]
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

/// Text that the template writes as it is. A Modelfile drops what does not print, and ends at three quotation marks;
/// Go begins an action at two braces. Such text becomes a Go string.
fn literal(text: &str) -> String {
    let plain = text.chars().all(|c| c == '\n' || is_kept(c));
    if plain && !text.contains("{{") && !text.ends_with('{') && !text.contains("\"\"\"") {
        return text.into();
    }
    let mut quoted = String::new();
    for c in text.chars() {
        // A String takes all that is written.
        let _ = match c {
            '\n' => write!(quoted, "\\n"),
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if is_kept(c) => write!(quoted, "{c}"),
            c => write!(quoted, "\\U{:08x}", u32::from(c)),
        };
    }
    format!("{{{{ \"{quoted}\" }}}}")
}

/// Characters that a Modelfile surely keeps, of those that chat templates are made of: Latin, Greek, Cyrillic, Chinese,
/// Japanese and Korean letters, and the two that DeepSeek's tokens have. Others are dropped unless Go's tables of Unicode
/// say that they print.
pub(super) fn is_kept(c: char) -> bool {
    matches!(c,
        ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{17f}' | '\u{391}'..='\u{3a1}' | '\u{3a3}'..='\u{3c9}'
        | '\u{400}'..='\u{45f}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fa5}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{ff5c}' | '\u{2581}')
}
