//! The cryptography that rustls uses.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Returns the cryptography provider. It is passed to rustls explicitly, so no process-wide default is needed.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
