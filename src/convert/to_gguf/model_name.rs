//! What the name of a model says about it, by the heuristics of gguf-py's metadata.py.
//!
//! `meta-llama/Llama-3.2-1B-Instruct` names an organization, a base name, a version, a size and what the
//! model was tuned for. The form of a part between hyphens decides what it is.

use std::sync::LazyLock;

use regex::Regex;

/// The parts of a name; each may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelName {
    /// The name without the organization.
    pub(super) full: Option<String>,
    /// The part before the slash.
    pub(super) organization: Option<String>,
    /// The family, such as `Llama-3.2`.
    pub(super) base: Option<String>,
    /// What it was tuned for, such as `Instruct`.
    pub(super) finetune: Option<String>,
    /// The version of the tuning.
    pub(super) version: Option<String>,
    /// The size, such as `1B`.
    pub(super) size: Option<String>,
}

/// What one part may be; several may hold.
#[derive(Clone, Copy, Debug, Default)]
struct Roles {
    base: bool,
    size: bool,
    finetune: bool,
    version: bool,
    number_type: bool,
}

impl Roles {
    fn count(self) -> usize {
        [self.base, self.size, self.finetune, self.version, self.number_type]
            .into_iter()
            .map(usize::from)
            .sum()
    }
}

struct Forms {
    version: Regex,
    number_type: Regex,
    size: Regex,
    finetune: Regex,
    title_kept: Regex,
}

// The patterns are constants that compile.
static FORMS: LazyLock<Option<Forms>> = LazyLock::new(|| {
    let whole = |pattern: &str| Regex::new(&format!("^(?i:{pattern})$")).ok();
    Some(Forms {
        version: whole(r"(v|iter)?\d+([.]\d+)*")?,
        number_type: whole(r"i?q\d(_\w)*|b?fp?(16|32)")?,
        size: whole(r"(A|\d+x)?\d+([._]\d+)?[KMBT]\d?|small|mini|medium|large|x?xl")?,
        finetune: whole("chat|instruct|vision|lora")?,
        title_kept: Regex::new(r"^(v\d+(?:\.\d+)*|\d.*)$").ok()?,
    })
});

impl ModelName {
    /// The parts of `id`, a name with or without an organization before it, of a model with this number of
    /// parameters.
    pub(super) fn parse(id: &str, parameters: u64) -> Self {
        if id.contains(' ') {
            return Self { full: Some(id.to_owned()), ..Self::default() };
        }
        let (organization, full) = match id.split_once('/') {
            // `./` and `../` are not organizations.
            Some((organization, full)) => (Some(organization).filter(|o| !o.starts_with('.')), full),
            None => (None, id),
        };
        let mut parts: Vec<String> =
            full.split('-').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut roles = vec![Roles::default(); parts.len()];
        for (place, (part, roles)) in parts.iter_mut().zip(&mut roles).enumerate() {
            annotate(place, part, roles, parameters);
        }
        drop_word_sizes(&parts, &mut roles);
        mark_base(&parts, &mut roles);

        let joined = |parts: Vec<&str>| (!parts.is_empty()).then(|| parts.join("-"));
        let named = |has: fn(&Roles) -> bool| {
            let chosen = parts.iter().zip(&roles).filter(|(_, roles)| has(roles));
            chosen.map(|(part, _)| part.as_str()).collect::<Vec<_>>()
        };
        let mut sizes = named(|roles| roles.size);
        let mut seen = Vec::new();
        sizes.retain(|size| {
            !seen.contains(size) && {
                seen.push(*size);
                true
            }
        });
        let (size, finetune) = (joined(sizes), joined(named(|roles| roles.finetune)));
        let version = joined(named(|roles| roles.version && !roles.base));
        let ambiguous = size.is_none() && finetune.is_none() && version.is_none();
        Self {
            full: Some(full.to_owned()),
            organization: organization.map(str::to_owned),
            base: joined(named(|roles| roles.base)).filter(|_| !ambiguous),
            finetune,
            version,
            size,
        }
    }
}

/// Determines what a part may be, and spells sizes and types in the usual way.
fn annotate(place: usize, part: &mut String, roles: &mut Roles, parameters: u64) {
    let Some(forms) = &*FORMS else { return };
    if forms.version.is_match(part) {
        roles.version = true;
    } else if forms.number_type.is_match(part) {
        roles.number_type = true;
        *part = part.to_uppercase();
    } else if place > 0 && forms.size.is_match(part) {
        let mut text: Vec<char> = part.replace('_', ".").chars().collect();
        // 7b1 means 7.1b.
        if let [.., unit, digit] = text[..]
            && digit.is_numeric()
        {
            text.truncate(text.len() - 2);
            text.extend(['.', digit, unit]);
        }
        if let [.., before, unit] = &mut text[..]
            && before.is_numeric()
        {
            *unit = unit.to_ascii_uppercase();
        }
        if parameters != 0 && is_context_length(&text, parameters) {
            roles.finetune = true;
            if let Some(unit) = text.last_mut() {
                *unit = unit.to_ascii_lowercase();
            }
        }
        roles.size = !roles.finetune;
        *part = text.into_iter().collect();
    } else if place > 0 && forms.finetune.is_match(part) {
        roles.finetune = true;
    }
}

/// Whether a size differs too much from the model's to be its size.
fn is_context_length(size: &[char], parameters: u64) -> bool {
    let Some((unit, number)) = size.split_last() else { return false };
    let Ok(number) = number.iter().collect::<String>().parse::<f64>() else { return false };
    let Some(thousands) = " KMBT".find(*unit) else { return false };
    let said = number * 1000f64.powi(thousands as i32);
    (said - parameters as f64).abs() > (u128::from(parameters) * 7 / 8) as f64
}

