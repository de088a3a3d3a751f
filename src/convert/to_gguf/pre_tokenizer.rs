//! Finds llama.cpp's name for the pre-tokenizer of a byte-level tokenizer, `tokenizer.ggml.pre`.
//!
//! tokenizer.json holds a pipeline of regular expressions; GGUF holds a name, and llama.cpp has the code for
//! it. Its converter identifies the tokenizers that it knows by the SHA-256 of the ids of one text. This does
//! the same with the table of its `get_vocab_base_pre` (11434, October 2026). The hash of a tokenizer with
//! another vocabulary is unknown. If its pipeline is one that llama.cpp has, the name of that pipeline is
//! used, and a note says so.

use curmerge_formats::sha256_hex;
use serde_json::Value as Json;

use super::hub_tokenizer::HubTokenizer;
use crate::base::folder::{self, Folder, Object};
use crate::tokenizer::{LibraryStep, pre_tokenizers};
use crate::{Error, Result};

/// The text whose ids are hashed.
const TEXT: &str = concat!(
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫\u{fe0f} (multiple emojis ",
    "concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我",
    "想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've ",
    "been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL",
);

/// Hashes and names, with a model of each on Hugging Face.
#[rustfmt::skip]
const KNOWN: &[(&str, &str)] = &[
    // skt/A.X-4.0
    ("b0a6b1c0bd5998ebd9df08611efde34a4ff03faed45ae09c43e6b31ebd4b94cf", "a.x-4.0"),
    // arcee-ai/Trinity-Tokenizer
    ("49fc0303c9e0d2c2c565c510f64b2d9b271276acdcdadff733249eda9f7d59df", "afmoe"),
    // inclusionAI/Ling-lite
    ("96a5f08be6259352137b512d4157e333e21df7edd3fcd152990608735a65b224", "bailingmoe"),
    // inclusionAI/Ling-mini-base-2.0
    ("9b1be57e70d20d9501b2b3186e792d81181ae36ada3903c26f9fea418cf87206", "bailingmoe2"),
    // bigscience/bloom
    ("3c30d3ad1d6b64202cd222813e7736c2db6e1bd6d67197090fc1211fbc612ae7", "bloom"),
    // THUDM/glm-4-9b-chat
    ("81d72c7348a9f0ebe86f23298d37debe0a5e71149e29bd283904c02262b27516", "chatglm-bpe"),
    // THUDM/glm-4-9b-chat
    ("b6e8e1518dc4305be2fe39c313ed643381c4da5db34a98f6a04c093f8afbe99b", "chatglm-bpe"),
    // WisdomShell/CodeShell-7B
    ("7b3e7548e4308f52a76e8229e4e6cc831195d0d1df43aed21ac6c93da05fec5f", "codeshell"),
    // CohereLabs/North-Mini-Code-1.0
    ("52df12b4c8d4176e7481aab4b6e8454d1fd0a210a04a574f6d4e067d10e23c3e", "cohere2moe"),
    // CohereForAI/c4ai-command-r-v01
    ("9c2227e4dd922002fb81bde4fc02b0483ca4f12911410dee2255e4987644e3f8", "command-r"),
    // databricks/dbrx-base
    ("a8594e3edff7c29c003940395316294b2c623e09894deebbc65f33f1515df79e", "dbrx"),
    // deepseek-ai/deepseek-coder-6.7b-base
    ("347715f544604f9118bb75ed199f68779f423cabb20db6de6f31b908d04d7821", "deepseek-coder"),
    // deepseek-ai/deepseek-llm-7b-base
    ("049ecf7629871e3041641907f3de7c733e4dbfdc736f57d882ba0b0845599754", "deepseek-llm"),
    // deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
    ("b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5", "deepseek-r1-qwen"),
    // deepseek-ai/DeepSeek-V3
    ("877081d19cf6996e2c4ff0e1236341e9b7bde288f5311a56a937f0afbbb3aeb5", "deepseek-v3"),
    // LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct
    ("4e2b24cc4770243d65a2c9ec19770a72f08cffc161adbb73fcbb6b7dd45a0aae", "exaone"),
    // LGAI-EXAONE/K-EXAONE-236B-A23B
    ("6c81ce329e0802883b22eabab0d3fa48357337ef1ecb45443828bf1f6254833f", "exaone-moe"),
    // LGAI-EXAONE/EXAONE-4.0-32B
    ("2085e1638f6c377a0aa4ead21b27bb4cb941bf800df86ed391011769c1758dfb", "exaone4"),
    // codefuse-ai/F2LLM-v2-4B
    ("862f827721df956049dff5ca81a57f29e575280bc622e290d3bf4e35eca29015", "f2llmv2"),
    // tiiuae/falcon-7b
    ("8aeee3860c56296a157a1fe2fad249ec40aa59b1bb5709f4ade11c4e6fe652ed", "falcon"),
    // tiiuae/Falcon-H1-7B-Base
    ("3eda48b4c4dc7de733d1a8b3e3b4a85243dbbf704da2ee9d42c6beced8897896", "falcon-h1"),
    // tiiuae/Falcon-H1-34B-Base
    ("48f8e02c0359c0bbdd82f26909171fac1c18a457bb47573ed1fe3bbb2c1cfd4b", "falcon-h1"),
    // tiiuae/Falcon-H1-1B-Base
    ("60476e1243776c4fb1b993dbd7a5f15ac22f83c80afdf425fa5ae01c8d44ef86", "falcon-h1"),
    // tiiuae/Falcon-H1-0.5B-Base
    ("a6b57017d60e6edb4d88ecc2845188e0eb333a70357e45dcc9b53964a73bbae6", "falcon-h1"),
    // tiiuae/Falcon3-7B-Base
    ("9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e", "falcon3"),
    // ai-sage/GigaChat-20B-A3B-instruct
    ("ad851be1dba641f2e3711822f816db2c265f788b37c63b4e1aeacb9ee92de8eb", "gigachat"),
    // zai-org/GLM-4.5-Air
    ("9ca2dd618e8afaf09731a7cf6e2105b373ba6a1821559f258b272fe83e6eb902", "glm4"),
    // THUDM/glm-4-9b-hf
    ("a1336059768a55c99a734006ffb02203cd450fed003e9a71886c88acf24fdbc2", "glm4"),
    // zai-org/GLM-4.7-Flash
    ("cdf5f35325780597efd76153d4d1c16778f766173908894c04afc20108536267", "glm4"),
    // evilfreelancer/ruGPT3XL
    ("0fe1cf6eda062318a1af7270f3331a85c539a01778ff948e24388e949c5282f4", "gpt-2"),
    // openai-community/gpt2
    ("3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454", "gpt-2"),
    // Xenova/gpt-4o
    ("ccc2ef013c104be7bae2965776d611e1d7a8a2a9c547dd93a682c9a9fc80352e", "gpt-4o"),
    // TurkuNLP/gpt3-finnish-small
    ("bc01ce58980e1db43859146dc51b1758b3b88729b217a74792e9f8d43e479d21", "gpt3-finnish"),
    // ibm-granite/granite-docling-258M
    ("53e325976a6e142379c19b09afcae354f2f496f147afa8f9e189a33fe4e3024e", "granite-docling"),
    // alvarobartt/grok-2-tokenizer
    ("66b8d4e19ab16c3bfd89bce5d785fb7e0155e8648708a1f42077cb9fe002c273", "grok-2"),
    // tencent/Hunyuan-A13B-Instruct
    ("7e57df22b1fe23a7b1e1c7f3dc4e3f96d43a4eb0836d0c6bdc3436d7b2f1c664", "hunyuan"),
    // tencent/Hunyuan-4B-Instruct
    ("bba3b3366b646dbdded5dbc42d59598b849371afc42f7beafa914afaa5b70aa6", "hunyuan-dense"),
    // tencent/Hy4-preview
    ("e6ddf9c6686791c12d698d34c31ab9be1fea9af5a3d9a6909783ab382198ae1c", "hy_v4"),
    // core42/jais-13b
    ("b53802fb28e26d645c3a310b34bfe07da813026ec7c7716883404d5e0f8b1901", "jais"),
    // inceptionai/Jais-2-8B-Chat
    ("bc5108ee1eb6a3d600cadd065f63190fbd0554dbc9e4bbd6a0d977970afc8d2a", "jais-2"),
    // jdopensource/JoyAI-LLM-Flash
    ("b4b8ca1f9769494fbd956ebc4c249de6131fb277a4a3345a7a92c7dd7a55808d", "joyai-llm"),
    // kakaocorp/kanana-2-30b-a3b-instruct-2601
    ("e4d54df1ebc1f2b91acd986c5b51aa50837d5faf7c7398e73c1f9e9ee5d19869", "kanana2"),
    // moonshotai/Kimi-K2-Base
    ("81212dc7cdb7e0c1074ca62c5aeab0d43c9f52b8a737be7b12a777c953027890", "kimi-k2"),
    // KORMo-Team/KORMo-tokenizer
    ("4a2e2abae11ca2b86d570fc5b44be4d5eb5e72cc8f22dd136a94b37da83ab665", "kormo"),
    // poolside/Laguna-XS.2
    ("972da7b59cec44d1f0a490a86c96df53859e486e481563e5dddac155013d87ac", "laguna"),
    // LiquidAI/LFM2.5-350M
    ("169bf0296a13c4d9b7672313f749eb36501d931022de052aad6e36f2bf34dd51", "lfm2"),
    // LiquidAI/LFM2.5-8B-A1B
    ("9e454714343b69b99b71795c1d27a68c2a1d15dab111f4d353109f966af29da7", "lfm2"),
    // meta-llama/Meta-Llama-3-8B
    ("0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5", "llama-bpe"),
    // meta-llama/Llama-4-Scout-17B-16E-Instruct
    ("d353350c764d8c3b39c763113960e4fb4919bea5fbf208a0e3b22e8469dc7406", "llama4"),
    // Infinigence/Megrez-3B-Instruct
    ("d4c8f286ea6b520b3d495c4455483cfa2302c0cfcd4be05d781b6a8a0a7cdaf1", "megrez"),
    // JetBrains/Mellum-4b-base
    ("a1e163ecab2e718a4c829d1148b6e86824ec36163bb71941c3dca9cd5ac25756", "mellum"),
    // JetBrains/Mellum2-12B-A2.5B-Base
    ("9dcf830ee9990cdbf78cc523a5f7bd9ad8f3f9890c2d3581d2785ad10f07049d", "mellum2"),
    // K-intelligence/Midm-2.0-Base-Instruct
    ("f6791d196f87ce6b56a7d234be618e0d58f8cda3549416635b2bebcd22cd95c4", "midm-2.0"),
    // sapienzanlp/Minerva-7B-base-v1.0
    ("1431a23e583c97432bc230bff598d103ddb5a1f89960c8f1d1051aaa944d0b35", "minerva-7b"),
    // openbmb/MiniCPM5-1B
    ("36f3066e97b7f3994b379aaacde306c1444c6ae84e81a5ae3cd2b7ed3b8c42d4", "minicpm5"),
    // MiniMaxAI/MiniMax-M2
    ("f4f37b6c8eb9ea29b3eac6bb8c8487c5ab7885f8d8022e67edc1c68ce8403e95", "minimax-m2"),
    // allenai/OLMo-1.7-7B-hf
    ("b6dc8df998e1cfbdc4eac8243701a65afe638679230920b50d6f17d81c098166", "olmo"),
    // microsoft/phi-2
    ("fcace8b9cac38ce847670c970cd5892031a753a1ef381abd1d9af00f713da085", "phi-2"),
    // mistral-community/pixtral-12b
    ("0e9433cbbb161f89e264eb32e8e64bfe69e834973ffca5d41d3948a604a3e2a3", "pixtral"),
    // LumiOpen/Poro-34B-chat
    ("c7ea5862a53e4272c035c8238367063e2b270d51faa48c0f09e9d5b54746c360", "poro-chat"),
    // Qwen/Qwen3-Embedding-0.6B
    ("d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c", "qwen2"),
    // Qwen/Qwen1.5-7B
    ("e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea", "qwen2"),
    // openbmb/MiniCPM-V-4_6
    ("1444df51289cfa8063b96f0e62b1125440111bc79a52003ea14b6eac7016fd5f", "qwen35"),
    // Qwen/Qwen3.5-9B-Instruct
    ("d30d75d9059f1aa2c19359de71047b3ae408c70875e8a3ccf8c5fba56c9d8af4", "qwen35"),
    // smallcloudai/Refact-1_6-base
    ("6221ad2852e85ce96f791f476e0b390cf9b474c9e3d1362f53a24a06dc8220ff", "refact"),
    // sarvamai/sarvam-30b
    ("62f6fb0a6fd5098caeabb19b07a5c1099cafc8b9c40eab6ea89ece4ec02fbc57", "sarvam-moe"),
    // ByteDance-Seed/Seed-Coder-8B-Base
    ("d5f1dd6f980fec569fb218a81a7658ac45fc56b38c5a0adeb1c232fbe04ef5ec", "seed-coder"),
    // abacusai/Smaug-Llama-3-70B-Instruct
    ("c136ed14d01c2745d4f60a9596ae66800e2b61fa45643e72436041855ad4089d", "smaug-bpe"),
    // HuggingFaceTB/SmolLM-135M
    ("855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249", "smollm"),
    // upstage/Solar-Open-100B
    ("16389f0a1f51ee53e562ffd51c371dc508639ab0e4261502071836e50e223e91", "solar-open"),
    // XHToken/Spark-X2.5-1.7B
    ("0a766d034107bc736a3f2dc4968fd62e54a3570f1454443e0c5a4cc6bd7941ed", "spark2_5"),
    // stabilityai/stablelm-2-zephyr-1_6b
    ("32d85c31273f8019248f2559fed492d929ea28b17e51d81d3bb36fff23ca72b3", "stablelm2"),
    // bigcode/starcoder2-3b
    ("35d91631860c815f952d711435f48d356ebac988362536bed955d43bfa436e34", "starcoder"),
    // UW/OLMo2-8B-SuperBPE-t180k
    ("7dec86086fcc38b66b7bc1575a160ae21cf705be7718b9d5598190d7c12db76f", "superbpe"),
    // lewtun/talkie-1930-13b-it-hf
    ("f728162c1315c26e40249849799b4ba3fe584c32084b4795b03eb295e63cb5af", "talkie"),
    // mistralai/Mistral-Nemo-Base-2407
    ("63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e", "tekken"),
    // CohereLabs/tiny-aya-base
    ("d772b220ace2baec124bed8cfafce0ead7d6c38a4b65ef11261cf9d5d62246d1", "tiny_aya"),
    // trillionlabs/Trillion-7B-preview
    ("1994ffd01900cfb37395608534236ecd63f2bd5995d6cb1004dda1af50240f15", "trillion"),
    // ufakai/ufakzeka-1
    ("653660222fb704f61cbf2b618a8ae6502b7f8b20c980f9a5de07ed78e13319cd", "ufakzeka"),
    // LumiOpen/Viking-7B
    ("7fc505bd3104ca1083b150b17d088b59534ede9bde81f0dd2090967d7fe52cee", "viking"),
    // tencent/Youtu-LLM-2B
    ("9d70134b369a70e5735009b6de918f7581b5211f7c074d1f89f753aea8248af1", "youtu"),
];

/// GPT-2's words, in the spelling of its regular expression in the `tokenizers` crate.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DIGITS: &str = "digits";

/// Pipelines, whether words that are tokens stay whole, and llama.cpp's name for both.
const PIPELINES: &[(&[&str], bool, &str)] = &[
    (&[GPT2], false, "gpt-2"),
    (&[DIGITS, GPT2], false, "smollm"),
    (&[LLAMA3], true, "llama-bpe"),
    (&[LLAMA3], false, "smaug-bpe"),
    (&[QWEN2], false, "qwen2"),
    (&[GPT4O], false, "gpt-4o"),
];

/// The name of the tokenizer's pre-tokenizer.
pub(super) fn recognise(
    folder: Folder<'_>,
    tokenizer: &HubTokenizer,
    json: &Object,
    notes: &mut Vec<String>,
) -> Result<&'static str> {
    let path = folder.join(folder::TOKENIZER);
    let ids = tokenizer
        .encode(TEXT, true)
        .ok_or_else(|| Error::file(&path, "a text cannot be encoded with it", "download the folder again"))?;
    // The spelling of a list in Python.
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let hash = sha256_hex(format!("[{list}]").as_bytes());
    if let Some((_, name)) = KNOWN.iter().find(|(known, _)| *known == hash) {
        return Ok(name);
    }
    let whole_words = json.get("model").and_then(|model| model.get("ignore_merges")?.as_bool()) == Some(true);
    let steps = steps(json.get("pre_tokenizer"));
    // llama.cpp has no normalizer; its converter ignores Qwen's, which composes accents.
    let normalizer = json.get("normalizer").filter(|normalizer| !normalizer.is_null());
    let composes = normalizer.is_some_and(|n| n.get("type").and_then(Json::as_str) == Some("NFC"));
    let same = |(pipeline, whole, name): &&(&[&str], bool, &str)| {
        (normalizer.is_none() || composes && *name == "qwen2")
            && *whole == whole_words
            && steps.as_deref().is_some_and(|steps| steps == *pipeline)
    };
    let known = PIPELINES.iter().find(same).map(|(.., name)| *name);
    // A folder that curmerge wrote from a GGUF file spells the steps as this program does.
    let own = || {
        let mut all = pre_tokenizers().filter(|(_, whole, _)| normalizer.is_none() && *whole == whole_words);
        all.find(|(.., cuts)| steps.as_deref().is_some_and(|steps| are(steps, cuts))).map(|(name, ..)| name)
    };
    let Some(name) = known.or_else(own) else {
        let problem =
            format!("llama.cpp has no name for its pre-tokenizer (ids of the check text hash to {hash})");
        let help = "llama.cpp 11434 cannot split texts like this model; a later version may convert it";
        return Err(Error::input(path, "pre_tokenizer", problem, help));
    };
    notes.push(format!(
        "llama.cpp's converter does not know this tokenizer; '{name}', of the same pipeline, was written"
    ));
    Ok(name)
}

