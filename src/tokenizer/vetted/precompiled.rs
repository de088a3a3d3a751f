//! SentencePiece's table of replaced characters, in base64: the length of a double array in bytes, the
//! array, and the replacements, each ended by NUL.

/// The longest replacement, in bytes. The longest of NFKC has 33.
const MAX_REPLACEMENT: usize = 128;
/// The greatest table, in bytes of base64. NFKC's has about 320 KB.
const MAX_TABLE: usize = 1 << 23;

/// Checks a table. Its array is not followed.
pub(super) fn check(base64: &str) -> Result<(), String> {
    if base64.len() > MAX_TABLE {
        return Err(format!("a table of {} bytes, at most {MAX_TABLE} are accepted", base64.len()));
    }
    let bytes = decoded(base64).ok_or("\"precompiled_charsmap\" is not base64")?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("\"precompiled_charsmap\" has no table")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length < 4 || !length.is_multiple_of(4) || length > rest.len() {
        return Err(format!("an array of {length} bytes in a table of {}", bytes.len()));
    }
    let replacements = &rest[length..];
    if std::str::from_utf8(replacements).is_err() {
        return Err("a replacement is not UTF-8 text".into());
    }
    match replacements.split(|&byte| byte == 0).map(<[u8]>::len).max() {
        Some(longest) if longest > MAX_REPLACEMENT => {
            Err(format!("a replacement of {longest} bytes, at most {MAX_REPLACEMENT} are accepted"))
        }
        _ => Ok(()),
    }
}

/// The bytes of padded base64.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut value = 0;
        for at in 0..4 {
            let digit = match group.get(at) {
                None => 0,
                Some(digit @ b'A'..=b'Z') => digit - b'A',
                Some(digit @ b'a'..=b'z') => digit - b'a' + 26,
                Some(digit @ b'0'..=b'9') => digit - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
            };
            value = value << 6 | u32::from(digit);
        }
        bytes.extend(&value.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        let cases = [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")];
        for (text, bytes) in cases {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert!(["Z", "Zg=", "Z-==", "===="].iter().all(|text| decoded(text).is_none_or(|b| b.is_empty())));
    }

    #[test]
    fn tables_are_checked() {
        assert!(check("BAAAAAAAAABhAA==").is_ok());
        let refused = [
            ("", "no table"),
            ("AA==", "no table"),
            ("AAAAAA==", "array of 0"),
            ("/////w==", "array of 4294967295"),
        ];
        for (table, words) in refused {
            assert!(check(table).unwrap_err().contains(words), "{table}");
        }
    }
}
