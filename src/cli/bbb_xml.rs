//! `hallpass bbb-xml`: the list of STUN and TURN servers that BigBlueButton sends to browsers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};

use super::args::BbbXmlArgs;
use super::endpoints::{Endpoint, choose_host, endpoints, load_config};
use super::output::{fail, print, print_stderr};

const NAMESPACE: &str = "http://www.springframework.org/schema/beans";
const SCHEMA: &str = "http://www.springframework.org/schema/beans/spring-beans-2.5.xsd";
const PACKAGE: &str = "org.bigbluebutton.web.services.turn.";
const SERVICE: &str = "stunTurnService";
/// Size limit of the file. The one that BigBlueButton ships has 1 to 2 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The servers in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    stun: BTreeSet<String>,
    /// By URL: the pairs of secret and lifetime in its entries.
    turn: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl Servers {
    /// The hosts in the TURN URLs.
    pub fn hosts(&self) -> BTreeSet<&str> {
        self.turn.keys().map(|url| host_of(url)).collect()
    }

    /// The hosts in the URLs of TURN over TLS.
    pub fn tls_hosts(&self) -> BTreeSet<&str> {
        self.turn.keys().filter(|url| url.starts_with("turns:")).map(|url| host_of(url)).collect()
    }

    /// Whether a TURN server at `host` has one of these secrets.
    pub fn has_secret(&self, host: &str, secrets: &[String]) -> bool {
        let mut ours = self.turn.iter().filter(|(url, _)| host_of(url) == host);
        ours.any(|(_, entries)| entries.iter().any(|(secret, _)| secrets.contains(secret)))
    }
}

/// A difference between a file and a configuration. `Display` names the URL and never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// No listener has this URL.
    NoListener(String),
    /// The file lacks this URL.
    Missing(String),
    /// This URL has several entries.
    Several(String, usize),
    /// This URL has an older secret, which is still accepted.
    OlderSecret(String),
    /// This URL has a secret that is not accepted.
    OtherSecret(String),
    /// This URL has another lifetime: that of the file, and the wanted one.
    Lifetime(String, String, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListener(url) => write!(f, "{url}: no listener in the configuration has this URL"),
            Self::Missing(url) => write!(f, "{url}: missing"),
            Self::Several(url, count) => write!(f, "{url}: is listed {count} times with different values"),
            Self::OlderSecret(url) => {
                write!(f, "{url}: has an older secret of this host, which is still accepted")
            }
            Self::OtherSecret(url) => write!(f, "{url}: has a secret that is not this host's"),
            Self::Lifetime(url, has, wanted) => write!(f, "{url}: has the lifetime {has:?}, not {wanted}"),
        }
    }
}

