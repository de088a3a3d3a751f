//! The library's errors and deviations, with the options of the command line that help.

use curmerge_formats::Error as FormatError;

use super::terminal;
use crate::Error;
use crate::cur::fingerprint::Deviation;
use crate::error::CallerOption;

/// The line that the program prints for an error.
pub fn line(error: &Error) -> String {
    let text = match error {
        Error::OtherValues { .. } => {
            format!("{error}, or give --allow-other-base for another quantization of the same model")
        }
        Error::NoCheckpoint { path } => format!(
            "{}: there is no checkpoint to resume from; give the command line of a run with --save-every, or leave \
             out --resume to start a new run",
            path.display()
        ),
        Error::OtherRun { path, setting, problem } => {
            let setting = if setting == "targets" { "--targets" } else { setting };
            format!(
                "{}: {setting}: {problem}; give what the run began with, or delete the checkpoint and start a new run \
                 without --resume",
                path.display()
            )
        }
        Error::Avoidable { error, option: avoids } => format!("{error} ({})", option(*avoids)),
        Error::Format(FormatError::Exists { .. }) => format!("{error} (--force)"),
        other => other.to_string(),
    };
    terminal::plain(&text)
}

/// What the command line calls an option of the library.
fn option(option: CallerOption) -> &'static str {
    match option {
        CallerOption::Targets => "--targets",
        CallerOption::Scale => "--scale",
        CallerOption::LearningRate => "--lr",
        CallerOption::FileType => "--type",
        CallerOption::Storage => "--type-adapted",
        CallerOption::ImportanceMatrix => "--imatrix",
        CallerOption::MaxShardSize => "--max-shard-size",
        CallerOption::Genai => "--genai",
        CallerOption::Columns => "--prompt-column, --completion-column, --text-column, --messages-column",
    }
}

/// The line on how far another base is from the one that the adapter was trained on.
pub fn deviation(deviation: &Deviation) -> String {
    let Deviation { differing, targets, distance } = deviation;
    let values =
        format!("{differing} of {targets} tensors have other values than those the adapter was trained on");
    match distance {
        Some(d) => format!(
            "{values}; C is off by about {:.1} %, R by {:.1} %, most in {}",
            100.0 * d.c,
            100.0 * d.r,
            d.worst
        ),
        None => format!("{values}; how far C and R are off was not recorded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_the_option_that_helps() {
        let error = Error::request("no targets are selected", "use for example q,k,v");
        let error = error.avoidable(CallerOption::Targets).in_file("m.gguf");
        assert_eq!(error.to_string(), "m.gguf: no targets are selected; use for example q,k,v");
        assert_eq!(line(&error), format!("{error} (--targets)"));
        let exists = FormatError::Exists { path: "out".into() };
        assert!(line(&exists.into()).ends_with(" (--force)"));
    }
}
