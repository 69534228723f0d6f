//! The results of the test page of the built-in site, for the page `/checks`.

use serde_json::Value;

/// The results of the last day.
pub trait CheckSource: Send + Sync {
    /// Returns the list `checks`, the latest first, and in `held` how many there are; with a code only that result.
    fn checks(&self, code: Option<&str>) -> Value;
}
