//! Why the running server cannot be asked.

/// Why the server cannot be asked, and the next step.
#[derive(Debug)]
pub struct Failed {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next_step: String,
}
