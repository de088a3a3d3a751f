//! The report on a merge: a table of its tensors, warnings and notes.

use super::companions;
use crate::merge::MergeReport;

/// Upper limit of the tensors in the table. The others kept at least as much as the last of these.
const MAX_LISTED: usize = 10;
/// A smaller share gets a warning.
const LOW_SHARE: f64 = 0.5;
/// More noise gets a warning: rounding then adds ten times the adapter's change in other directions, about as
/// much as for a change of a hundredth of a quantization step.
const HIGH_NOISE: f64 = 10.0;

/// The tensors that kept the least of their change, and the meaning of the figures.
pub(super) fn table(report: &MergeReport) -> String {
    let worst = report.worst_first();
    let width = worst.iter().take(MAX_LISTED).map(|t| t.label().len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  type   survived  noise  change\n", "tensor");
    for t in worst.iter().take(MAX_LISTED) {
        let (share, change) = (100.0 * t.share, 100.0 * t.change);
        let name = t.label();
        text += &format!("{name:width$}  {:5} {share:7.1} %  {:5.2}  {change:.3} %\n", t.dtype, t.noise);
    }
    if worst.len() > MAX_LISTED {
        text += &format!("and {} more that kept as much or more\n", worst.len() - MAX_LISTED);
    }
    text + "survived: share of the change W + s C U R - W left after rounding; noise: what rounding added across it,\n\
            relative to the change; change: its size relative to W\n"
}

/// What happened to types and to other files, one line each.
pub(super) fn notes(report: &MergeReport) -> Vec<String> {
    let companions = report.companions.iter().map(companions::line);
    report.notes.iter().cloned().chain(companions).collect()
}

/// What a user of the output should know, one line each.
pub(super) fn warnings(report: &MergeReport) -> Vec<String> {
    let mut lines = notes(report);
    let help = match report.types_are_fixed {
        true => "merge into the model unquantized, and quantize that",
        false => "store them finer, for example with --type-adapted q8_0",
    };
    let count = report.tensors.len();
    let low: Vec<_> = report.tensors.iter().filter(|t| t.share < LOW_SHARE).collect();
    if let Some(worst) = low.iter().min_by(|a, b| a.share.total_cmp(&b.share)) {
        lines.push(format!(
            "less than half of the adapter survived rounding in {} of {count} tensors, least in {} ({:.3}); {}",
            low.len(),
            worst.label(),
            worst.share,
            help
        ));
    }
    let noisy: Vec<_> = report.tensors.iter().filter(|t| t.noise > HIGH_NOISE).collect();
    if let Some(worst) = noisy.iter().max_by(|a, b| a.noise.total_cmp(&b.noise)) {
        lines.push(format!(
            "rounding added more than {HIGH_NOISE} times the adapter's own change in {} of {count} tensors, most \
             in {} ({:.1}); {}",
            noisy.len(),
            worst.label(),
            worst.noise,
            help
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::TensorReport;

    #[test]
    fn the_worst_tensor_comes_first_and_gets_a_warning() {
        let tensor = |name: &str, share, noise| TensorReport {
            name: name.into(),
            parts: Vec::new(),
            dtype: "Q4_0".into(),
            share,
            noise,
            change: 0.01,
            fidelity: 0.5,
        };
        let mut report = MergeReport {
            model: "out.gguf".into(),
            tensors: vec![tensor("a", 1.0, 3.0), tensor("b", 1.001, 20.0), tensor("c", 0.3, 1.0)],
            ..Default::default()
        };
        let order: String = report.worst_first().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(order, "cba");
        let lines = warnings(&report);
        assert!(lines[0].contains("1 of 3 tensors, least in c (0.300)"), "{lines:?}");
        assert!(lines[1].contains("most in b (20.0)"), "{lines:?}");
        assert!(lines[0].contains("--type-adapted"), "{lines:?}");
        report.types_are_fixed = true;
        assert!(!warnings(&report)[0].contains("--type"), "{lines:?}");
    }
}
