//! A data file from its bytes to what its rows hold.

use std::borrow::Cow;
use std::io::{BufReader, Read};
use std::path::Path;

use curmerge_formats::digest::hex;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::columns::Columns;
use super::files;
use super::records::{self, Row};
use super::rows::{self, Work};
use crate::Error;

/// What is known of a file once it is read to its end.
pub(super) struct WasRead {
    /// What it is, in words.
    pub kind: &'static str,
    /// SHA-256 of its bytes, once decompressed, hex.
    pub sha256: String,
    /// These bytes.
    pub bytes: u64,
}

/// Reads the rows of a file, part after part; `-` is standard input.
pub(super) fn read(path: &Path, columns: &Columns, work: &mut Work<'_>) -> Result<WasRead, Error> {
    if files::is_parquet(path)? {
        return read_parquet(path, work);
    }
    let mut text = Digested { text: files::open(path)?, sha256: Sha256::new(), bytes: 0 };
    let kind = rows::parts(path, &mut BufReader::with_capacity(1 << 20, &mut text), columns, work)?;
    Ok(WasRead { kind, sha256: hex(&text.sha256.finalize()), bytes: text.bytes })
}

/// Reads the rows of a Parquet file.
#[cfg(feature = "parquet")]
fn read_parquet(path: &Path, work: &mut Work<'_>) -> Result<WasRead, Error> {
    let failed = |source| Error::io(path, "read the examples", source);
    let open = || curmerge_formats::input::open(path).map_err(failed);
    let mut is_whole = true;
    super::parquet::parts(path, open()?, &mut |part| {
        let flow = work(part)?;
        is_whole = flow.is_continue();
        Ok(flow)
    })?;
    let mut file = Digested { text: Box::new(open()?), sha256: Sha256::new(), bytes: 0 };
    // Whoever breaks off asks for no digest.
    if is_whole {
        std::io::copy(&mut file, &mut std::io::sink()).map_err(failed)?;
    }
    Ok(WasRead { kind: "Parquet", sha256: hex(&file.sha256.finalize()), bytes: file.bytes })
}

/// Reads the rows of a Parquet file.
#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path, _work: &mut Work<'_>) -> Result<WasRead, Error> {
    let problem = "is a Parquet file, which this build of the program does not read";
    Err(Error::file(path, problem, "build it with --features parquet, or make the file JSON lines or CSV"))
}

/// What each row holds, with its line.
pub(super) fn records(
    path: &Path,
    rows: &[(usize, Cow<'_, str>)],
    columns: &Columns,
) -> Result<Vec<(usize, Row)>, Error> {
    let record = |(line, text): &(usize, Cow<'_, str>)| records::record(path, *line, text, columns);
    // Collected in order first: which of several errors is reported must not depend on the threads.
    let read: Vec<_> = rows.par_iter().map(record).collect();
    rows.iter().zip(read).map(|((line, _), row)| Ok((*line, row?))).collect()
}

/// A text that is digested while it is read.
struct Digested {
    text: Box<dyn Read>,
    sha256: Sha256,
    bytes: u64,
}

impl Read for Digested {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let found = self.text.read(buffer)?;
        self.sha256.update(&buffer[..found]);
        self.bytes += found as u64;
        Ok(found)
    }
}
