//! Reads BigBlueButton's list of servers as bbb-web does: only beans that the service refers to count.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::spring::{self, Checked, PACKAGE, SERVICE, SERVICE_CLASS};
use super::xml;
use crate::base::text::is_like_a_secret;
use crate::base::turn_url::split;

/// Size limit of the file. The one that BigBlueButton ships has 1 to 2 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The servers in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// The STUN servers.
    pub stun: Vec<Stun>,
    /// The TURN servers; several may have the same URL.
    pub turn: Vec<Turn>,
    /// What is not understood, so that it is not known whether bbb-web loads the list.
    pub doubts: Vec<String>,
}

/// A STUN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stun {
    /// The id of its bean.
    pub id: String,
    /// Its URL, as written.
    pub url: String,
}

/// A TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The id of its bean.
    pub id: String,
    /// Its URL, as written.
    pub url: String,
    /// The secret that bbb-web derives passwords from.
    pub secret: String,
    /// The lifetime of the passwords in seconds, as written.
    pub ttl: String,
}

impl Servers {
    /// The hosts in the TURN URLs.
    pub fn hosts(&self) -> BTreeSet<&str> {
        self.turn.iter().map(|turn| host_of(&turn.url)).collect()
    }

    /// The hosts in the URLs of TURN over TLS.
    pub fn tls_hosts(&self) -> BTreeSet<&str> {
        let tls = self.turn.iter().filter(|turn| turn.url.starts_with("turns:"));
        tls.map(|turn| host_of(&turn.url)).collect()
    }

    /// Whether a TURN server at `host` has one of these secrets.
    pub fn has_secret(&self, host: &str, secrets: &[String]) -> bool {
        self.turn.iter().any(|turn| host_of(&turn.url) == host && secrets.contains(&turn.secret))
    }
}

/// Returns the URL of a bean if it has one of these schemes. It is not shown otherwise: it may be the secret.
fn url_of(id: &str, url: String, schemes: &[&str]) -> Result<String, String> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return match is_place(&url) {
            true => Ok(url),
            false => Err(format!(
                "{id:?} has a URL without a host, such as turn:HOST:PORT; browsers refuse the whole list because of it. It is not shown, \
                 because it may contain the secret"
            )),
        };
    }
    let schemes = schemes.join(": or ");
    Err(format!(
        "{id:?} has no {schemes}: URL in the place of the URL; is it exchanged with another argument, such as the secret?"
    ))
}

/// Whether no secret follows the scheme: `turn:SECRET`, `turn:user:SECRET@host`. What Spring is to fill in is not known here.
fn is_place(url: &str) -> bool {
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
    let place = rest.split_once('?').map_or(rest, |(place, _)| place);
    url.contains("${") || !place.contains(['@', '+', '/', '=']) && !place.split(':').any(is_like_a_secret)
}

/// Returns the host of `scheme:host:port?query`, without brackets.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
    let place = rest.split_once('?').map_or(rest, |(place, _)| place);
    match place.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or(v6, |(host, _)| host),
        None => place.split_once(':').map_or(place, |(host, _)| host),
    }
}

/// Whether a URL has this host, in whatever case.
pub fn is_at(url: &str, host: &str) -> bool {
    host_of(url).eq_ignore_ascii_case(host)
}

/// Whether two URLs have the same host and port.
pub fn is_same_place(one: &str, other: &str) -> bool {
    let place = |url: &str| {
        let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
        split(rest.split_once('?').map_or(rest, |(place, _)| place)).ok()
    };
    place(one).is_some_and(|found| place(other) == Some(found))
}

/// Reads the servers in a file.
///
/// # Errors
/// A message for the operator if the file cannot be read, is not a regular file, is larger than 1 MiB, is not UTF-8, or
/// would not be loaded by bbb-web.
pub fn read(path: &Path) -> Result<Servers, String> {
    Document::parse(&read_text(path)?)?.servers()
}

/// Reads the servers in a list that comes through a pipe: from standard input for `-`, else from the pipe at `path`.
///
/// # Errors
/// As for [`read`].
pub fn read_stream(path: &Path) -> Result<Servers, String> {
    let text = if path == Path::new("-") {
        limited(io::stdin().lock())
    } else {
        File::open(path).map_err(failed).and_then(limited)
    };
    Document::parse(&text?)?.servers()
}

/// Reads the text of a file.
///
/// # Errors
/// A message for the operator if the file cannot be read, is not a regular file, is larger than 1 MiB or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, String> {
    // Without waiting: a FIFO or a device would hold up the reader.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    limited(file)
}

fn limited(source: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}

fn failed(error: io::Error) -> String {
    format!("cannot read it: {error}")
}

/// A bean of the file.
#[derive(Debug, Default)]
pub struct Bean {
    /// From the first byte of its element to the last.
    pub span: Range<usize>,
    class: String,
    /// `abstract="true"`: a pattern for other beans, of which Spring creates none.
    is_abstract: bool,
    arguments: HashMap<String, String>,
}

