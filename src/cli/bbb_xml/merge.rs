//! Puts the entries of relays into an existing list. Everything else in it stays as it is, to the byte: other servers,
//! comments, beans that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::compare::{compare, is_beside_stranger, of_values, others};
use super::document::NewBean;
use super::reader::{Document, Servers, Turn, is_at};
use super::relay::Relay;
use super::spring::SERVICE;
use crate::cli::endpoints::Endpoint;

/// A list with the entries of the relays.
#[derive(Debug)]
pub struct Merged {
    /// The text of the file.
    pub text: String,
    /// What changed, one line for each URL, without secrets.
    pub changes: Vec<String>,
    /// The URLs of other servers, as written.
    pub kept: Vec<String>,
    /// What is not understood, so that it is not known whether bbb-web loads the list.
    pub doubts: Vec<String>,
}

/// Merges the relays into the text of a file.
///
/// # Errors
/// A message for the operator: bbb-web would not load the file, or it has a form that this function does not change.
pub fn merge(text: &str, relays: &[Relay]) -> Result<Merged, String> {
    // The parser does not count a byte order mark. A second one is an error.
    if let Some(text) = text.strip_prefix('\u{feff}').filter(|rest| !rest.starts_with('\u{feff}')) {
        let merged = merge(text, relays)?;
        return Ok(Merged { text: format!("\u{feff}{}", merged.text), ..merged });
    }
    let document = Document::parse(text)?;
    let servers = document.servers()?;
    let mut plan = Plan::default();
    for turn in &servers.turn {
        plan.judge_turn(turn, relays);
    }
    for stun in &servers.stun {
        plan.judge_stun(&stun.id, &stun.url, &servers, relays);
    }
    let new = plan.missing(&document, relays);
    let text = apply(text, edits(text, &document, &plan.removed, &new)?);
    let kept: Vec<String> = plan.kept.iter().map(|url| (*url).to_owned()).collect();
    is_as_planned(&text, relays, &plan.kept_entries)?;
    Ok(Merged { text, changes: plan.changes, kept, doubts: servers.doubts.clone() })
}

/// What happens to the entries of a file.
#[derive(Default)]
struct Plan<'a> {
    /// Ids of beans that go.
    removed: BTreeSet<&'a str>,
    /// Endpoints that the file lists as required.
    good: BTreeSet<Endpoint>,
    /// STUN URLs that the file lists as required.
    good_stun: BTreeSet<String>,
    /// Endpoints whose entry goes, and what is wrong with it.
    wrong: BTreeMap<Endpoint, String>,
    /// The URLs of other servers.
    kept: BTreeSet<&'a str>,
    /// The TURN entries of other servers.
    kept_entries: Vec<&'a Turn>,
    changes: Vec<String>,
}

impl<'a> Plan<'a> {
    fn judge_turn(&mut self, turn: &'a Turn, relays: &[Relay]) {
        let endpoint = Endpoint::of_turn_url(&turn.url);
        let owner =
            endpoint.and_then(|endpoint| Some((relays.iter().find(|one| one.serves(&endpoint))?, endpoint)));
        if let Some((relay, endpoint)) = owner {
            let wrong = of_values(turn, relay);
            let left_out = relay.left_out.iter().find(|(one, _)| *one == endpoint);
            if let Some((_, why)) = left_out {
                self.remove(&turn.id, format!("removed {}: {why}", turn.url));
            } else if let Some(first) = wrong.first() {
                self.wrong.insert(endpoint, first.to_string());
                self.removed.insert(&turn.id);
            } else if !self.good.insert(endpoint) {
                self.remove(&turn.id, format!("removed one of several entries of {}", turn.url));
            }
            return;
        }
        let stale = relays.iter().find(|relay| is_at(&turn.url, &relay.name) && relay.knows(&turn.secret));
        if stale.is_some() {
            self.remove(&turn.id, format!("removed {}: no listener has this URL", turn.url));
        } else {
            self.kept.insert(&turn.url);
            self.kept_entries.push(turn);
        }
    }

