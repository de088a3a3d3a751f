//! The page's HTML.

use std::collections::BTreeMap;

use super::Report;
use super::samples::Sample;
use crate::commands::build::measured::{Measured, ROUNDING};
use crate::commands::chart::{self, Chart, Line, Series, heat, svg};
use crate::commands::report::html::escaped;
use crate::eval::{Divergence, Learned};
use crate::train::TrainReport;

/// Points of a curve: more are not seen.
const POINTS: usize = 500;
/// Steps whose mean is drawn, as in what the program prints.
const WINDOW: usize = 10;
/// Rows of the table beside the curves.
const TABLE: usize = 25;

const STYLE: &str = "
body { margin: 0 auto; max-width: 46rem; padding: 1rem; background: var(--back); color: var(--front);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note, figcaption, summary { color: var(--quiet); }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; vertical-align: top; }
td.n { text-align: right; } th[scope=row] { font-weight: normal; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 0.85rem/1.5 ui-monospace, monospace; }
.sample { border: 1px solid var(--line); border-radius: 6px; padding: 0.2rem 0.9rem 0.8rem; margin: 1rem 0; }
.sample h3 { font-size: 0.85rem; color: var(--quiet); margin: 0.7rem 0 0.1rem; font-weight: normal; }
.sample .after { border-left: 3px solid var(--c0); padding-left: 0.7rem; }
code { overflow-wrap: anywhere; font: 0.85rem ui-monospace, monospace; }
@media (max-width: 600px) { svg text { font-size: 21px; } th, td { padding-right: 0.6rem; } }
";

/// The page of a run, whose changes are these shares of their matrices and whose file has this SHA-256.
pub(super) fn html(report: &Report<'_>, changes: &[(String, f64)], sha256: &str) -> String {
    let (outcome, base) = (report.outcome, report.base);
    let name = escaped(&base.name());
    let (train, data) = (&outcome.report, outcome.data);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>An adapter of {name}</title>\n<style>{}{STYLE}</style>\n</head>\n<body>\n<main>\n",
        svg::STYLE
    );
    page += &format!(
        "<h1>An adapter of {name}</h1>\n<p>{} steps on {} examples ({}). {}</p>\n",
        train.kept_steps,
        data.examples.len(),
        escaped(&data.layout),
        escaped(&outcome.trainee.description())
    );
    if train.kept_steps < train.progress.steps() {
        let steps = train.progress.steps();
        page += &format!("<p class=\"note\">The run took {steps} steps and kept the best matrices.</p>\n");
    }
    page += &measured(outcome.measured.as_ref(), outcome.limit);
    page += &losses(train);
    page += &samples(report.samples, report.examples.valid.is_some());
    page += &sizes(changes);
    page += &format!(
        "<h2>Settings</h2>\n<p class=\"note\">A file for <code>curmerge build --config</code>, beside the base, the data \
         and the output.</p>\n<pre>{}</pre>\n",
        escaped(report.recipe)
    );
    let config = base.config();
    page += "<h2>Checksums</h2>\n<div class=\"wide\"><table>\n";
    let row = |name: &str, value: &str| {
        format!("<tr><th scope=\"row\">{name}</th><td><code>{}</code></td></tr>\n", escaped(value))
    };
    let shape = format!("{} blocks of width {}", config.layers, config.d_model);
    page += &row("base", &format!("{} ({}, {shape})", base.architecture().name, base.container()));
    page += &row("adapter, SHA-256", sha256);
    page += &row("data, SHA-256", &data.sha256);
    if let Some(valid) = &report.examples.valid {
        page += &row("validation, SHA-256", &valid.sha256);
    }
    page + "</table></div>\n</main>\n</body>\n</html>\n"
}

/// What was learnt and forgotten.
fn measured(measured: Option<&Measured>, limit: Option<f64>) -> String {
    let mut text = "<h2>Learnt and forgotten</h2>\n".to_owned();
    let Some(Measured { learned, forgotten }) = measured else {
        return text + "<p class=\"note\">The run was stopped, and nothing was measured.</p>\n";
    };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    match learned {
        Some(Learned { before, after, examples }) => {
            text += &format!(
                "<div class=\"wide\"><table>\n<tr><th>on {examples} examples that were not trained</th><th>base</th><th>adapted\
                 </th></tr>\n"
            );
            for (name, before, after) in [
                ("loss, nats a token", format!("{:.4}", before.loss), format!("{:.4}", after.loss)),
                ("tokens right", percent(before.token_accuracy), percent(after.token_accuracy)),
                ("whole answers right", percent(before.exact), percent(after.exact)),
            ] {
                text += &format!(
                    "<tr><th scope=\"row\">{name}</th><td class=\"n\">{before}</td><td class=\"n\">{after}</td></tr>\n"
                );
            }
            text += "</table></div>\n";
        }
        None => {
            text += "<p class=\"note\">No example was held out, so what was learnt was not measured.</p>\n"
        }
    }
    let Some((Divergence { kl, same_top, .. }, texts)) = forgotten else {
        return text + "<p class=\"note\">Without an anchor, what was forgotten was not measured.</p>\n";
    };
    text += &format!(
        "<p>On {texts} new texts that the base writes, the adapted model differs by <strong>{kl:.5}</strong> nats a token \
         (KL), and finds the same token the most probable in <strong>{}</strong> of the places. Rounding a model to fewer \
         bits costs:</p>\n<div class=\"wide\"><table>\n<tr><th>model</th><th>KL, nats a token</th></tr>\n",
        percent(*same_top)
    );
    let mut rows: Vec<(String, f64)> = ROUNDING.iter().map(|(name, kl)| ((*name).to_owned(), *kl)).collect();
    rows.push(("<strong>this adapter</strong>".to_owned(), *kl));
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (name, kl) in rows {
        text += &format!("<tr><th scope=\"row\">{name}</th><td class=\"n\">{kl:.5}</td></tr>\n");
    }
    text += "</table></div>\n<p class=\"note\">Those of rounding are of Llama 3 8B, by llama.cpp.</p>\n";
    if let Some(factor) = limit.filter(|factor| *factor < 1.0) {
        text += &format!("<p>What was gained was scaled by {factor:.3}, to keep --max-forgetting.</p>\n");
    }
    text
}

