//! Writes BigBlueButton's list of servers.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::relay::Relay;
use super::spring::{NAMESPACE, PACKAGE, SERVICE, SERVICE_CLASS};
use crate::cli::endpoints::Endpoint;

const SCHEMA: &str = "http://www.springframework.org/schema/beans/spring-beans-2.5.xsd";
/// The lifetime of credentials if none is required, in seconds; that of BigBlueButton's own file.
const TTL: &str = "86400";

/// A bean to write: a STUN or a TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBean {
    /// Its id.
    pub id: String,
    /// The service's property that refers to it.
    pub property: &'static str,
    class: &'static str,
    arguments: Vec<String>,
}

impl NewBean {
    /// A STUN server.
    pub fn stun(id: String, url: String) -> Self {
        Self { id, property: "stunServers", class: "StunServer", arguments: vec![url] }
    }

    /// A TURN server of a relay.
    pub fn turn(id: String, endpoint: &Endpoint, relay: &Relay) -> Self {
        let ttl = relay.ttl.clone().unwrap_or_else(|| TTL.to_owned());
        let arguments = vec![relay.newest.clone(), endpoint.turn_url(), ttl];
        Self { id, property: "turnServers", class: "TurnServer", arguments }
    }

    fn write(&self, xml: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let class = format!("{PACKAGE}{}", self.class);
        let start =
            BytesStart::new("bean").with_attributes([("id", self.id.as_str()), ("class", class.as_str())]);
        xml.write_event(Event::Start(start))?;
        for (index, value) in self.arguments.iter().enumerate() {
            let index = index.to_string();
            let argument = BytesStart::new("constructor-arg")
                .with_attributes([("index", index.as_str()), ("value", value.as_str())]);
            xml.write_event(Event::Empty(argument))?;
        }
        xml.write_event(Event::End(BytesEnd::new("bean")))
    }

    /// The lines of the bean as XML.
    ///
    /// # Errors
    /// The error of the XML writer.
    pub fn lines(&self) -> io::Result<Vec<String>> {
        let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
        self.write(&mut xml)?;
        let text = String::from_utf8(xml.into_inner()).map_err(io::Error::other)?;
        Ok(text.trim().lines().map(str::to_owned).collect())
    }
}

/// Writes a file with these relays and no other server.
///
/// # Errors
/// The error of the XML writer.
pub fn document(relays: &[Relay]) -> io::Result<String> {
    let mut beans = Vec::new();
    for (number, url) in relays.iter().filter_map(Relay::stun).enumerate() {
        beans.push(NewBean::stun(format!("stun{number}"), url));
    }
    let turn = relays.iter().flat_map(|relay| relay.wanted.iter().map(move |endpoint| (endpoint, relay)));
    for (number, (endpoint, relay)) in turn.enumerate() {
        beans.push(NewBean::turn(format!("turn{number}"), endpoint, relay));
    }
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let root = BytesStart::new("beans").with_attributes([
        ("xmlns", NAMESPACE),
        ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
        ("xsi:schemaLocation", format!("{NAMESPACE} {SCHEMA}").as_str()),
    ]);
    xml.write_event(Event::Start(root))?;
    for bean in &beans {
        bean.write(&mut xml)?;
    }
    let class = format!("{PACKAGE}{SERVICE_CLASS}");
    let service = BytesStart::new("bean").with_attributes([("id", SERVICE), ("class", class.as_str())]);
    xml.write_event(Event::Start(service))?;
    for property in ["stunServers", "turnServers", "remoteIceCandidates"] {
        let start = BytesStart::new("property").with_attributes([("name", property)]);
        xml.write_event(Event::Start(start))?;
        xml.write_event(Event::Start(BytesStart::new("set")))?;
        for bean in beans.iter().filter(|bean| bean.property == property) {
            xml.write_event(Event::Empty(
                BytesStart::new("ref").with_attributes([("bean", bean.id.as_str())]),
            ))?;
        }
        xml.write_event(Event::End(BytesEnd::new("set")))?;
        xml.write_event(Event::End(BytesEnd::new("property")))?;
    }
    xml.write_event(Event::End(BytesEnd::new("bean")))?;
    xml.write_event(Event::End(BytesEnd::new("beans")))?;
    xml.write_event(Event::Text(BytesText::new("\n")))?;
    String::from_utf8(xml.into_inner()).map_err(io::Error::other)
}
