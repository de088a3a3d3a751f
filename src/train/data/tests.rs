use std::fs;

use super::*;
use crate::chat::Message;
use crate::tokenizer::tests::byte_level;

const EOS: u32 = 2;

/// A ChatML template, as many chat models have.
const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The template, with the BOS and EOS of `byte_level`.
fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source.into(), "<|im_start|>".into(), "<|im_end|>".into())
}

/// SHA-256 of the file in the first test.
const SHA: &str = "90c0be43ccf69dbc01104d1d3cd285fdf70f38d06e28d327f57bbfb324204d35";

fn read_as(name: &str, text: &str, tokenizer: &Tokenizer, max: usize, eos: bool) -> Result<Dataset, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let options = DataOptions { max_seq_len: max, append_eos: eos, ..DataOptions::default() };
    Dataset::read(&path, tokenizer, None, &options).map_err(|error| error.to_string())
}

/// Reads one conversation, with a chat template.
fn read_chat(row: &str, tokenizer: &Tokenizer, source: &str) -> Result<Dataset, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.jsonl");
    fs::write(&path, row).unwrap();
    let options = DataOptions { max_seq_len: 9999, append_eos: true, ..DataOptions::default() };
    Dataset::read(&path, tokenizer, Some(&template(source)), &options).map_err(|error| error.to_string())
}

fn read(text: &str, tokenizer: &Tokenizer, max: usize) -> Result<Dataset, String> {
    read_as("d.jsonl", text, tokenizer, max, true)
}

/// The text of an example, with the targets in brackets.
fn shown(example: &Example, tokenizer: &Tokenizer) -> String {
    let mut out = String::new();
    let mut inside = false;
    for (&token, &target) in example.tokens.iter().zip(&example.loss_mask) {
        if target != inside {
            out.push(if target { '[' } else { ']' });
            inside = target;
        }
        out += &tokenizer.decode(&[token]);
    }
    if inside {
        out.push(']');
    }
    out
}

#[test]
fn loss_falls_on_the_completion_and_its_end() {
    let tokenizer = byte_level(false);
    let data = read("{\"prompt\": \"is it \", \"completion\": \"good\"}", &tokenizer, 64).unwrap();
    assert_eq!(shown(&data.examples[0], &tokenizer), "is it [good<|im_end|>]");
    assert_eq!((data.target_tokens(), data.cut, data.dropped), (5, 0, 0));
    assert_eq!(data.sha256, SHA);
    let bare =
        read_as("d.jsonl", "{\"prompt\": \"is it \", \"completion\": \"good\"}", &tokenizer, 64, false)
            .unwrap();
    assert_eq!(shown(&bare.examples[0], &tokenizer), "is it [good]");
}

#[test]
fn loss_falls_on_all_of_a_text_but_its_first_token() {
    let tokenizer = byte_level(false);
    let data = read("{\"text\": \"abc\"}", &tokenizer, 64).unwrap();
    assert_eq!(shown(&data.examples[0], &tokenizer), "a[bc<|im_end|>]");
    let begun = byte_level(true);
    let data = read("{\"text\": \"abc\"}", &begun, 64).unwrap();
    assert_eq!(shown(&data.examples[0], &begun), "<|im_start|>[abc<|im_end|>]");
}

#[test]
fn a_long_prompt_loses_its_start_after_bos() {
    let pair = "{\"prompt\": \"abcdef\", \"completion\": \"xy\"}";
    let tokenizer = byte_level(true);
    let data = read(pair, &tokenizer, 6).unwrap();
    assert_eq!(shown(&data.examples[0], &tokenizer), "<|im_start|>ef[xy<|im_end|>]");
    assert_eq!(data.cut, 1);
    assert_eq!(shown(&read(pair, &tokenizer, 3).unwrap().examples[0], &tokenizer), "<|im_start|>[xy]");
    let plain = byte_level(false);
    assert_eq!(shown(&read(pair, &plain, 5).unwrap().examples[0], &plain), "ef[xy<|im_end|>]");
    assert_eq!(shown(&read(pair, &plain, 2).unwrap().examples[0], &plain), "f[x]");
}

