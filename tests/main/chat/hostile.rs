//! Chat templates that ask for too much memory, time or stack: each soon gives an error or a text.
//!
//! The threads of tests have stacks as small as those of the threads that render training data.

use std::time::{Duration, Instant};

use curmerge::chat::{ChatTemplate, Message};

/// The time limit of a rendering, many times longer than any takes.
const SOON: Duration = Duration::from_secs(60);

/// Renders a template. Panics if that takes too long.
fn render(source: &str) -> Result<String, String> {
    let began = Instant::now();
    let messages = [Message::new("user", "Hi"), Message::new("assistant", "Yo")];
    let template = ChatTemplate::new(source.into(), "<s>".into(), "</s>".into());
    let rendered = template.render(&messages, true).map_err(|error| error.to_string());
    let took = began.elapsed();
    if took > Duration::from_millis(300) {
        println!("{took:?} {}", source.chars().take(200).collect::<String>());
    }
    assert!(took < SOON, "{took:?} {source:.200}");
    rendered
}

/// Expressions that use a value `x`, and some also `y`.
const USES: [&str; 58] = [
    "{{ x }}",
    "{{ x ~ '' }}",
    "{{ '' ~ x }}",
    "{{ (x, 1) }}",
    "{{ [x, 1] }}",
    "{{ {'a': x} }}",
    "{{ {x: 1} }}",
    "{{ {(x, 1): 1} }}",
    "{{ raise_exception(x) }}",
    "{{ raise_exception((x, 1)) }}",
    "{{ x | string }}",
    "{{ (x, x) | string }}",
    "{{ x | tojson }}",
    "{{ x | tojson(indent=4) }}",
    "{{ {'a': x} | tojson(sort_keys=true) }}",
    "{{ [x, x] | join(',') }}",
    "{{ ','.join([x, x]) }}",
    "{{ x | upper }}",
    "{{ x | lower }}{{ x | title }}{{ x | capitalize }}",
    "{{ x | trim }}",
    "{{ x | replace('a', 'b') }}",
    "{{ 'a' | replace(x, 'b') }}",
    "{{ x | indent(4) }}",
    "{{ x | pprint }}",
    "{{ x | e }}",
    "{{ x | safe }}",
    "{{ x | list }}{{ x | list | list }}",
    "{{ [x, y] | sort }}",
    "{{ [[x], [y]] | sort(attribute=0) }}",
    "{{ [x, y] | unique }}",
    "{{ [{'a': x}, {'a': y}] | groupby('a') }}",
    "{{ [x, y] | min }}",
    "{{ {'a': x, 'b': y} | dictsort(by='value') }}",
    "{{ [x, y] | map('string') | list }}",
    "{{ [x, y] | map('join', ',') | list }}",
    "{{ [x, y] | select('in', [y, x]) | list }}",
    "{{ [x, y] | select('equalto', y) | list }}",
    "{{ [{'a': x}] | selectattr('a', 'equalto', y) | list }}",
    "{{ '%s' | format(x) }}",
    "{{ '{}{}'.format(x, y) }}",
    "{{ x == y }}",
    "{{ x != y }}",
    "{{ x < y }}",
    "{{ x >= y }}",
    "{{ 1 < 2 == x == y }}",
    "{{ [x] == [y] }}{{ {'a': x} == {'a': y} }}{{ (x, 1) == (y, 1) }}",
    "{{ x in [y, y] }}",
    "{{ x not in [y, y] }}",
    "{{ x in 'abc' }}",
    "{{ x is eq(y) }}{{ x is in([y]) }}{{ x is lt(y) }}{{ x is sameas(y) }}",
    "{{ [y, y].index(x) }}",
    "{{ [y, y].count(x) }}",
    "{{ {'a': 1}[x] }}",
    "{{ {'a': 1}.get(x) }}{{ {'a': 1} | attr(x) }}",
    "{{ namespace(a=x) }}{{ dict(a=x) }}{{ namespace(a=x) ~ '' }}",
    "{% for i in [1, 2] %}{{ loop.changed(x) }}{{ loop.changed(y) }}{% endfor %}",
    "{% set z %}{{ x }}{% endset %}{{ z | length }}",
    "{% macro m(a) %}{{ a ~ a }}{% endmacro %}{{ m(x) }}",
];

