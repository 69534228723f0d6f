//! Shared secrets, in the configuration file or in files of their own.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::exposure::Exposure;
use super::reader::Reader;
use super::types::Host;
use super::walk::{At, Notes, Section};
use crate::base::text::is_like_a_secret;
use crate::system::pipe;

/// Anyone who has seen one password can guess a secret with fewer bytes offline.
pub(super) const SECRET_SHORT_BYTES: usize = 16;
/// Size limit of a secret file, larger than any secret: the path may be wrong and name a log or a device.
const SECRET_FILE_BYTES_MAX: u64 = 4096;
pub(super) const MAKE_ONE: &str = "make one: openssl rand -base64 32";
/// Keys before a secret that was copied with its whole line, from turnserver.conf or from this project's file.
const COPIED_KEYS: [&str; 2] = ["static-auth-secret", "secret"];

/// For each secret, the number of the host where it was first listed, and the line.
#[derive(Default)]
pub(super) struct Seen(HashMap<String, (usize, usize)>);

/// Reads every secret of the host with number `host`, newest first: `secret`, `secrets`, then the files.
pub(super) fn read(
    section: &Section<'_, '_>,
    host: usize,
    base: &Path,
    seen: &mut Seen,
    notes: &mut Notes,
) -> Vec<String> {
    let before = notes.problems.len();
    let mut written: Vec<(&str, At<String>)> = Vec::new();
    if let Some(At { value, line }) = section.string("secret", notes) {
        written.push(("secret", At { value: value.to_owned(), line }));
    }
    written.extend(inline(section, "secrets", notes));
    if let Some(path) = section.string("secret_file", notes) {
        written.extend(
            from_file(section, "secret_file", path, base, notes).map(|secret| ("secret_file", secret)),
        );
    }
    written.extend(from_files(section, "secret_files", base, notes));
    if written.is_empty() && notes.problems.len() == before {
        notes.error(
            section.line,
            "host",
            "no secret",
            format!("write secret = \"...\" or secret_file = \"/etc/hallpass/secret\"; {MAKE_ONE}"),
        );
    }
    let mut secrets = Vec::with_capacity(written.len());
    for (key, secret) in written {
        if is_fit(&section.key(key), &secret, notes) && seen.is_new(&section.key(key), &secret, host, notes) {
            secrets.push(secret.value);
        }
    }
    secrets
}

/// A revoked secret, with its key and line.
pub(super) struct Revoked {
    key: String,
    secret: At<String>,
}

/// Reads the revoked secrets: `revoked`, then `revoked_files`.
pub(super) fn revoked(section: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Vec<Revoked> {
    let mut written = inline(section, "revoked", notes);
    written.extend(from_files(section, "revoked_files", base, notes));
    written.into_iter().map(|(key, secret)| Revoked { key: section.key(key), secret }).collect()
}

/// Reports revoked secrets that are still valid, for the same host or another one. Returns all revoked secrets. `host` is
/// the number of the host that revokes them; `hosts` are all hosts.
pub(super) fn check_revoked(
    revoked: Vec<Revoked>,
    host: usize,
    hosts: &[Host],
    valid: &Seen,
    notes: &mut Notes,
) -> Vec<String> {
    for Revoked { key, secret } in &revoked {
        let Some(&(valid_at, line)) = valid.0.get(&secret.value) else { continue };
        if valid_at == host {
            notes.error(
                secret.line,
                key,
                "this secret is both valid and revoked",
                "remove it from secret, secrets or secret_files, and give the host a new one",
            );
        } else {
            let name = |number: usize| hosts.get(number).map_or("", |host| host.name.as_str());
            notes.error(
                secret.line,
                key,
                format!(
                    "this secret is revoked for the host {:?} and valid for the host {:?}, on line {line}: its users \
                     would keep their calls",
                    name(host),
                    name(valid_at)
                ),
                "give that host a new secret; a secret that has leaked must be valid nowhere",
            );
        }
    }
    revoked.into_iter().map(|Revoked { secret, .. }| secret.value).collect()
}

/// Reads a list of secrets that the configuration file itself contains.
fn inline<'k>(section: &Section<'_, '_>, key: &'k str, notes: &mut Notes) -> Vec<(&'k str, At<String>)> {
    let list = section.strings(key, notes).unwrap_or_default().into_iter();
    list.map(|At { value, line }| (key, At { value: value.to_owned(), line })).collect()
}

/// Reads the secrets in a list of files.
fn from_files<'k>(
    section: &Section<'_, '_>,
    key: &'k str,
    base: &Path,
    notes: &mut Notes,
) -> Vec<(&'k str, At<String>)> {
    let paths = section.strings(key, notes).unwrap_or_default();
    let read = paths.into_iter().filter_map(|path| from_file(section, key, path, base, notes));
    read.map(|secret| (key, secret)).collect()
}

impl Seen {
    /// Reports a secret that is listed twice. Returns `false` if the same host already has it.
    fn is_new(&mut self, key: &str, secret: &At<String>, host: usize, notes: &mut Notes) -> bool {
        let Some(&(first_host, first_line)) = self.0.get(&secret.value) else {
            self.0.insert(secret.value.clone(), (host, secret.line));
            return true;
        };
        if first_host == host {
            notes.warn(
                secret.line,
                key,
                format!("the same secret as on line {first_line}"),
                "remove one of the two",
            );
            return false;
        }
        notes.error(
            secret.line,
            key,
            format!("the same secret as on line {first_line}, under another host"),
            format!("the relay identifies a host by its secret, so give each host its own; {MAKE_ONE}"),
        );
        true
    }
}