#[test]
fn a_long_text_loses_its_end_and_empty_examples_are_dropped() {
    let tokenizer = byte_level(false);
    let lines = "{\"text\": \"abcdef\"}\n{\"text\": \"\"}\n{\"prompt\": \"\", \"completion\": \"\"}\n";
    let data = read(lines, &tokenizer, 3).unwrap();
    assert_eq!(data.examples.len(), 1);
    assert_eq!(shown(&data.examples[0], &tokenizer), "a[bc]");
    assert_eq!((data.cut, data.dropped), (1, 2));
    assert!(
        read("{\"text\": \"\"}", &tokenizer, 3).unwrap_err().contains("no example with anything to learn")
    );
    assert!(read("{\"text\": \"ab\"}", &tokenizer, 1).unwrap_err().contains("at least 2"));
}

#[test]
fn a_plain_text_is_divided_and_every_token_is_a_target_once() {
    let tokenizer = byte_level(false);
    let data = read_as("d.txt", "abcdefgh", &tokenizer, 4, false).unwrap();
    let windows: Vec<_> = data.examples.iter().map(|e| shown(e, &tokenizer)).collect();
    assert_eq!(windows, ["a[bcd]", "d[efg]", "g[h]"]);
    assert_eq!(data.target_tokens(), 7);
    let begun = byte_level(true);
    let data = read_as("d.txt", "abcdefgh", &begun, 4, true).unwrap();
    let windows: Vec<_> = data.examples.iter().map(|e| shown(e, &begun)).collect();
    assert_eq!(windows, ["<|im_start|>[abc]", "<|im_start|>[def]", "<|im_start|>[gh<|im_end|>]"]);
}

#[test]
fn a_text_that_begins_with_bos_or_ends_with_eos_has_them_once() {
    let tokenizer = byte_level(true);
    for (row, right) in [
        (r#"{"text": "<|im_start|>a<|im_end|>"}"#, "<|im_start|>[a<|im_end|>]"),
        (r#"{"text": "a"}"#, "<|im_start|>[a<|im_end|>]"),
        (r#"{"prompt": "<|im_start|>a", "completion": "b<|im_end|>"}"#, "<|im_start|>a[b<|im_end|>]"),
        (r#"{"prompt": "a", "completion": "b"}"#, "<|im_start|>a[b<|im_end|>]"),
    ] {
        let data = read(row, &tokenizer, 99).unwrap();
        assert_eq!(shown(&data.examples[0], &tokenizer), right, "{row}");
    }
}

#[test]
fn loss_falls_on_the_assistants_turns_and_their_ends() {
    let line = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"},\
        {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"d\"}]}";
    let tokenizer = byte_level(true);
    let data = read_chat(line, &tokenizer, CHATML).unwrap();
    assert_eq!(
        shown(&data.examples[0], &tokenizer),
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n\
         <|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>]\n"
    );
    let messages: Vec<_> = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
        .map(|(role, content)| Message::new(role, content))
        .to_vec();
    let rendered = template(CHATML).render(&messages, false).unwrap();
    assert_eq!(data.examples[0].tokens, tokenizer.encode_with_bos(&rendered).unwrap());
}

#[test]
fn a_turn_without_an_end_gets_eos() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% endif %}";
    let tokenizer = byte_level(false);
    let line = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"b\"}]}";
    let data = read_chat(line, &tokenizer, template).unwrap();
    assert_eq!(data.examples[0].tokens.last(), Some(&EOS));
    assert_eq!(shown(&data.examples[0], &tokenizer), "assistant: [b\n<|im_end|>]");
}

/// The examples of one conversation, in the form of [`shown`].
fn conversation(row: &str, template: &str) -> Vec<String> {
    let tokenizer = byte_level(false);
    let data = read_chat(row, &tokenizer, template).unwrap();
    data.examples.iter().map(|example| shown(example, &tokenizer)).collect()
}

const TWO: &str = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\", \"thinking\": \"t\"}, \
    {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", \"content\": \"b\", \"thinking\": \"u\"}]}";

#[test]
fn if_earlier_turns_are_rewritten_each_turn_has_its_own_context() {
    let template = include_str!("../../../fixtures/chat/reasoning.jinja");
    assert_eq!(
        conversation(TWO, template),
        [
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[<think>\nt\n</think>\n\na<|im_end|>]\n",
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n\
             <|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n[<think>\nu\n</think>\n\nb<|im_end|>]\n",
        ]
    );
    // A call, its result and an answer have one context. The user's turn after them, which would make the
    // template rewrite them, is left out.
    let calls = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"reasoning_content\": \"t\", \"tool_calls\": \
        [{\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": 2.0}}]}, {\"role\": \"tool\", \"content\": \"5\"}, {\"role\": \"assistant\", \"content\": \"five\"}, \
        {\"role\": \"user\", \"content\": \"thanks\"}]}";
    assert_eq!(
        conversation(calls, template),
        ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[<think>\nt\n</think>\n\n<tool_call>\n\
          {\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": 2.0}}\n</tool_call><|im_end|>]\n\
          <|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n\
          <|im_start|>assistant\n[<think>\n\n</think>\n\nfive<|im_end|>]\n"]
    );
}

#[test]
fn generation_marks_give_the_same_targets() {
    let marked = include_str!("../../../fixtures/chat/marked.jinja");
    let bare = marked.replace("{%- generation %}", "").replace("{%- endgeneration %}", "");
    assert!(!bare.contains("generation %}") && conversation(TWO, marked) == conversation(TWO, &bare));
    assert!(conversation(TWO, marked)[0].ends_with("<|im_start|>assistant\n[b<|im_end|>]\n"));
    // Marks win over headers, and a variable that is set between them is not visible after them.
    let header = "{% for m in messages %}{% generation %}{% set x = 1 %}{{ m.role }}{% endgeneration %}{{ x }}{{ m.content }};{% endfor %}";
    let one = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}";
    assert_eq!(conversation(one, header), ["userq;[assistant]a;[<|im_end|>]"]);
}