/// A template that replaces the equal values `x` and `y` by `step` of themselves (`it`), again and again.
fn grown(step: &str, times: usize) -> String {
    let set = |name: &str| format!("{{% set ns.{name} = {} %}}", step.replace("it", &format!("ns.{name}")));
    format!(
        "{{% set ns = namespace(x=[1], y=[1]) %}}{{% for i in range({times}) %}}{}{}{{% endfor %}}\
         {{% set x = ns.x %}}{{% set y = ns.y %}}",
        set("x"),
        set("y")
    )
}

#[test]
fn exponentially_growing_values_are_bounded() {
    for step in ["[it, it]", "(it, it)", "{'a': it, 'b': it}", "{'a': [it, (it, it)]}", "[it, it | list]"] {
        assert!(render(&grown(step, 40)).is_err(), "{step}");
    }
    // A little smaller than the largest value that can be made.
    let made = grown("(it, {'a': it})", 13);
    for used in USES {
        render(&format!("{made}{{% for i in range(99999) %}}{used}{{% endfor %}}")).ok();
    }
}

#[test]
fn deeply_nested_values_are_bounded() {
    for step in [
        "[it]",
        "(it,)",
        "{'a': it}",
        "[it] + []",
        "it[0:]",
        "it | reverse",
        "it * 1",
        "it | zip(it)",
        "it | batch(1)",
        "[it] | list",
        "it + [1]",
        "it | chain([1])",
        "{'a': it}.items()",
        "{'a': it} | items",
        "dict(a=it)",
        "namespace(a=it)",
        "[it] | map('list') | list",
        "it | slice(1)",
        "[{'a': it}] | groupby('a')",
        "{'a': it} | dictsort",
        "it[::-1]",
        "[it, 1] | select | list",
        "{'a': 1} | chain({'b': it})",
    ] {
        let made = grown(step, 90_000);
        assert!(render(&made).is_err() || !step.starts_with('['), "{step}");
    }
    for step in ["[it]", "(it,)", "{'a': it}"] {
        let made = grown(step, 190);
        for used in USES {
            render(&format!("{made}{used}")).ok();
        }
    }
    // Nested without a namespace.
    let straight = format!("{{% set a = [] %}}{}{{{{ a }}}}", "{% set a = [a] %}".repeat(6000));
    assert!(render(&straight).is_err());
    assert!(render(&format!("{{{{ {}{} }}}}", "[".repeat(60_000), "]".repeat(60_000))).is_err());
}

#[test]
fn cyclic_values_are_refused() {
    for own in [
        "{% set ns.x = ns %}",
        "{% set ns.x = [ns] %}",
        "{% set ns.x = {'a': ns} %}",
        "{% set ns.x = namespace(a=ns) %}",
        "{% set ns.x = [1] | map('default', ns) | list %}{% set ns.x = [] | batch(2, ns) %}{% set ns.y = (ns, 1) %}",
        "{% for a in [ns.x] %}{% set ns.x = loop %}{% endfor %}",
        "{% for a in [ns.x] %}{% set ns.x = [loop] %}{% endfor %}",
    ] {
        assert!(render(&format!("{{% set ns = namespace(x=1) %}}{own}{{{{ ns ~ '' }}}}")).is_err(), "{own}");
    }
}

