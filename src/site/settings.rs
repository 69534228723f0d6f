//! What the operator decides about the site.

use std::sync::Arc;

use super::asset::Files;
use super::check;
use super::language::Language;

/// The site as the operator wants it. The default is an ordinary small page without a test page.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether the site answers at all. If not, every request gets a 404 and the connection is closed.
    pub off: bool,
    /// The title of the first page; `None`: an ordinary one.
    pub title: Option<String>,
    /// The text of the first page, paragraphs separated by an empty line; `None`: an ordinary one.
    pub text: Option<String>,
    /// The language of both.
    pub language: Language,
    /// Who is responsible for the site: a URL or a text.
    pub imprint: Option<String>,
    /// The operator's own files, in place of the built-in pages.
    pub files: Option<Arc<Files>>,
    /// The test page; `None`: there is none.
    pub check: Option<Arc<check::Settings>>,
    /// Whether browsers are told to use HTTPS only. Only with a certificate that they trust.
    pub hsts: bool,
}
