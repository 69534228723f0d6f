//! Files that are read once and as a whole. A named pipe must not make a command or a reload wait for ever.

use std::fs::{self, File, Metadata};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Time for a writer to write everything into a pipe.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time after which a wait is announced: the shell's commands usually write at once.
const SILENT: Duration = Duration::from_secs(1);
/// Bytes that are read from a pipe. More than any file may have.
const PIPE_MAX: u64 = 64 << 20;

/// Opens a file. A named pipe is read to its end first, as the shell's `<(command)` needs it. A wait of more than a second is
/// announced on standard error.
///
/// # Errors
/// Those of `open(2)`; `TimedOut` if nobody writes to the pipe, or the writer does not close it.
pub fn open(path: &Path) -> io::Result<(Box<dyn Read>, Metadata)> {
    open_within(SILENT, PATIENCE, path)
}

fn open_within(silent: Duration, patience: Duration, path: &Path) -> io::Result<(Box<dyn Read>, Metadata)> {
    let metadata = fs::metadata(path)?;
    if !metadata.file_type().is_fifo() {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        return Ok((Box::new(file), metadata));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = path.display().to_string();
    let path = path.to_owned();
    // Ends with the process if nobody ever opens the pipe.
    thread::Builder::new().name("pipe".to_owned()).spawn(move || {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|pipe| pipe.take(PIPE_MAX).read_to_end(&mut bytes));
        // The receiver may have given up.
        let _ = sender.send(read.map(|_| bytes));
    })?;
    let late = |_| {
        let message = format!(
            "it is a named pipe, and nobody wrote it to its end within {} s; write a file, or start the writer first",
            patience.as_secs()
        );
        io::Error::new(io::ErrorKind::TimedOut, message)
    };
    let bytes = match receiver.recv_timeout(silent.min(patience)) {
        Err(RecvTimeoutError::Timeout) => {
            // If standard error is closed, the wait is silent.
            let _ = writeln!(
                io::stderr(),
                "hallpass: {name} is a named pipe: waiting {} s for its writer",
                patience.as_secs()
            );
            receiver.recv_timeout(patience.saturating_sub(silent)).map_err(late)?
        }
        received => received.map_err(late)?,
    }?;
    Ok((Box::new(Cursor::new(bytes)), metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn pipe(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("hallpass-{name}-{}", std::process::id()));
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        path
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_an_error() {
        let path = pipe("silent");
        let error = open_within(Duration::ZERO, Duration::from_millis(20), &path).err().expect("an error");
        fs::remove_file(path).expect("the pipe");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().starts_with("it is a named pipe"), "{error}");
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let path = pipe("written");
        let writer = Command::new("sh").arg("-c").arg("echo secret > \"$0\"").arg(&path).spawn();
        let mut text = String::new();
        let (mut reader, _) = open(&path).expect("a reader");
        reader.read_to_string(&mut text).expect("text");
        fs::remove_file(path).expect("the pipe");
        assert_eq!(text, "secret\n");
        assert!(writer.expect("sh").wait().expect("its end").success());
    }
}
