//! The metrics of a run for TensorBoard: an event file of scalars.
//!
//! A file is a sequence of TFRecords: the length of the data as a little-endian `u64`, its masked CRC-32C,
//! the data, their masked CRC-32C. Each record's data is an `Event` in protobuf's wire format, of which four
//! fields are needed; the numbers of fields are those of tensorflow/core/util/event.proto and
//! framework/summary.proto. A resumed run starts a new file in the folder, whose first event is the start of
//! a session at its first step: TensorBoard then drops what earlier files have from that step on.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Observer, Step, Validation};
use crate::{Error, Result};

/// The first event of every file says this.
const FILE_VERSION: &[u8] = b"brain.Event:2";

/// An event file that is being written. If an event cannot be written, the log ends and the run goes on.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    /// `None` once writing has failed.
    file: Option<File>,
    on_failure: fn(&Error),
}

impl EventFile {
    /// Starts a file in `folder`, which is created if it does not exist, for the steps after the first
    /// `done`. `on_failure` is called once, if an event cannot be written.
    ///
    /// # Errors
    /// A folder or file that cannot be created.
    pub fn create(folder: impl AsRef<Path>, done: u64, on_failure: fn(&Error)) -> Result<Self> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create the folder", e))?;
        let now = wall_time();
        // TensorBoard takes the files of a folder in the order of their names.
        let mut number = 0;
        let (path, file) = loop {
            let path = folder.join(format!("events.out.tfevents.{:010}.curmerge.{number:03}", now as u64));
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::io(path, "create", e)),
            }
        };
        let mut events = EventFile { path, file: Some(file), on_failure };
        events.append(&beginning(now, done + 1));
        Ok(events)
    }

    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) {
        self.append(&record(&scalars_event(wall_time(), step, scalars)));
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(bytes) {
            (self.on_failure)(&Error::io(&self.path, "write", error));
            self.file = None;
        }
    }
}

impl Observer for EventFile {
    fn step(&mut self, step: &Step) {
        let scalars = [
            ("train/loss", step.loss),
            ("train/learning_rate", step.learning_rate),
            ("train/gradient_norm", step.gradient_norm),
            ("train/tokens_per_s", step.tokens_per_s()),
        ];
        self.scalars(step.done, &scalars);
    }

    fn validation(&mut self, validation: &Validation) {
        self.scalars(validation.done, &[("valid/loss", validation.loss)]);
    }
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The records that a file begins with: its version, and the start of a session at `step`.
fn beginning(wall_time: f64, step: u64) -> Vec<u8> {
    let mut version = Message::default();
    version.double(1, wall_time);
    version.bytes(3, FILE_VERSION);
    let mut session = Message::default();
    session.varint(1, 1);
    let mut start = Message::default();
    start.double(1, wall_time);
    start.varint(2, step);
    start.bytes(7, &session.0);
    [record(&version), record(&start)].concat()
}

fn scalars_event(wall_time: f64, step: u64, scalars: &[(&str, f64)]) -> Message {
    let mut summary = Message::default();
    for (tag, value) in scalars {
        let mut scalar = Message::default();
        scalar.bytes(1, tag.as_bytes());
        scalar.float(2, *value as f32);
        summary.bytes(1, &scalar.0);
    }
    let mut event = Message::default();
    event.double(1, wall_time);
    event.varint(2, step);
    event.bytes(5, &summary.0);
    event
}

fn record(event: &Message) -> Vec<u8> {
    let length = (event.0.len() as u64).to_le_bytes();
    let sums = [masked_crc(&length), masked_crc(&event.0)].map(u32::to_le_bytes);
    [&length[..], &sums[0], &event.0, &sums[1]].concat()
}

/// A message in protobuf's wire format.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        self.length(value);
    }

    fn double(&mut self, field: u8, value: f64) {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.length(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    /// Seven bits a byte, the lowest first.
    fn length(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// TensorFlow's masking, because the CRC of bytes that hold their own CRC is a weak one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C, Castagnoli's polynomial, bit by bit: events are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_published_ones() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    /// fixtures/tensorboard/make.py writes this file with TensorBoard's own writer, and reads it with its
    /// reader.
    #[test]
    fn a_file_is_what_tensorboard_writes() {
        let golden = include_bytes!("../../fixtures/tensorboard/events.out.tfevents.golden");
        let mut written = beginning(1_700_000_000.25, 3);
        for step in [3, 4, 300] {
            let loss = 2.5 / step as f64;
            let scalars = [("train/loss", loss), ("train/learning_rate", 1e-3 * loss)];
            written.extend(record(&scalars_event(1_700_000_000.25 + step as f64, step, &scalars)));
        }
        written.extend(record(&scalars_event(1_700_000_301.0, 300, &[("valid/loss", 0.125)])));
        assert!(written == golden, "{written:?}");
    }
}