#[test]
fn a_turn_follows_the_prompt_that_generates_it() {
    // The template puts the system message at the last turn only, so an answer removes it.
    let template = "{% set s = messages[0].content %}{% for m in messages[1:] %}{% if m.role == 'user' %}\
        [{{ s ~ '/' if loop.last }}{{ m.content }}]{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}";
    let row = "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"q\"}, \
        {\"role\": \"assistant\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}";
    assert_eq!(conversation(row, template), ["[s/q][ a<|im_end|>]", "[q] a<|im_end|>[s/r][ b<|im_end|>]"]);
    // The generation prompt opens reasoning that the data do not have.
    let template = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}\
        {% if add_generation_prompt %}assistant:<think>{% endif %}";
    assert_eq!(
        conversation(row, template)[0],
        "system:s<|im_end|>user:q<|im_end|>assistant:[a<|im_end|>]user:r<|im_end|>assistant:[b<|im_end|>]"
    );
}

#[test]
fn generation_stops_at_the_first_end_and_a_first_turn_needs_no_question() {
    // As in Phi's template, another end follows the last turn.
    let template = "{{ messages[0].role[0] }}{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant:{% else %}<|endoftext|>{% endif %}";
    assert_eq!(
        conversation(TWO, template),
        ["u<|im_start|>user:q<|im_end|>\n<|im_start|>assistant:[a<|im_end|>]\n\
          <|im_start|>user:r<|im_end|>\n<|im_start|>assistant:[b<|im_end|>]\n<|endoftext|>"]
    );
    // Two answers in a row, the first without a question, whose context this template cannot render.
    let row = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}";
    let template = template.replace("{% else %}<|endoftext|>", "");
    assert_eq!(
        conversation(row, &template),
        ["a<|im_start|>assistant:[a<|im_end|>]\n<|im_start|>assistant:[b<|im_end|>]\n"]
    );
}

#[test]
fn a_text_that_looks_like_a_header_is_not_learnt() {
    // The template refuses the context of the last turn, which ends with a tool's result.
    let template = "{% for m in messages %}{% if loop.last and m.role == 'tool' %}{{ raise_exception('ask') }}{% endif %}\
        [{{ m.role }}]{{ m.content }};{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
        {"role": "tool", "content": "see [assistant]fake"}, {"role": "assistant", "content": "b"}]}"#;
    assert_eq!(
        conversation(&row.replace('\n', ""), template),
        ["[user]q;[assistant][a;][tool]see [assistant]fake;[assistant][b;<|im_end|>]"]
    );
}

