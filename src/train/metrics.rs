//! The metrics of a run as JSON lines, for `tail -f`, jq and plotting.
//!
//! It is a log and not a result: it holds times. If a line cannot be written, the log ends and the run goes
//! on.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use curmerge_formats::input;
use serde::{Deserialize, Serialize};

use super::{Observer, Step, Validation};
use crate::{Error, Result};

#[derive(Serialize)]
struct StepLine {
    step: u64,
    epoch: f64,
    loss: f64,
    learning_rate: f64,
    gradient_norm: f64,
    tokens: u64,
    tokens_per_s: f64,
    seconds: f64,
}

#[derive(Serialize)]
struct ValidationLine {
    step: u64,
    epoch: f64,
    valid_loss: f64,
    seconds: f64,
}

/// What a line of either kind holds.
#[derive(Deserialize)]
struct AnyLine {
    step: u64,
}

/// What a log says of a step or a validation. What a line does not hold is `None`, as is a number that was not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Logged {
    /// Steps done.
    pub step: u64,
    /// Mean loss of the step, nats a target token.
    pub loss: Option<f64>,
    /// Mean loss of the validation examples, nats a target token.
    pub valid_loss: Option<f64>,
    /// Its learning rate.
    pub learning_rate: Option<f64>,
    /// Joint norm of the gradients before clipping.
    pub gradient_norm: Option<f64>,
    /// Tokens a second of the step.
    pub tokens_per_s: Option<f64>,
}

/// Reads a log, which may still be growing: a last line without its line break is left out.
///
/// # Errors
/// A file that cannot be read; an [`Error::Line`] that is not one of metrics.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Logged>> {
    let path = path.as_ref();
    let bytes = input::read(path, u64::MAX).map_err(|e| Error::io(path, "read", e))?;
    let whole = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let line = |(number, line): (usize, &[u8])| {
        let help = "name a log that build --metrics wrote";
        serde_json::from_slice(line)
            .map_err(|_| Error::line(path, number + 1, "is not a line of metrics", help))
    };
    let lines = whole.enumerate().map(line).collect::<Result<Vec<Logged>>>()?;
    if lines.is_empty() {
        return Err(Error::file(path, "has no measurement", "name a log that build --metrics wrote"));
    }
    Ok(lines)
}

/// A file of lines, each handed to the operating system as soon as its step is done.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    /// `None` once writing has failed.
    file: Option<File>,
    on_failure: fn(&Error),
}

impl MetricsFile {
    /// A new log that replaces a log at `path`. For a run resumed after `resumed_at` steps, the log there
    /// without the lines of later steps, which the run takes again. `on_failure` is called once, if a line
    /// cannot be written.
    ///
    /// # Errors
    /// A file that cannot be opened or cut back; an [`Error::Line`] that is not one of metrics.
    pub fn open(path: impl AsRef<Path>, resumed_at: Option<u64>, on_failure: fn(&Error)) -> Result<Self> {
        let path = path.as_ref();
        let fail = |action| move |source| Error::io(path, action, source);
        if resumed_at.is_none() {
            Self::check(path)?;
        }
        let mut options = File::options();
        options.write(true).create(true);
        let mut file = match resumed_at {
            None => options.truncate(true).open(path).map_err(fail("create"))?,
            Some(_) => options.read(true).open(path).map_err(fail("open"))?,
        };
        if let Some(steps) = resumed_at {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(fail("read"))?;
            let kept = kept_bytes(path, &bytes, steps)?;
            file.set_len(kept).map_err(fail("cut back"))?;
            file.seek(SeekFrom::Start(kept)).map_err(fail("write"))?;
        }
        Ok(MetricsFile { path: path.to_owned(), file: Some(file), on_failure })
    }

    /// Refuses to replace a file that is no log.
    ///
    /// # Errors
    /// An [`Error::Line`] that is not one of metrics; a file that cannot be read.
    pub fn check(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match input::read(path, u64::MAX) {
            Ok(bytes) => kept_bytes(path, &bytes, u64::MAX).map(|_| ()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(path, "read", error)),
        }
    }

    fn append(&mut self, line: &impl Serialize) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_string(line).map_err(Into::into).and_then(|mut text| {
            text.push('\n');
            file.write_all(text.as_bytes())
        });
        if let Err(error) = written {
            (self.on_failure)(&Error::io(&self.path, "write", error));
            self.file = None;
        }
    }
}

/// The length without the lines of later steps. A last line without its line break was cut short by a kill.
/// Any other line that is not one of a log means that the file is not ours to truncate.
fn kept_bytes(path: &Path, bytes: &[u8], steps: u64) -> Result<u64> {
    let mut kept = 0;
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            break;
        }
        let line_of = |_| {
            Error::line(path, number + 1, "is not a line of metrics", "name another file for the metrics")
        };
        let AnyLine { step } = serde_json::from_slice(line).map_err(line_of)?;
        if step > steps {
            break;
        }
        kept += line.len() as u64;
    }
    Ok(kept)
}

impl Observer for MetricsFile {
    fn step(&mut self, step: &Step) {
        self.append(&StepLine {
            step: step.done,
            epoch: step.epoch,
            loss: step.loss,
            learning_rate: step.learning_rate,
            gradient_norm: step.gradient_norm,
            tokens: step.tokens,
            tokens_per_s: step.tokens_per_s(),
            seconds: step.seconds,
        });
    }

    fn validation(&mut self, validation: &Validation) {
        let Validation { done, epoch, loss, seconds } = *validation;
        self.append(&ValidationLine { step: done, epoch, valid_loss: loss, seconds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_are_cut_and_foreign_ones_refused() {
        let path = Path::new("metrics.jsonl");
        let lines = b"{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"valid_loss\":1}\n{\"step\":3}\n{\"st";
        let kept = |steps| kept_bytes(path, lines, steps).unwrap() as usize;
        assert_eq!((kept(0), kept(1), kept(2), kept(9)), (0, 11, 48, 59));
        assert_eq!(kept_bytes(path, b"", 5).unwrap(), 0);
        let foreign = kept_bytes(path, b"{\"step\":1}\nshopping list\n", 5).unwrap_err().to_string();
        assert!(foreign.contains("metrics.jsonl:2: "), "{foreign}");
    }
}
