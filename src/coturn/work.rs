//! The items of an import while they are judged one after the other.

use std::collections::BTreeMap;

use super::meaning::Meaning;
use super::options::{self, Fate, Key, Kind, Row, Version};
use super::report::{BLANK, COMMENT, Line, Note, Report, Status};
use super::syntax::{Content, Fault, Item, Place, Setting};
use super::values;

/// Longest name of an unknown option that is shown. A longer one may be a secret on the wrong line.
const NAME_CHARS: usize = 32;

/// What becomes of one item.
pub struct Verdict {
    /// Its status.
    pub status: Status,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: Option<String>,
}

/// An option with a meaning, and its value.
pub struct Entry {
    /// The option.
    pub row: &'static Row,
    /// The value as coturn reads it.
    pub value: Vec<u8>,
}

/// The items, what is known about them so far, and the meaning.
pub struct Work {
    /// Each item: where it is, how it is shown, and what becomes of it.
    pub items: Vec<(Place, String, Option<Verdict>)>,
    /// The items with a meaning, by their index.
    pub entries: BTreeMap<usize, Entry>,
    /// The indices of the items of a key; empty if all of them have placeholders.
    pub by_key: BTreeMap<Key, Vec<usize>>,
    /// The meaning so far.
    pub meaning: Meaning,
    /// The notes and refusals so far.
    pub report: Report,
    /// Remarks about how coturn reads the item, for its reason.
    remarks: BTreeMap<usize, &'static str>,
}

impl Work {
    /// Looks every item up, and judges those without a meaning.
    pub fn new(items: Vec<Item>) -> Self {
        let mut work = Self {
            items: Vec::with_capacity(items.len()),
            entries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            meaning: Meaning::default(),
            report: Report::default(),
            remarks: BTreeMap::new(),
        };
        for (index, item) in items.into_iter().enumerate() {
            work.items.push((item.place, String::new(), None));
            match item.content {
                Content::Blank => work.idle(index, BLANK),
                Content::Comment => work.idle(index, COMMENT),
                Content::Idle(reason) => work.idle(index, reason),
                Content::Fault(fault) => work.fault(index, fault),
                Content::Setting(setting) => work.setting(index, setting),
            }
        }
        work
    }

    fn fault(&mut self, index: usize, Fault { message, remedy, fatal }: Fault) {
        match fatal {
            true => self.refuse_whole(index, &message, &remedy),
            false => self.judge(index, Status::WithoutEffect, message, Some(remedy)),
        }
    }

    /// Looks an option up, and judges it if it has no meaning here.
    fn setting(&mut self, index: usize, setting: Setting) {
        let Setting { name, value, marked, cut } = setting;
        if marked {
            self.remarks.insert(
                index,
                "the byte order mark in front is dropped; coturn ignores this line because of it",
            );
        } else if cut {
            self.remarks
                .insert(index, "the line has more than 1023 bytes, so coturn reads it as several lines");
        }
        let Some(row) = options::find(&name) else { return self.unknown(index, &name, cut) };
        self.items[index].1 = match row.kind {
            Kind::Hidden => row.name.to_owned(),
            _ if value.is_empty() => row.name.to_owned(),
            _ => format!("{}={}", row.name, values::shown(&value)),
        };
        let is_set = row.kind != Kind::Flag || values::flag(&value) == Some(true);
        if row.kind == Kind::Flag && values::flag(&value).is_none() {
            let message = format!("{} is neither yes nor no, and coturn ends at such a value", row.name);
            return self.refuse_whole(
                index,
                &message,
                "write the name alone, name=1 or name=0; comments need a line of their own",
            );
        }
        match row.fate {
            Fate::Means(key) if values::is_placeholder(&value, row.kind) => {
                let message = format!("{} has a placeholder in place of its value", row.name);
                self.refuse_whole(index, &message, "expand it first: write the value that coturn receives");
                self.by_key.entry(key).or_default();
            }
            Fate::Means(key) => {
                self.by_key.entry(key).or_default().push(index);
                self.entries.insert(index, Entry { row, value });
            }
            Fate::Always(reason) if is_set => self.judge(index, Status::Kept, reason, None),
            Fate::Always(reason) => {
                self.judge(index, Status::KeptDifferently, format!("it stays on: {reason}"), None);
            }
            Fate::Idle(reason) => self.idle(index, reason),
            Fate::NotOffered(..) | Fate::Refused(..) if !is_set => self.idle(index, "it is off"),
            Fate::NotOffered(reason, remedy) => {
                self.judge(index, Status::NotOffered, reason, Some(remedy.to_owned()));
            }
            Fate::Refused(reason, remedy) => {
                self.judge(index, Status::Refused, reason, Some(remedy.to_owned()));
            }
        }
        if row.version == Version::Other {
            self.remarks.entry(index).or_insert("coturn 4.6.1 does not know it");
        }
    }