    fn judge_stun(&mut self, id: &'a str, url: &'a str, servers: &Servers, relays: &[Relay]) {
        let endpoint = Endpoint::of_stun_url(url);
        let owner = relays.iter().find(|relay| endpoint.as_ref().is_some_and(|one| relay.serves(one)));
        match (owner, endpoint.and_then(|endpoint| endpoint.stun_url())) {
            (Some(relay), Some(plain)) if relay.stun().as_ref() == Some(&plain) => {
                if !self.good_stun.insert(plain) {
                    self.remove(id, format!("removed one of several entries of {url}"));
                }
            }
            (Some(_), _) => {
                self.remove(id, format!("removed {url}: one STUN URL for each relay is enough"));
            }
            (None, _) => {
                let stale = relays.iter().find(|relay| is_at(url, &relay.name));
                if stale.is_some_and(|relay| !is_beside_stranger(servers, relay, url)) {
                    self.remove(id, format!("removed {url}: no listener has this URL"));
                } else {
                    self.kept.insert(url);
                }
            }
        }
    }

    fn remove(&mut self, id: &'a str, change: String) {
        self.removed.insert(id);
        self.changes.push(change);
    }

    /// Returns the beans that the file lacks, with ids that are free.
    fn missing(&mut self, document: &Document, relays: &[Relay]) -> Vec<NewBean> {
        let mut new = Vec::new();
        // Names and aliases of beans are taken as well as ids.
        let names = document.checked.names.iter().filter(|name| !self.removed.contains(name.as_str()));
        let mut used: BTreeSet<String> = names.cloned().collect();
        let mut free = |prefix: &str| {
            let id = (0usize..).map(|number| format!("{prefix}{number}")).find(|id| !used.contains(id));
            let id = id.unwrap_or_default();
            used.insert(id.clone());
            id
        };
        for difference in self.wrong.iter().filter(|(endpoint, _)| self.good.contains(endpoint)) {
            self.changes.push(format!("removed one of several entries, {}", difference.1));
        }
        for relay in relays {
            if let Some(url) = relay.stun().filter(|url| !self.good_stun.contains(url)) {
                self.changes.push(format!("added {url}"));
                new.push(NewBean::stun(free("stun"), url));
            }
            for endpoint in relay.wanted.iter().filter(|endpoint| !self.good.contains(endpoint)) {
                self.changes.push(match self.wrong.get(endpoint) {
                    Some(difference) => format!("corrected {difference}"),
                    None => format!("added {}", endpoint.turn_url()),
                });
                new.push(NewBean::turn(free("turn"), endpoint, relay));
            }
        }
        new
    }
}

/// A range of bytes and what replaces it.
type Edit = (Range<usize>, String);

/// Returns the edits that remove beans with their references and add new ones.
///
/// # Errors
/// A message for the operator if the service has a form that cannot be extended.
fn edits(
    text: &str,
    document: &Document,
    removed: &BTreeSet<&str>,
    new: &[NewBean],
) -> Result<Vec<Edit>, String> {
    let references = document.references.iter().filter(|reference| {
        removed.contains(reference.id.as_str())
            && matches!(reference.property.as_str(), "stunServers" | "turnServers")
    });
    let beans = removed.iter().filter_map(|id| document.beans.get(*id)).map(|bean| &bean.span);
    let gone = references.map(|reference| &reference.span).chain(beans);
    let mut edits: Vec<Edit> = gone.map(|span| (with_its_line(text, span), String::new())).collect();
    if new.is_empty() {
        return Ok(edits);
    }
    let failed = |error| format!("cannot write XML: {error}");
    let service = document.beans.get(SERVICE).map_or(0, |bean| bean.span.start);
    let indent = indent_of(text, service);
    let mut beans = String::new();
    for bean in new {
        for line in bean.lines().map_err(failed)? {
            beans.push_str(&line);
            beans.push('\n');
            beans.push_str(indent);
        }
    }
    edits.push((service..service, beans));
    for property in ["stunServers", "turnServers"] {
        let of_property = new.iter().filter(|bean| bean.property == property);
        // Ids are made of letters and digits, so nothing needs escaping.
        let ids: Vec<String> = of_property.map(|bean| format!("<ref bean=\"{}\"/>", bean.id)).collect();
        if !ids.is_empty() {
            edits.push(references_edit(text, document, property, &ids)?);
        }
    }
    Ok(edits)
}

