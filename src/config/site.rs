//! `[site]`: the built-in web pages.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::address::socket_address;
use super::reader::Reader;
use super::types::{Config, Site, SiteLanguage};
use super::walk::{At, Notes, Section};
use crate::base::transport::Transport;

const TITLE_MAX: usize = 200;
const TEXT_MAX: usize = 10_000;
const IMPRINT_MAX: usize = 2000;
const PATH_MAX: usize = 100;

/// Reads `[site]`. Paths are relative to `base`.
pub(super) fn site(top: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Site {
    let mut site = Site::default();
    let Some(section) = top.table("site", "[site]", notes) else { return site };
    const LANGUAGES: [(&str, SiteLanguage); 4] = [
        ("en", SiteLanguage::En),
        ("de", SiteLanguage::De),
        ("fr", SiteLanguage::Fr),
        ("es", SiteLanguage::Es),
    ];
    site.enabled = section.boolean("enabled", true, notes);
    site.title = words(&section, "title", TITLE_MAX, notes);
    site.text = words(&section, "text", TEXT_MAX, notes);
    site.imprint = words(&section, "imprint", IMPRINT_MAX, notes);
    site.language = section.word("language", &LANGUAGES, notes).unwrap_or_default();
    site.directory = directory(&section, base, notes);
    site.check = check(&section, notes);
    site.address = address(&section, notes);
    if let Some(key) =
        ["title", "text", "imprint"].into_iter().find(|key| site.directory.is_some() && section.has(key))
    {
        notes.warn(
            section.line_of(key, notes),
            &section.key(key),
            "it is shown nowhere: the pages are the files of site.directory",
            "remove it, or remove directory",
        );
    }
    if let (Some(_), None) = (site.address, &site.check) {
        notes.error(
            section.line_of("address", notes),
            "site.address",
            "there is no test page to serve there",
            "remove check = false, or remove address",
        );
    }
    site
}

/// Reads a text that is not empty and not too long.
fn words(section: &Section<'_, '_>, key: &str, most: usize, notes: &mut Notes) -> Option<String> {
    let At { value, line } = section.string(key, notes)?;
    let count = value.chars().count();
    if value.trim().is_empty() {
        notes.error(line, &section.key(key), "the text is empty", "write a text, or remove the key");
    } else if count > most {
        let message = format!("the text has {count} characters, more than {most}");
        let remedy = "write less, or pages of your own in a directory: directory = \"/srv/www\"";
        notes.error(line, &section.key(key), message, remedy);
    } else {
        return Some(value.trim().to_owned());
    }
    None
}

fn directory(section: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Option<PathBuf> {
    const KEY: &str = "site.directory";
    let At { value, line } = section.string("directory", notes)?;
    let path = base.join(value);
    if !path.is_dir() {
        let message = format!("there is no directory {}, so the built-in page is served", path.display());
        notes.warn(
            line,
            KEY,
            message,
            "create it with an index.html, or remove the key for the built-in page",
        );
        return None;
    }
    let index = path.join("index.html");
    match std::fs::metadata(&index) {
        Ok(found) if found.is_file() => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let message = format!("cannot read {}: {error}, so the built-in page is served", index.display());
            notes.warn(line, KEY, message, Reader::current().let_read(&index));
        }
        _ => {
            let message = format!("{} has no index.html, so the first page is a 404", path.display());
            notes.warn(line, KEY, message, "add a file index.html that the user of hallpass can read");
        }
    }
    Some(path)
}

/// Reads `check`: a path, or `false`.
fn check(section: &Section<'_, '_>, notes: &mut Notes) -> Option<String> {
    const KEY: &str = "site.check";
    const EXAMPLE: &str = "write check = \"/check\", or check = false for no test page";
    if section.is_boolean("check") {
        if section.boolean("check", false, notes) {
            notes.error(section.line_of("check", notes), KEY, "true says no path", EXAMPLE);
        }
        return None;
    }
    if !section.has("check") {
        return Site::default().check;
    }
    let At { value, line } = section.string("check", notes)?;
    let path = value.strip_suffix('/').unwrap_or(value);
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let is_path = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_word));
    if !is_path || path.len() > PATH_MAX {
        notes.error(line, KEY, format!("{value:?} is not a path of a page"), EXAMPLE);
        return None;
    }
    Some(path.to_owned())
}

