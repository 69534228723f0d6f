//! Redirects within the site.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Redirects to the same path with a slash at its end, as a relative reference: the path may have another start in front of a
/// web server of the operator.
pub(super) fn to_directory(path: &str) -> Response {
    let last = path.rsplit('/').next().unwrap_or_default();
    ([(header::LOCATION, format!("{last}/"))], StatusCode::PERMANENT_REDIRECT).into_response()
}