/// Prints the file, or compares an existing one with the configuration.
pub(super) fn run(args: BbbXmlArgs) -> ExitCode {
    let config = match load_config(&args.config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let host = match choose_host(&config, args.host.as_deref()) {
        Ok(host) => host,
        Err(code) => return code,
    };
    let endpoints = endpoints(&config, true, |_| args.public_name.clone());
    // Only the newest secret is written: with a second one every browser would make twice as many allocations.
    let (newest, older) = match host.secrets.split_first() {
        Some((newest, older)) => (newest.as_str(), older),
        None => return fail("the host has no secret", "write secret or secret_file"),
    };
    let ttl = args.ttl.to_string();
    let Some(path) = &args.verify else {
        return match document(&endpoints, newest, &ttl) {
            Ok(text) => print(&text),
            Err(error) => fail(&format!("cannot write XML: {error}"), "report this as a bug"),
        };
    };
    let written = match read(path) {
        Ok(written) => written,
        Err(reason) => {
            let next =
                "create the file again: run the same command without --verify and redirect the output to it";
            return fail(&format!("{}: {reason}", path.display()), next);
        }
    };
    let wanted = Wanted { endpoints: &endpoints, name: &args.public_name, newest, older, ttl: Some(&ttl) };
    let (differences, notes) = compare(&written, &wanted);
    for note in notes {
        print_stderr(&format!("{}: note: {note}\n", path.display()));
    }
    if differences.is_empty() {
        return print(format!("{}: matches the configuration\n", path.display()).as_bytes());
    }
    for difference in &differences {
        print_stderr(&format!("{}: {difference}\n", path.display()));
    }
    fail(
        "the file differs from the configuration",
        "create the file again with the same command without --verify, then restart bbb-web",
    )
}

/// Writes the file.
///
/// # Errors
/// The error of the XML writer.
fn document(endpoints: &[Endpoint], secret: &str, ttl: &str) -> io::Result<Vec<u8>> {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let root = BytesStart::new("beans").with_attributes([
        ("xmlns", NAMESPACE),
        ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
        ("xsi:schemaLocation", format!("{NAMESPACE} {SCHEMA}").as_str()),
    ]);
    xml.write_event(Event::Start(root))?;
    let stun: Vec<String> = endpoints.iter().filter_map(Endpoint::stun_url).collect();
    for (number, url) in stun.iter().enumerate() {
        bean(&mut xml, &format!("stun{number}"), "StunServer", &[url])?;
    }
    for (number, endpoint) in endpoints.iter().enumerate() {
        bean(&mut xml, &format!("turn{number}"), "TurnServer", &[secret, &endpoint.turn_url(), ttl])?;
    }
    let class = format!("{PACKAGE}StunTurnService");
    let service = BytesStart::new("bean").with_attributes([("id", SERVICE), ("class", class.as_str())]);
    xml.write_event(Event::Start(service))?;
    set(&mut xml, "stunServers", "stun", stun.len())?;
    set(&mut xml, "turnServers", "turn", endpoints.len())?;
    set(&mut xml, "remoteIceCandidates", "remote", 0)?;
    xml.write_event(Event::End(BytesEnd::new("bean")))?;
    xml.write_event(Event::End(BytesEnd::new("beans")))?;
    xml.write_event(Event::Text(BytesText::new("\n")))?;
    Ok(xml.into_inner())
}

fn bean(xml: &mut Writer<Vec<u8>>, id: &str, class: &str, arguments: &[&str]) -> io::Result<()> {
    let class = format!("{PACKAGE}{class}");
    let start = BytesStart::new("bean").with_attributes([("id", id), ("class", class.as_str())]);
    xml.write_event(Event::Start(start))?;
    for (index, value) in arguments.iter().enumerate() {
        let index = index.to_string();
        let argument = BytesStart::new("constructor-arg")
            .with_attributes([("index", index.as_str()), ("value", *value)]);
        xml.write_event(Event::Empty(argument))?;
    }
    xml.write_event(Event::End(BytesEnd::new("bean")))
}

fn set(xml: &mut Writer<Vec<u8>>, property: &str, prefix: &str, count: usize) -> io::Result<()> {
    let start = BytesStart::new("property").with_attributes([("name", property)]);
    xml.write_event(Event::Start(start))?;
    xml.write_event(Event::Start(BytesStart::new("set")))?;
    for number in 0..count {
        let id = format!("{prefix}{number}");
        let reference = BytesStart::new("ref").with_attributes([("bean", id.as_str())]);
        xml.write_event(Event::Empty(reference))?;
    }
    xml.write_event(Event::End(BytesEnd::new("set")))?;
    xml.write_event(Event::End(BytesEnd::new("property")))
}

/// The content that the configuration requires.
pub(super) struct Wanted<'a> {
    /// The listeners as URLs.
    pub endpoints: &'a [Endpoint],
    /// The relay's name in URLs.
    pub name: &'a str,
    /// The secret that the file must have.
    pub newest: &'a str,
    /// Secrets that are accepted as well.
    pub older: &'a [String],
    /// The lifetime that the file must have; `None` for any.
    pub ttl: Option<&'a str>,
}

