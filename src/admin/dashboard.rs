//! The dashboard: a page without outside resources, cookies or inline code, and the files that it loads.
//!
//! The page reads `/overview`, `/history`, `/refusals` and `/sessions`. Names in these are chosen by clients: the page inserts
//! them as text only, and its policy forbids every script but its own, and every way to make HTML out of text.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Allows nothing but the page's own files (Content Security Policy Level 3; Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// A file of the dashboard.
struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const PAGE: Asset = Asset {
    path: "/dashboard",
    kind: "text/html; charset=utf-8",
    text: include_str!("dashboard/index.html"),
};

const ASSETS: [Asset; 8] = [
    PAGE,
    Asset {
        path: "/dashboard/style.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("dashboard/style.css"),
    },
    Asset {
        path: "/dashboard/page.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/page.js"),
    },
    Asset {
        path: "/dashboard/chart.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/chart.js"),
    },
    Asset {
        path: "/dashboard/lists.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/lists.js"),
    },
    Asset {
        path: "/dashboard/checks.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/checks.js"),
    },
    Asset {
        path: "/dashboard/format.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/format.js"),
    },
    Asset { path: "/dashboard/icon.svg", kind: "image/svg+xml", text: include_str!("dashboard/icon.svg") },
];

/// The paths of all files.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    ASSETS.iter().map(|asset| asset.path)
}

/// Returns the file at `path`; the page itself for any other path.
pub(super) fn file(path: &str) -> Response {
    let asset = ASSETS.iter().find(|asset| asset.path == path).unwrap_or(&PAGE);
    let mut response = asset.text.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, asset.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the client prefers a page to plain text. Browsers name HTML in Accept, curl does not.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_its_own_files_only_and_has_no_inline_code() {
        let page = PAGE.text;
        let attributes = page.split(['"', '\'']).collect::<Vec<_>>();
        for pair in attributes.windows(2) {
            if pair[0].ends_with(" src=") || pair[0].ends_with(" href=") {
                let is_ours = paths().any(|path| path == pair[1]);
                let is_link =
                    pair[1].starts_with('#') || ["/metrics", "/sessions", "/refusals"].contains(&pair[1]);
                assert!(is_ours || is_link, "{} is not ours", pair[1]);
            }
        }
        for inline in [" on", "style=", "<style", "javascript:"] {
            let words = ["click", "load", "error", "input", "change", "submit", "key"];
            let found = match inline {
                " on" => words.iter().any(|word| page.contains(&format!(" on{word}"))),
                _ => page.contains(inline),
            };
            assert!(!found, "{inline} in the page");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
    }

    #[test]
    fn no_file_makes_html_out_of_text() {
        for asset in ASSETS {
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!asset.text.contains(sink), "{sink} in {}", asset.path);
            }
            assert!(!asset.text.contains("https://") || asset.path.ends_with(".svg"), "{}", asset.path);
        }
    }

    #[test]
    fn browsers_get_the_page() {
        let of = |accept: &'static str| {
            is_wanted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(of("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!of("*/*") && !of("application/json") && !is_wanted(&HeaderMap::new()));
    }
}
