//! Typed access to the TOML document, table by table. Every value comes with its line, and unknown keys are reported.

use std::path::PathBuf;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::{self, LimitRow};
use super::problem::{Problem, Severity};
use crate::base::text::is_like_a_secret;

/// The problems found so far, and the start of each line to convert a byte offset to a line number.
pub(super) struct Notes {
    line_starts: Vec<usize>,
    pub(super) problems: Vec<Problem>,
    /// The files with secrets that were named.
    pub(super) secret_files: Vec<PathBuf>,
}

impl Notes {
    pub(super) fn new(text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { line_starts, problems: Vec::new(), secret_files: Vec::new() }
    }

    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    pub(super) fn error(
        &mut self,
        line: usize,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Error, Some(line), key, message.into(), remedy.into());
    }

    pub(super) fn warn(
        &mut self,
        line: usize,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Warning, Some(line), key, message.into(), remedy.into());
    }

    /// Reports that something is missing: an error of the file as a whole.
    pub(super) fn missing(&mut self, key: &str, message: &str, remedy: &str) {
        self.add(Severity::Error, None, key, message.to_owned(), remedy.to_owned());
    }

    /// Reports a warning about the file as a whole.
    pub(super) fn warn_whole(&mut self, message: &str, remedy: &str) {
        self.add(Severity::Warning, None, "", message.to_owned(), remedy.to_owned());
    }

    fn add(&mut self, severity: Severity, line: Option<usize>, key: &str, message: String, remedy: String) {
        self.problems.push(Problem { severity, line, key: key.to_owned(), message, remedy });
    }
}

/// A value and its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// The tables of the file and their keys. Names include the brackets as in the file; "" is the top of the file.
pub(super) const TABLES: [(&str, &[&str]); 17] = [
    (
        "",
        &[
            "realm",
            "external_ip",
            "strict_channels",
            "icmp_to_clients",
            "privacy",
            "listen",
            "relay",
            "tls",
            "acme",
            "redirect",
            "web",
            "site",
            "host",
            "user",
            "peers",
            "limits",
            "drain",
            "log",
            "admin",
            "control",
        ],
    ),
    ("[[listen]]", &["transport", "address", "proxy_protocol", "plain", "tls", "web", "quic", "public"]),
    ("[relay]", &["addresses", "ports", "default_family", "mode"]),
    ("[tls]", &["cert", "key", "accept_expired", "certificate"]),
    ("[[tls.certificate]]", &["cert", "key"]),
    ("[acme]", &["domains", "contact", "directory", "profile", "challenges", "state", "ca_file"]),
    ("[redirect]", &["address"]),
    ("[web]", &["http1", "h2", "proxy_protocol", "passthrough"]),
    ("[site]", &["enabled", "title", "text", "language", "imprint", "directory", "check", "address"]),
    (
        "[[host]]",
        &["name", "secret", "secret_file", "secrets", "secret_files", "revoked", "revoked_files", "peers"],
    ),
    ("[[user]]", &["name", "password", "host"]),
    ("[peers]", &["allow", "deny"]),
    ("[limits]", limits::KEYS),
    ("[drain]", &["alternate_server", "tcp_alternate_server", "tls_alternate_server"]),
    ("[log]", &["format", "level"]),
    ("[admin]", &["address", "names", "token_file", "cert", "key"]),
    ("[control]", &["socket"]),
];

/// One table of the document.
pub(super) struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    name: &'static str,
    /// The line where the table starts.
    pub(super) line: usize,
}

impl<'a, 'i> Section<'a, 'i> {
    /// Opens a table by its name in [`TABLES`] and reports its unknown keys.
    pub(super) fn open(table: &'a DeTable<'i>, name: &'static str, line: usize, notes: &mut Notes) -> Self {
        let known = keys_of(name);
        for key in table.keys() {
            let written = key.get_ref().as_ref();
            if !known.contains(&written) {
                let line = notes.line_at(key.span().start);
                notes.error(line, &qualified(name, written), "unknown key", suggest(name, written));
            }
        }
        Self { table, name, line }
    }

