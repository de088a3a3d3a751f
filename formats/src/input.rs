//! Input files are opened here: ordinary files only. To open a pipe waits for its writer, to read a device may
//! never end, and to open one may do something.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens an ordinary file for reading.
///
/// # Errors
/// A folder, pipe, device or socket; a file that the system does not open.
pub fn open(path: &Path) -> Result<File> {
    // Checked before it is opened, and again after, since another file may be there by then.
    must_be_ordinary(&std::fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path)?;
    must_be_ordinary(&file.metadata()?)?;
    Ok(file)
}

/// The bytes of an ordinary file that is at most `max` bytes long. Text, configurations and templates have a
/// limit; files of examples do not.
///
/// # Errors
/// Those of [`open`]; a longer file; a failed read.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let too_long = || {
        let problem = format!("it is longer than {} MiB, which no such file is", max >> 20);
        Error::new(ErrorKind::FileTooLarge, problem)
    };
    if file.metadata()?.len() > max {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(too_long()) } else { Ok(bytes) }
}

fn must_be_ordinary(kind: &Metadata) -> Result<()> {
    match kind {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Error::new(ErrorKind::InvalidInput, "it is a folder")),
        _ => {
            let problem = "it is a pipe, device or socket; save its content in a file";
            Err(Error::new(ErrorKind::InvalidInput, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_files_within_the_limit_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        assert_eq!(read(&path, 1 << 20).unwrap().len(), 1 << 20);
        assert_eq!(read(&path, (1 << 20) - 1).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(read(folder.path(), 9).unwrap_err().to_string().contains("folder"));
        assert_eq!(read(&folder.path().join("none"), 9).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_sockets_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [&pipe, &socket, Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read(path, u64::MAX).unwrap_err();
            assert!(error.to_string().contains("pipe, device or socket"), "{}: {error}", path.display());
        }
    }
}
