//! Reading, comparing and merging, on whole files.

use std::path::Path;

use super::compare::{compare, others};
use super::document::document;
use super::merge::merge;
use super::other_names;
use super::reader::{Document, Servers, host_of, is_same_place};
use super::relay::Relay;
use super::spring::SERVICE;
use crate::config;

const NAME: &str = "relay.example.org";
const SECRET: &str = "a&b<c>\"d'e-0123456789";
const OLDER: &str = "older-0123456789";

/// The relay `name` with listeners on these ports, and a host with a newer, an older and a revoked secret.
fn relay_on(name: &str, secret: &str, listeners: &[(&str, u16)]) -> Relay {
    let mut text = format!("realm = '{name}'\n");
    for (transport, port) in listeners {
        text.push_str(&format!("[[listen]]\ntransport = '{transport}'\naddress = '0.0.0.0:{port}'\n"));
    }
    text.push_str(&format!(
        "[[host]]\nname = 'ping'\nsecrets = ['''{secret}''', '{OLDER}']\nrevoked = ['leaked-0123456789']\n"
    ));
    let config = config::parse(&text, "f", Path::new("")).unwrap().config;
    Relay::new(&config, &config.hosts[0], name, Some("86400".to_owned()), false)
}

fn relay(name: &str, secret: &str) -> Relay {
    relay_on(name, secret, &[("udp", 3479), ("tcp", 3479), ("tls", 5349)])
}

fn servers(text: &str) -> Result<Servers, String> {
    Document::parse(text).and_then(|document| document.servers())
}

fn differences(text: &str) -> Vec<String> {
    let found = compare(&servers(text).unwrap(), &relay(NAME, SECRET));
    found.iter().map(|one| format!("{}{one}", if one.is_fault() { "" } else { "note: " })).collect()
}

fn written(secret: &str) -> String {
    document(&[relay(NAME, secret)]).unwrap()
}

/// The TURN URLs in a file with their secrets, sorted.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        servers(text).unwrap().turn.into_iter().map(|turn| (turn.url, turn.secret)).collect();
    all.sort();
    all
}

/// Browsers refuse such a URL, and all others with it.
#[test]
fn a_secret_in_the_place_of_a_host_is_not_shown() {
    const BASE64: &str = "k8JQpN0c3qT1vYx5Zr7aLw2MeB9uHdS";
    let text = written(SECRET);
    let url = "turns:relay.example.org:5349?transport=tcp";
    assert!(text.contains(url), "{text}");
    for wrong in [
        format!("turn:{BASE64}"),
        format!("turn:{BASE64}+/="),
        format!("turn:ann:{BASE64}@relay.example.org"),
        format!("turn://{BASE64}@relay.example.org:3478"),
        format!("turn:ann:{BASE64}"),
    ] {
        let refused = servers(&text.replace(url, &wrong)).unwrap_err();
        assert!(refused.contains("browsers refuse") && !refused.contains(BASE64), "{refused}");
    }
    for good in
        ["turn:[2001:db8::1]:3478", "TURN:Relay.example.org", "turn:${relay}:3478", "turns:192.0.2.1:443"]
    {
        assert!(servers(&text.replace(url, good)).is_ok(), "{good}");
    }
}

#[test]
fn what_bbb_web_does_not_load_is_refused() {
    let text = written(SECRET);
    assert!(servers(&format!("\n{text}")).unwrap_err().contains("before <?xml"));
    let misspelt = text.replace("StunTurnService", "StunTurnServices");
    assert!(servers(&misspelt).unwrap_err().contains("the class of stunTurnService"), "{misspelt}");
    for id in ["turn0", "stun0", SERVICE] {
        let abstract_one =
            text.replace(&format!("<bean id=\"{id}\""), &format!("<bean abstract=\"true\" id=\"{id}\""));
        let refused = servers(&abstract_one).unwrap_err();
        assert!(refused.contains("abstract") && refused.contains(id), "{refused}");
    }
    let profile = text.replacen("<beans", "<beans profile=\"dev\"", 1);
    assert!(servers(&profile).unwrap_err().contains("profile=\"dev\"> is not understood"), "{profile}");
    let declared =
        |encoding: &str| servers(&text.replacen("UTF-8", encoding, 1)).map(|found| found.turn.len());
    assert!(declared("UTF-16").unwrap_err().contains("declares the encoding \"UTF-16\""));
    assert_eq!(declared("ISO-8859-1"), Ok(3), "all of it is ASCII");
    assert_eq!(declared("utf-8"), Ok(3));
}

