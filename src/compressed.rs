//! Text files, which may be compressed: by gzip (RFC 1952) or Zstandard (RFC 8878), told by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use curmerge_formats::input;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// A text never has more bytes than this and [`RATIO`] times its file's. Real text shrinks to a tenth; a
/// hostile file of a few kilobytes could fill the memory.
const LEAST: u64 = 64 << 20;
const RATIO: u64 = 100;
/// Zstandard's own programs refuse to decompress with larger windows, too, unless told otherwise.
const MAX_WINDOW: u64 = 128 << 20;

/// First bytes of what is decompressed, and of what is refused by its name.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTANDARD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const OTHERS: [(&[u8], &str); 7] = [
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)"),
    (&[0x04, 0x22, 0x4d, 0x18], "an lz4 archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
];

/// Opens a text file for reading, as it is or decompressed.
///
/// # Errors
/// Those of [`input::open`]; an archive of another kind. A read fails at damaged data, and at a text that is
/// far larger than any of its file's size.
pub fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = input::open(path)?;
    let limit = file.metadata()?.len().saturating_mul(RATIO).saturating_add(LEAST);
    let mut file = BufReader::new(file);
    let start = file.fill_buf()?;
    let limited = |text| Box::new(Limited { text, left: limit });
    if start.starts_with(GZIP) {
        return Ok(limited(Box::new(Damageable { text: MultiGzDecoder::new(file), format: "gzip" })));
    }
    if start.starts_with(ZSTANDARD) || skippable(start) {
        let frames = Frames { file, frame: FrameDecoder::new(), begun: false, written: 0 };
        return Ok(limited(Box::new(Damageable { text: frames, format: "Zstandard" })));
    }
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        let problem =
            format!("it is {name}: unpack it to text, JSON lines or CSV; .gz and .zst are read as they are");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Box::new(file))
}

/// The bytes of a text file, as it is or decompressed.
///
/// # Errors
/// Those of [`open`]; a failed read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of a file without the ending of its compression.
pub fn uncompressed_name(path: &Path) -> &Path {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "gz" | "zst" => path.file_stem().map_or(path, Path::new),
        _ => path,
    }
}

/// Whether a Zstandard frame begins here that holds no text.
fn skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A reader whose errors say that the compressed data are damaged.
struct Damageable<R> {
    text: R,
    format: &'static str,
}

impl<R: Read> Read for Damageable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::Unsupported => error,
            kind => {
                let problem =
                    format!("its {} data are damaged or cut short ({error}): get it again", self.format);
                io::Error::new(kind, problem)
            }
        })
    }
}

/// A reader that fails where the text has more bytes than the limit.
struct Limited {
    text: Box<dyn Read>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let found = self.text.read(buffer)?;
        let left = self.left.checked_sub(found as u64);
        self.left = left.ok_or_else(|| {
            let problem =
                format!("its text is more than {RATIO} times as large as the file: unpack it first");
            io::Error::new(io::ErrorKind::FileTooLarge, problem)
        })?;
        Ok(found)
    }
}

/// The text of all frames of a Zstandard file. ruzstd reads one frame, and compares no checksum.
struct Frames {
    file: BufReader<File>,
    frame: FrameDecoder,
    begun: bool,
    /// Bytes of text of this frame.
    written: u64,
}

impl Frames {
    /// Begins the next frame that has text. Whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.file.fill_buf()?.is_empty() {
            self.frame.set_max_window_size(MAX_WINDOW);
            match self.frame.reset(&mut self.file) {
                Ok(()) => {
                    (self.begun, self.written) = (true, 0);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.file).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(
                    error @ (FrameDecoderError::WindowSizeTooBig { .. }
                    | FrameDecoderError::DictNotProvided { .. }),
                ) => {
                    let problem =
                        format!("it needs more than zstd reads by default ({error}): unpack it first");
                    return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }

    /// Checks what a frame says of its text, which is read.
    fn end(&mut self) -> io::Result<()> {
        self.begun = false;
        let size = self.frame.content_size();
        if size > 0 && size != self.written {
            return Err(damaged(format!("{} bytes of text where it names {size}", self.written)));
        }
        let (told, found) = (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum());
        if told.is_some() && told != found {
            return Err(damaged("its checksum is another one"));
        }
        Ok(())
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.begun && !self.begin()? {
                return Ok(0);
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let one = ruzstd::decoding::BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.file, one).map_err(damaged)?;
            }
            let found = self.frame.read(buffer)?;
            if found > 0 {
                self.written += found as u64;
                return Ok(found);
            }
            self.end()?;
        }
    }
}