#[test]
fn a_conversation_that_cannot_be_rendered_is_refused() {
    let line = "{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"c\"}]}";
    let counted = "{% for m in messages %}{{ messages | length }}{{ m.role }}{{ loop.index }}{% endfor %}";
    let tokenizer = byte_level(false);
    let error = read_chat(line, &tokenizer, counted).unwrap_err();
    assert!(error.contains("d.jsonl:1: the chat template rewrites"), "{error}");
    let error = read(line, &tokenizer, 99).unwrap_err();
    assert!(error.contains("no chat template"), "{error}");
    let refused = read_chat(line, &tokenizer, "{{ raise_exception('no system') }}").unwrap_err();
    assert!(refused.contains("d.jsonl:1: "), "{refused}");
}

#[test]
fn errors_name_the_first_bad_line_and_empty_files_are_refused() {
    let tokenizer = byte_level(false);
    let error = read("{\"text\": \"a\"}\n{\"text\": 1}\n{", &tokenizer, 9).unwrap_err();
    assert!(error.contains("d.jsonl:2: "), "{error}");
    assert!(read("\n\n", &tokenizer, 9).unwrap_err().contains("empty"));
    let options = DataOptions { max_seq_len: 9, append_eos: true, ..DataOptions::default() };
    let missing = Dataset::read(Path::new("/none/d.jsonl"), &tokenizer, None, &options).unwrap_err();
    assert!(missing.to_string().contains("/none/d.jsonl"));
}

/// The share of a file of rows, and the whole of it.
fn share_and_whole(
    rows: &str,
    trained: usize,
    max_rows: Option<usize>,
    held: usize,
) -> [(Dataset, Dataset); 2] {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.jsonl"), folder.path().join("b.csv"));
    fs::write(&first, rows).unwrap();
    fs::write(&second, "text\n\"x y\"\nlast\n").unwrap();
    let (tokenizer, options) = (byte_level(false), DataOptions::default());
    let paths = [&first, &second];
    let held_out = |_| Ok(held);
    let share = Share { trained, seed: 7, max_rows, held_out: &held_out };
    let (own, own_held) = Dataset::read_share(&paths, &tokenizer, None, &options, share).unwrap().unwrap();
    let mut whole = Dataset::read_all(&paths, &tokenizer, None, &options).unwrap();
    whole.thin_out(max_rows.unwrap_or(usize::MAX));
    let whole_held = whole.hold_out(held);
    [(own, own_held.unwrap_or_default()), (whole, whole_held)]
}

#[test]
fn a_share_has_the_examples_that_the_first_epoch_of_the_whole_takes() {
    // Parts of several sizes, and two files.
    let rows: String = (0..9000).map(|i| format!("{{\"text\": \"bird {i}\"}}\n")).collect();
    for (trained, max_rows, held) in [(24, None, 0), (24, None, 40), (5000, None, 3), (10, Some(200), 7)] {
        let [(own, own_held), (whole, whole_held)] = share_and_whole(&rows, trained, max_rows, held);
        assert!(own.in_order);
        let order = whole.order(7, 0);
        let right: Vec<&Example> = order[..trained].iter().map(|&i| &whole.examples[i]).collect();
        assert_eq!(own.order(7, 0).iter().map(|&i| &own.examples[i]).collect::<Vec<_>>(), right);
        assert_eq!(own_held.examples, whole_held.examples);
        assert_eq!(own.sha256, whole.sha256);
        assert!(
            own.layout.contains(&format!("9002 rows, of which the run takes {trained}")),
            "{}",
            own.layout
        );
    }
    // One that takes all is the whole.
    let [(own, own_held), (whole, whole_held)] = share_and_whole(&rows, usize::MAX, Some(300), 10);
    assert!(!own.in_order);
    assert_eq!((own.examples, own_held.examples), (whole.examples, whole_held.examples));
}

#[test]
fn a_share_makes_up_for_rows_without_anything_to_learn() {
    let row = |i: usize| format!("{{\"text\": \"{}\"}}\n", if i.is_multiple_of(3) { "word" } else { "" });
    let rows: String = (0..300).map(row).collect();
    let [(own, _), (whole, _)] = share_and_whole(&rows, 40, None, 0);
    assert_eq!((own.examples.len(), whole.examples.len()), (40, 102));
    let [(own, _), (whole, _)] = share_and_whole(&rows, 200, None, 0);
    assert_eq!((own.examples, own.dropped), (whole.examples, 200));
}

