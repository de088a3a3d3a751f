//! Chat templates.

use super::Corpus;

/// Writes the templates, each in the folder of a small model.
pub fn write(corpus: &mut Corpus<'_>) {
    let long = "a".repeat(5_000_000);
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    let nested = format!("{}{}", "{% if true %}".repeat(3000), "{% endif %}".repeat(3000));
    let lists = format!("{{{{ {}{} }}}}", "[".repeat(5000), "]".repeat(5000));
    let filters = format!("{{{{ 'a'{} }}}}", "|upper".repeat(5000));
    let loops = format!("{}x{}", "{% for i in range(100) %}".repeat(8), "{% endfor %}".repeat(8));
    let templates: &[(&str, &str)] = &[
        ("empty", ""),
        ("plain", "no message at all"),
        ("sound", "{% for m in messages %}{{ m.content }}{% endfor %}"),
        ("open", "{% for m in messages %}"),
        ("open-expression", "{{ messages"),
        ("open-string", "{{ 'a }}"),
        ("end", "{% endif %}"),
        ("unknown-tag", "{% nothing %}"),
        ("unknown-filter", "{{ messages|nothing }}"),
        ("unknown-function", "{{ nothing() }}"),
        ("unknown-name", "{{ nothing.of.this }}"),
        ("raise", "{{ raise_exception('two\nlines \u{1b}[31m') }}"),
        ("raise-long", "{{ raise_exception('x' * 100000) }}"),
        ("repeat", "{{ 'a' * 10000000000 }}"),
        ("repeat-list", "{{ ([1] * 1000000000)|length }}"),
        (
            "double",
            "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        ),
        (
            "join-double",
            "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}",
        ),
        (
            "replace-double",
            "{% set ns = namespace(s='aa') %}{% for i in range(60) %}{% set ns.s = ns.s|replace('a', 'aa') %}{% endfor %}",
        ),
        ("range", "{% for i in range(10000000000) %}{% endfor %}"),
        ("range-list", "{{ range(10000000000)|list }}"),
        ("range-negative", "{{ range(0, 10, 0)|list }}"),
        ("loops", &loops),
        ("recursion", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"),
        ("two-recursions", "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"),
        ("recursive-loop", "{% for m in messages recursive %}{{ loop([m]) }}{% endfor %}"),
        ("include", "{% include '/etc/passwd' %}"),
        ("import", "{% import 'os' as os %}{{ os }}"),
        ("extends", "{% extends 'self' %}"),
        ("attributes", "{{ ''.__class__.__mro__ }}"),
        ("division", "{{ 1 // 0 }}{{ 1 % 0 }}"),
        ("power", "{{ 9 ** 9 ** 9 ** 9 }}"),
        ("shift", "{{ 9223372036854775807 + 9223372036854775807 }}"),
        ("smallest", "{{ -9223372036854775808 // -1 }}"),
        ("slices", "{{ messages[::0] }}{{ 'abc'[-9223372036854775807:] }}"),
        ("indent", "{{ 'a\nb'|indent(1000000000000) }}"),
        ("center", "{{ 'a'|center(1000000000000) }}"),
        ("format", "{{ '%1000000000d'|format(1) }}"),
        ("format-key", "{{ '%(aϙ'|format('x') }}"),
        ("tojson", "{{ messages|tojson(indent=10000000000) }}"),
        ("batch", "{{ messages|batch(0)|list }}"),
        ("slice-filter", "{{ messages|slice(0)|list }}"),
        ("round", "{{ 1.5|round(400000000) }}"),
        ("strftime", "{{ strftime_now('%Q%9999999999d') }}"),
        ("nul", "{{ '\u{0}' }}\u{0}"),
        ("long", &long),
        ("deep", &format!("{{{{ {deep} }}}}")),
        ("nested", &nested),
        ("lists", &lists),
        ("filters", &filters),
        ("generation", "{% generation %}{% generation %}x{% endgeneration %}{% endgeneration %}"),
    ];
    for (name, template) in templates {
        let words = &["run", "@", "--chat", "-p", "hi", "-n", "1"];
        corpus.model(
            "qwen3",
            &format!("templates/{name}"),
            "chat_template.jinja",
            template.as_bytes(),
            words,
        );
    }
}
