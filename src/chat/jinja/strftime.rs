//! C's `strftime` at one fixed time.
//!
//! The time is always 2024-07-26 00:00:00: an adapter must not depend on the day it was trained. Llama 3's
//! own template falls back to that day.

/// The time in this format. An unknown code is written as it is.
pub(super) fn strftime(format: &str) -> String {
    let mut out = String::with_capacity(format.len() + 16);
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        // `-` means: without leading zeros.
        let bare = characters.next_if_eq(&'-').is_some();
        let code = characters.next();
        let text = match code {
            Some('Y') => "2024",
            Some('y') => "24",
            Some('m') if bare => "7",
            Some('m') => "07",
            Some('d' | 'e') => "26",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('u' | 'w') => "5",
            Some('j') => "208",
            Some('H' | 'M' | 'S') if bare => "0",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('f') => "000000",
            Some('F') => "2024-07-26",
            Some('D' | 'x') => "07/26/24",
            Some('T' | 'X') => "00:00:00",
            Some('R') => "00:00",
            Some('c') => "Fri Jul 26 00:00:00 2024",
            Some('z' | 'Z') => "",
            Some('%') => "%",
            other => {
                out.push('%');
                out.extend(bare.then_some('-'));
                out.extend(other);
                ""
            }
        };
        out += text;
    }
    out
}