#[test]
fn a_share_of_rows_that_are_wrong_is_refused_whether_or_not_they_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.jsonl");
    let rows: String = (0..500).map(|i| format!("{{\"text\": \"bird {i}\"}}\n")).collect();
    fs::write(&path, rows + "{\"text\": 1}\n").unwrap();
    let none = |_| Ok(0);
    let share = Share { trained: 1, seed: 0, max_rows: None, held_out: &none };
    let (tokenizer, options) = (byte_level(false), DataOptions::default());
    let error = Dataset::read_share(&[&path], &tokenizer, None, &options, share).unwrap_err().to_string();
    assert!(error.contains("d.jsonl:501: \"text\" is a number"), "{error}");
    let path = folder.path().join("d.txt");
    fs::write(&path, "a text\n").unwrap();
    assert!(Dataset::read_share(&[&path], &tokenizer, None, &options, share).unwrap().is_none());
    assert!(!is_large(&[&path]).unwrap());
}

#[test]
fn held_out_examples_are_spread_over_the_file() {
    let text: String = (0..100).map(|i| format!("{{\"text\": \"{i:02} {i:02}\"}}\n")).collect();
    let tokenizer = byte_level(false);
    let all = read(&text, &tokenizer, 99).unwrap();
    let mut rest = all.clone();
    let held = rest.hold_out(7);
    assert_eq!((held.examples.len(), rest.examples.len(), &held.sha256), (7, 93, &all.sha256));
    let places: Vec<usize> =
        held.examples.iter().map(|e| all.examples.iter().position(|other| other == e).unwrap()).collect();
    assert_eq!(places, [14, 28, 42, 57, 71, 85, 99]);
    assert!(rest.examples.iter().all(|e| !held.examples.contains(e)));
    assert_eq!(rest.hold_out(0).examples.len(), 0);
}

#[test]
fn choices_are_tokenized_like_completions() {
    let tokenizer = byte_level(true);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.jsonl");
    let good = "{\"prompt\": \"p \", \"completion\": \"no\", \"choices\": [\"yes\", \"no\"]}\n";
    fs::write(&path, good).unwrap();
    let examples = read_choices(&path, &tokenizer, &Columns::Usual).unwrap();
    assert_eq!(examples[0].answer, 1);
    assert_eq!(tokenizer.decode(&examples[0].prompt), "<|im_start|>p ");
    assert_eq!(tokenizer.decode(&examples[0].choices[0]), "yes");
    for (line, wanted) in [
        ("{\"prompt\": \"p\", \"completion\": \"maybe\", \"choices\": [\"yes\"]}", "not one of the choices"),
        ("{\"prompt\": \"p\", \"completion\": \"yes\"}", "has no \"choices\""),
        ("{\"text\": \"p\"}", "has no \"choices\""),
        ("{\"prompt\": \"p\", \"completion\": \"\", \"choices\": [\"\"]}", "is empty"),
    ] {
        fs::write(&path, format!("{good}{line}")).unwrap();
        let error = read_choices(&path, &tokenizer, &Columns::Usual).unwrap_err().to_string();
        assert!(error.contains("c.jsonl:2: ") && error.contains(wanted), "{error}");
    }
}

#[test]
fn loss_falls_on_no_default_system_message() {
    let tokenizer = byte_level(false);
    let row = r#"{"messages": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Time?"}, {"role": "assistant", "content": "Noon"}]}"#;
    let message = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    let prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let reasoning = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
    let system = "<|im_start|>system\nToday.<|im_end|>\n";
    // SmolLM2's way, in the loop; another, before it, which has no first message to look at.
    let within = format!(
        "{{% for m in messages %}}{{% if loop.first and m.role != 'system' %}}{system}{{% endif %}}{message}"
    );
    let before = format!(
        "{{% if messages[0].role != 'system' %}}{system}{{% endif %}}{{% for m in messages %}}{message}"
    );
    for template in
        [within, before].iter().flat_map(|start| [prompt, reasoning].map(|end| format!("{start}{end}")))
    {
        let data = read_chat(row, &tokenizer, &template).unwrap();
        let found: Vec<_> = data.examples.iter().map(|example| shown(example, &tokenizer)).collect();
        let start = format!("{system}<|im_start|>assistant\n");
        let right = start
            + "[Hi<|im_end|>]\n<|im_start|>user\nTime?<|im_end|>\n<|im_start|>assistant\n[Noon<|im_end|>]\n";
        assert_eq!(found, [right], "{template}");
    }
}