/// Whether the steps are equal.
fn are(steps: &[&str], cuts: &[LibraryStep]) -> bool {
    let same = |(step, cut): (&&str, &LibraryStep)| match cut {
        LibraryStep::Gpt2Words => *step == GPT2,
        LibraryStep::Digits => *step == DIGITS,
        LibraryStep::Pattern(pattern) => step == pattern,
    };
    steps.len() == cuts.len() && steps.iter().zip(cuts).all(same)
}

/// The regular expressions of a pipeline that ends in byte-level spelling; `None` if it has other steps.
fn steps(pre_tokenizer: Option<&Json>) -> Option<Vec<&str>> {
    let pre_tokenizer = pre_tokenizer?;
    let one = std::slice::from_ref(pre_tokenizer);
    let list = pre_tokenizer.get("pretokenizers").and_then(Json::as_array).map_or(one, Vec::as_slice);
    let flag =
        |step: &Json, name: &str, default: bool| step.get(name).and_then(Json::as_bool).unwrap_or(default);
    let (last, before) = list.split_last()?;
    let mut steps = Vec::new();
    for step in before {
        steps.push(match step.get("type")?.as_str()? {
            "Digits" if flag(step, "individual_digits", false) => DIGITS,
            "Split" if step.get("behavior")?.as_str()? == "Isolated" && !flag(step, "invert", false) => {
                step.get("pattern")?.get("Regex")?.as_str()?
            }
            _ => return None,
        });
    }
    if last.get("type")?.as_str()? != "ByteLevel" || flag(last, "add_prefix_space", true) {
        return None;
    }
    if flag(last, "use_regex", true) {
        steps.push(GPT2);
    }
    Some(steps)
}