/// Returns the edit that adds references to a property of the service.
fn references_edit(text: &str, document: &Document, property: &str, ids: &[String]) -> Result<Edit, String> {
    let has_property = document.references.iter().any(|reference| reference.property == property);
    match (document.sets.get(property), document.service_end) {
        (Some((tag, is_empty)), _) => {
            let line = format!("\n{}  ", indent_of(text, tag.start));
            let lines: String = ids.iter().flat_map(|id| [line.as_str(), id.as_str()]).collect();
            match is_empty {
                true => Ok((tag.clone(), format!("<set>{lines}\n{}</set>", indent_of(text, tag.start)))),
                false => Ok((tag.end..tag.end, lines)),
            }
        }
        (None, Some(end)) if !has_property => {
            let indent = format!("\n{}  ", indent_of(text, end));
            let lines: String = ids.iter().map(|id| format!("{indent}    {id}")).collect();
            let content = format!("{indent}  <set>{lines}{indent}  </set>{indent}");
            let edit =
                format!("  <property name=\"{property}\">{content}</property>\n{}", indent_of(text, end));
            Ok((end..end, edit))
        }
        _ => Err(format!(
            "the property {property} of {SERVICE} has no <set>, which this command does not change"
        )),
    }
}

/// The blanks before `at`, if nothing else is before it on its line.
fn indent_of(text: &str, at: usize) -> &str {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    // A tag that follows others on the line: the indentation of the line.
    let end = line.find(|byte: char| !matches!(byte, ' ' | '\t')).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// Extends a range over the blanks before it, and over the line break if nothing else is on the line.
fn with_its_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let before = text.get(..span.start).unwrap_or_default();
    let blank = before.trim_end_matches([' ', '\t']);
    match blank.strip_suffix('\n') {
        Some(line) => line.trim_end_matches('\r').len()..span.end,
        None => span.clone(),
    }
}

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut text = text.to_owned();
    // From the end, so that the ranges of the other edits stay valid.
    for (range, new) in edits.into_iter().rev() {
        text.replace_range(range, &new);
    }
    text
}

/// Reads the result back: a file that would lose a server must not be written.
fn is_as_planned(text: &str, relays: &[Relay], kept: &[&Turn]) -> Result<(), String> {
    const FORM: &str = "the file has a form that this command does not change safely";
    let servers = Document::parse(text)
        .and_then(|document| document.servers())
        .map_err(|reason| format!("{FORM}: afterwards {reason}"))?;
    let is_kept = |one: &&&Turn| servers.turn.contains(one);
    let is_whole = relays.iter().all(|relay| {
        compare(&servers, relay)
            .iter()
            .all(|one| !one.is_fault() && !matches!(one, super::Difference::Missing(_)))
    });
    let count = kept.len() + relays.iter().map(|relay| relay.wanted.len()).sum::<usize>();
    if is_whole && kept.iter().filter(is_kept).count() == kept.len() && servers.turn.len() == count {
        Ok(())
    } else {
        Err(FORM.to_owned())
    }
}

/// The URLs that a file loses if it is written anew with these relays alone; none if it cannot be read.
pub fn lost(text: &str, relays: &[Relay]) -> Vec<String> {
    let servers = Document::parse(text).and_then(|document| document.servers()).unwrap_or_default();
    others(&servers, relays).into_iter().map(str::to_owned).collect()
}