    /// Judges a line whose name is no option. coturn warns and goes on.
    fn unknown(&mut self, index: usize, name: &str, cut: bool) {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let is_shown = !cut && !name.is_empty() && name.len() <= NAME_CHARS && name.bytes().all(is_name);
        if is_shown && !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            name.clone_into(&mut self.items[index].1);
        }
        let remedy = match options::suggest(name) {
            Some(near) if !cut => format!("did you mean {near}?"),
            _ if name.starts_with([';', '/']) => "a comment starts with #".to_owned(),
            _ => "remove the line, or correct its name".to_owned(),
        };
        let reason = "coturn has no such option and ignores the line";
        self.judge(index, Status::WithoutEffect, reason, Some(remedy));
    }

    /// Says what becomes of an item.
    pub fn judge(&mut self, index: usize, status: Status, reason: impl Into<String>, remedy: Option<String>) {
        self.items[index].2 = Some(Verdict { status, reason: reason.into(), remedy });
    }

    /// The item means the same here.
    pub fn kept(&mut self, index: usize, reason: impl Into<String>) {
        self.judge(index, Status::Kept, reason, None);
    }

    /// Nothing changes without the item.
    pub fn idle(&mut self, index: usize, reason: impl Into<String>) {
        self.judge(index, Status::WithoutEffect, reason, None);
    }

    /// The item is taken with another meaning.
    pub fn differs(&mut self, index: usize, reason: impl Into<String>, remedy: impl Into<String>) {
        self.judge(index, Status::KeptDifferently, reason, Some(remedy.into()));
    }

    /// Judges an item and refuses the import because of it.
    pub fn refuse_whole(&mut self, index: usize, message: &str, remedy: &str) {
        self.judge(index, Status::Refused, message, Some(remedy.to_owned()));
        self.refuse(format!("{}: {message}", origin(self.items[index].0)), remedy);
    }

    /// Refuses the import.
    pub fn refuse(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.report.refusals.push(Note { message: message.into(), remedy: remedy.into() });
    }

    /// Adds a difference that has no line.
    pub fn note(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.report.notes.push(Note { message: message.into(), remedy: remedy.into() });
    }

    /// The items of a key, in the order in which coturn reads them.
    pub fn all(&self, key: Key) -> Vec<usize> {
        self.by_key.get(&key).cloned().unwrap_or_default()
    }

    /// The value of an item.
    pub fn value(&self, index: usize) -> &[u8] {
        self.entries.get(&index).map_or(&[], |entry| &entry.value)
    }

    /// The last item of a key. Those before it are without effect.
    pub fn last(&mut self, key: Key) -> Option<usize> {
        let all = self.all(key);
        let (last, earlier) = all.split_last()?;
        let reason = format!("replaced: {}", origin(self.items[*last].0));
        earlier.iter().for_each(|index| self.idle(*index, reason.clone()));
        Some(*last)
    }

    /// The last value of a flag, `false` without one. Its item is not judged yet.
    pub fn flag(&mut self, key: Key) -> (bool, Option<usize>) {
        let last = self.last(key);
        let is_set = last.is_some_and(|index| match self.entries.get(&index) {
            Some(Entry { row, value, .. }) => row.kind == Kind::Bare || values::flag(value) == Some(true),
            None => false,
        });
        (is_set, last)
    }

    /// The item of a flag that is set. One that is not changes nothing.
    pub fn set(&mut self, key: Key) -> Option<usize> {
        match self.flag(key) {
            (true, index) => index,
            (false, index) => {
                index.into_iter().for_each(|index| self.idle(index, "it is off"));
                None
            }
        }
    }

    /// Refuses the import because of a host name in place of an address.
    pub fn refuse_name(&mut self, index: usize) {
        let message = "not a plain address: coturn looks names up when it starts";
        self.refuse_whole(index, message, "write the address itself: getent ahosts NAME shows it");
    }

    /// Notes the lines that a key of the configuration comes from.
    pub fn from(&mut self, key: &'static str, options: &[Key]) {
        let used = |index: &usize| {
            let is_used =
                |verdict: &Verdict| matches!(verdict.status, Status::Kept | Status::KeptDifferently);
            self.items[*index].2.as_ref().is_some_and(is_used)
        };
        let of = |option: &Key| {
            let indices: Vec<usize> = self.all(*option).into_iter().filter(used).collect();
            let name =
                indices.first().and_then(|index| self.entries.get(index)).map(|entry| entry.row.name)?;
            let places: Vec<String> = indices.iter().map(|index| origin(self.items[*index].0)).collect();
            Some(format!("{name}: {}", places.join(", ")))
        };
        let text: Vec<String> = options.iter().filter_map(of).collect();
        if !text.is_empty() {
            self.meaning.origins.insert(key, text.join("; "));
        }
    }

    /// Returns the meaning, and the report with a line for each item.
    pub fn finish(mut self) -> (Meaning, Report) {
        for (index, (place, option, verdict)) in self.items.into_iter().enumerate() {
            // Every key has its place in the functions above; a forgotten one must not vanish.
            let verdict = verdict.unwrap_or(Verdict {
                status: Status::NotOffered,
                reason: "it has no meaning here".to_owned(),
                remedy: None,
            });
            let reason = match self.remarks.get(&index) {
                Some(remark) => format!("{} ({remark})", verdict.reason),
                None => verdict.reason,
            };
            self.report.lines.push(Line {
                place,
                option,
                status: verdict.status,
                reason,
                remedy: verdict.remedy,
            });
        }
        (self.meaning, self.report)
    }
}

/// A place in a comment or message, such as `line 3`.
pub fn origin(place: Place) -> String {
    match (place.line, place.arguments) {
        (Some(line), None) => format!("line {line}"),
        (Some(line), Some((first, _))) => format!("line {line}, argument {first}"),
        (None, Some((first, _))) => format!("argument {first}"),
        (None, None) => "input".to_owned(),
    }
}
