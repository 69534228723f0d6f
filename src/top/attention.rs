//! What the operator should look at now, the most urgent first, each with the next step.
//!
//! The server judges (`admin::problems`), so that this list and the dashboard's are the same, and cover the minutes before the
//! program was started.

use serde_json::Value;

use super::sessions::{items, number, text};
use crate::base::text::{counted, wrap};

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether users are affected now.
    pub is_urgent: bool,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub step: String,
}

impl Notice {
    /// Creates a notice.
    pub fn new(is_urgent: bool, text: impl Into<String>, step: impl Into<String>) -> Self {
        Self { is_urgent, text: text.into(), step: step.into() }
    }

    /// Returns the notice as lines of at most `width` characters, the first with a mark.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let mark = if self.is_urgent { "! " } else { "* " };
        let step = if self.step.is_empty() { String::new() } else { format!(" -> {}", self.step) };
        let text = wrap(&format!("{}{step}", self.text), "  ", width.max(20));
        text.lines()
            .enumerate()
            .map(|(at, line)| if at == 0 { format!("{mark}{}", &line[2..]) } else { line.to_owned() })
            .collect()
    }
}

/// Returns what `/overview` says is wrong.
pub fn notices(overview: &Value) -> Vec<Notice> {
    let notice = |problem: &Value| {
        Notice::new(problem["level"] == "bad", text(&problem["text"]), text(&problem["next_step"]))
    };
    items(&overview["problems"]).iter().map(notice).collect()
}

/// Returns the line to show if nothing is wrong. Few refusals are no problem of the server, but may be what somebody calls about.
pub fn all_is_well(overview: &Value) -> String {
    match number(&overview["refused_recently"]) {
        0 => "nothing needs attention".to_owned(),
        refused => format!(
            "the server is well, but {} refused in the last five minutes: hallpass refusals",
            match refused {
                1 => "1 request was".to_owned(),
                more => format!("{} were", counted(more as usize, "request")),
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_list_is_the_one_of_the_server() {
        let overview = json!({ "problems": [
            { "level": "bad", "text": "Memory is low.", "next_step": "add memory" },
            { "level": "warning", "text": "users\u{1b}[2J", "next_step": "" },
        ] });
        let [low, users] = &notices(&overview)[..] else { panic!("two notices") };
        assert_eq!((low.is_urgent, low.lines(80)), (true, vec!["! Memory is low. -> add memory".to_owned()]));
        assert_eq!((users.is_urgent, users.lines(80)), (false, vec!["* users?[2J".to_owned()]));
    }

    #[test]
    fn refusals_of_the_last_minutes_are_never_called_nothing() {
        let line = |refused: u64| all_is_well(&json!({ "refused_recently": refused, "problems": [] }));
        assert_eq!(line(0), "nothing needs attention");
        assert!(line(1).contains("1 request was refused in the last five minutes"), "{}", line(1));
        assert!(line(2).contains("2 requests were refused"), "{}", line(2));
    }

    #[test]
    fn a_notice_fits_the_width() {
        let lines = Notice::new(true, "one two three four five", "six seven eight").lines(24);
        assert_eq!(lines, ["! one two three four", "  five -> six seven", "  eight"]);
    }
}