/// Reports the problems of a secret. Returns whether it can be used.
fn is_fit(key: &str, secret: &At<String>, notes: &mut Notes) -> bool {
    if secret.value.is_empty() {
        notes.error(secret.line, key, "the secret is empty", MAKE_ONE);
        return false;
    }
    if secret.value.chars().any(char::is_control) {
        notes.error(
            secret.line,
            key,
            "the secret contains a control character",
            format!("write it on one line, without tabs; {MAKE_ONE}"),
        );
        return false;
    }
    if let Some(assigned) = assigned(&secret.value) {
        notes.error(
            secret.line,
            key,
            format!("the secret starts with `{assigned}=`: it is a whole line of a configuration"),
            "keep only what follows the = sign",
        );
        return false;
    }
    let length = secret.value.len();
    if length < SECRET_SHORT_BYTES {
        notes.warn(
            secret.line,
            key,
            format!("the secret has {length} bytes, so anyone who has seen one password can guess it"),
            format!("use at least {SECRET_SHORT_BYTES} bytes; {MAKE_ONE}"),
        );
    }
    if secret.value.trim() != secret.value {
        notes.warn(
            secret.line,
            key,
            "the secret starts or ends with a blank, which is part of the secret",
            "remove the blank, unless the host that issues credentials uses it too",
        );
    }
    true
}

/// Whether the name of a file that does not exist looks like a random secret. One of 64 in Base64 begins with a slash: it is no path
/// if it ends like Base64, or if it has capitals and its first directory does not exist.
fn is_secret_in_place_of_a_name(name: &str) -> bool {
    let first = name.strip_prefix('/').map(|rest| rest.split('/').next().unwrap_or(rest));
    let is_path = first.is_some_and(|first| {
        let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
        !name.ends_with('=') && (!has_capitals || Path::new("/").join(first).is_dir())
    });
    is_like_a_secret(name) && !is_path
}

/// Reads the secret in the first line of a file.
pub(super) fn from_file(
    section: &Section<'_, '_>,
    key: &str,
    path: At<&str>,
    base: &Path,
    notes: &mut Notes,
) -> Option<At<String>> {
    let key = section.key(key);
    let file = base.join(path.value);
    notes.secret_files.push(file.clone());
    let shown = file.display();
    let (bytes, mode) = match read_start(&file) {
        Ok(read) => read,
        Err(error) => {
            let reader = Reader::current();
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => reader.make_secret(&file),
                io::ErrorKind::PermissionDenied => reader.let_read(&file),
                _ => reader.name_regular_file(),
            };
            if error.kind() == io::ErrorKind::NotFound && is_secret_in_place_of_a_name(path.value) {
                let text = "names no file, but looks like the secret itself, which is not shown";
                let remedy = "write the secret as secret = \"...\", or the name of its file here";
                notes.error(path.line, &key, text.to_owned(), remedy.to_owned());
                return None;
            }
            notes.error(path.line, &key, format!("cannot read {shown}: {error}"), remedy);
            return None;
        }
    };
    if let Some(Exposure { message, remedy }) = Exposure::of_mode(&shown.to_string(), mode) {
        notes.warn(path.line, &key, message, remedy);
    }
    match first_line(&bytes) {
        Ok(secret) => Some(At { value: secret.to_owned(), line: path.line }),
        Err(wrong) => {
            let remedy = match wrong {
                NotASecret::NotText => format!("put only the secret into the first line; {MAKE_ONE}"),
                NotASecret::ByteOrderMark => {
                    format!("remove the mark: sed -i '1s/^\\xEF\\xBB\\xBF//' {shown}")
                }
            };
            notes.error(path.line, &key, format!("{shown} {wrong}"), remedy);
            None
        }
    }
}

/// Reads the secret in the first line of `source`, in the format of a secret file.
///
/// # Errors
/// `InvalidData` if the first line is not UTF-8 text, starts with a byte order mark or is a line of another configuration
/// (`static-auth-secret=...`), or if `source` is longer than 4 KiB; otherwise the error of reading.
pub fn read_secret(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let secret = first_line(&bytes).map_err(|wrong| invalid(format!("it {wrong}")))?;
    match assigned(secret) {
        None => Ok(secret.to_owned()),
        Some(key) => Err(invalid(format!("it has `{key}=` before the secret: write the secret alone"))),
    }
}

/// Why the first line of a file is no secret. `Display` continues a sentence about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotASecret {
    /// Not UTF-8, or too long.
    NotText,
    /// Some editors write it at the start of UTF-8 text, where it would be part of the secret.
    ByteOrderMark,
}

impl fmt::Display for NotASecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "is not one line of text",
            Self::ByteOrderMark => "starts with a byte order mark, which would be part of the secret",
        })
    }
}

/// Returns the first line without its line break.
///
/// # Errors
/// Why it is no secret.
fn first_line(bytes: &[u8]) -> Result<&str, NotASecret> {
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = first.strip_suffix(b"\r").unwrap_or(first);
    let line = std::str::from_utf8(first).ok().filter(|_| bytes.len() as u64 <= SECRET_FILE_BYTES_MAX);
    match line {
        None => Err(NotASecret::NotText),
        Some(line) if line.starts_with('\u{feff}') => Err(NotASecret::ByteOrderMark),
        Some(line) => Ok(line),
    }
}

/// Returns the key before a secret that was copied with its whole line from another configuration.
fn assigned(secret: &str) -> Option<&'static str> {
    COPIED_KEYS.into_iter().find(|key| {
        let rest = secret.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    })
}

/// Reads a file up to one byte above the size limit, and its mode.
fn read_start(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let (file, metadata) = pipe::open(path)?;
    let mode = metadata.mode();
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}
