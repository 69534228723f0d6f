//! Every direct dependency says on its line in Cargo.toml why it is here.

use crate::Findings;

/// Dependencies of this manifest without a reason.
pub fn check(manifest: &str) -> Findings {
    let mut all = Vec::new();
    let mut inside = false;
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split(']').next().unwrap_or_default();
            inside = name.ends_with("dependencies");
            if name.contains("dependencies.") {
                all.push((number + 1, "a dependency is one line, with its reason behind it".into()));
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') && reason(line).is_empty() {
            all.push((number + 1, "a dependency says behind it, as a comment, why it is here".into()));
        }
    }
    all
}

/// What stands behind the first `#` that is in no string.
fn reason(line: &str) -> &str {
    let mut quoted = false;
    let comment = line.char_indices().find(|&(_, c)| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    comment.map_or("", |(at, _)| line[at + 1..].trim())
}
