//! Where the running server is, how it is reached, and the token that it wants.

use std::path::Path;

use super::failed::Failed;
use super::trust::Trust;
use crate::cli::admin_url::AdminUrl;
use crate::cli::args::AdminAddressArgs;
use crate::config::{self, AdminTls};
use crate::system::pipe;

/// A server that can be asked.
pub struct Target {
    /// Where it is.
    pub url: AdminUrl,
    /// The certificates to accept; `None` without TLS.
    pub trust: Option<Trust>,
    /// The token to send.
    pub token: Option<String>,
}

impl Target {
    /// Returns the server that the arguments name.
    ///
    /// # Errors
    /// The configuration, the token or the certificate cannot be read, or the configuration has no admin address.
    pub fn of(args: &AdminAddressArgs) -> Result<Self, Failed> {
        match &args.config {
            Some(path) => Self::configured(path),
            None => Self::named(args),
        }
    }

    /// Returns the server at this address, which wants no token.
    ///
    /// # Errors
    /// The authorities of this computer cannot be read.
    pub fn at(url: AdminUrl) -> Result<Self, Failed> {
        let trust = if url.is_tls() { Some(Trust::of_authorities(None)?) } else { None };
        Ok(Self { url, trust, token: None })
    }

    fn configured(path: &Path) -> Result<Self, Failed> {
        let loaded = config::read(path).map_err(|report| Failed {
            message: format!("cannot read the configuration:\n{report}"),
            next_step: "fix it, or give the address with --admin".to_owned(),
        })?;
        let admin = loaded.config.admin.ok_or_else(|| Failed {
            message: format!("{} has no [admin], so the server cannot be asked", path.display()),
            next_step: "add [admin] with address = \"127.0.0.1:9641\" and restart the server".to_owned(),
        })?;
        let trust = match admin.certificate(loaded.config.tls.as_ref()) {
            Some(files) => Some(Trust::of_server(&files.cert)?),
            None => None,
        };
        let url = AdminUrl::of(admin.address, admin.tls != AdminTls::Off);
        Ok(Self { url, trust, token: admin.token.map(|token| token.0) })
    }

    fn named(args: &AdminAddressArgs) -> Result<Self, Failed> {
        let token = match &args.token_file {
            Some(path) => Some(read_token(path)?),
            None => None,
        };
        let trust = match args.admin.is_tls() {
            true => Some(Trust::of_authorities(args.ca_file.as_deref())?),
            false => None,
        };
        if token.is_some() && trust.is_none() && !args.admin.is_loopback() {
            return Err(Failed {
                message: format!(
                    "without TLS the token would be readable on the way to {}",
                    args.admin.host()
                ),
                next_step: format!("write --admin https://{}", args.admin.authority()),
            });
        }
        Ok(Self { url: args.admin.clone(), trust, token })
    }
}

fn read_token(path: &Path) -> Result<String, Failed> {
    let read = pipe::open(path).and_then(|(file, _)| config::read_secret(file));
    read.map_err(|error| Failed {
        message: format!("cannot read the token in {}: {error}", path.display()),
        next_step: "name the file of [admin] token_file".to_owned(),
    })
}
