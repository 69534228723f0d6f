//! Whether Spring, which reads the list for bbb-web, would load it: the elements, attributes and values that it requires.
//! Spring has many more than BigBlueButton's list needs. They are not judged here; they are named as not understood.

use std::collections::BTreeSet;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, QName, ResolveResult};
use quick_xml::{NsReader, XmlVersion};

use super::xml::{is_blank, line_of};

/// The package of the beans' classes.
pub const PACKAGE: &str = "org.bigbluebutton.web.services.turn.";
/// The id of the bean that refers to all others.
pub const SERVICE: &str = "stunTurnService";
/// Its class.
pub const SERVICE_CLASS: &str = "StunTurnService";
/// The namespace of the elements.
pub const NAMESPACE: &str = "http://www.springframework.org/schema/beans";
const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";
/// Classes of the package, and how many constructor arguments each has.
const CLASSES: [(&str, usize); 4] =
    [("StunServer", 1), ("TurnServer", 3), ("RemoteIceCandidate", 1), (SERVICE_CLASS, 0)];
const PROPERTIES: [&str; 3] = ["stunServers", "turnServers", "remoteIceCandidates"];

type Names = &'static [&'static str];

/// An element, and what Spring accepts in it.
struct Element {
    name: &'static str,
    /// Attributes that are understood.
    attributes: Names,
    /// Further attributes, which are not.
    more_attributes: Names,
    /// Elements in it that are understood.
    children: Names,
    /// Further elements, which are not.
    more_children: Names,
}

const fn element(
    name: &'static str,
    attributes: Names,
    more_attributes: Names,
    children: Names,
    more_children: Names,
) -> Element {
    Element { name, attributes, more_attributes, children, more_children }
}

const ELEMENTS: [Element; 10] = [
    element(
        "beans",
        &["profile"],
        &[
            "default-lazy-init",
            "default-merge",
            "default-autowire",
            "default-autowire-candidates",
            "default-dependency-check",
            "default-init-method",
            "default-destroy-method",
        ],
        &["description", "bean"],
        &["import", "alias", "beans"],
    ),
    element(
        "bean",
        &["id", "name", "class", "abstract"],
        &[
            "parent",
            "scope",
            "singleton",
            "lazy-init",
            "autowire",
            "autowire-candidate",
            "dependency-check",
            "depends-on",
            "primary",
            "init-method",
            "destroy-method",
            "factory-method",
            "factory-bean",
        ],
        &["description", "constructor-arg", "property"],
        &["meta", "qualifier", "lookup-method", "replaced-method"],
    ),
    element(
        "constructor-arg",
        &["index", "value"],
        &["type", "name", "ref"],
        &["description", "value"],
        &VALUES,
    ),
    element("property", &["name"], &["value", "ref"], &["description", "set", "list", "array"], &VALUES),
    element("set", &[], &["value-type", "merge"], &["description", "ref"], &VALUES),
    element("list", &[], &["value-type", "merge"], &["description", "ref"], &VALUES),
    element("array", &[], &["value-type", "merge"], &["description", "ref"], &VALUES),
    element("ref", &["bean", "local"], &["parent"], &[], &[]),
    element("value", &[], &["type"], &[], &[]),
    element("description", &[], &[], &[], &[]),
];
/// What can be a value.
const VALUES: [&str; 10] = ["bean", "ref", "idref", "value", "null", "array", "list", "set", "map", "props"];

/// What is not an error.
#[derive(Debug, Default)]
pub struct Checked {
    /// Every name of a bean: ids, further names and aliases.
    pub names: BTreeSet<String>,
    /// What is not understood, so that it is not known whether bbb-web loads the list.
    pub doubts: Vec<String>,
}

/// Checks a text that is well-formed.
///
/// # Errors
/// A message for the operator with the line: bbb-web would not load the list.
pub fn check(text: &str) -> Result<Checked, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut walk = Walk::default();
    let mut reader = NsReader::from_str(text);
    loop {
        let start = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let at = |reason: String| format!("line {}: {reason}", line_of(text, start));
        walk.line = line_of(text, start);
        let event = reader.read_event().map_err(|error| at(format!("not XML: {error}")))?;
        match event {
            Event::Start(element) => walk.open(&element, &reader).map_err(at)?,
            Event::Empty(element) => {
                walk.open(&element, &reader).map_err(at)?;
                walk.close().map_err(at)?;
            }
            Event::End(_) => walk.close().map_err(at)?,
            Event::Text(text) if !is_blank(&text.xml10_content()) => walk.text().map_err(at)?,
            Event::CData(text) if !is_blank(&text.xml10_content()) => walk.text().map_err(at)?,
            Event::GeneralRef(_) => walk.text().map_err(at)?,
            Event::Eof => return Ok(walk.checked),
            _ => {}
        }
    }
}