/// Reads the address where a web server on this machine or in its network finds the test page.
fn address(section: &Section<'_, '_>, notes: &mut Notes) -> Option<SocketAddr> {
    let At { value, line } = socket_address(section, "address", "\"127.0.0.1:9680\"", notes)?;
    let is_near = match value.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    };
    if !is_near {
        notes.error(
            line,
            "site.address",
            format!("{} is not a loopback or private address: the page has no TLS there, and believes X-Real-IP", value.ip()),
            "write address = \"127.0.0.1:9680\" and let the web server forward to it: conf/nginx/hallpass-check.conf",
        );
        return None;
    }
    Some(value)
}

/// Checks that the address is free, and that the test page has a login.
pub(super) fn cross_check(config: &Config, top: &Section<'_, '_>, notes: &mut Notes) {
    if !top.has("site") {
        return;
    }
    let line = top.line_of("site", notes);
    if let Some(address) = config.site.address {
        let listener =
            config.listen.iter().find(|it| it.address == address && it.transport != Transport::Udp);
        if let Some(listener) = listener {
            let message = format!("{address} is also the listener on line {}", listener.line);
            notes.error(line, "site.address", message, "give one of the two another port");
        }
        if config.admin.as_ref().is_some_and(|admin| admin.address == address) {
            let message = format!("{address} is also the admin address");
            notes.error(line, "site.address", message, "give one of the two another port");
        }
    }
    let is_reached = config.site.address.is_some() || config.listen.iter().any(|listener| listener.web);
    if !is_reached {
        notes.warn(
            line,
            "site",
            "no listener is shared with the web, so nobody sees the pages",
            "write web = true in the [[listen]] with transport = \"tls\"",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, Report, parse};
    use super::*;

    fn load(site: &str) -> Result<Loaded, Report> {
        let text = format!(
            "[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:443'\nweb = true\n[[host]]\nname = 'a'\n\
             secret = '0123456789abcdef'\n[site]\n{site}"
        );
        parse(&text, "f", Path::new("/nonexistent"))
    }

    fn good(site: &str) -> Site {
        load(site).unwrap_or_else(|report| panic!("{report}")).config.site
    }

    #[track_caller]
    fn told(site: &str, parts: &[&str]) {
        let report = load(site).map_or_else(|report| report, |loaded| loaded.warnings).to_string();
        for part in parts {
            assert!(report.contains(part), "{part} in:\n{report}");
        }
    }

    #[test]
    fn without_the_table_there_is_a_plain_site_with_a_test_page() {
        assert_eq!(good(""), Site::default());
        assert_eq!(good("").check.as_deref(), Some("/check"));
        assert_eq!(good("check = false").check, None);
        assert_eq!(good("check = '/tools/line-test/'").check.as_deref(), Some("/tools/line-test"));
        let site = good("title = ' A '\ntext = 'B'\nlanguage = 'de'\nimprint = 'C'\nenabled = false");
        assert_eq!(
            (site.title.as_deref(), site.language, site.enabled),
            (Some("A"), SiteLanguage::De, false)
        );
        assert_eq!(good("address = '10.0.0.1:9680'").address, Some("10.0.0.1:9680".parse().unwrap()));
    }

    #[test]
    fn wrong_values_have_a_line_and_a_remedy() {
        for path in ["check", "/", "/a b", "/../x", "//x", "/.x", "/a?b", ""] {
            told(
                &format!("check = '{path}'"),
                &["f:9: error: site.check:", "is not a path", "check = false"],
            );
        }
        told("check = true", &["f:9: error: site.check: true says no path"]);
        told("check = 3", &["f:9: error: site.check: an integer is not accepted"]);
        told("title = ''", &["f:9: error: site.title: the text is empty"]);
        told(&format!("title = '{}'", "x".repeat(201)), &["f:9: error: site.title: the text has 201"]);
        told("language = 'it'", &["f:9: error: site.language:", "\"fr\""]);
        told("directory = 'www'", &["f:9: warning: site.directory: there is no directory /nonexistent/www"]);
        told(
            "address = '203.0.113.5:9680'",
            &["f:9: error: site.address: 203.0.113.5 is not a loopback", "127.0.0.1:9680"],
        );
        told(
            "address = '127.0.0.1:9680'\ncheck = false",
            &["f:9: error: site.address: there is no test page"],
        );
        told("titel = 'x'", &["did you mean `title`?"]);
    }
}