    /// The key with its table, as messages show it.
    pub(super) fn key(&self, key: &str) -> String {
        qualified(self.name, key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The line of a key, or that of the table if the key is absent.
    pub(super) fn line_of(&self, key: &str, notes: &Notes) -> usize {
        self.table.get_key_value(key).map_or(self.line, |(key, _)| notes.line_at(key.span().start))
    }

    pub(super) fn string(&self, key: &str, notes: &mut Notes) -> Option<At<&'a str>> {
        let value = self.table.get(key)?;
        let found = value.get_ref().as_str();
        let line = notes.line_at(value.span().start);
        if found.is_none() {
            self.wrong_type(key, value, "a string in quotes", notes);
        }
        found.map(|value| At { value, line })
    }

    pub(super) fn boolean(&self, key: &str, default: bool, notes: &mut Notes) -> bool {
        let Some(value) = self.table.get(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, "true or false, without quotes", notes);
            default
        })
    }

    /// Whether the key is there with the value true or false.
    pub(super) fn is_boolean(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().as_bool().is_some())
    }

    /// Reads a limit. Returns its default if the key is absent or the value is wrong.
    pub(super) fn number(&self, limit: &LimitRow, notes: &mut Notes) -> u32 {
        let LimitRow { key, default, unit, bounds, zero, .. } = limit;
        let Some(value) = self.table.get(*key) else { return *default };
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, value, "a whole number, without quotes", notes);
            return *default;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok());
        match number {
            Some(0) if zero.is_some() => 0,
            Some(number) if bounds.contains(&number) => number,
            _ => {
                let line = notes.line_at(value.span().start);
                let or_zero = zero.map_or(String::new(), |meaning| format!(", or 0 for {meaning}"));
                let (first, last) = (bounds.start(), bounds.end());
                notes.error(
                    line,
                    &self.key(key),
                    format!("{integer} is out of range"),
                    format!("write a number of {unit} from {first} to {last}{or_zero}"),
                );
                *default
            }
        }
    }

    /// Reads one of several words and returns its meaning. `None` if the key is absent or the word is not in the list.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], notes: &mut Notes) -> Option<T> {
        let At { value, line } = self.string(key, notes)?;
        let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let choices: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            notes.error(
                line,
                &self.key(key),
                format!("{value:?} is not a choice"),
                format!("write one of {}", choices.join(", ")),
            );
        }
        found
    }

    /// Reads a string or a list of strings. `None` if the key is absent or its value is neither.
    pub(super) fn one_or_more(&self, key: &str, notes: &mut Notes) -> Option<Vec<At<&'a str>>> {
        match self.table.get(key)?.get_ref() {
            DeValue::Array(_) => self.strings(key, notes),
            _ => self.string(key, notes).map(|one| vec![one]),
        }
    }

    /// Reads a list of strings. `None` if the key is absent or its value is no list.
    pub(super) fn strings(&self, key: &str, notes: &mut Notes) -> Option<Vec<At<&'a str>>> {
        let value = self.table.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings: [\"...\", \"...\"]", notes);
            return None;
        };
        let mut strings = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(value) => strings.push(At { value, line: notes.line_at(item.span().start) }),
                None => self.wrong_type(key, item, "strings in quotes inside the list", notes),
            }
        }
        Some(strings)
    }

    /// Reads a list of addresses and prefixes. `None` if the key is absent or its value is no list.
    pub(super) fn prefixes(&self, key: &str, notes: &mut Notes) -> Option<Vec<At<IpNet>>> {
        let written = self.strings(key, notes)?;
        let mut prefixes: Vec<At<IpNet>> = Vec::with_capacity(written.len());
        for At { value, line } in written {
            match parse_prefix(value) {
                Ok(prefix) => prefixes.push(At { value: prefix, line }),
                Err(remedy) => {
                    let shown = match is_like_a_secret(value) {
                        true => "an entry that looks like a secret, so it is not shown,".to_owned(),
                        false => format!("{value:?}"),
                    };
                    notes.error(line, &self.key(key), format!("{shown} is not a prefix"), remedy);
                }
            }
        }
        Some(prefixes)
    }

    /// Reads a table with arbitrary keys and strings as values.
    pub(super) fn pairs(&self, key: &str, notes: &mut Notes) -> Vec<At<(&'a str, &'a str)>> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table: { \"name\" = \"address\" }", notes);
            return Vec::new();
        };
        let mut pairs = Vec::with_capacity(table.len());
        for (name, value) in table.iter() {
            match value.get_ref().as_str() {
                Some(text) => {
                    let line = notes.line_at(value.span().start);
                    pairs.push(At { value: (name.get_ref().as_ref(), text), line });
                }
                None => self.wrong_type(key, value, "strings in quotes inside the table", notes),
            }
        }
        pairs
    }

    /// Opens the table `[key]`.
    pub(super) fn table(&self, key: &str, name: &'static str, notes: &mut Notes) -> Option<Section<'a, 'i>> {
        let value = self.table.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::open(table, name, self.line_of(key, notes), notes)),
            None => {
                self.wrong_type(key, value, &format!("a table that starts with {name}"), notes);
                None
            }
        }
    }

    /// Opens the tables `[[key]]`.
    pub(super) fn tables(&self, key: &str, name: &'static str, notes: &mut Notes) -> Vec<Section<'a, 'i>> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(
                key,
                value,
                &format!("a table that starts with {name}, in double brackets"),
                notes,
            );
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let line = notes.line_at(item.span().start);
                    sections.push(Section::open(table, name, line, notes));
                }
                None => self.wrong_type(key, item, &format!("a table that starts with {name}"), notes),
            }
        }
        sections
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, notes: &mut Notes) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        let line = notes.line_at(value.span().start);
        notes.error(
            line,
            &self.key(key),
            format!("{article} {found} is not accepted here"),
            format!("write {wanted}"),
        );
    }
}

