//! Pages of a column, decompressed by libraries that need no C compiler, within limits.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::chunks::Chunks;

/// A page never has more bytes than this and [`RATIO`] times its compressed ones. Programs write pages of about
/// 1 MB.
const LEAST: usize = 64 << 20;
const RATIO: usize = 100;
/// The most bytes that LZ4 makes of one.
const LZ4_RATIO: usize = 255;

/// The pages of a column of a row group.
pub(super) struct Pages {
    /// As they are stored.
    stored: SerializedPageReader<Chunks>,
    codec: Compression,
    /// What the file says of all pages of the column.
    uncompressed: usize,
    /// The fewest bytes that a value of a dictionary takes.
    value_bytes: usize,
}

impl Pages {
    pub fn new(chunks: Arc<Chunks>, column: &ColumnChunkMetaData, rows: usize) -> Result<Self> {
        let codec = column.compression();
        if let Some(name) = unread(codec) {
            let problem = format!(
                "its pages are compressed by {name}, and only snappy, gzip, zstd and lz4_raw are read"
            );
            return Err(ParquetError::NYI(problem));
        }
        if let Some(other) = column.file_path() {
            return Err(ParquetError::NYI(format!("a column is in another file, {other:?}")));
        }
        let plain = column.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let uncompressed = usize::try_from(column.uncompressed_size()).unwrap_or(0);
        let value_bytes = match column.column_type() {
            Type::BOOLEAN => 1,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => {
                usize::try_from(column.column_descr().type_length()).unwrap_or(1).max(1)
            }
            // The length of a byte array, or a number.
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        };
        let stored = SerializedPageReader::new(chunks, &plain, rows, None)?;
        Ok(Self { stored, codec, uncompressed, value_bytes })
    }

    /// A page that claims no more values than it can have: the crate makes room for those of a dictionary at once.
    fn checked(&self, page: Page) -> Result<Page> {
        match &page {
            Page::DictionaryPage { buf, num_values, .. }
                if *num_values as usize > buf.len() / self.value_bytes =>
            {
                let problem = format!("a dictionary claims {num_values} values in {} bytes", buf.len());
                Err(ParquetError::EOF(problem))
            }
            _ => Ok(page),
        }
    }

    fn unpacked(&self, page: Page) -> Result<Page> {
        if self.codec == Compression::UNCOMPRESSED {
            return Ok(page);
        }
        let unpack = |buf: &Bytes| self.unpack(buf).map(Bytes::from);
        Ok(match page {
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                statistics,
            } => {
                let buf = unpack(&buf)?;
                Page::DataPage {
                    buf,
                    num_values,
                    encoding,
                    def_level_encoding,
                    rep_level_encoding,
                    statistics,
                }
            }
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                Page::DictionaryPage { buf: unpack(&buf)?, num_values, encoding, is_sorted }
            }
            // Its levels are never compressed.
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls,
                num_rows,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed: true,
                statistics,
            } => {
                let levels = def_levels_byte_len as usize + rep_levels_byte_len as usize;
                if levels > buf.len() {
                    return Err(ParquetError::EOF("a page ends within its levels".into()));
                }
                let mut whole = buf[..levels].to_vec();
                if buf.len() > levels {
                    whole.append(&mut self.unpack(&buf[levels..])?);
                }
                Page::DataPageV2 {
                    buf: whole.into(),
                    num_values,
                    encoding,
                    num_nulls,
                    num_rows,
                    def_levels_byte_len,
                    rep_levels_byte_len,
                    is_compressed: false,
                    statistics,
                }
            }
            page @ Page::DataPageV2 { .. } => page,
        })
    }

    fn unpack(&self, stored: &[u8]) -> Result<Vec<u8>> {
        let limit = stored.len().saturating_mul(RATIO).saturating_add(LEAST);
        let damaged = |problem: &dyn std::fmt::Display| {
            ParquetError::General(format!("its compressed pages are damaged ({problem})"))
        };
        let large =
            || ParquetError::General(format!("a page is more than {RATIO} times as large as its file"));
        let streamed = |reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            reader.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
            if bytes.len() > limit { Err(large()) } else { Ok(bytes) }
        };
        match self.codec {
            Compression::SNAPPY => {
                let length = snap::raw::decompress_len(stored).map_err(|error| damaged(&error))?;
                if length > limit {
                    return Err(large());
                }
                snap::raw::Decoder::new().decompress_vec(stored).map_err(|error| damaged(&error))
            }
            Compression::GZIP(_) => streamed(&mut flate2::bufread::MultiGzDecoder::new(stored)),
            Compression::ZSTD(_) => {
                let mut frames =
                    ruzstd::decoding::StreamingDecoder::new(stored).map_err(|error| damaged(&error))?;
                streamed(&mut frames)
            }
            Compression::LZ4_RAW => {
                // The format does not say how long a block is.
                let most = stored.len().saturating_mul(LZ4_RATIO).min(self.uncompressed).min(limit);
                lz4_flex::block::decompress(stored, most).map_err(|error| damaged(&error))
            }
            other => Err(ParquetError::NYI(format!("{other:?}"))),
        }
    }
}

/// The name of a codec that is not read.
fn unread(codec: Compression) -> Option<&'static str> {
    match codec {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::ZSTD(_)
        | Compression::LZ4_RAW => None,
        Compression::BROTLI(_) => Some("brotli"),
        Compression::LZO => Some("lzo"),
        Compression::LZ4 => Some("Hadoop's lz4"),
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.stored.get_next_page()?.map(|page| self.checked(self.unpacked(page)?)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.stored.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.stored.skip_next_page()
    }
}