#[test]
fn long_texts_and_lists_are_bounded() {
    let text = "{% set s = 'ab\n' * 1000000 %}{% set l = [1] * 100000 %}{% set d = 'x' * 1000000 %}";
    for used in [
        "{{ s.strip(d) | length }}",
        "{{ s | trim(d) | length }}",
        "{{ s.splitlines() | length }}",
        "{{ s.split('a') | length }}",
        "{{ s.split() | length }}",
        "{{ s.rsplit('b', 99999999) | length }}",
        "{{ s | lines | length }}",
        "{{ s | split('a') | length }}",
        "{{ s[5] }}",
        "{{ s[-1] }}",
        "{{ s[5:6] }}",
        "{{ s[::-1] | length }}",
        "{{ s == s ~ '' }}",
        "{{ s ~ s }}",
        "{{ s.count('a') }}",
        "{{ s.replace('a', d) | length }}",
        "{{ s in s }}",
        "{{ l.count(1) }}",
        "{{ l.index(2) }}",
        "{{ l | sum(start='') }}",
        "{{ [s, s, s, s] | sum(start='') }}",
        "{{ [[s, s], [s]] | map('sum', start='') | list }}",
        "{{ ''.join(l * 1000) }}",
        "{{ 'abcdefgh'.join(l * 1000) }}",
        "{{ l * 1000 ~ '' }}",
        "{% set a, b = l * 100000 %}",
        "{{ [1] * 100000000 ~ '' }}",
        "{{ ([1]) * 100000000 == ([2]) * 100000000 }}",
        "{{ 3 in ([1] * 100000000) }}",
        "{{ (1,) * 100000000 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 999999999) }}",
        "{{ ('{0}' * 1000).format(s) | length }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ 'x'.ljust(999999999) }}{{ 'x'.center(999999999) }}{{ 'x'.zfill(999999999) }}",
        "{{ s | indent(100000) }}",
        "{{ l | batch(99999999, 1) | list }}{{ l | slice(99999999) | list }}",
        "{% include ['x'] %}",
        "{{ loop.cycle() }}{% for i in l %}{{ loop.cycle() }}{% endfor %}",
        "{{ range(99999) ~ range(99999) }}",
        "{{ debug() }}",
        "{% for c in s %}{% endfor %}",
        "{{ s | list | length }}{{ s | unique | list | length }}{{ s | wordcount }}",
        "{{ l | tojson(indent=16) }}",
        "{{ strftime_now(s) | length }}",
        "{{ namespace(**{'a': 1}) }}",
        "{{ range(*l) }}",
    ] {
        render(&format!("{text}{used}")).ok();
        render(&format!("{text}{{% for i in range(99999) %}}{used}{{% endfor %}}")).ok();
    }
}

#[test]
fn templates_that_are_hard_to_compile_are_bounded() {
    for (part, end) in [
        ("+x", ""),
        (" and x", ""),
        ("|d", ""),
        (".a", ""),
        ("[0]", ""),
        (" if x else 1", ""),
        ("~x", ""),
        ("-1", ""),
    ] {
        for times in [1000, 60_000, 500_000] {
            render(&format!("{{{{ x{}{end} }}}}", part.repeat(times))).ok();
        }
    }
    render(&format!("{{{{ f({}1) }}}}", "1,".repeat(65_000))).ok();
    render(&format!("{{{{ [{}1] }}}}", "x,".repeat(65_000))).ok();
    render(&format!("{{{{ not {}1 }}}}", "not ".repeat(30_000))).ok();
    render(&format!("{{{{ {}1 }}}}", "-".repeat(100_000))).ok();
    render(&format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(10_000))).ok();
    render(&"\n".repeat(131_000)).ok();
    render(&"{{ 1 }}\n".repeat(16_000)).ok();
    render(&"{% if 1 %}".repeat(10_000)).ok();
}

