//! The rows of a Parquet file, as JSON.
//!
//! The parquet crate reads metadata, pages and nesting. What it trusts is checked before it sees it: the depth
//! of the schema ([`schema`]), lengths that a file claims ([`chunks`]), and pages, which are decompressed here
//! ([`pages`]). The rest of its panics are caught.

mod chunks;
mod json;
mod pages;
mod schema;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::bloom_filter::Sbbf;
use parquet::column::page::PageReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::rows::{Parts, Work, empty};
use crate::Error;
use crate::error::shortened;
use crate::panics::caught;
use chunks::Chunks;

/// The name of the library in messages.
const LIBRARY: &str = "parquet";
const HELP: &str = "get it again, or write it again with another program";

/// Reads the rows of a file, part after part. A row's line is its number, from 1.
pub(super) fn parts(path: &Path, file: File, work: &mut Work<'_>) -> Result<(), Error> {
    let of_file = |reason: String| Error::file(path, problem(&reason), HELP);
    let chunks = Chunks::new(file).map_err(|error| of_file(error.to_string()))?;
    schema::check(&chunks).map_err(of_file)?;
    let metadata = checked(|| ParquetMetaDataReader::new().parse_and_finish(&chunks)).map_err(of_file)?;
    let chunks = Arc::new(chunks);
    let (mut parts, mut number) = (Parts::new(work), 0);
    for metadata in metadata.row_groups() {
        let group = RowGroup { metadata, chunks: Arc::clone(&chunks) };
        let mut rows = checked(|| RowIter::from_row_group(None, &group)).map_err(of_file)?;
        loop {
            let row = checked(|| rows.next().transpose());
            let row = row.map_err(|reason| Error::line(path, number + 1, problem(&reason), HELP))?;
            let Some(row) = row else { break };
            number += 1;
            if parts.push(number, json::row(&row))?.is_break() {
                return Ok(());
            }
        }
    }
    if number == 0 { Err(empty(path)) } else { parts.end() }
}

/// What the library reads, without its panics.
fn checked<T>(read: impl FnOnce() -> ParquetResult<T>) -> Result<T, String> {
    caught(LIBRARY, read)?.map_err(|error| error.to_string())
}

fn problem(reason: &str) -> String {
    format!("cannot be read as Parquet: {}", shortened(reason, 300))
}

/// Rows that are stored together.
struct RowGroup<'m> {
    metadata: &'m RowGroupMetaData,
    chunks: Arc<Chunks>,
}

impl RowGroupReader for RowGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata
    }

    fn num_columns(&self) -> usize {
        self.metadata.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> ParquetResult<Box<dyn PageReader>> {
        let rows = usize::try_from(self.metadata.num_rows())
            .map_err(|_| ParquetError::General("a row group has a negative number of rows".into()))?;
        Ok(Box::new(pages::Pages::new(Arc::clone(&self.chunks), self.metadata.column(column), rows)?))
    }

    fn get_column_bloom_filter(&self, _column: usize) -> Option<&Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> ParquetResult<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

#[cfg(test)]
mod tests;
