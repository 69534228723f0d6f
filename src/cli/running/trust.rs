//! Which certificate of an admin address is accepted: exactly the one in the configured file, or one of an authority.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failed::Failed;
use crate::cert::verifier::{Judge, Presented, Verifier};
use crate::cert::{provider, roots};
use crate::system::pipe;

/// The certificates that are accepted.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Accepted as they are, whatever their names and validity: the operator named the file that the server uses.
    known: Vec<CertificateDer<'static>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl Trust {
    /// Accepts the first certificate in a file, the server's own.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_server(path: &Path) -> Result<Self, Failed> {
        let known = read(path)?.into_iter().take(1).collect();
        Ok(Self { known, authorities: None })
    }

    /// Accepts what an authority in the file has issued for the name, and the certificates in the file themselves. Without a
    /// file, the authorities are those of this computer.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn of_authorities(path: Option<&Path>) -> Result<Self, Failed> {
        let (known, roots) = match path {
            Some(path) => {
                let known = read(path)?;
                let mut roots = RootCertStore::empty();
                // Those that are no authority are accepted as they are.
                let _ = roots.add_parsable_certificates(known.iter().cloned());
                (known, roots)
            }
            None => (Vec::new(), roots::system().map_err(|error| no_authorities(&error))?.all),
        };
        // It fails only without authorities.
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok();
        Ok(Self { known, authorities })
    }

    /// Makes the handshake for `host`.
    ///
    /// # Errors
    /// The server's certificate is not accepted, or the handshake failed otherwise.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let verifier = Verifier::new(self.clone(), provider());
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failed> {
    let parsed =
        |file| CertificateDer::pem_reader_iter(file).collect::<Result<Vec<_>, _>>().map_err(io::Error::other);
    let read = pipe::open(path).and_then(|(file, _)| parsed(file));
    read.map_err(|error| Failed {
        message: format!("cannot read the certificate in {}: {error}", path.display()),
        next_step: "check the path, and whether you may read it".to_owned(),
    })
}

fn no_authorities(error: &io::Error) -> Failed {
    Failed {
        message: format!("cannot read the certificate authorities of this computer: {error}"),
        next_step: "install the package ca-certificates, or name a file with --ca-file".to_owned(),
    }
}

impl Judge for Trust {
    fn judge(&self, presented: Presented<'_>) -> Result<(), Error> {
        if self.known.iter().any(|known| known == presented.leaf) {
            return Ok(());
        }
        match &self.authorities {
            Some(authorities) => presented.check(authorities.as_ref()),
            // It is not the one in the file.
            None => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }
}

/// Says what is wrong with a handshake, and what to do.
pub fn explain(error: &io::Error) -> (String, &'static str) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => (
            "it shows another certificate than the one in the configured file".to_owned(),
            "if the file was renewed, systemctl reload hallpass",
        ),
        Some(Error::InvalidCertificate(_)) => (
            format!("its certificate is not accepted: {error}"),
            "name the server's own certificate, or its authority's, with --ca-file; or use --config on the server itself",
        ),
        Some(Error::InvalidMessage(_)) => {
            ("it does not speak TLS".to_owned(), "write http:// before the address")
        }
        _ => (format!("no TLS: {error}"), "is it running, and is this [admin] address right?"),
    }
}