#[test]
fn what_is_learnt_begins_and_ends_with_whole_tokens_of_the_assistant() {
    let tokenizer = byte_level(true);
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#;
    let shown = |template: &str| {
        let data = read_chat(row, &tokenizer, template).unwrap();
        data.examples.iter().map(|example| shown(example, &tokenizer)).collect::<Vec<_>>()
    };
    // The prompt asks for reasoning, which the data do not have: both texts go on with <|im_.
    let template = "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}<|im_end|>{% endif %}\
        {{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}a:<|im_start|>{% endif %}";
    let turn = |question, answer| format!("u:{question}<|endoftext|>a:[<|im_end|>{answer}<|endoftext|>]");
    assert_eq!(shown(template), [format!("<|im_start|>{}{}", turn("a", "b"), turn("c", "d"))]);
    // The end of a turn is written before the next one.
    let template = "{% for m in messages %}{% if m.role == 'user' %}{% if not loop.first %}<|im_end|>{% endif %}U:{{ m.content }}\nA:\
        {% else %}{{ m.content }}{% endif %}{% endfor %}";
    assert_eq!(shown(template), ["<|im_start|>U:a\nA:[b<|im_end|>]U:c\nA:[d<|im_end|>]"]);
    let template = template.replace("<|im_end|>", "{{ '\n' }}<|endoftext|>");
    assert_eq!(shown(&template), ["<|im_start|>U:a\nA:[b\n<|endoftext|>]U:c\nA:[d\n<|endoftext|>]"]);
    // What the template marks has the generation prompt and a line break around what the model writes.
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}A:{{ m.content }}<|im_end|>\n{% endgeneration %}\
        {% else %}U:{{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}";
    assert_eq!(shown(template), ["<|im_start|>U:a\nA:[b<|im_end|>]\nU:c\nA:[d<|im_end|>]\n"]);
}

#[test]
fn a_turn_of_weight_0_is_context() {
    let tokenizer = byte_level(false);
    let turn = |role: &str, content: &str, more: &str| {
        format!(r#"{{"role": "{role}", "content": "{content}"{more}}}"#)
    };
    let row = |first: &str, second: &str| {
        let turns = [
            turn("user", "a", ""),
            turn("assistant", "bad", first),
            turn("user", "b", ""),
            turn("assistant", "good", second),
        ];
        format!(r#"{{"messages": [{}]}}"#, turns.join(", "))
    };
    let data = read_chat(&row(r#", "weight": 0"#, r#", "weight": 1"#), &tokenizer, CHATML).unwrap();
    let right = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nbad<|im_end|>\n<|im_start|>user\nb<|im_end|>\n\
        <|im_start|>assistant\n[good<|im_end|>]\n";
    assert_eq!(shown(&data.examples[0], &tokenizer), right);
    // The last turn, whose end the template does not write.
    let open = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let data = read_chat(&row("", r#", "weight": 0"#), &tokenizer, open).unwrap();
    assert_eq!(shown(&data.examples[0], &tokenizer), "user: a\nassistant: [bad\n]user: b\nassistant: good\n");
    let line = read_chat(&row(r#", "weight": 0"#, r#", "weight": 0"#), &tokenizer, CHATML).unwrap_err();
    assert!(line.contains("no example with anything to learn"), "{line}");
    let line = read_chat(&row("", r#", "weight": 0.5"#), &tokenizer, CHATML).unwrap_err();
    assert!(line.contains("\"messages\"[3].weight is 0.5, and must be 0 or 1"), "{line}");
}

#[test]
fn the_first_example_is_that_of_the_whole_file_in_every_form() {
    let tokenizer = byte_level(false);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.json");
    let options = DataOptions { max_seq_len: 64, append_eos: true, ..DataOptions::default() };
    for text in [
        "\n{\n\"text\": \"ab\"\n}",
        "[{\"text\": \"ab\"}]",
        "\n{\"text\": \"ab\"}\n{\"text\": \"c\"}",
        "{\"rows\": [{\"text\": \"ab\"}]}",
    ] {
        fs::write(&path, text).unwrap();
        let all = Dataset::read(&path, &tokenizer, None, &options).unwrap();
        let (first, cut) = Dataset::first(&path, &tokenizer, None, &options).unwrap();
        assert_eq!((&first, cut), (&all.examples[0], false), "{text}");
        assert_eq!(shown(&first, &tokenizer), "a[b<|im_end|>]");
    }
}
