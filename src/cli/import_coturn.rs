//! `hallpass import-coturn`: a configuration of coturn becomes one of Hallpass.

use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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
/// coturn's database if it is not told otherwise.
const DEFAULT_DATABASE: &str = "/var/lib/turn/turndb";
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
        has_default_database: Path::new(DEFAULT_DATABASE).exists(),
        alternative_ports: args.alternative_ports,
    };
    let Import { configuration, report } = coturn::import(&input);
    print_stderr(&if args.json { report.json() } else { report.text() });
    let Some(configuration) = configuration else { return ExitCode::from(FAILURE) };
    let Some(output) = args.output else { return print(configuration.toml.as_bytes()) };
    match write(&output, configuration.toml.as_bytes(), args.force) {
        Ok(()) if args.json => ExitCode::SUCCESS,
        Ok(()) => {
            let shown = shell_word(&output.display().to_string());
            print_stderr(&format!(
                "written: {shown}, readable by its owner alone\n    next: chown it to the user that runs hallpass, then {}\n",
                check_line(&output)
            ));
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

/// Writes a file that only its owner can read. Either all of it is there under its name, or nothing changes.
///
/// # Errors
/// `AlreadyExists` if there is such a file and `replace` is not set, otherwise the error of the system call.
fn write(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let access = Access { owner: None, mode: 0o600 };
    if replace { whole_file::replace(path, bytes, access) } else { whole_file::create(path, bytes, access) }
}

/// Imports a file for `hallpass serve --coturn-config`. The report is returned as text, without the lines that are kept.
///
/// # Errors
/// The whole report, or why the file cannot be read.
pub(super) fn load(path: &Path) -> Result<(Loaded, String), String> {
    let bytes = read(path).map_err(|(message, next_step)| format!("{message}\n    {next_step}\n"))?;
    let name = path.display().to_string();
    let input = Input {
        file: Some((&name, &bytes)),
        has_default_database: Path::new(DEFAULT_DATABASE).exists(),
        ..Input::default()
    };
    let Import { configuration, report } = coturn::import(&input);
    let Some(configuration) = configuration else { return Err(report.text()) };
    let shown = format!("{name}, as imported");
    let directory = path.parent().unwrap_or(Path::new(""));
    match config::parse(&configuration.toml, &shown, directory) {
        Ok(loaded) => Ok((loaded, report.differences())),
        Err(problems) => Err(problems.to_string()),
    }
}