/// A written list with one change, and a part of the reason for which it is refused.
#[test]
fn what_no_parser_and_spring_do_not_load_is_refused() {
    let text = written("s-0123456789abcdef");
    let bean = "<bean id=\"turn0\"";
    let last = "<constructor-arg index=\"2\" value=\"86400\"/>";
    let mut wrong = Vec::new();
    for (from, to, reason) in [
        // Not XML.
        (bean, "<!-- old -- off --><bean id=\"turn0\"", "line 6: "),
        (bean, "<!-- old ---><bean id=\"turn0\"", "found in a comment"),
        (bean, "]]><bean id=\"turn0\"", "]]> in a text"),
        (last, "<constructor-arg index=\"2\" value=\"86400\" foo=\"a<b\"/>", "the attributes of a tag"),
        (last, "<constructor-arg index=\"2\"value=\"86400\"/>", "with blanks between them"),
        (last, "<constructor-arg index=\"2\" value=\"86400&#1;\"/>", "a character that XML does not permit"),
        (last, "<constructor-arg index=\"2\"><value>&#x1;</value></constructor-arg>", "does not permit"),
        (bean, "<!-- \u{1} --><bean id=\"turn0\"", "line 6: the character U+0001"),
        ("<?xml", "\u{feff}\u{feff}<?xml", "two byte order marks"),
        ("</beans>\n", "</beans>\n\u{feff}", "text outside of <beans>"),
        ("</beans>\n", "</beans>\n\u{a0}", "text outside of <beans>"),
        (bean, "<?xml version=\"1.0\"?><bean id=\"turn0\"", "the very first"),
        ("version=\"1.0\" encoding=\"UTF-8\"", "encoding=\"UTF-8\" version=\"1.0\"", "the declaration"),
        ("\"UTF-8\"", "\"UTF-8\" standalone=\"maybe\"", "the declaration"),
        ("xmlns:xsi=", "xmlns:xs=", "the prefix \"xsi\" is not declared"),
        (bean, "<y:bean/><bean id=\"turn0\"", "the prefix \"y\" is not declared"),
        ("<beans", "<!DOCTYPE beans SYSTEM \"x.dtd\"><beans", "a DOCTYPE is not understood"),
        // Not loaded by Spring.
        (" xmlns=", " xmlns:b=", "has no xmlns=\"http://www.springframework.org/schema/beans\""),
        (" xmlns=\"http://www.springframework.org", " xmlns=\"http://www.example.org", "has no xmlns="),
        (bean, "hello <bean id=\"turn0\"", "text in <beans>"),
        ("<ref bean=\"turn0\"/>", "turn0<ref bean=\"turn0\"/>", "text in <set>"),
        ("<ref bean=\"turn0\"/>", "<ref/><ref bean=\"turn0\"/>", "<ref> names no bean"),
        (bean, "<beam/><bean id=\"turn0\"", "no <beam> in <beans>"),
        (bean, "<set/><bean id=\"turn0\"", "no <set> in <beans>"),
        (bean, "<bean idx=\"1\" id=\"turn0\"", "no attribute \"idx\" of <bean>"),
        ("name=\"remoteIceCandidates\"", "name=\"turnserver\"", "no property \"turnserver\""),
        ("name=\"remoteIceCandidates\"", "name=\"turnServers\"", "the property \"turnServers\" twice"),
        (
            "<property name=\"remoteIceCandidates\">",
            "<property name=\"remoteIceCandidates\"><set/>",
            "has 2 values",
        ),
        (last, "<constructor-arg index=\"1\" value=\"86400\"/>", "\"turn0\" has constructor-arg 1 twice"),
        (
            last,
            "<constructor-arg index=\"2\" value=\"1\"/><constructor-arg index=\"3\" value=\"1\"/>",
            "\"turn0\" has 4 constructor arguments; a TurnServer has 3",
        ),
        (last, "<constructor-arg index=\"2\" value=\"1\"><value>1</value></constructor-arg>", "has 2 values"),
        (last, "<constructor-arg index=\"2\"/>", "has 0 values"),
        (bean, "<bean name=\"turn1\" id=\"turn0\"", "two beans have the id \"turn1\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let refused = servers(&changed).map(|_| ()).err().unwrap_or_default();
        let merged = merge(&changed, &[relay(NAME, SECRET)]).map(|_| ()).err().unwrap_or_default();
        if !refused.contains(reason) || merged != refused {
            wrong.push(format!("{to}: {refused:?} {merged:?}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// Spring has much that BigBlueButton's list does not need. It is neither refused nor called good.
#[test]
fn what_is_not_understood_is_named() {
    let text = written("s-0123456789abcdef");
    assert_eq!(servers(&text).unwrap().doubts, [""; 0]);
    let bean = "<bean id=\"turn0\"";
    let reference = "<ref bean=\"turn0\"/>";
    for (from, to, doubt) in [
        (bean, "<import resource=\"nope.xml\"/><bean id=\"turn0\"", "line 6: <import> in <beans>"),
        (bean, "<alias name=\"turn0\" alias=\"turn3\"/><bean id=\"turn0\"", "<alias> in <beans>"),
        (bean, "<bean id=\"x\" class=\"x.Y\"/><bean id=\"turn0\"", "a bean of the class \"x.Y\""),
        (bean, "<bean parent=\"nope\" id=\"turn0\"", "the attribute parent of <bean>"),
        (bean, "<bean factory-method=\"x\" id=\"turn0\"", "the attribute factory-method of <bean>"),
        (bean, "<bean xmlns:p=\"p\" p:secret=\"x\" id=\"turn0\"", "the attribute p:secret of <bean>"),
        (bean, "<u:set xmlns:u=\"u\"><u:y/>text</u:set><bean id=\"turn0\"", "<set> of another namespace"),
        (reference, "<null/><ref bean=\"turn0\"/>", "<null> in <set>"),
        (reference, "<value>x</value><ref bean=\"turn0\"/>", "<value> in <set>"),
        (
            "<property name=\"remoteIceCandidates\">\n      <set>\n      </set>",
            "<property name=\"remoteIceCandidates\">\n      <map>\n      </map>",
            "<map> in <property>",
        ),
        (" xsi:schemaLocation=", " xsi:other=", "without the xsi:schemaLocation"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let found = servers(&changed).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert!(matches!(found.doubts.as_slice(), [one] if one.contains(doubt)), "{to}: {:?}", found.doubts);
        let newer = merge(&changed, &[relay(NAME, SECRET)]).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert!(!newer.doubts.is_empty(), "{to}");
        // The name of an alias is taken.
        assert!(!newer.text.contains("<bean id=\"turn3\""), "{}", newer.text);
    }
}

/// It would be handed to every browser, and must not appear in a message.
#[test]
fn a_secret_in_the_place_of_the_url_is_refused_and_not_shown() {
    let text = written("a-secret-0123456789");
    let url = "turn:relay.example.org:3479";
    let exchanged = text
        .replace(&format!("\"{url}"), "\"@")
        .replace("\"a-secret-0123456789", &format!("\"{url}"))
        .replace("\"@", "\"a-secret-0123456789");
    let refused = servers(&exchanged).unwrap_err();
    assert!(refused.contains("exchanged") && !refused.contains("a-secret"), "{refused}");
    let stun = text.replace("stun:", "");
    assert!(servers(&stun).unwrap_err().contains("stun: or stuns: URL"), "{stun}");
}

#[test]
fn a_written_file_passes_verification() {
    let text = written(SECRET);
    assert!(!text.contains(SECRET), "the secret is escaped");
    assert_eq!(differences(&text), [""; 0]);
    assert!(text.contains(r#"value="turns:relay.example.org:5349?transport=tcp""#), "{text}");
}

#[test]
fn differences_are_reported_without_secrets() {
    let text = written(SECRET);
    assert_eq!(
        differences(&text.replace("turn:relay.example.org:3479?", "turn:relay.example.org:80?")),
        [
            "turn:relay.example.org:80?transport=tcp: no listener in the configuration has this URL",
            "note: turn:relay.example.org:3479?transport=tcp: missing"
        ]
    );
    assert_eq!(differences(&text.replace("86400", "60")).len(), 3);
    let twice = text.replace("turn:relay.example.org:3479?transport=tcp", "turn:Relay.example.org:3479");
    assert_eq!(
        differences(&twice),
        [
            "turn:relay.example.org:3479: is listed 2 times",
            "note: turn:relay.example.org:3479?transport=tcp: missing"
        ]
    );
    let other = differences(&written("other-0123456789"));
    assert!(
        other.iter().all(|line| line.ends_with("not this host's") && !line.contains("other")),
        "{other:?}"
    );
    let older = differences(&text.replace("a&amp;b&lt;c&gt;&quot;d&apos;e-0123456789", OLDER));
    assert!(older.iter().all(|line| line.ends_with("still accepted")) && older.len() == 3, "{older:?}");
}

#[test]
fn a_subset_is_good_and_a_file_without_the_relay_is_not() {
    let text = written(SECRET);
    let unreferenced = text.replace(r#"<ref bean="turn2"/>"#, "").replace(r#"<ref bean="stun0"/>"#, "");
    assert_eq!(
        differences(&unreferenced),
        [
            "note: stun:relay.example.org:3479: missing",
            "note: turns:relay.example.org:5349?transport=tcp: missing"
        ]
    );
    let other = document(&[relay("socket.example.org", SECRET)]).unwrap();
    assert_eq!(differences(&other), ["relay.example.org: no TURN URL of this relay, so no browser uses it"]);
}

#[test]
fn urls_may_be_written_in_other_ways() {
    let text = written(SECRET)
        .replace("turn:relay.example.org:3479\"", "turn:RELAY.example.org:3479?transport=udp\"")
        .replace("turns:relay.example.org:5349?transport=tcp", "turns:relay.example.org");
    assert_eq!(differences(&text), [""; 0]);
    let capitals = relay("Relay.example.org", SECRET);
    assert_eq!(compare(&servers(&text).unwrap(), &capitals), []);
}

#[test]
fn entries_of_other_servers_are_only_noted() {
    let both = document(&[relay(NAME, SECRET), relay("second.example.org", "second-0123456789")]).unwrap();
    assert_eq!(differences(&both), [""; 0]);
    let found = servers(&both).unwrap();
    assert_eq!(others(&found, &[relay(NAME, SECRET)]).len(), 4, "STUN and TURN: {found:?}");
    // coturn beside the relay, with a secret of its own.
    let beside = both.replace("second.example.org:3479", "relay.example.org:3478");
    let noted: Vec<String> = differences(&beside);
    assert!(noted.len() == 2 && noted.iter().all(|line| line.starts_with("note: ")), "{noted:?}");
}

#[test]
fn a_value_can_be_an_element_and_arguments_can_lack_an_index() {
    let text = written(SECRET).replace(
        r#"<constructor-arg index="1" value="turn:relay.example.org:3479"/>"#,
        "<constructor-arg index=\"1\"><value>turn:relay&#46;example.org:3479</value></constructor-arg>",
    );
    assert!(text.contains("&#46;"));
    assert_eq!(differences(&text), [""; 0]);
    let bare =
        ["0", "1", "2"].iter().fold(text, |text, index| text.replace(&format!(" index=\"{index}\""), ""));
    assert_eq!(differences(&bare), [""; 0]);
}

#[test]
fn a_file_that_bbb_web_would_not_load_is_refused() {
    let text = written("s-0123456789abcdef");
    let refused = |text: &str| {
        let reason = servers(text).unwrap_err();
        assert_eq!(merge(text, &[relay(NAME, SECRET)]).unwrap_err(), reason);
        reason
    };
    assert!(refused(&text.replace(SERVICE, "other")).contains("no bean stunTurnService"));
    assert!(refused(&text.replace("id=\"turn1\"", "id=\"turn0\"")).contains("two beans have the id"));
    assert!(refused(&text.replace("<ref bean=\"turn1\"", "<ref bean=\"turn9\"")).contains("does not exist"));
    assert!(refused(&text.replace("TurnServer", "Turnserver")).contains("not a TurnServer"));
    assert!(refused(&text.replace("index=\"2\"", "index=\"3\"")).contains("lacks constructor-arg 2"));
    assert!(refused(&text.replace("86400", "a day")).contains("which is not a number"));
    assert!(refused(text.split("</bean>").next().unwrap()).contains("cut off"));
    assert!(refused("<beans></bean>").contains("not XML"));
    assert!(refused("").contains("no element <beans>"));
    assert!(refused(&format!("{text}<beans/>")).contains("not one element"));
    for more in [" more", "&amp;", "<![CDATA[more]]>"] {
        assert!(refused(&format!("{text}{more}")).contains("outside"), "{more}");
    }
    assert!(refused("<html/>").contains("not one element"));
    let inner = "<set><bean class=\"org.bigbluebutton.web.services.turn.StunServer\"/>";
    assert!(refused(&text.replacen("<set>", inner, 1)).contains("a bean inside"));
    // A thousand million laughs.
    let laughs = format!("<!DOCTYPE beans [<!ENTITY l \"ha\">]>{}", text.replace(NAME, "&l;&l;"));
    assert!(!refused(&laughs).is_empty());
}

#[test]
fn a_merge_keeps_everything_else_to_the_byte() {
    let others = document(&[relay("socket.example.org", "socket-0123456789")]).unwrap().replace(
        "  <bean id=\"stunTurnService\"",
        "  <!-- turn9: <bean id=\"turn9\"> of the old host -->\n  <bean id=\"unused\" class=\"x.Y\"/>\n  <bean id=\"stunTurnService\"",
    );
    let merged = merge(&others, &[relay(NAME, SECRET)]).unwrap();
    assert_eq!(
        merged.changes,
        [
            "added stun:relay.example.org:3479",
            "added turn:relay.example.org:3479",
            "added turn:relay.example.org:3479?transport=tcp",
            "added turns:relay.example.org:5349?transport=tcp",
        ]
    );
    assert_eq!(merged.kept.len(), 4, "{:?}", merged.kept);
    let mut rest = others.lines().peekable();
    for line in merged.text.lines() {
        if rest.peek() == Some(&line) {
            rest.next();
        }
    }
    assert_eq!(rest.next(), None, "a line of the old file is missing: {}", merged.text);
    assert_eq!(entries(&merged.text).len(), 6);
    assert_eq!(differences(&merged.text), [""; 0]);
    let again = merge(&merged.text, &[relay(NAME, SECRET)]).unwrap();
    assert_eq!((again.text, again.changes), (merged.text.clone(), Vec::new()));
    // And back: what was added goes again, to the byte.
    let both = [relay(NAME, SECRET), relay("socket.example.org", "socket-0123456789")];
    assert_eq!(merge(&merged.text, &both).unwrap().text, merged.text);
}

#[test]
fn a_new_secret_and_a_moved_listener_replace_the_old_entries() {
    let old = document(&[relay(NAME, OLDER), relay("socket.example.org", "socket-0123456789")]).unwrap();
    let moved = relay_on(NAME, SECRET, &[("udp", 3478), ("tcp", 3479)]);
    let merged = merge(&old, &[moved]).unwrap();
    assert_eq!(
        merged.changes,
        [
            "removed turn:relay.example.org:3479: no listener has this URL",
            "removed turns:relay.example.org:5349?transport=tcp: no listener has this URL",
            "removed stun:relay.example.org:3479: no listener has this URL",
            "added stun:relay.example.org:3478",
            "added turn:relay.example.org:3478",
            "corrected turn:relay.example.org:3479?transport=tcp: has an older secret of this host, which is still accepted",
        ]
    );
    let socket = |url: &str| (url.to_owned(), "socket-0123456789".to_owned());
    let ours = |url: &str| (url.to_owned(), SECRET.to_owned());
    assert_eq!(
        entries(&merged.text),
        [
            ours("turn:relay.example.org:3478"),
            ours("turn:relay.example.org:3479?transport=tcp"),
            socket("turn:socket.example.org:3479"),
            socket("turn:socket.example.org:3479?transport=tcp"),
            socket("turns:socket.example.org:5349?transport=tcp"),
        ]
    );
    assert!(!merged.text.lines().any(|line| line.trim().is_empty()), "{}", merged.text);
}

#[test]
fn one_of_several_entries_stays() {
    let (old, new) = (written(OLDER), written(SECRET));
    let service = "  <bean id=\"stunTurnService\"";
    let beans = |text: &str| {
        let all = text.split(service).next().unwrap().split_once("<bean ").unwrap().1.to_owned();
        format!("  <bean {}", all.split_once("<bean ").unwrap().1)
    };
    let older = beans(&old).replace("id=\"turn", "id=\"older");
    let references = "<set>\n<ref bean=\"older0\"/><ref bean=\"older1\"/><ref bean=\"older2\"/>";
    let (before, after) = new.split_once(service).unwrap();
    let (stun, turn) = after.split_once("\"turnServers\"").unwrap();
    let both =
        format!("{before}{older}{service}{stun}\"turnServers\"{}", turn.replacen("<set>", references, 1));
    assert_eq!(differences(&both).iter().filter(|line| line.ends_with("is listed 2 times")).count(), 3);
    let merged = merge(&both, &[relay(NAME, SECRET)]).unwrap();
    assert_eq!(merged.changes.len(), 3, "{:?}", merged.changes);
    assert!(merged.changes.iter().all(|line| line.starts_with("removed one of several entries, turn")));
    assert_eq!(differences(&merged.text), [""; 0]);
}

#[test]
fn another_server_at_the_same_name_stays() {
    let coturn = relay_on(NAME, "of-coturn-0123456789", &[("udp", 3478), ("tls", 5349)]);
    let old = document(&[coturn]).unwrap();
    let ours = relay_on(NAME, SECRET, &[("udp", 3479)]);
    let merged = merge(&old, std::slice::from_ref(&ours)).unwrap();
    assert_eq!(merged.changes, ["added stun:relay.example.org:3479", "added turn:relay.example.org:3479"]);
    assert_eq!(
        merged.kept,
        [
            "stun:relay.example.org:3478",
            "turn:relay.example.org:3478",
            "turns:relay.example.org:5349?transport=tcp"
        ]
    );
    let found = compare(&servers(&merged.text).unwrap(), &ours);
    assert!(found.len() == 2 && found.iter().all(|one| !one.is_fault()), "{found:?}");
}

/// Files as others write them: everything on one line, without a set, with empty sets, with a BOM and with CR LF.
#[test]
fn a_merge_into_files_of_other_forms() {
    let service = |content: &str| {
        format!(
            "<beans xmlns=\"http://www.springframework.org/schema/beans\"><bean id=\"turn0\" \
             class=\"org.bigbluebutton.web.services.turn.TurnServer\"><constructor-arg index=\"0\" value=\"other\"/>\
             <constructor-arg index=\"1\" value=\"turn:other:3478\"/><constructor-arg index=\"2\" value=\"86400\"/></bean>\
             <bean id=\"stunTurnService\" class=\"org.bigbluebutton.web.services.turn.StunTurnService\">{content}</bean></beans>"
        )
    };
    let set = |property: &str, set: &str| format!("<property name=\"{property}\">{set}</property>");
    let one = "<set><ref bean=\"turn0\"/></set>";
    let forms = [
        service(&format!("{}{}", set("stunServers", "<set/>"), set("turnServers", one))),
        service(&format!("{}{}", set("stunServers", "<set></set>"), set("turnServers", one))),
        service(&set("turnServers", one)),
        service(&format!("\r\n    {}\r\n  ", set("turnServers", &one.replace('>', ">\r\n      ")))),
        format!("\u{feff}{}\n", service(&set("turnServers", one))),
    ];
    for form in forms {
        let merged = merge(&form, &[relay(NAME, SECRET)]).unwrap_or_else(|error| panic!("{error}: {form}"));
        assert_eq!(differences(&merged.text), [""; 0], "{}", merged.text);
        assert!(entries(&merged.text).contains(&("turn:other:3478".to_owned(), "other".to_owned())));
        // Out again: what is left is read as the file from before.
        let newer = relay(NAME, "newer-secret-0123456789");
        let again = merge(&merged.text, &[newer]).unwrap();
        assert_eq!(entries(&again.text).len(), 4, "{}", again.text);
    }
    let list = service(&set("turnServers", "<list><ref bean=\"turn0\"/></list>"));
    assert!(merge(&list, &[relay(NAME, SECRET)]).unwrap_err().contains("has no <set>"));
}

/// Whatever is wrong with a file: it is refused, or the other servers in it stay.
#[test]
fn no_damage_loses_a_server() {
    let other = "socket.example.org";
    let text = document(&[relay(other, "s\u{e9}cret-0123456789"), relay(NAME, OLDER)]).unwrap();
    let text =
        text.replace("  <bean id=\"turn3\"", "  <!-- d\u{e9}j\u{e0} vu \u{1f600} -->\n  <bean id=\"turn3\"");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let without = |gone: usize| -> String {
        lines.iter().enumerate().filter(|(number, _)| *number != gone).map(|(_, line)| *line).collect()
    };
    let cuts = text.char_indices().map(|(at, _)| text[..at].to_owned());
    let bytes =
        text.char_indices().map(|(at, one)| format!("{}{}", &text[..at], &text[at + one.len_utf8()..]));
    let (mut merged, mut refused) = (0, 0);
    for damaged in (0..lines.len()).map(without).chain(cuts).chain(bytes) {
        let of_others = |text: &str| -> Vec<(String, String)> {
            entries(text).into_iter().filter(|(url, _)| url.contains(other)).collect()
        };
        match merge(&damaged, &[relay(NAME, SECRET)]) {
            Ok(good) => {
                merged += 1;
                assert_eq!(of_others(&good.text), of_others(&damaged), "{damaged}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(merged > 300 && refused > 1000, "{merged} {refused}");
}

#[test]
fn places_and_hosts_of_urls() {
    for (url, host) in [("turn:a.b:1", "a.b"), ("turns:[::1]:5?transport=tcp", "::1"), ("stun:h", "h")] {
        assert_eq!(host_of(url), host);
    }
    assert!(is_same_place("stun:A:1", "turn:a:1?transport=tcp"));
    assert!(!is_same_place("stun:a:1", "turn:a:2") && !is_same_place("", ""));
}

/// A realm such as example.org is no name of the relay: entries for it would lead nowhere.
#[test]
fn the_names_in_the_list_are_said_before_entries_are_added() {
    let list = servers(&written(SECRET)).unwrap();
    let told = other_names(&list, &[relay("example.org", SECRET)], "write it".to_owned());
    assert_eq!(
        told,
        "the list has relay.example.org: if one of these is the relay, give that name as --public-name. If not, write it"
    );
    assert_eq!(other_names(&list, &[relay(NAME, SECRET)], "write it".to_owned()), "write it");
}
