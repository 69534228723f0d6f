//! `hallpass import-coturn`: a configuration of coturn becomes one of Hallpass.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::ImportArgs;
use super::output::{FAILURE, check_line, fail, print, print_stderr, shell_word};
use crate::config::{self, Loaded};
use crate::coturn::words::{FileArgument, file_argument};
use crate::coturn::{self, Import, Input};
use crate::system::pipe;
use crate::system::whole_file::{self, Access};

/// The file that coturn reads if it is not told otherwise.
const DEFAULT_FILE: &str = "/etc/turnserver.conf";
/// coturn's database if it is not told otherwise: that of Debian, and that of coturn itself.
const DEFAULT_DATABASES: [&str; 2] = ["/var/lib/turn/turndb", "/usr/local/var/db/turndb"];
/// Mode of a new file: it contains secrets.
const MODE: u32 = 0o600;
/// What stays of the mode of a file that is replaced: everything but the rights of other users.
const NOT_OTHERS: u32 = 0o770;
/// Size limit of a file. That of a large installation has some ten KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Imports a configuration, prints the report, and prints or writes the result.
pub(super) fn run(args: ImportArgs) -> ExitCode {
    let arguments: Vec<Vec<u8>> = args.arguments.into_iter().map(OsStringExt::into_vec).collect();
    let file =
        match chosen(args.file, &arguments).map(|path| read(&path).map(|bytes| (path, bytes))).transpose() {
            Ok(file) => file,
            Err((message, next_step)) => return fail(&message, &next_step),
        };
    let name = file.as_ref().map(|(path, _)| path.display().to_string());
    let input = Input {
        file: name.as_deref().zip(file.as_ref().map(|(_, bytes)| bytes.as_slice())),
        arguments: &arguments,
        default_database: default_database(),
        alternative_ports: args.alternative_ports,
    };
    let Import { configuration, report } = coturn::import(&input);
    print_stderr(&match (args.json, args.all || !io::stderr().is_terminal()) {
        (true, _) => report.json(),
        (false, true) => report.text(),
        // Debian's file has 789 lines of comments around five settings.
        (false, false) => report.folded(),
    });
    let Some(configuration) = configuration else { return ExitCode::from(FAILURE) };
    let Some(output) = args.output else { return print(configuration.toml.as_bytes()) };
    match write(&output, configuration.toml.as_bytes(), args.force) {
        Ok(_) if args.json => ExitCode::SUCCESS,
        Ok(is_kept) => {
            let shown = shell_word(&output.display().to_string());
            let (whose, chown) = match is_kept {
                true => ("with the owner and mode of the file before", ""),
                false => ("readable by its owner alone", "chown it to the user that runs hallpass, then "),
            };
            print_stderr(&format!("written: {shown}, {whose}\n    next: {chown}{}\n", check_line(&output)));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fail(&format!("{} exists", output.display()), "write another name after --output, or add --force")
        }
        Err(error) => fail(
            &format!("cannot write {}: {error}", output.display()),
            "name a file in an existing directory that you may write to",
        ),
    }
}

/// Chooses the file: the one that is named, the one of `-c`, or coturn's default if it exists. With `-n` and no name: none.
fn chosen(named: Option<PathBuf>, arguments: &[Vec<u8>]) -> Option<PathBuf> {
    match (named, file_argument(arguments)) {
        (Some(path), _) => Some(path),
        (None, FileArgument::None) => None,
        (None, FileArgument::Named(path)) => Some(PathBuf::from(std::ffi::OsStr::from_bytes(path))),
        (None, FileArgument::Default) => {
            let default = PathBuf::from(DEFAULT_FILE);
            // With arguments alone, coturn warns about a missing file and goes on.
            (arguments.is_empty() || default.exists()).then_some(default)
        }
    }
}

/// Reads a file or standard input.
///
/// # Errors
/// What is wrong and what to do: it cannot be read, or is larger than 1 MiB.
fn read(path: &Path) -> Result<Vec<u8>, (String, String)> {
    let open = || -> io::Result<Vec<u8>> {
        let source: Box<dyn Read> = match path.as_os_str().as_bytes() {
            b"-" => Box::new(io::stdin().lock()),
            _ => pipe::open(path)?.0,
        };
        let mut bytes = Vec::new();
        source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let name = path.display();
    match open() {
        Ok(bytes) if bytes.len() as u64 > FILE_BYTES_MAX => {
            Err((format!("{name} is larger than 1 MiB"), "name the configuration file of coturn".to_owned()))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            let next_step = match error.kind() {
                io::ErrorKind::NotFound => {
                    "name coturn's file, or its arguments after --; see hallpass import-coturn --help"
                }
                io::ErrorKind::PermissionDenied => {
                    "run this command as root, or copy the file to a place that you can read"
                }
                _ => "name a regular file",
            };
            Err((format!("cannot read {name}: {error}"), next_step.to_owned()))
        }
    }
}

/// Returns coturn's default database if this machine has it.
fn default_database() -> Option<&'static str> {
    DEFAULT_DATABASES.into_iter().find(|path| Path::new(path).exists())
}

/// Writes a file that only its owner can read, or in place of one with that file's owner and mode, so that the service can
/// still read it. Either all of it is there under its name, or nothing changes. Returns whether owner and mode are kept.
///
/// # Errors
/// `AlreadyExists` if there is such a file and `replace` is not set, otherwise the error of the system call.
fn write(path: &Path, bytes: &[u8], replace: bool) -> io::Result<bool> {
    let own = Access { owner: None, mode: MODE };
    if !replace {
        return whole_file::create(path, bytes, own).map(|()| false);
    }
    let old = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
    let kept = old
        .map(|data| Access { owner: Some((data.uid(), data.gid())), mode: data.mode() & NOT_OTHERS | MODE });
    // Only root can give a file away; then it stays with the user of this command.
    match kept.map(|access| whole_file::replace(path, bytes, access)) {
        Some(Ok(())) => Ok(true),
        Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => whole_file::replace(path, bytes, own).map(|()| false),
    }
}

/// Imports a file for `hallpass serve --coturn-config`. The report is returned as text, without the lines that are kept.
///
/// # Errors
/// The whole report, or why the file cannot be read.
pub(super) fn load(path: &Path) -> Result<(Loaded, String), String> {
    let bytes = read(path).map_err(|(message, next_step)| format!("{message}\n    {next_step}\n"))?;
    let name = path.display().to_string();
    let input =
        Input { file: Some((&name, &bytes)), default_database: default_database(), ..Input::default() };
    let Import { configuration, report } = coturn::import(&input);
    let Some(configuration) = configuration else { return Err(report.text()) };
    let shown = format!("{name}, as imported");
    let directory = path.parent().unwrap_or(Path::new(""));
    match config::parse(&configuration.toml, &shown, directory) {
        Ok(loaded) => Ok((loaded, report.differences())),
        Err(problems) => Err(problems.to_string()),
    }
}