/// A size in numbers rules out sizes in words.
fn drop_word_sizes(parts: &[String], roles: &mut [Roles]) {
    let numbers =
        parts.iter().zip(&*roles).any(|(part, roles)| roles.size && part.contains(char::is_numeric));
    for (part, roles) in parts.iter().zip(roles) {
        roles.size &= !(numbers && part.chars().all(char::is_alphabetic));
    }
}

/// The leading parts that can be nothing else, and the versions among them, are the base name; the parts
/// after it that can be nothing else are the tuning.
fn mark_base(parts: &[String], roles: &mut [Roles]) {
    let mut at_start = true;
    for (part, roles) in parts.iter().zip(&mut *roles) {
        if at_start && (roles.count() == 0 && part.starts_with(char::is_alphabetic) || roles.version) {
            roles.base = true;
        } else {
            at_start = false;
            roles.finetune |= roles.count() == 0;
        }
    }
    // A version at the end of the whole name belongs to the tuning.
    for roles in roles.iter_mut().rev() {
        if !(roles.base && roles.count() > 1) {
            break;
        }
        roles.base = false;
    }
}

/// `smollm2-135m` as `Smollm2 135M`: words in lower case get a capital, except versions and numbers.
pub(super) fn title(name: &str) -> String {
    let words = name.replace('-', " ");
    let words = words.split_whitespace().map(|word| {
        let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        let kept = FORMS.as_ref().is_some_and(|forms| forms.title_kept.is_match(word));
        if lower && !kept { capitals(word) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A capital at the start of each run of letters.
fn capitals(word: &str) -> String {
    let mut after_letter = false;
    let mut out = String::with_capacity(word.len());
    for letter in word.chars() {
        let cased = letter.is_lowercase() || letter.is_uppercase();
        if cased && !after_letter {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
        after_letter = cased;
    }
    out
}

/// The size of a model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// All parameters.
    pub(super) parameters: u64,
    /// The parameters with one expert of each block.
    pub(super) with_one_expert: u64,
    /// The number of experts; 0 if there are none.
    pub(super) experts: u64,
}

impl Size {
    /// The size in a file's name: `135M`, `8x7B`.
    pub(super) fn label(&self) -> String {
        match self.experts {
            0 => size_label(self.parameters),
            experts => format!("{experts}x{}", size_label(self.with_one_expert)),
        }
    }
}

/// A number of parameters in a few digits: `135M`, `1.2B`.
fn size_label(parameters: u64) -> String {
    let count = parameters as f64;
    let (scaled, unit) = match count {
        _ if count > 1e12 => (count * 1e-12, 'T'),
        _ if count > 1e9 => (count * 1e-9, 'B'),
        _ if count > 1e6 => (count * 1e-6, 'M'),
        _ => (count * 1e-3, 'K'),
    };
    let whole = format!("{}", scaled.round_ties_even());
    let digits = 2usize.saturating_sub(whole.trim_start_matches('0').len());
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of gguf-py's `Metadata.get_model_id_components` (11434, October 2026).
    #[test]
    fn names_fall_into_parts_as_in_gguf_py() {
        let cases: &[(&str, u64, [&str; 6])] = &[
            (
                "meta-llama/Llama-3.2-1B-Instruct",
                1_235_814_400,
                ["Llama-3.2-1B-Instruct", "meta-llama", "Llama-3.2", "Instruct", "", "1B"],
            ),
            (
                "Mistral-7B-Instruct-v0.2",
                7_241_732_096,
                ["Mistral-7B-Instruct-v0.2", "", "Mistral", "Instruct", "v0.2", "7B"],
            ),
            ("org/Yi-6B-200k-fp16", 6_061_035_520, ["Yi-6B-200k-fp16", "org", "Yi", "200k", "", "6B"]),
            ("bloom-7b1", 7_069_016_064, ["bloom-7b1", "", "bloom", "", "", "7.1B"]),
            (
                "TinyLlama-1.1B-Chat-v1.0",
                1_100_048_384,
                ["TinyLlama-1.1B-Chat-v1.0", "", "TinyLlama", "Chat", "v1.0", "1.1B"],
            ),
            ("Mixtral-8x7B-v0.1", 46_702_792_704, ["Mixtral-8x7B-v0.1", "", "Mixtral", "", "v0.1", "8x7B"]),
            ("smollm2-hf", 134_515_008, ["smollm2-hf", "", "", "", "", ""]),
            ("a model of mine", 5, ["a model of mine", "", "", "", "", ""]),
            ("./x-small-chat", 0, ["x-small-chat", "", "x", "chat", "", "small"]),
            (
                "Phi-3-mini-4k-instruct-3.8B",
                3_821_079_552,
                ["Phi-3-mini-4k-instruct-3.8B", "", "Phi-3-mini", "4k-instruct", "", "3.8B"],
            ),
        ];
        for (id, parameters, expected) in cases {
            let name = ModelName::parse(id, *parameters);
            let found = [name.full, name.organization, name.base, name.finetune, name.version, name.size];
            assert_eq!(found.map(Option::unwrap_or_default), *expected, "{id}");
        }
    }

    #[test]
    fn titles_and_sizes_are_written_as_in_gguf_py() {
        assert_eq!(title("smollm2-hf"), "Smollm2 Hf");
        assert_eq!(title("llama3b-v1.0-7b-GPT4all"), "Llama3B v1.0 7b GPT4all");
        assert_eq!(title("it's"), "It'S");
        assert_eq!(size_label(134_515_008), "135M");
        assert_eq!(size_label(1_235_814_432), "1.2B");
        assert_eq!(size_label(500), "0.50K");
        assert_eq!(size_label(9_960), "10K");
        assert_eq!(size_label(8_030_261_312), "8.0B");
    }
}