/// An element that is not closed.
#[derive(Default)]
struct Frame {
    /// Its name; empty inside of what is not understood.
    name: &'static str,
    /// Of a bean: its id, or its name. Of a property: its name.
    id: String,
    /// Of a bean: its class.
    class: String,
    /// Of a bean: whether its arguments may come from elsewhere.
    is_partial: bool,
    /// Of a bean: the indexes of its arguments.
    arguments: Vec<String>,
    /// Of a bean: its properties.
    properties: Vec<String>,
    /// Of an argument or a property: how many values it has.
    values: usize,
}

#[derive(Default)]
struct Walk {
    stack: Vec<Frame>,
    checked: Checked,
    line: usize,
}

impl Walk {
    fn open(&mut self, element: &BytesStart<'_>, reader: &NsReader<&[u8]>) -> Result<(), String> {
        let (namespace, local) = reader.resolver().resolve_element(element.name());
        let local = local.into_inner();
        let known = self.place(&namespace, local)?;
        let attributes = self.attributes(element, reader, known)?;
        let get =
            |name: &str| attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let mut frame = Frame { name: known.map_or("", |known| known.name), ..Frame::default() };
        if let Some(parent) = self.stack.last_mut() {
            parent.values += usize::from(local != "description");
        }
        match frame.name {
            "beans" => {
                let locations: Vec<&str> =
                    get("xsi:schemaLocation").unwrap_or_default().split_whitespace().collect();
                let is_located = locations.chunks(2).any(|pair| {
                    matches!(pair, [NAMESPACE, place] if place.contains("://www.springframework.org/schema/beans/"))
                });
                if !is_located {
                    self.doubt("<beans> without the xsi:schemaLocation of Spring's beans");
                }
            }
            "bean" => {
                let names = get("name").unwrap_or_default();
                let names = names.split([',', ';', ' ', '\t', '\r', '\n']).filter(|name| !name.is_empty());
                let names: BTreeSet<&str> = get("id").into_iter().chain(names).collect();
                frame.id = get("id").or(names.first().copied()).unwrap_or_default().to_owned();
                frame.class = get("class").unwrap_or_default().to_owned();
                let inherits = ["parent", "factory-method", "factory-bean"];
                frame.is_partial =
                    get("abstract") == Some("true") || inherits.iter().any(|name| get(name).is_some());
                for name in names {
                    if !self.checked.names.insert(name.to_owned()) {
                        return Err(format!("two beans have the id {name:?}"));
                    }
                }
                let is_letter = |one: char| one.is_alphabetic() || one == '_';
                let is_part = |one: char| is_letter(one) || one.is_numeric() || matches!(one, '-' | '.');
                let is_name = frame.id.starts_with(is_letter) && frame.id.chars().all(is_part);
                if !frame.id.is_empty() && !is_name {
                    self.doubt(&format!("the id {:?}", frame.id));
                }
                let class = frame.class.strip_prefix(PACKAGE);
                if !class.is_some_and(|class| CLASSES.iter().any(|(known, _)| *known == class))
                    && !frame.is_partial
                {
                    self.doubt(&format!("a bean of the class {:?}", frame.class));
                }
            }
            "constructor-arg" => {
                frame.values = usize::from(get("value").is_some()) + usize::from(get("ref").is_some());
                if let Some(bean) = self.stack.last_mut() {
                    let index = get("index").map_or_else(|| bean.arguments.len().to_string(), str::to_owned);
                    if index.trim().parse::<u32>().is_err() {
                        return Err(format!("the index {index:?} is not a number"));
                    }
                    if bean.arguments.contains(&index) {
                        return Err(format!("{:?} has constructor-arg {index} twice", bean.id));
                    }
                    bean.arguments.push(index);
                }
            }
            "property" => {
                frame.id = get("name").unwrap_or_default().to_owned();
                frame.values = usize::from(get("value").is_some()) + usize::from(get("ref").is_some());
                if let Some(bean) = self.stack.last_mut() {
                    if bean.properties.contains(&frame.id) {
                        return Err(format!("{:?} has the property {:?} twice", bean.id, frame.id));
                    }
                    bean.properties.push(frame.id.clone());
                }
            }
            "ref" if attributes.is_empty() => return Err("<ref> names no bean".to_owned()),
            _ => {}
        }
        self.stack.push(frame);
        Ok(())
    }