#[test]
fn ordinary_templates_still_render() {
    for (source, text) in [
        (
            "{{ [1, 2, 3][1:] }}|{{ 'abcdef'[1:5:2] }}|{{ [1, 2, 3][::-1] }}|{{ (1, 2, 3)[:2] }}",
            "[2, 3]|bd|[3, 2, 1]|(1, 2)",
        ),
        ("{{ 1 < 2 <= 2 != 3 }}{{ 1 < 2 > 5 }}{{ 1 in [1] in [[1]] }}", "TrueFalseTrue"),
        ("{{ (1, 'a') }}{{ (1,) }}{{ () }}{{ ((1, [2]), none) }}", "(1, 'a')(1,)()((1, [2]), None)"),
        ("{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ 1.0 }}", "a1None[1, 'b']1.0"),
        (
            "{{ 2 * 3 ** 2 }} {{ 'ab' * 2 }} {{ [1] * 3 }} {{ 2 * 1.5 }} {{ 7 * 2 // 3 }}",
            "18 abab [1, 1, 1] 3.0 4",
        ),
        (
            "{{ {'b': 1, 'a': 2} }}{{ {'a': 1}['a'] }}{{ {1: 'x'}[1] }}{{ [5, 6][-1] }}{{ 'abc'[1] }}",
            "{'b': 1, 'a': 2}1x6b",
        ),
        ("{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}", "1213"),
        (
            "{% for a, b in {'x': 1, 'y': 2}.items() %}{{ a }}{{ b }}{{ loop.last }}{% endfor %}",
            "x1Falsey2True",
        ),
        (
            "{% for i in range(9) if i is odd %}{% if i == 5 %}{% continue %}{% endif %}{% if i > 6 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "13",
        ),
        (
            "{% for i in [[1, [2]], 3] recursive %}{{ loop(i) if i is sequence else i }},{% endfor %}",
            "1,2,,,3,",
        ),
        ("{% set a, b = [1, 2] %}{{ a + b }}{{ [1] + [2] }}{{ 'a' + 'b' }}{{ 1 - 2 }}", "3[1, 2]ab-1"),
        (
            "{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.n }}{{ ns.l }}",
            "2['user', 'assistant']",
        ),
        (
            "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') }}",
            "Hi",
        ),
        (
            "{{ [3, 1, 2] | sort | join('-') }}{{ [1, 1, 2] | unique | list }}{{ [1, 2] | sum }}{{ [{'a': 1}] | sum(attribute='a') }}",
            "1-2-3[1, 2]31",
        ),
        (
            "{{ '%s-%d' | format('a', 1) }}{{ '{}-{}'.format('a', 1) }}{{ '{0:>5}'.format('a') }}",
            "a-1a-1    a",
        ),
        (
            "{{ 'a b c'.split(' ', 1) }}{{ 'x\ny'.splitlines() }}{{ 'xxaxx'.strip('x') }}{{ ','.join(['a', 'b']) }}",
            "['a', 'b c']['x', 'y']aa,b",
        ),
        (
            "{% set x = 'y' if messages and 'z' in 'xyz' else 'n' %}{{ x }}{{ messages[0]['role'] }}{{ messages[-1].role }}",
            "yuserassistant",
        ),
        (
            "{% filter upper %}a{{ 'b' }}{% endfilter %}{% with q = [1, 2] %}{{ q | last }}{% endwith %}",
            "AB2",
        ),
        ("{% set t %}x{% endset %}{{ t }}{% for i in [] %}{% else %}none{% endfor %}", "xnone"),
        (
            "{{ dict(a=1, b=2) }}{{ {'a': 1} | items | list }}{{ {'b': 1, 'a': 2} | dictsort }}",
            "{'a': 1, 'b': 2}[('a', 1)][('a', 2), ('b', 1)]",
        ),
    ] {
        assert_eq!(render(source).as_deref(), Ok(text), "{source}");
    }
    assert!(render("{% for tool in tools %}{% endfor %}").unwrap_err().contains("none is not iterable"));
    assert!(render("\n\n{{ nothing.at.all }}").unwrap_err().contains("line 3"));
    assert!(render("{{ 1 | missing }}").unwrap_err().contains("missing"));
}