/// Returns the differences, and notes about entries of other servers. Neither contains a secret.
pub(super) fn compare(written: &Servers, wanted: &Wanted<'_>) -> (Vec<Difference>, Vec<String>) {
    let (mut differences, mut notes) = (Vec::new(), Vec::new());
    let stun: BTreeSet<String> = wanted.endpoints.iter().filter_map(Endpoint::stun_url).collect();
    let turn: BTreeSet<String> = wanted.endpoints.iter().map(Endpoint::turn_url).collect();
    let present = written.stun.iter().chain(written.turn.keys());
    for url in present.filter(|url| !stun.contains(*url) && !turn.contains(*url)) {
        if host_of(url) == wanted.name {
            differences.push(Difference::NoListener(url.clone()));
        } else {
            notes.push(format!("{url}: another server, not compared"));
        }
    }
    for url in stun.difference(&written.stun) {
        differences.push(Difference::Missing(url.clone()));
    }
    for url in &turn {
        let Some(entries) = written.turn.get(url) else {
            differences.push(Difference::Missing(url.clone()));
            continue;
        };
        if entries.len() > 1 {
            differences.push(Difference::Several(url.clone(), entries.len()));
        }
        for (secret, ttl) in entries {
            if wanted.older.contains(secret) {
                differences.push(Difference::OlderSecret(url.clone()));
            } else if secret != wanted.newest {
                differences.push(Difference::OtherSecret(url.clone()));
            }
            if let Some(wanted) = wanted.ttl.filter(|wanted| ttl != wanted) {
                differences.push(Difference::Lifetime(url.clone(), ttl.clone(), wanted.to_owned()));
            }
        }
    }
    (differences, notes)
}

/// Returns the host of `scheme:host:port?query`, without brackets.
fn host_of(url: &str) -> &str {
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
    let place = rest.split_once('?').map_or(rest, |(place, _)| place);
    match place.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or(v6, |(host, _)| host),
        None => place.split_once(':').map_or(place, |(host, _)| host),
    }
}

/// Reads a file as bbb-web does: only beans that the service refers to count.
///
/// # Errors
/// A message for the operator if the file cannot be read, is larger than 1 MiB, is not UTF-8, or would not be loaded by
/// bbb-web.
pub(super) fn read(path: &Path) -> Result<Servers, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("larger than 1 MiB".to_owned());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    servers(text)
}

/// A bean of the file.
#[derive(Default)]
struct Bean {
    class: String,
    arguments: HashMap<String, String>,
}

/// Returns the servers that the service refers to.
///
/// # Errors
/// A message for the operator if bbb-web would not load the file.
fn servers(text: &str) -> Result<Servers, String> {
    let document = Document::parse(text)?;
    let mut servers = Servers::default();
    if !document.beans.contains_key(SERVICE) {
        return Err(format!("there is no bean {SERVICE}"));
    }
    for (property, id) in &document.references {
        let (bean, class) = match (document.beans.get(id), property.as_str()) {
            (None, _) => return Err(format!("{property} refers to {id:?}, which does not exist")),
            (Some(bean), "stunServers") => (bean, "StunServer"),
            (Some(bean), "turnServers") => (bean, "TurnServer"),
            _ => continue,
        };
        if bean.class.strip_prefix(PACKAGE) != Some(class) {
            return Err(format!("{property} refers to {id:?}, which is not a {class}"));
        }
        let argument = |index: &str| {
            bean.arguments.get(index).cloned().ok_or_else(|| format!("{id:?} lacks constructor-arg {index}"))
        };
        if class == "StunServer" {
            servers.stun.insert(argument("0")?);
        } else {
            servers.turn.entry(argument("1")?).or_default().insert((argument("0")?, argument("2")?));
        }
    }
    Ok(servers)
}

