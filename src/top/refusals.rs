//! The refusals of `/refusals`.

use serde_json::Value;

use super::sessions::{items, number, text};

/// One refused request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Seconds since 1970.
    pub time: u64,
    /// The host whose secret verified; empty if none did.
    pub host: String,
    /// The user, or a pseudonym.
    pub user: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Address and port of the client, or `-`.
    pub client: String,
    /// The kind of request.
    pub request: String,
    /// The reason, as in metrics.
    pub reason: String,
    /// The error code of the answer; 0 if there was none.
    pub code: u64,
    /// The reason in a sentence.
    pub text: String,
    /// What the operator can do next.
    pub next_step: String,
}

impl Refusal {
    /// Reads an answer. The latest come first.
    pub fn all_of(page: &Value) -> Vec<Self> {
        items(&page["refusals"]).iter().map(Self::of).collect()
    }

    fn of(value: &Value) -> Self {
        let [host, user, transport, client, request, reason, sentence, next_step] =
            ["host", "user", "transport", "client", "request", "reason", "text", "next_step"]
                .map(|key| text(&value[key]));
        Self {
            time: number(&value["time"]),
            code: number(&value["code"]),
            host,
            user,
            transport,
            client,
            request,
            reason,
            text: sentence,
            next_step,
        }
    }

    /// Identifies it among the refusals of one server.
    pub fn id(&self) -> String {
        format!("{} {} {} {}", self.time, self.client, self.user, self.reason)
    }

    /// Returns whether one of its texts contains `part`, which is in lower case.
    pub fn contains(&self, part: &str) -> bool {
        let texts = [&self.host, &self.user, &self.transport, &self.client, &self.reason];
        texts.into_iter().any(|text| text.to_lowercase().contains(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_cleaned_and_absent_ones_empty() {
        let page = json!({ "refusals": [{ "time": 5, "user": "w\u{1b}[2J", "reason": "wrong_password", "code": null }] });
        let all = Refusal::all_of(&page);
        assert_eq!(
            (all.len(), all[0].user.as_str(), all[0].code, all[0].next_step.as_str()),
            (1, "w?[2J", 0, "")
        );
        assert!(all[0].contains("wrong") && !all[0].contains("tls"));
        assert!(Refusal::all_of(&json!({ "refusals": {} })).is_empty());
    }
}