fn keys_of(name: &str) -> &'static [&'static str] {
    TABLES.iter().find(|(table, _)| *table == name).map_or(&[], |(_, keys)| keys)
}

fn qualified(table: &str, key: &str) -> String {
    let table = table.trim_matches(['[', ']']);
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The remedy for an unknown key: the key that was probably meant, or the place where it belongs.
fn suggest(name: &str, written: &str) -> String {
    let place =
        |table: &str| if table.is_empty() { "the top of the file".to_owned() } else { table.to_owned() };
    // First a misspelled key of this table, then a key of another table: TOML assigns a top-level key that is written below a
    // [table] to that table.
    let likely = keys_of(name)
        .iter()
        .map(|key| (strsim::damerau_levenshtein(written, key), *key))
        .filter(|(distance, key)| *distance <= (key.len() / 3).max(if key.len() > 4 { 2 } else { 1 }))
        .min();
    if let Some((_, key)) = likely {
        return format!("did you mean `{key}`?");
    }
    let elsewhere = TABLES.iter().find(|(table, keys)| *table != name && keys.contains(&written));
    if let Some((table, _)) = elsewhere {
        return format!("`{written}` belongs to {}: move it there", place(table));
    }
    format!("remove it; the keys of {} are {}", place(name), keys_of(name).join(", "))
}

/// Parses a prefix. A bare address is a prefix of that one address.
fn parse_prefix(text: &str) -> Result<IpNet, String> {
    const SHAPE: &str =
        "write an address such as \"198.51.100.20\" or a prefix such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
    let prefix: IpNet = match text.parse::<std::net::IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| SHAPE.to_owned())?,
    };
    // The peer policy judges IPv4-mapped addresses by the IPv4 address inside, so a rule for them would have no effect.
    if let IpNet::V6(v6) = prefix
        && v6.addr().to_ipv4_mapped().is_some()
        && v6.prefix_len() >= 96
    {
        return Err("write the IPv4 address itself, without ::ffff:".to_owned());
    }
    if prefix.addr() != prefix.network() {
        return Err(format!(
            "bits after the prefix length are set: write \"{}\", or \"{}\" for a single address",
            prefix.trunc(),
            prefix.addr()
        ));
    }
    Ok(prefix)
}
