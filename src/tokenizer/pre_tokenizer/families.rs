//! The pre-tokenizers that llama.cpp knows by name: patterns, in the order in which they are applied.
//!
//! The data follows `llama-vocab.cpp` and `unicode.cpp` (11434, October 2026). llama.cpp distinguishes
//! letters, numbers, marks, punctuation and symbols, but not their subcategories: `\p{Lu}` in one of its
//! patterns means `\p{L}`.

use super::split::SplitRule::{
    self, GiveBack, GiveBackAndSplitPowersOfTwo, GiveBackUnlessNewline, Thousands, ThousandsWithFirst, Whole,
};

/// One pattern, and what is done with its matches.
pub(super) type Stage = (&'static str, SplitRule);

/// One family of pre-tokenizers.
pub(super) struct Family {
    /// The values of `tokenizer.ggml.pre` that mean it.
    pub(super) names: &'static [&'static str],
    /// Its patterns, in the order in which they are applied.
    pub(super) stages: &'static [Stage],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a text begins with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
}

const fn family(names: &'static [&'static str], stages: &'static [Stage]) -> Family {
    Family { names, stages, ignore_merges: false, adds_bos: false }
}

const fn whole_words(names: &'static [&'static str], stages: &'static [Stage]) -> Family {
    Family { names, stages, ignore_merges: true, adds_bos: false }
}

pub(super) const GPT2: Stage =
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+", GiveBack);
pub(super) const DIGIT: Stage = (r"\p{N}", Whole);
const DIGITS: Stage = (r"\p{N}+", Whole);
const TO_THREE_DIGITS: Stage = (r"\p{N}{1,3}", Whole);
const THREE_DIGITS: Stage = (r"[0-9][0-9][0-9]", Whole);
/// Groups of three digits from the right; the remaining digits stay with the text before.
const THOUSANDS: Stage = (r"\p{N}+", ThousandsWithFirst);
const LINES: Stage = (r"[^\n]+|[\n]+", Whole);
const LLAMA3: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const JAIS2: Stage = (LLAMA3.0, GiveBackAndSplitPowersOfTwo);
const QWEN2: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const UFAKZEKA: Stage =
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+", GiveBackUnlessNewline);
const MINICPM5: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const QWEN35: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const EXAONE_MOE: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
        r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+"
    ),
    GiveBackUnlessNewline,
);
const TEKKEN: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*",
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const GPT4O: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const GRANITE_EMBEDDING: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]--[a-z]]*[[\p{L}\p{M}]--[A-Z]]+",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]--[a-z]]+[[\p{L}\p{M}]--[A-Z]]*",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const TINY_AYA: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const YOUTU: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const YOUTU_SCRIPTS: Stage = (
    concat!(
        r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+",
        r"|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}",
        r"\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+",
        r"|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
    ),
    Whole,
);
const KIMI_K2: Stage = (
    concat!(
        r"[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}",
        r"\x{2F800}-\x{2FA1F}]+",
        r"|[^\r\n\p{L}\p{N}]?[\p{L}--[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}",
        r"\x{2A700}-\x{2EBEF}\x{2F800}-\x{2FA1F}]]+",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const BAILING: Stage = (
    concat!(
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+"
    ),
    GiveBackUnlessNewline,
);
const SEED: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const KANA_AND_HAN: Stage = (r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+", Whole);
const DEEPSEEK3: Stage = (
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    GiveBackUnlessNewline,
);
const SPARK: Stage = (
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r"| ?[\p{P}\p{S}]+|[\r\n]|\s+"
    ),
    GiveBack,
);
const AFMOE_SCRIPTS: Stage = (
    concat!(
        r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}",
        r"\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF}",
        r"\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
    ),
    Whole,
);
const BLOOM: Stage = (r" ?[^(\s|.,!?…。，、।۔،)]+", Whole);
/// The cased letters of an older Unicode version, except Armenian small letters and Georgian ones.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}",
    r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}",
    r"\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}",
    r"\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}",
    r"\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}",
    r"\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}",
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}",
    r"\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}",
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}",
    r"\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}",
    r"\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    r"]+",
);

pub(super) const FAMILIES: &[Family] = &[
    family(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "roberta-bpe",
        ],
        &[GPT2],
    ),
    family(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    Family {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        stages: &[LLAMA3],
        ignore_merges: true,
        adds_bos: true,
    },
    family(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    whole_words(&["glm4", "glm5"], &[LLAMA3]),
    family(&["jais-2"], &[JAIS2]),
    family(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        &[QWEN2],
    ),
    family(&["qwen35"], &[QWEN35]),
    family(&["ufakzeka"], &[UFAKZEKA]),
    family(&["laguna"], &[LINES, QWEN2]),
    whole_words(&["minicpm5"], &[TO_THREE_DIGITS, MINICPM5]),
    family(&["exaone-moe"], &[EXAONE_MOE]),
    Family { names: &["tekken"], stages: &[TEKKEN], ignore_merges: true, adds_bos: true },
    family(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    whole_words(&["granite-embed-multi-97m"], &[GRANITE_EMBEDDING]),
    family(&["tiny_aya", "cohere2moe"], &[THOUSANDS, TINY_AYA]),
    whole_words(&["youtu"], &[YOUTU_SCRIPTS, YOUTU]),
    family(&["kimi-k2"], &[KIMI_K2]),
    family(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    family(&["seed-coder"], &[SEED]),
    family(
        &["deepseek-llm"],
        &[
            (r"[\r\n]", Whole),
            (DEEPSEEK_LETTERS, Whole),
            (
                r"\s?[[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]--\s]+",
                Whole,
            ),
            (r"\s+$", Whole),
            (r"[[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]--\s]+", Whole),
            DIGITS,
        ],
    ),
    family(
        &["deepseek-coder"],
        &[
            (r"[\r\n]", Whole),
            (r"\s?\p{L}+", Whole),
            (r"\s?\p{P}+", Whole),
            // llama.cpp replaces white space with a tab before it applies a pattern without categories.
            (r"[[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]--\s]+", Whole),
            DIGIT,
        ],
    ),
    family(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[TO_THREE_DIGITS, KANA_AND_HAN, DEEPSEEK3],
    ),
    family(&["spark2_5"], &[TO_THREE_DIGITS, KANA_AND_HAN, SPARK, DIGIT]),
    family(&["afmoe"], &[THOUSANDS, AFMOE_SCRIPTS, DEEPSEEK3]),
    family(&["falcon"], &[(r"[\p{P}$+<=>^~|`]+", Whole), GPT2, THREE_DIGITS]),
    family(&["default"], &[(r"[\p{P}$+<=>^~|]+", Whole), GPT2, DIGITS, THREE_DIGITS]),
    family(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    family(&["viking"], &[BLOOM, DIGIT]),
    family(&["superbpe"], &[DIGITS, (r"[0-9]+", Thousands)]),
    Family {
        names: &["chameleon"],
        stages: &[
            (r"<sentinel:[0-9]+>", Whole),
            (r"IMGIMG[A-I]{1,4}Z", Whole),
            (r"[\t\n]|    |  ", Whole),
            DIGIT,
            (r"[\p{P}!-/:-@\[-`{-~]", Whole),
            GPT2,
        ],
        ignore_merges: false,
        adds_bos: true,
    },
];

/// Gemma 4's: splits lines, but nothing within a line.
pub(super) const GEMMA4: Family =
    Family { names: &["gemma4"], stages: &[LINES], ignore_merges: false, adds_bos: true };
