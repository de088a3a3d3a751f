//! Writes the tokens of texts as JSON lines {"text", "ids"}, for `tests/clients/tokens.py` to compare with llama.cpp's:
//!
//! `cargo run --release --example tokens -- MODEL FILE... > TOKENS.jsonl`
//!
//! MODEL is a GGUF file or a Hugging Face folder. Of a JSONL file come the strings of each object, and prompt and
//! completion joined; of any other the whole text and each of its lines. Hard strings are always among them.

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use curmerge::tokenizer::Tokenizer;
use curmerge_formats::gguf::Gguf;
use serde_json::{Value, json};

/// What tokenizers differ on: runs of white space, digits, scripts, marks, emoji, special tokens within a text.
const HARD: &[&str] = &[
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t\t x",
    " \n \n x \t\r\n y\r\r\n",
    "a  b   c    d          e",
    "trailing spaces   ",
    "   leading",
    "1 22 333 4444 55555 1234567890 3.14159 1,000,000 ½ ² ① ٣٤ Ⅻ",
    "I'm you're he's we'll they'd I've don't 'tis O'Neill's IT'S WE'LL",
    "'s't're've'm'll'd ''''",
    "Hello, World! (foo) [bar] {baz} <qux> \"quoted\" `code` ~tilde~ ^caret^ |pipe| $5 +- = \\",
    "!!!???...---___***###@@@%%%&&&",
    "snake_case camelCase PascalCase SCREAMING_SNAKE kebab-case x86_64 v1.2.3-rc4",
    "naïve café résumé Ünïcödé ŒUVRE ß ſ İı ǅ ﬁ",
    "e\u{301}a\u{300}o\u{308} \u{301}alone n\u{303}\u{304}\u{305} क्षि ไทย",
    "日本語のテキストと漢字、カタカナ。한국어 텍스트 中文字符，测试。",
    "Привет, мир! Ελληνικά עברית العربية हिन्दी ไทย ქართული አማርኛ",
    "😀👍🏽👨‍👩‍👧‍👦🇩🇪🏳️‍🌈 emoji✨mid☃word",
    "\u{a0}nbsp\u{2003}em\u{3000}ideographic\u{200b}zero\u{feff}bom\u{85}nel\u{2028}ls\u{2029}ps",
    "\u{0}nul\u{1}\u{7f}\u{80}\u{9f}control",
    "\u{fffd}\u{fffe}\u{e000}\u{10ffff}\u{378}\u{e0001}",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|endoftext|>",
    "x<|im_end|>y <|im_end|> z<|im_end",
    "<|im_<|im_end|>end|> <|IM_END|> <| im_end |>",
    "<s></s><unk>[INST] hi [/INST]<<SYS>>",
    "<repo_name>a/b<file_sep>main.rs<filename>x<jupyter_code>y<issue_comment>",
    "fn main() {\n    println!(\"{}\", 1 + 1);\n\tif x { y }\n}\n",
    "https://example.com/path?q=1&r=%20#frag user@example.org C:\\Windows\\System32",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "\u{2581}lower\u{2581}one eighth Ġ Ċ ĠĠ",
    "ﷺ ﷽ 𝓗𝓮𝓵𝓵𝓸 𐍈 𠜎 ṩ Å Å",
];

fn long() -> Vec<String> {
    vec![
        "a".repeat(20_000),
        " ".repeat(20_000),
        format!("{}x", " ".repeat(5_000)),
        "\n".repeat(5_000),
        "1".repeat(5_000),
        "ab ".repeat(10_000),
        "日本".repeat(3_000),
        "!".repeat(5_000),
        "<|im_end|>".repeat(2_000),
        "\u{301}".repeat(2_000),
    ]
}

fn texts_of(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let content = std::fs::read_to_string(path)?;
    if path.extension().is_none_or(|ending| ending != "jsonl") {
        let lines = content.split('\n').map(str::to_owned);
        return Ok(lines.chain([content.clone()]).collect());
    }
    let mut texts = Vec::new();
    for line in content.lines().filter(|line| !line.trim().is_empty()) {
        let object: Value = serde_json::from_str(line)?;
        let field = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(prompt), Some(completion)) = (field("prompt"), field("completion")) {
            texts.push(prompt + &completion);
        }
        texts.extend(["text", "prompt", "completion"].into_iter().filter_map(field));
    }
    Ok(texts)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let model = arguments.next().ok_or("usage: tokens MODEL FILE... > TOKENS.jsonl")?;
    let model = Path::new(&model);
    let tokenizer = if model.is_dir() {
        Tokenizer::from_hf_folder(model)?
    } else {
        Tokenizer::from_gguf(&Gguf::open(model)?)?
    };
    let mut texts: Vec<String> = HARD.iter().map(|text| text.to_string()).chain(long()).collect();
    for path in arguments {
        texts.extend(texts_of(Path::new(&path))?);
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let start = Instant::now();
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| tokenizer.encode(text, false)).collect::<Result<_, _>>()?;
    let bytes: usize = texts.iter().map(String::len).sum();
    eprintln!("{} texts of {bytes} bytes in {:.2} s", texts.len(), start.elapsed().as_secs_f64());
    for (text, ids) in texts.iter().zip(&ids) {
        writeln!(out, "{}", json!({ "text": text, "ids": ids }))?;
    }
    Ok(())
}
