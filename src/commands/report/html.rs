//! Texts in HTML and SVG.

use super::terminal::plain;

/// A text as HTML and XML show it: no character of it begins a tag, an entity or an end of an attribute, and control
/// characters are escaped, which neither form holds. Line breaks and tabs stay.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push(char::REPLACEMENT_CHARACTER),
            c => out += &plain(c.encode_utf8(&mut [0; 4])),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn no_text_becomes_a_tag() {
        assert_eq!(
            escaped("</pre><script>alert(\"1\" + '2' & 3)</script>\n\u{0}\u{202e}ö"),
            "&lt;/pre&gt;&lt;script&gt;alert(&quot;1&quot; + &#39;2&#39; &amp; 3)&lt;/script&gt;\n\\u{0}\\u{202e}ö"
        );
    }
}
