//! What the page says about a test. It comes from a browser, so every word of it is one of a list and every number has bounds.

use serde_json::{Map, Value, json};

/// How far a way works, in order. The words are those of the page.
const STAGES: [&str; 7] =
    ["none", "refused", "allocation", "connection", "round_trip", "throughput", "media"];
/// Ways end here if they are for the address alone.
const ADDRESS: &str = "address";
/// What a test says in all, in the words of the page.
const VERDICTS: [&str; 8] =
    ["good", "weak", "no_udp", "no_udp_weak", "only_tcp", "blocked", "no_login", "no_webrtc"];

/// The result of one way.
#[derive(Clone, Debug, PartialEq)]
struct Way {
    id: String,
    stage: &'static str,
    /// Milliseconds.
    rtt: Option<f64>,
    /// Percent.
    loss: Option<f64>,
    /// Milliseconds.
    jitter: Option<f64>,
    /// kbit per second.
    kbit: Option<f64>,
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    verdict: &'static str,
    ways: Vec<Way>,
}

impl Report {
    /// Reads what the page has sent. `known` are the names of the ways. `None` if anything in it is unknown or out of bounds.
    pub(super) fn parse(bytes: &[u8], known: &[String]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let fields = only(&value, &["verdict", "rungs"])?;
        let verdict = word(fields.get("verdict")?, &VERDICTS)?;
        let list = fields.get("rungs")?.as_array()?;
        let mut ways: Vec<Way> = Vec::new();
        for value in list {
            let fields = only(value, &["id", "stage", "rtt", "loss", "jitter", "kbit"])?;
            let id = fields.get("id")?.as_str()?;
            if !known.iter().any(|known| known == id) || ways.iter().any(|way| way.id == id) {
                return None;
            }
            let stage = fields.get("stage")?;
            let stage = word(stage, &STAGES).or_else(|| word(stage, &[ADDRESS]))?;
            let number = |key: &str, most: f64| match fields.get(key) {
                None | Some(Value::Null) => Some(None),
                Some(value) => value.as_f64().filter(|number| (0.0..=most).contains(number)).map(Some),
            };
            ways.push(Way {
                id: id.to_owned(),
                stage,
                rtt: number("rtt", 60_000.0)?,
                loss: number("loss", 100.0)?,
                jitter: number("jitter", 60_000.0)?,
                kbit: number("kbit", 10_000_000.0)?,
            });
        }
        Some(Self { verdict, ways })
    }

    pub(super) fn json(&self) -> Value {
        let ways = self.ways.iter().map(|way| {
            json!({
                "id": way.id, "stage": way.stage, "rtt_ms": way.rtt, "loss_percent": way.loss, "jitter_ms": way.jitter,
                "kbit": way.kbit,
            })
        });
        json!({ "verdict": self.verdict, "rungs": ways.collect::<Vec<_>>() })
    }
}

/// Returns the fields of an object that has no others than these.
fn only<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a Map<String, Value>> {
    value.as_object().filter(|fields| fields.keys().all(|key| keys.contains(&key.as_str())))
}

fn word(value: &Value, words: &[&'static str]) -> Option<&'static str> {
    let text = value.as_str()?;
    words.iter().copied().find(|word| *word == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Report> {
        Report::parse(text.as_bytes(), &["udp-3479".to_owned(), "tls-443".to_owned()])
    }

    #[test]
    fn a_result_has_known_words_and_bounded_numbers() {
        let good = r#"{"verdict":"no_udp","rungs":[{"id":"udp-3479","stage":"none"},
            {"id":"tls-443","stage":"media","rtt":12.5,"loss":0,"jitter":null,"kbit":4000}]}"#;
        let report = parse(good).expect("good").json();
        assert_eq!((&report["verdict"], &report["rungs"][1]["rtt_ms"]), (&json!("no_udp"), &json!(12.5)));
        for (from, to) in [
            ("no_udp", "fine"),
            ("tls-443", "tls-444"),
            ("tls-443", "udp-3479"),
            ("\"media\"", "\"<b>\""),
            ("12.5", "-1"),
            ("12.5", "\"12\""),
            ("4000", "1e99"),
            ("\"rtt\"", "\"name\""),
            ("{\"verdict\"", "{\"name\":1,\"verdict\""),
            ("]}", ""),
        ] {
            assert_eq!(parse(&good.replace(from, to)), None, "{from} -> {to}");
        }
        assert_eq!(parse(""), None);
    }
}
