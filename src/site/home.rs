//! The built-in pages: a first page, its style, an icon, and what crawlers ask for.

use super::asset::{Asset, Files};
use super::settings::Settings;
use crate::base::text::escaped;

/// What the pages may load: their own style and icon.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
/// Nothing is hidden from crawlers.
const ROBOTS: &str = "User-agent: *\nDisallow:\n";

/// Returns the built-in pages.
pub(super) fn files(settings: &Settings) -> Files {
    let mut files = Files::default();
    files.add("/", Asset::new(HTML, first_page(settings)).policy(POLICY));
    files.add("/style.css", Asset::new("text/css; charset=utf-8", include_str!("home/style.css")));
    let icon = Asset::new("image/svg+xml", include_str!("home/icon.svg"));
    // Browsers ask for favicon.ico without being told; they go by the type and not by the name.
    files.add("/favicon.ico", icon.clone());
    files.add("/icon.svg", icon);
    files.add("/robots.txt", Asset::new("text/plain; charset=utf-8", ROBOTS));
    files
}

fn first_page(settings: &Settings) -> String {
    let words = settings.language.words();
    let title = settings.title.as_deref().unwrap_or(words.title);
    let text = paragraphs(settings.text.as_deref().unwrap_or(words.text));
    let mut links: Vec<String> = Vec::new();
    if let Some(check) = &settings.check {
        let to = check.path.trim_start_matches('/');
        links.push(format!("<a href=\"{}/\">{}</a>", escaped(to), words.test));
    }
    match settings.imprint.as_deref() {
        Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
            links.push(format!("<a href=\"{}\">{}</a>", escaped(url), words.imprint));
        }
        Some(text) => links.push(format!("<span>{}</span>", escaped(text))),
        None => {}
    }
    let footer = match links.is_empty() {
        true => String::new(),
        false => format!("<footer>{}</footer>\n", links.join("\n")),
    };
    document(settings.language.tag(), title, &format!("{text}\n"), &footer)
}

/// Returns a whole page. `body` is HTML.
pub(super) fn document(language: &str, title: &str, body: &str, footer: &str) -> String {
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"{language}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n{footer}</body>\n</html>\n"
    )
}

/// Returns plain text as paragraphs, which an empty line separates.
fn paragraphs(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    let paragraphs = paragraphs.map(|lines| format!("<p>{}</p>", escaped(&lines.join("\n"))));
    paragraphs.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::language::Language;
    use super::*;

    #[test]
    fn the_operators_words_are_text() {
        let settings = Settings {
            title: Some("A <b>school</b>".to_owned()),
            text: Some("One & \"two\".\nStill one.\n\nThree.\n".to_owned()),
            language: Language::De,
            imprint: Some("https://school.example/imprint?a=1&b=2".to_owned()),
            ..Settings::default()
        };
        let page = first_page(&settings);
        for part in [
            "<html lang=\"de\">",
            "<title>A &lt;b&gt;school&lt;/b&gt;</title>",
            "<p>One &amp; &quot;two&quot;.\nStill one.</p>\n<p>Three.</p>",
            "<a href=\"https://school.example/imprint?a=1&amp;b=2\">Impressum</a>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let text = Settings { imprint: Some("javascript:alert(1)".to_owned()), ..Settings::default() };
        assert!(first_page(&text).contains("<span>javascript:alert(1)</span>"));
        assert!(!first_page(&Settings::default()).contains("<footer>"));
    }

    #[test]
    fn by_default_nothing_says_what_this_server_is_for() {
        for language in [Language::En, Language::De, Language::Fr, Language::Es] {
            let page = first_page(&Settings { language, ..Settings::default() }).to_lowercase();
            for word in ["hallpass", "turn", "stun", "relay", "webrtc"] {
                assert!(!page.contains(word), "{word} in {page}");
            }
        }
    }
}
