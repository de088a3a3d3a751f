//! `curmerge plot`: the logs of runs as curves, in the terminal or as SVG.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use curmerge_formats::output::OutputFile;
use serde_json::{Value, json};

use super::chart::{self, Chart, Line, Series};
use super::report::terminal;
use crate::Result;
use crate::train::metrics::{self, Logged};

/// Points of a curve in a file: more are not seen.
const POINTS: usize = 1000;
/// The width of a drawing where there is no terminal.
const USUAL_WIDTH: usize = 80;
/// Wider drawings are not easier to read.
const MAX_WIDTH: usize = 160;

/// Options of `curmerge plot`.
#[derive(Clone, Debug, Args)]
pub struct PlotArgs {
    /// Logs of runs, as `build --metrics` writes them. A log may still be growing.
    #[arg(required = true, value_name = "RUN.jsonl")]
    pub runs: Vec<PathBuf>,
    /// What is drawn.
    #[arg(long, value_enum, default_value_t)]
    pub metric: Metric,
    /// Draw the mean of the last N steps at each step; 1 for the steps themselves.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub smooth: u32,
    /// Write the drawing as SVG, in place of one in the terminal.
    #[arg(short, long, value_name = "FILE.svg")]
    pub output: Option<PathBuf>,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Metric {
    /// The training loss, and that of validation.
    #[default]
    Loss,
    /// The learning rate.
    LearningRate,
    /// The norm of the gradients before clipping.
    GradientNorm,
    /// The speed.
    TokensPerS,
}

impl Metric {
    fn title(self) -> [&'static str; 2] {
        match self {
            Metric::Loss => ["loss", "nats a target token"],
            Metric::LearningRate => ["learning rate", "learning rate"],
            Metric::GradientNorm => ["norm of the gradients", "norm"],
            Metric::TokensPerS => ["speed", "tokens a second"],
        }
    }

    fn of(self, line: &Logged) -> Option<f64> {
        match self {
            Metric::Loss => line.loss,
            Metric::LearningRate => line.learning_rate,
            Metric::GradientNorm => line.gradient_norm,
            Metric::TokensPerS => line.tokens_per_s,
        }
    }
}

/// The log of a run.
struct Run {
    name: String,
    lines: Vec<Logged>,
}

/// Draws the logs, or writes the drawing.
pub fn run(args: &PlotArgs, json: bool) -> Result<()> {
    let runs = args.runs.iter().map(|path| {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Run { name, lines: metrics::read(path)? })
    });
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    name_apart(&mut runs, &args.runs);
    let [title, unit] = args.metric.title();
    let series = runs.iter().flat_map(|run| curves(run, args)).collect();
    let chart = Chart { title: title.into(), x: "step".into(), y: unit.into(), series };
    if let Some(output) = &args.output {
        let inputs: Vec<&Path> = args.runs.iter().map(PathBuf::as_path).collect();
        let mut file = OutputFile::create(output, &inputs)?;
        file.append(chart::svg::svg(&chart, true).as_bytes())?;
        file.commit()?;
    }
    if json {
        let figures: Vec<Value> = runs.iter().zip(&args.runs).map(|(run, path)| figures(run, path)).collect();
        return terminal::print_json(&json!({ "runs": figures, "output": args.output }));
    }
    let drawn = match &args.output {
        Some(output) => format!("drawing  {}\n", output.display()),
        None => drawing(&chart),
    };
    terminal::print(&(drawn + &runs.iter().map(summary).collect::<String>()))
}

/// Gives files of the same name in several folders their whole paths.
fn name_apart(runs: &mut [Run], paths: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, path) in runs.iter_mut().zip(paths) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = path.display().to_string();
        }
    }
}

/// The curves of a run: the metric, and beside the loss that of validation.
fn curves(run: &Run, args: &PlotArgs) -> Vec<Series> {
    let points = |of: &dyn Fn(&Logged) -> Option<f64>| -> Vec<(f64, f64)> {
        run.lines.iter().filter_map(|line| Some((line.step as f64, of(line)?))).collect()
    };
    let steps = points(&|line| args.metric.of(line));
    let steps = chart::thinned(&chart::smoothed(&steps, args.smooth as usize), POINTS);
    let mut curves = vec![Series { name: run.name.clone(), points: steps, line: Line::Plain }];
    let valid = points(&|line| line.valid_loss);
    if args.metric == Metric::Loss && !valid.is_empty() {
        let valid = chart::thinned(&valid, POINTS);
        curves.push(Series { name: format!("{}, validation", run.name), points: valid, line: Line::Dotted });
    }
    curves
}

/// The drawing for the terminal: in its width, and in colours unless NO_COLOR is set.
fn drawing(chart: &Chart) -> String {
    let out = std::io::stdout();
    let is_terminal = out.is_terminal();
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let own = || console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let width = given.or_else(|| if is_terminal { own() } else { None }).unwrap_or(USUAL_WIDTH);
    let coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    chart::terminal::text(chart, width.min(MAX_WIDTH), coloured)
}

/// The first and last training loss, and the least loss of validation with its step.
fn losses(run: &Run) -> (Option<f64>, Option<f64>, Option<(u64, f64)>) {
    let mut all = run.lines.iter().filter_map(|line| line.loss);
    let valid = run.lines.iter().filter_map(|line| Some((line.step, line.valid_loss?)));
    let first = all.next();
    (first, all.next_back().or(first), valid.min_by(|a, b| a.1.total_cmp(&b.1)))
}

fn summary(run: &Run) -> String {
    let (first, last, best) = losses(run);
    let steps = run.lines.last().map_or(0, |line| line.step);
    let mut text = format!("{}: {steps} steps", terminal::plain(&run.name));
    if let (Some(first), Some(last)) = (first, last) {
        text += &format!(", loss {first:.4} at first, {last:.4} at last");
    }
    if let Some((step, loss)) = best {
        text += &format!(", validation at best {loss:.4} after step {step}");
    }
    text + "\n"
}

fn figures(run: &Run, path: &Path) -> Value {
    let (first, last, best) = losses(run);
    json!({
        "file": path,
        "steps": run.lines.last().map_or(0, |line| line.step),
        "first_loss": first,
        "last_loss": last,
        "best_valid_loss": best.map(|(_, loss)| loss),
        "best_valid_step": best.map(|(step, _)| step),
    })
}
