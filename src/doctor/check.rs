//! What was examined on the relay itself, and what that means.

use super::diagnosis::Diagnosis;
use super::finding::{Finding, Severity, finding};

/// The code of the finding that the running server does not have the configuration that was examined.
pub const PREVIOUS: &str = "previous_configuration";
/// The code of the finding that Hallpass does not run, because another program serves in its place.
pub const ANOTHER_SERVER: &str = "another_server";
/// The check that connects to the listeners. If another program has them, it says nothing about Hallpass.
const LISTENERS: &str = "listeners";

/// The code of the finding that the running server has not loaded the file as it is now.
pub const NOT_LOADED: &str = "not_loaded";

/// One subject of a run on the relay itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The subject, as tables and JSON name it.
    pub topic: &'static str,
    /// What was seen, as sentences without a full stop.
    pub facts: Vec<String>,
    /// What is wrong, and what could not be tested.
    pub findings: Vec<Finding>,
    /// How bad what was seen is, if the finding about it is among those of another check.
    pub elsewhere: Option<Severity>,
}

impl Check {
    /// Starts a check that has seen nothing yet.
    pub fn of(topic: &'static str) -> Self {
        Self { topic, facts: Vec::new(), findings: Vec::new(), elsewhere: None }
    }

    /// The worst severity among the findings; `None` without findings.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max().max(self.elsewhere)
    }

    /// Whether anything was seen or found.
    pub fn is_tested(&self) -> bool {
        !self.facts.is_empty() || self.severity() > Some(Severity::Note)
    }

    /// Its mark in tables.
    pub fn mark(&self) -> &'static str {
        match self.severity() {
            Some(Severity::Error) => "no",
            Some(Severity::Warning) => "!",
            _ if self.is_tested() => "ok",
            _ => "-",
        }
    }
}

/// The codes of findings about the web servers behind a shared port begin with this.
const OF_WEBSITE: &str = "web_";