/// The curves of the losses, and their numbers.
fn losses(train: &TrainReport) -> String {
    let steps: Vec<(f64, f64)> =
        train.progress.losses.iter().enumerate().map(|(i, loss)| (i as f64 + 1.0, *loss)).collect();
    let mean = chart::thinned(&chart::smoothed(&steps, WINDOW), POINTS);
    let initial = train.progress.initial_validation.map(|loss| (0.0, loss));
    let later = train.progress.validation.iter().map(|(step, loss)| (*step as f64, *loss));
    let valid: Vec<(f64, f64)> = initial.into_iter().chain(later).collect();
    let mut series = vec![
        Series { name: format!("mean of {WINDOW} steps"), points: mean, line: Line::Plain },
        Series { name: "examples that were not trained".into(), points: valid.clone(), line: Line::Dotted },
        Series { name: "each step".into(), points: chart::thinned(&steps, POINTS), line: Line::Pale },
    ];
    series.retain(|series| !series.points.is_empty());
    let chart =
        Chart { title: "Loss by step".into(), x: "step".into(), y: "nats a target token".into(), series };
    let mut text = format!("<h2>Loss</h2>\n<figure>\n{}</figure>\n", svg::svg(&chart, false));
    text += "<details><summary>The numbers</summary>\n<div class=\"wide\"><table>\n\
             <tr><th>step</th><th>loss</th><th>of what</th></tr>\n";
    let mut rows: Vec<(f64, f64, &str)> =
        chart::thinned(&steps, TABLE).into_iter().map(|(x, y)| (x, y, "training, mean around")).collect();
    rows.extend(valid.iter().map(|(x, y)| (*x, *y, "not trained")));
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (step, loss, what) in rows {
        text += &format!(
            "<tr><td class=\"n\">{step:.0}</td><td class=\"n\">{loss:.4}</td><td>{what}</td></tr>\n"
        );
    }
    text + "</table></div>\n</details>\n"
}

/// What both models write.
fn samples(samples: &[Sample], held_out: bool) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let which = if held_out { "that were not trained" } else { "that were trained" };
    let mut text = format!(
        "<h2>Before and after</h2>\n<p class=\"note\">The likeliest answers to the beginnings of examples {which}, cut after \
         64 tokens.</p>\n"
    );
    for Sample { prompt, wanted, before, after } in samples {
        let part = |class: &str, name: &str, text: &str| {
            format!("<h3>{name}</h3>\n<pre class=\"{class}\">{}</pre>\n", escaped(text.trim_matches('\n')))
        };
        text += &format!(
            "<div class=\"sample\">\n{}{}{}{}</div>\n",
            part("prompt", "prompt", prompt),
            part("before", "base", before),
            part("after", "adapted", after),
            part("wanted", "the example", wanted)
        );
    }
    text
}

/// How much each matrix changed.
fn sizes(changes: &[(String, f64)]) -> String {
    let mut map = BTreeMap::new();
    for (name, share) in changes {
        let place = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        if let Some((Ok(layer), part)) = place.map(|(layer, part)| (layer.parse::<usize>(), part)) {
            map.insert((part.to_owned(), layer), 100.0 * share);
        }
    }
    let greatest = changes.iter().map(|(_, share)| 100.0 * share).fold(0.0, f64::max);
    let mut text = format!(
        "<h2>What changed</h2>\n<p class=\"note\">|dW| / |W| of each matrix, in per cent: the change by the matrix, Frobenius \
         norms. The strongest colour is {greatest:.3} %.</p>\n"
    );
    if !map.is_empty() {
        let title = "Size of the change by matrix and block";
        text += &format!("<figure>\n{}</figure>\n", heat::svg(title, &map, " %", "block"));
    }
    text += "<details><summary>The numbers</summary>\n<div class=\"wide\"><table>\n\
             <tr><th>matrix</th><th>|dW| / |W|</th></tr>\n";
    for (name, share) in changes {
        text += &format!(
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{:.3} %</td></tr>\n",
            escaped(name),
            100.0 * share
        );
    }
    text + "</table></div>\n</details>\n"
}
