//! The files of the page.

use crate::site::asset::{Asset, Files};

/// The page loads its own files and talks to its own server, nothing else (Content Security Policy Level 3; Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

/// The name below the path of the page, the type and the content of each file. The page itself has no name.
const ASSETS: [(&str, &str, &[u8]); 15] = [
    ("", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_bytes!("page/style.css")),
    ("noscript.css", "text/css; charset=utf-8", include_bytes!("page/noscript.css")),
    ("icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
    ("main.js", SCRIPT, include_bytes!("page/main.js")),
    ("rung.js", SCRIPT, include_bytes!("page/rung.js")),
    ("media.js", SCRIPT, include_bytes!("page/media.js")),
    ("verdict.js", SCRIPT, include_bytes!("page/verdict.js")),
    ("letter.js", SCRIPT, include_bytes!("page/letter.js")),
    ("view.js", SCRIPT, include_bytes!("page/view.js")),
    ("language.js", SCRIPT, include_bytes!("page/language.js")),
    ("lang/en.json", JSON, include_bytes!("page/lang/en.json")),
    ("lang/de.json", JSON, include_bytes!("page/lang/de.json")),
    ("lang/fr.json", JSON, include_bytes!("page/lang/fr.json")),
    ("lang/es.json", JSON, include_bytes!("page/lang/es.json")),
];

/// Returns the files of a page at this path.
pub(super) fn files(path: &str) -> Files {
    let mut files = Files::default();
    for (name, kind, body) in ASSETS {
        files.add(&format!("{path}/{name}"), Asset::new(kind, body).policy(POLICY));
    }
    files
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn text(name: &str) -> &'static str {
        let (.., body) = ASSETS.iter().find(|(found, ..)| *found == name).expect("a file");
        std::str::from_utf8(body).expect("UTF-8")
    }

    #[test]
    fn the_page_is_small() {
        let bytes: usize = ASSETS.iter().map(|(.., body)| body.len()).sum();
        assert!(bytes < 100_000, "{bytes} bytes");
    }

    #[test]
    fn the_page_loads_its_own_files_only_and_has_no_inline_code() {
        let page = text("");
        for pair in page.split('"').collect::<Vec<_>>().windows(2) {
            if pair[0].ends_with(" src=") || pair[0].ends_with(" href=") {
                let is_ours = ASSETS.iter().any(|(name, ..)| *name == pair[1]) || pair[1].starts_with('#');
                assert!(is_ours, "{} is not ours, or not relative", pair[1]);
            }
        }
        for inline in [" onclick", " onload", " style=", "<style", "javascript:"] {
            assert!(!page.contains(inline), "{inline} in the page");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
    }

    #[test]
    fn no_file_makes_html_out_of_text_or_names_the_product() {
        for (name, kind, body) in ASSETS {
            let text = std::str::from_utf8(body).expect("UTF-8");
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(sink), "{sink} in {name}");
            }
            assert!(!text.to_lowercase().contains("hallpass"), "{name}");
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"), "{name} ({kind})");
        }
    }

    /// The keys of an object, and those inside, as paths.
    fn keys(value: &Value, path: &str, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    keys(value, &format!("{path}/{key}"), all);
                }
            }
            Value::String(text) => {
                assert!(!text.trim().is_empty(), "{path} is empty");
                let mut blanks: Vec<&str> =
                    text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect();
                blanks.sort_unstable();
                blanks.dedup();
                all.push(format!("{path} {blanks:?}"));
            }
            other => panic!("{path}: {other}"),
        }
    }

    #[test]
    fn every_language_has_the_same_texts_with_the_same_blanks() {
        let of = |name: &str| {
            let value = serde_json::from_str(text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut all = Vec::new();
            keys(&value, "", &mut all);
            all
        };
        let english = of("lang/en.json");
        assert!(english.len() > 60, "{}", english.len());
        for name in ["lang/de.json", "lang/fr.json", "lang/es.json"] {
            let other = of(name);
            let missing: Vec<_> = english.iter().filter(|key| !other.contains(key)).collect();
            let more: Vec<_> = other.iter().filter(|key| !english.contains(key)).collect();
            assert!(missing.is_empty() && more.is_empty(), "{name}: missing {missing:?}, more {more:?}");
        }
    }
}