fn damaged(problem: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZ: &[u8] = include_bytes!("../fixtures/compressed/one.jsonl.gz");
    const ZST: &[u8] = include_bytes!("../fixtures/compressed/one.jsonl.zst");
    const MEMBERS: &[u8] = include_bytes!("../fixtures/compressed/members.gz");
    const FRAMES: &[u8] = include_bytes!("../fixtures/compressed/frames.zst");

    fn text() -> Vec<u8> {
        let line = |n| {
            format!(
                "{{\"prompt\": \"How many legs has a spider?\", \
                 \"completion\": \" Eight, all of them its own. No {n}.\"}}\n"
            )
        };
        (0..60).map(line).collect::<String>().into_bytes()
    }

    fn read_bytes(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn archives_of_gzip_and_zstandard_are_read() {
        for bytes in [GZ, ZST, MEMBERS, FRAMES] {
            assert_eq!(read_bytes(bytes).unwrap(), text());
        }
        assert_eq!(read_bytes(&text()).unwrap(), text());
        assert!(read_bytes(b"").unwrap().is_empty());
    }

    #[test]
    fn damaged_and_cut_archives_fail() {
        for (bytes, format) in [(GZ, "gzip"), (MEMBERS, "gzip"), (ZST, "Zstandard"), (FRAMES, "Zstandard")] {
            let is_whole = |found: &[u8]| found == text() || found == &text()[..found.len()];
            for cut in 4..bytes.len() {
                match read_bytes(&bytes[..cut]) {
                    // The parts of a file are whole files.
                    Ok(found) => assert!(found.len() < text().len() && is_whole(&found), "{format} {cut}"),
                    Err(error) => assert!(error.contains(&format!("its {format} data")), "{error}"),
                }
            }
        }
        // A checksum or the structure guards every byte, but for a time stamp and the name of a system.
        for (bytes, free) in [(GZ, 4..10), (ZST, 0..0)] {
            for at in (4..bytes.len()).filter(|at| !free.contains(at)) {
                let mut changed = bytes.to_vec();
                changed[at] ^= 0xff;
                assert!(read_bytes(&changed) != Ok(text()), "byte {at}");
            }
        }
        let checksum = { ZST.len() - 1 };
        let mut changed = ZST.to_vec();
        changed[checksum] ^= 1;
        let error = read_bytes(&changed).unwrap_err();
        assert_eq!(
            error,
            "its Zstandard data are damaged or cut short (its checksum is another one): get it again"
        );
    }

    #[test]
    fn text_that_would_fill_the_memory_is_refused() {
        let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
        io::copy(&mut io::repeat(b'a').take(LEAST + (16 << 20)), &mut gzip).unwrap();
        let length = |bytes: &[u8]| read_bytes(bytes).map(|text| text.len());
        let error = length(&gzip.finish().unwrap()).unwrap_err();
        assert_eq!(error, "its text is more than 100 times as large as the file: unpack it first");
        // A frame of blocks that repeat one byte: 4 bytes for 128 KiB each.
        let mut frame = [ZSTANDARD, &[0, 0x38]].concat();
        (0..2000).for_each(|_| frame.extend([0x02, 0, 0x10, b'a']));
        frame.extend([0x03, 0, 0x10, b'a']);
        let error = length(&frame).unwrap_err();
        assert_eq!(error, "its text is more than 100 times as large as the file: unpack it first");
        // A window of 2 GB.
        let error = read_bytes(&[ZSTANDARD, &[0, 0xa8, 1, 0, 0]].concat()).unwrap_err();
        assert!(
            error.starts_with("it needs more than zstd reads") && error.ends_with("unpack it first"),
            "{error}"
        );
    }

    #[test]
    fn other_archives_are_named() {
        for (magic, name) in OTHERS {
            let error = read_bytes(&[magic, b"and more"].concat()).unwrap_err();
            assert!(error.contains(name) && error.contains(".gz and .zst are read"), "{error}");
        }
    }

    #[test]
    fn names_lose_the_ending_of_a_compression() {
        for (name, without) in
            [("a.jsonl.gz", "a.jsonl"), ("a.CSV.ZST", "a.CSV"), ("a.gz", "a"), ("a.b", "a.b")]
        {
            assert_eq!(uncompressed_name(Path::new(name)), Path::new(without));
        }
    }
}
