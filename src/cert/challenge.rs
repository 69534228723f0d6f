//! The certificate that answers a TLS-ALPN-01 challenge (RFC 8737).

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::crypto::provider;
use super::self_signed::SelfSignedError;

/// ALPN of the challenge (RFC 8737 section 6.2).
pub const ALPN_CHALLENGE: &[u8] = b"acme-tls/1";

/// Returns settings for handshakes that ask for `name` with [`ALPN_CHALLENGE`]: a self-signed certificate for the name with
/// the critical extension acmeIdentifier (section 3). `digest` is the SHA-256 of the key authorization.
///
/// # Errors
/// `Certificate` if the name cannot be in a certificate or no key can be generated; `Key` if rustls refuses the key.
pub fn challenge(name: &str, digest: &[u8; 32]) -> Result<Arc<ServerConfig>, SelfSignedError> {
    let mut params = CertificateParams::new([name.to_owned()]).map_err(SelfSignedError::Certificate)?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(SelfSignedError::Certificate)?;
    let certificate = params.self_signed(&pair).map_err(SelfSignedError::Certificate)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let signer = provider().key_provider.load_private_key(key).map_err(SelfSignedError::Key)?;
    // Without a comparison of the keys, for which rustls would parse the certificate: the extension is unknown to it.
    let certified = CertifiedKey::new(vec![certificate], signer);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(SelfSignedError::Key)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN_CHALLENGE.to_vec()];
    // The connection ends after the handshake, so nobody resumes it.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_offer_the_challenge_alone() {
        let config = challenge("relay.example.org", &[7; 32]).unwrap();
        assert_eq!(config.alpn_protocols, [b"acme-tls/1".to_vec()]);
        assert!(challenge("no name", &[7; 32]).is_err() || challenge("n\u{e4}me", &[7; 32]).is_err());
    }
}
