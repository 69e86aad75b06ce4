//! Reading of regular files, with a limit of their size.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Most bytes of a file; resources are written by people.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Opening a pipe does not wait for somebody to write to it. Source: Linux, `asm-generic/fcntl.h`.
#[cfg(target_os = "linux")]
const O_NONBLOCK: i32 = 0o4000;
/// As on Linux. Source: macOS and the BSDs, `sys/fcntl.h`.
#[cfg(not(target_os = "linux"))]
const O_NONBLOCK: i32 = 0x4;

/// The content of the file at `path`, which must be a file: a device or a pipe may have no end.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    content(file, MAX_BYTES)
}

/// As [`read_file`], as UTF-8 text.
pub(super) fn read_file_as_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_file(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not valid UTF-8"))
}

fn content(file: File, most: u64) -> io::Result<Vec<u8>> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    match content.len() as u64 > most {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes"))),
        false => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_file(Path::new("/dev/zero")).unwrap_err().to_string(), "not a regular file");
        assert_eq!(read_file(folder.path()).unwrap_err().to_string(), "not a regular file");
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read_file(&pipe).unwrap_err().to_string(), "not a regular file");
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(content(File::open(file.path()).unwrap(), 5).unwrap(), b"12345");
        let error = content(File::open(file.path()).unwrap(), 4).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 4 bytes");
    }
}
