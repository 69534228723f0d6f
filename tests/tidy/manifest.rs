//! Every direct dependency must have a comment on its line in Cargo.toml that says why it is needed.

use crate::Findings;

/// Returns a finding for each dependency without a reason.
pub fn check(manifest: &str) -> Findings {
    let mut all = Vec::new();
    let mut inside = false;
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split(']').next().unwrap_or_default();
            inside = name.ends_with("dependencies");
            if name.contains("dependencies.") {
                all.push((
                    number + 1,
                    "write the dependency on one line, with its reason in a comment after it".into(),
                ));
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') && reason(line).is_empty() {
            all.push((number + 1, "add a comment after the dependency that says why it is needed".into()));
        }
    }
    all
}

/// Returns the text after the first `#` outside a string.
fn reason(line: &str) -> &str {
    let mut quoted = false;
    let comment = line.char_indices().find(|&(_, c)| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    comment.map_or("", |(at, _)| line[at + 1..].trim())
}