    /// Returns the element; `None` if it is not understood.
    fn place(
        &mut self,
        namespace: &ResolveResult<'_>,
        local: &str,
    ) -> Result<Option<&'static Element>, String> {
        let is_root = self.stack.is_empty();
        match namespace {
            ResolveResult::Bound(Namespace(NAMESPACE)) => {}
            ResolveResult::Unknown(prefix) => {
                return Err(format!("not XML: the prefix {prefix:?} is not declared"));
            }
            _ if is_root => {
                return Err(format!("<beans> has no xmlns=\"{NAMESPACE}\", so bbb-web cannot load it"));
            }
            _ if self.is_skipped() => return Ok(None),
            ResolveResult::Unbound => return Err(format!("<{local}> is not in the namespace of <beans>")),
            ResolveResult::Bound(_) => {
                self.doubt(&format!("<{local}> of another namespace"));
                return Ok(None);
            }
        }
        if self.is_skipped() {
            return Ok(None);
        }
        let known = ELEMENTS.iter().find(|known| known.name == local);
        let Some(parent) =
            self.stack.last().and_then(|parent| ELEMENTS.iter().find(|known| known.name == parent.name))
        else {
            return Ok(known);
        };
        if parent.children.contains(&local) {
            return Ok(known);
        }
        if parent.more_children.contains(&local) {
            self.doubt(&format!("<{local}> in <{}>", parent.name));
            return Ok(None);
        }
        Err(format!("Spring knows no <{local}> in <{}>, so bbb-web cannot load it", parent.name))
    }

    /// Returns the attributes.
    fn attributes(
        &mut self,
        element: &BytesStart<'_>,
        reader: &NsReader<&[u8]>,
        known: Option<&Element>,
    ) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| format!("not XML: {error}"))?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| format!("not XML: {error}"))?;
            let QName(name) = attribute.key;
            let is_declaration = name == "xmlns" || name.starts_with("xmlns:");
            let (namespace, local) = reader.resolver().resolve_attribute(attribute.key);
            match (namespace, known) {
                (ResolveResult::Unknown(prefix), _) if !is_declaration => {
                    return Err(format!("not XML: the prefix {prefix:?} is not declared"));
                }
                (ResolveResult::Bound(Namespace(INSTANCE)), _) => {
                    found.push((format!("xsi:{}", local.into_inner()), value.into_owned()));
                    continue;
                }
                (ResolveResult::Unbound, Some(known)) if !is_declaration => {
                    if known.more_attributes.contains(&name) {
                        self.doubt(&format!("the attribute {name} of <{}>", known.name));
                    } else if !known.attributes.contains(&name) {
                        return Err(format!(
                            "Spring knows no attribute {name:?} of <{}>, so bbb-web cannot load it",
                            known.name
                        ));
                    }
                }
                (ResolveResult::Bound(_), Some(known)) if !is_declaration => {
                    self.doubt(&format!("the attribute {name} of <{}>", known.name));
                }
                _ => {}
            }
            if !is_declaration {
                found.push((name.to_owned(), value.into_owned()));
            }
        }
        // A name that is given to a bean elsewhere is taken all the same.
        if element.local_name().into_inner() == "alias" {
            self.checked
                .names
                .extend(found.iter().filter(|(name, _)| name == "alias").map(|(_, alias)| alias.clone()));
        }
        Ok(found)
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let Frame { name, id, class, is_partial, arguments, properties, values } = frame;
        match name {
            "constructor-arg" | "property" if values != 1 => {
                Err(format!("<{name}> has {values} values, so bbb-web cannot load it; Spring requires one"))
            }
            "bean" if !is_partial => {
                let class = class.strip_prefix(PACKAGE).unwrap_or_default();
                let Some((class, count)) = CLASSES.iter().find(|(known, _)| *known == class) else {
                    return Ok(());
                };
                let lacking =
                    (0..*count).map(|index| index.to_string()).find(|index| !arguments.contains(index));
                if let Some(index) = lacking {
                    return Err(format!("{id:?} lacks constructor-arg {index}"));
                }
                if arguments.len() > *count {
                    return Err(format!(
                        "{id:?} has {} constructor arguments; a {class} has {count}",
                        arguments.len()
                    ));
                }
                let unknown = properties.iter().find(|one| !PROPERTIES.contains(&one.as_str()));
                match unknown {
                    Some(property) if *class == SERVICE_CLASS => Err(format!(
                        "{class} has no property {property:?}, so bbb-web does not start; it has {}",
                        PROPERTIES.join(", ")
                    )),
                    _ => {
                        if let Some(property) = properties.first().filter(|_| *class != SERVICE_CLASS) {
                            self.doubt(&format!("the property {property:?} of a {class}"));
                        }
                        Ok(())
                    }
                }
            }
            _ => Ok(()),
        }
    }

    fn text(&self) -> Result<(), String> {
        match self.stack.last() {
            Some(frame) if !matches!(frame.name, "" | "value" | "description") => {
                Err(format!("text in <{}>, so bbb-web cannot load it; remove it", frame.name))
            }
            _ => Ok(()),
        }
    }

    /// Whether the walk is inside of an element that is not understood.
    fn is_skipped(&self) -> bool {
        self.stack.last().is_some_and(|frame| frame.name.is_empty())
    }

    fn doubt(&mut self, what: &str) {
        self.checked.doubts.push(format!("line {}: {what} is not understood", self.line));
    }
}