/// The beans of the file by id, the references of the service's properties, and the state of the parser.
#[derive(Default)]
struct Document {
    beans: HashMap<String, Bean>,
    references: Vec<(String, String)>,
    bean: Option<String>,
    argument: Option<String>,
    property: Option<String>,
    in_value: bool,
}

impl Document {
    fn parse(text: &str) -> Result<Self, String> {
        let mut document = Self::default();
        let mut reader = Reader::from_str(text);
        let mut depth = 0usize;
        loop {
            let event = reader
                .read_event()
                .map_err(|error| format!("not XML at byte {}: {error}", reader.error_position()))?;
            match event {
                Event::Start(element) => {
                    depth = depth.saturating_add(1);
                    document.open(&element)?;
                }
                Event::Empty(element) => {
                    document.open(&element)?;
                    document.close(element.name().as_ref());
                }
                Event::End(element) => {
                    depth = depth.saturating_sub(1);
                    document.close(element.name().as_ref());
                }
                Event::Text(text) => document.text(&text.xml10_content()),
                Event::CData(text) => document.text(&text.xml10_content()),
                Event::GeneralRef(entity) => {
                    let written = format!("&{};", entity.xml10_content());
                    let meant = quick_xml::escape::unescape(&written).map_err(|error| error.to_string())?;
                    document.text(&meant);
                }
                Event::Eof if depth > 0 => return Err("the file is cut off".to_owned()),
                Event::Eof => return Ok(document),
                _ => {}
            }
        }
    }

    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let mut attributes = HashMap::new();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
            attributes.insert(attribute.key.as_ref().to_owned(), value.into_owned());
        }
        match element.name().as_ref() {
            "bean" => {
                let id = attributes.remove("id").unwrap_or_default();
                let class = attributes.remove("class").unwrap_or_default();
                if self.beans.insert(id.clone(), Bean { class, ..Bean::default() }).is_some() {
                    return Err(format!("two beans have the id {id:?}"));
                }
                self.bean = Some(id);
            }
            "constructor-arg" => {
                let index = attributes.remove("index").unwrap_or_default();
                if let Some(value) = attributes.remove("value") {
                    self.set_argument(&index, &value);
                }
                self.argument = Some(index);
            }
            "value" => self.in_value = true,
            "property" => self.property = attributes.remove("name"),
            "ref" if self.bean.as_deref() == Some(SERVICE) => {
                let id = attributes.remove("bean").or_else(|| attributes.remove("local"));
                if let (Some(property), Some(id)) = (&self.property, id) {
                    self.references.push((property.clone(), id));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, name: &str) {
        match name {
            "bean" => self.bean = None,
            "constructor-arg" => self.argument = None,
            "property" => self.property = None,
            "value" => self.in_value = false,
            _ => {}
        }
    }

    /// Adds text inside `<constructor-arg><value>`, where it may arrive in pieces. Other text is ignored.
    fn text(&mut self, text: &str) {
        if let (true, Some(index)) = (self.in_value, self.argument.clone()) {
            self.set_argument(&index, text);
        }
    }

    fn set_argument(&mut self, index: &str, piece: &str) {
        if let Some(bean) = self.bean.as_ref().and_then(|id| self.beans.get_mut(id)) {
            bean.arguments.entry(index.to_owned()).or_default().push_str(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;

    const NAME: &str = "relay.example.org";
    const SECRET: &str = "a&b<c>\"d'e";

    fn all() -> Vec<Endpoint> {
        crate::cli::endpoints::embedded_endpoints(NAME)
    }

    fn differences(text: &str, older: &[String]) -> Vec<String> {
        let endpoints = all();
        let wanted = Wanted { endpoints: &endpoints, name: NAME, newest: SECRET, older, ttl: Some("86400") };
        compare(&servers(text).unwrap(), &wanted).0.iter().map(ToString::to_string).collect()
    }

    fn written(secret: &str) -> String {
        String::from_utf8(document(&all(), secret, "86400").unwrap()).unwrap()
    }

    #[test]
    fn a_written_file_passes_verification() {
        let text = written(SECRET);
        assert!(!text.contains(SECRET), "the secret is escaped");
        assert_eq!(differences(&text, &[]), [""; 0]);
        assert!(text.contains(r#"value="turns:relay.example.org:5349?transport=tcp""#), "{text}");
    }

    #[test]
    fn differences_are_reported_without_secrets() {
        let text = written(SECRET);
        assert_eq!(
            differences(&text.replace("turn:relay.example.org:3479?", "turn:relay.example.org:80?"), &[]),
            [
                "turn:relay.example.org:80?transport=tcp: no listener in the configuration has this URL",
                "turn:relay.example.org:3479?transport=tcp: missing"
            ]
        );
        let unreferenced = text.replace(r#"<ref bean="turn2"/>"#, "");
        assert_eq!(differences(&unreferenced, &[]), ["turns:relay.example.org:5349?transport=tcp: missing"]);
        assert_eq!(differences(&text.replace("86400", "60"), &[]).len(), 3);
        let other = differences(&written("other"), &[]);
        assert!(
            other.iter().all(|line| line.ends_with("not this host's") && !line.contains("other")),
            "{other:?}"
        );
        let older = differences(&written("other"), &["other".to_owned()]);
        assert!(older.iter().all(|line| line.ends_with("still accepted")) && older.len() == 3, "{older:?}");
    }

    #[test]
    fn entries_of_other_servers_are_only_noted() {
        let mut endpoints = all();
        endpoints.push(Endpoint {
            transport: Transport::Udp,
            port: 3478,
            server: "second.example.org".into(),
        });
        let text = document(&endpoints, SECRET, "86400").unwrap();
        let endpoints = all();
        let wanted =
            Wanted { endpoints: &endpoints, name: NAME, newest: SECRET, older: &[], ttl: Some("86400") };
        let (differences, notes) = compare(&servers(std::str::from_utf8(&text).unwrap()).unwrap(), &wanted);
        assert_eq!(differences, []);
        assert_eq!(notes.len(), 2, "STUN and TURN: {notes:?}");
    }

    #[test]
    fn a_value_can_be_an_element_instead_of_an_attribute() {
        let text = written(SECRET).replace(
            r#"<constructor-arg index="1" value="turn:relay.example.org:3479"/>"#,
            "<constructor-arg index=\"1\"><value>turn:relay&#46;example.org:3479</value></constructor-arg>",
        );
        assert!(text.contains("&#46;"));
        assert_eq!(differences(&text, &[]), [""; 0]);
    }

    #[test]
    fn a_file_that_bbb_web_would_not_load_is_refused() {
        let text = written("s");
        let refused = |text: &str| servers(text).unwrap_err();
        assert!(refused(&text.replace(SERVICE, "other")).contains("no bean stunTurnService"));
        assert!(refused(&text.replace("id=\"turn1\"", "id=\"turn0\"")).contains("two beans have the id"));
        assert!(
            refused(&text.replace("<ref bean=\"turn1\"", "<ref bean=\"turn9\"")).contains("does not exist")
        );
        assert!(refused(&text.replace("TurnServer", "Turnserver")).contains("not a TurnServer"));
        assert!(refused(&text.replace("index=\"2\"", "index=\"3\"")).contains("lacks constructor-arg 2"));
        assert!(refused(text.split("</bean>").next().unwrap()).contains("cut off"));
        assert!(refused("<beans></bean>").contains("not XML"));
    }

    #[test]
    fn host_of_a_url() {
        for (url, host) in [("turn:a.b:1", "a.b"), ("turns:[::1]:5?transport=tcp", "::1"), ("stun:h", "h")] {
            assert_eq!(host_of(url), host);
        }
    }
}