/// Judges a run on the relay itself. The findings are sorted: the verdict, errors, warnings, notes.
pub fn conclude(checks: &[Check]) -> Diagnosis {
    let is_another = |check: &Check| check.findings.iter().any(|finding| finding.code == ANOTHER_SERVER);
    let another = checks.iter().any(is_another);
    let of_hallpass = checks.iter().filter(|check| !another || check.topic != LISTENERS);
    let mut findings: Vec<Finding> = of_hallpass.flat_map(|check| check.findings.iter().cloned()).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    let is_of_website =
        |finding: &&Finding| finding.severity == Severity::Error && finding.code.starts_with(OF_WEBSITE);
    let of_website = findings.iter().filter(is_of_website).count();
    let and_warnings = match warnings {
        0 => String::new(),
        count => format!(" and {}", counted(count, "warning")),
    };
    let tested = if notes == 0 { "" } else { ", as far as this could be tested" };
    let verdict = match (errors, warnings) {
        (0, 0) => finding("good", format!("The relay works{tested}.")),
        (0, warnings) => finding(
            "good_with_warnings",
            format!("The relay works{tested}, with {}.", counted(warnings, "warning")),
        ),
        (errors, _) if findings.iter().any(|finding| finding.code == PREVIOUS) => Finding {
            severity: Severity::Error,
            ..finding(
                "not_in_use",
                format!(
                    "The running server works on with the configuration before. This one has {}{and_warnings}.",
                    counted(errors, "error")
                ),
            )
        },
        (_, _) if another => Finding {
            severity: Severity::Error,
            ..finding(
                ANOTHER_SERVER,
                "Hallpass is not running, and another program serves in its place. Calls depend on that program, \
                 which was not examined."
                    .to_owned(),
            )
        },
        (1, _) if findings.iter().any(|one| one.code == NOT_LOADED && one.severity == Severity::Error) => {
            Finding {
                severity: Severity::Error,
                ..finding(
                    "not_in_use",
                    "The running server does not use this file as it is now, so what is said here about the file does not hold for \
                 calls yet.",
                )
            }
        }
        (errors, _) if errors == of_website => Finding {
            severity: Severity::Error,
            ..finding(
                "website_faulty",
                format!(
                    "The relay carries calls{tested}. The website behind its port has {}{and_warnings}.",
                    counted(errors, "error")
                ),
            )
        },
        (errors, _) => Finding {
            severity: Severity::Error,
            ..finding(
                "faulty",
                format!(
                    "Calls fail, for all clients or for some: {}{and_warnings}.",
                    counted(errors, "error")
                ),
            )
        },
    };
    findings.insert(0, verdict);
    Diagnosis { works: errors == 0, findings, addressee: None }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_on_the_ports_is_no_fault_of_the_relay() {
        let mut ports = Check::of("ports");
        ports.findings.push(Finding::error(ANOTHER_SERVER, "coturn serves", "do"));
        let mut listeners = Check::of("listeners");
        listeners.findings.push(Finding::error("wrong_credentials", "401", "do"));
        let told = conclude(&[ports, listeners]);
        let codes: Vec<&str> = told.findings.iter().map(|finding| finding.code).collect();
        assert_eq!((told.works, &codes[..]), (false, &[ANOTHER_SERVER, ANOTHER_SERVER][..]));
        assert!(told.findings[0].text.starts_with("Hallpass is not running"), "{told:?}");
    }

    #[test]
    fn errors_come_first_and_decide() {
        let mut ports = Check::of("ports");
        ports.facts.push("held by hallpass".to_owned());
        let partly = Check { elsewhere: Some(Severity::Error), ..ports.clone() };
        assert_eq!((partly.mark(), conclude(std::slice::from_ref(&partly)).works), ("no", true));
        assert_eq!((ports.mark(), conclude(&[ports.clone()]).findings[0].code), ("ok", "good"));
        let mut clock = Check::of("clock");
        assert_eq!(clock.mark(), "-");
        clock.findings.push(finding("clock_not_tested", "no time source"));
        assert_eq!(clock.mark(), "-");
        let mut firewall = Check::of("firewall");
        firewall.findings.push(Finding::warning("w", "a warning", "do"));
        let told = conclude(&[ports.clone(), clock.clone(), firewall.clone()]);
        assert!(told.works && told.findings[0].code == "good_with_warnings", "{told:?}");
        firewall.findings.push(Finding::error("e", "an error", "do"));
        let told = conclude(&[clock, firewall, ports]);
        let codes: Vec<&str> = told.findings.iter().map(|finding| finding.code).collect();
        assert_eq!((told.works, &codes[..]), (false, &["faulty", "e", "w", "clock_not_tested"][..]));
        assert!(told.findings[0].text.ends_with("1 error and 1 warning."), "{told:?}");
        let mut web = Check::of("web");
        web.findings.push(Finding::error("web_away", "no answer", "start it"));
        let told = conclude(&[web.clone()]);
        assert_eq!((told.works, told.findings[0].code), (false, "website_faulty"));
        web.findings.push(Finding::error("e", "an error", "do"));
        assert_eq!(conclude(&[web]).findings[0].code, "faulty");
        let mut configuration = Check::of("configuration");
        configuration.findings.push(Finding::error("configuration", "unknown key", "remove it"));
        configuration.findings.push(Finding::warning(PREVIOUS, "the server runs", "do not restart it"));
        let told = conclude(&[configuration]);
        assert_eq!((told.works, told.findings[0].code), (false, "not_in_use"));
        assert!(!told.findings[0].text.contains("Calls fail"), "{told:?}");
        let mut configuration = Check::of("configuration");
        configuration.findings.push(Finding::error(NOT_LOADED, "host.a.peers: changed", "hallpass reload"));
        assert_eq!(conclude(&[configuration.clone()]).findings[0].code, "not_in_use");
        configuration.findings.push(Finding::error("e", "an error", "do"));
        assert_eq!(conclude(&[configuration]).findings[0].code, "faulty");
    }
}