/// A reference of the service.
#[derive(Debug)]
pub struct Reference {
    /// The property that it is in.
    pub property: String,
    /// The bean that it refers to.
    pub id: String,
    /// The bytes of its element.
    pub span: Range<usize>,
}

/// The beans of the file by id, the references of the service's properties, and the state of the parser.
#[derive(Debug, Default)]
pub struct Document {
    /// The beans that have an id.
    pub beans: HashMap<String, Bean>,
    /// The references of the service.
    pub references: Vec<Reference>,
    /// By property of the service: the bytes of the start tag of its `set`, and whether the element ends there.
    pub sets: HashMap<String, (Range<usize>, bool)>,
    /// The start of the service's end tag.
    pub service_end: Option<usize>,
    /// The names of the beans, and what is not understood.
    pub checked: Checked,
    bean: Option<String>,
    argument: Option<String>,
    property: Option<String>,
    in_value: bool,
}

impl Document {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// A message for the operator if it is not XML, no list of beans, or a list that Spring refuses.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut document = Self::beans_of(text)?;
        xml::check(text)?;
        document.checked = spring::check(text)?;
        Ok(document)
    }

    fn beans_of(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with("<?xml") && !text.starts_with("<?xml") {
            return Err(
                "there is a blank before <?xml, so bbb-web cannot read it; remove the blank".to_owned()
            );
        }
        let mut document = Self::default();
        let mut reader = Reader::from_str(text);
        let (mut depth, mut roots) = (0usize, 0usize);
        loop {
            let start = position(&reader);
            let event = reader
                .read_event()
                .map_err(|error| format!("not XML at byte {}: {error}", reader.error_position()))?;
            let span = start..position(&reader);
            if let (0, Event::Start(element) | Event::Empty(element)) = (depth, &event) {
                roots = roots.saturating_add(1);
                if roots > 1 || element.name().as_ref() != "beans" {
                    return Err("the file is not one element <beans>".to_owned());
                }
            }
            match event {
                Event::Start(element) => {
                    depth = depth.saturating_add(1);
                    document.open(&element, span, false)?;
                }
                Event::Empty(element) => {
                    document.open(&element, span.clone(), true)?;
                    document.close(element.name().as_ref(), span);
                }
                Event::End(element) => {
                    depth = depth.saturating_sub(1);
                    document.close(element.name().as_ref(), span);
                }
                Event::Decl(declaration) => {
                    let encoding = declaration.encoding();
                    if let Some(encoding) = encoding {
                        let encoding = encoding.map_err(|error| error.to_string())?;
                        check_encoding(&encoding, text)?;
                    }
                }
                Event::Text(text)
                    if depth == 0 && text.xml10_content().trim_matches('\u{feff}').trim().is_empty() => {}
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if depth == 0 => {
                    return Err("there is text outside of <beans>".to_owned());
                }
                Event::Text(text) => document.text(&text.xml10_content()),
                Event::CData(text) => document.text(&text.xml10_content()),
                Event::GeneralRef(entity) => {
                    let written = format!("&{};", entity.xml10_content());
                    let meant = quick_xml::escape::unescape(&written).map_err(|error| error.to_string())?;
                    document.text(&meant);
                }
                Event::Eof if depth > 0 => return Err("the file is cut off".to_owned()),
                Event::Eof if roots == 0 => return Err("there is no element <beans>".to_owned()),
                Event::Eof => return Ok(document),
                _ => {}
            }
        }
    }

    /// Returns the servers that the service refers to.
    ///
    /// # Errors
    /// A message for the operator if bbb-web would not load the file.
    pub fn servers(&self) -> Result<Servers, String> {
        let mut servers = Servers { doubts: self.checked.doubts.clone(), ..Servers::default() };
        let Some(service) = self.beans.get(SERVICE) else {
            return Err(format!("there is no bean {SERVICE}"));
        };
        if service.is_abstract {
            return Err(format!(
                "{SERVICE} is abstract, so bbb-web does not start; remove abstract=\"true\""
            ));
        }
        if service.class.strip_prefix(PACKAGE) != Some(SERVICE_CLASS) {
            return Err(format!(
                "the class of {SERVICE} is not {PACKAGE}{SERVICE_CLASS}, so bbb-web does not start"
            ));
        }
        let mut seen = BTreeSet::new();
        for Reference { property, id, .. } in &self.references {
            let (bean, class) = match (self.beans.get(id), property.as_str()) {
                (None, _) => return Err(format!("{property} refers to {id:?}, which does not exist")),
                (Some(bean), "stunServers") => (bean, "StunServer"),
                (Some(bean), "turnServers") => (bean, "TurnServer"),
                _ => continue,
            };
            if bean.class.strip_prefix(PACKAGE) != Some(class) {
                return Err(format!("{property} refers to {id:?}, which is not a {class}"));
            }
            if bean.is_abstract {
                return Err(format!(
                    "{property} refers to {id:?}, which is abstract, so bbb-web does not start; remove abstract=\"true\""
                ));
            }
            // A set has each bean once, however often it is referred to.
            if !seen.insert(id) {
                continue;
            }
            let argument = |index: &str| {
                let found = bean.arguments.get(index).cloned();
                found.ok_or_else(|| format!("{id:?} lacks constructor-arg {index}"))
            };
            let id = id.clone();
            if class == "StunServer" {
                servers.stun.push(Stun { url: url_of(&id, argument("0")?, &["stun", "stuns"])?, id });
                continue;
            }
            let (secret, url, ttl) = (argument("0")?, argument("1")?, argument("2")?);
            if ttl.trim().parse::<i32>().is_err() {
                return Err(format!("{id:?} has the lifetime {ttl:?}, which is not a number"));
            }
            let url = url_of(&id, url, &["turn", "turns"])?;
            servers.turn.push(Turn { id, url, secret, ttl });
        }
        Ok(servers)
    }

    fn open(&mut self, element: &BytesStart<'_>, span: Range<usize>, is_empty: bool) -> Result<(), String> {
        let mut attributes = HashMap::new();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
            attributes.insert(attribute.key.as_ref().to_owned(), value.into_owned());
        }
        match element.name().as_ref() {
            "beans" => {
                if let Some(profile) = attributes.get("profile") {
                    return Err(format!(
                        "<beans profile={profile:?}> is not understood: bbb-web has these beans only with that profile; remove it"
                    ));
                }
            }
            "bean" => {
                let id = attributes.remove("id").or_else(|| attributes.remove("name")).unwrap_or_default();
                if self.bean.is_some() {
                    return Err(format!(
                        "a bean inside of {:?}: write it directly in <beans>, with an id, and refer to it",
                        self.bean.as_deref().unwrap_or_default()
                    ));
                }
                let class = attributes.remove("class").unwrap_or_default();
                let is_abstract = attributes.get("abstract").is_some_and(|value| value.trim() == "true");
                let bean = Bean { class, span, is_abstract, arguments: HashMap::new() };
                if self.beans.insert(id.clone(), bean).is_some() && !id.is_empty() {
                    return Err(format!("two beans have the id {id:?}"));
                }
                self.bean = Some(id);
            }
            "constructor-arg" => {
                let index = attributes.remove("index").unwrap_or_else(|| self.next_argument());
                if let Some(value) = attributes.remove("value") {
                    self.add_to_argument(&index, &value);
                }
                self.argument = Some(index);
            }
            "value" => self.in_value = true,
            "property" => self.property = attributes.remove("name"),
            "set" if self.bean.as_deref() == Some(SERVICE) => {
                if let Some(property) = &self.property {
                    self.sets.insert(property.clone(), (span, is_empty));
                }
            }
            "ref" if self.bean.as_deref() == Some(SERVICE) => {
                let id = attributes.remove("bean").or_else(|| attributes.remove("local"));
                if let (Some(property), Some(id)) = (&self.property, id) {
                    self.references.push(Reference { property: property.clone(), id, span });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, name: &str, span: Range<usize>) {
        match name {
            "bean" => {
                let id = self.bean.take().unwrap_or_default();
                if let Some(bean) = self.beans.get_mut(&id) {
                    // An empty element opens and closes at once.
                    if id == SERVICE && span.start > bean.span.start {
                        self.service_end = Some(span.start);
                    }
                    bean.span.end = span.end;
                }
            }
            "constructor-arg" => self.argument = None,
            "property" => self.property = None,
            "value" => self.in_value = false,
            _ => {}
        }
    }

    /// Without an index, the arguments of a bean are numbered in the order of the file.
    fn next_argument(&self) -> String {
        let bean = self.bean.as_ref().and_then(|id| self.beans.get(id));
        bean.map_or(0, |bean| bean.arguments.len()).to_string()
    }

    /// Adds text inside `<constructor-arg><value>`, where it may arrive in pieces. Other text is ignored.
    fn text(&mut self, text: &str) {
        if let (true, Some(index)) = (self.in_value, self.argument.clone()) {
            self.add_to_argument(&index, text);
        }
    }

    fn add_to_argument(&mut self, index: &str, piece: &str) {
        if let Some(bean) = self.bean.as_ref().and_then(|id| self.beans.get_mut(id)) {
            bean.arguments.entry(index.to_owned()).or_default().push_str(piece);
        }
    }
}

/// Checks that the text, which is UTF-8, is what its declaration says.
///
/// # Errors
/// A message for the operator if bbb-web would read something else.
fn check_encoding(declared: &str, text: &str) -> Result<(), String> {
    let name = declared.trim().to_ascii_lowercase();
    let is_of_ascii = ["us-ascii", "iso-8859-", "windows-125"].iter().any(|known| name.starts_with(known));
    if matches!(&*name, "utf-8" | "utf8") || is_of_ascii && text.is_ascii() {
        return Ok(());
    }
    Err(format!(
        "the file declares the encoding {declared:?} and is written in UTF-8, so bbb-web cannot read it; declare UTF-8"
    ))
}

/// The byte that is read next.
fn position(reader: &Reader<&[u8]>) -> usize {
    // The file has at most 1 MiB.
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}
