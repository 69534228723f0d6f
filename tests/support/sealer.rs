//! A TLS client that seals every record by hand, so that it can send what no TLS library sends.

use std::sync::Arc;

use hallpass::load::tls::AnyCertificate;
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    SupportedProtocolVersion,
};

/// A message that changes the sender's keys and requests no change in return (RFC 8446 section 4.6.3).
pub const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// The largest record that a handshake of rustls encodes.
const RECORD_MAX: usize = 17 << 10;
/// The part of a TLS 1.2 GCM nonce that is not in the record (RFC 5288 section 3).
const SALT: usize = 4;

/// Returns a configuration for one version that accepts any certificate and resumes no session.
pub fn config(provider: CryptoProvider, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("the provider supports the version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::any(provider).without_signatures()))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// The client's side of a handshake, one flight at a time.
pub struct Handshake {
    connection: UnbufferedClientConnection,
    /// Bytes of the server that were not processed.
    received: Vec<u8>,
    is_finished: bool,
}

impl Handshake {
    pub fn new(config: Arc<ClientConfig>) -> Handshake {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = UnbufferedClientConnection::new(config, name).expect("a valid configuration");
        Handshake { connection, received: Vec::new(), is_finished: false }
    }

    /// Processes bytes of the server and returns the bytes to send.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn flight(&mut self, received: &[u8]) -> Result<Vec<u8>, Error> {
        self.received.extend_from_slice(received);
        let (mut sent, mut buffer) = (Vec::new(), [0; RECORD_MAX]);
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.received);
            let mut is_done = false;
            match state? {
                ConnectionState::EncodeTlsData(mut state) => {
                    let len = state.encode(&mut buffer).expect("room for a record");
                    sent.extend_from_slice(&buffer[..len]);
                }
                ConnectionState::TransmitTlsData(state) => state.done(),
                ConnectionState::BlockedHandshake => is_done = true,
                ConnectionState::WriteTraffic(_) => (self.is_finished, is_done) = (true, true),
                other => panic!("the server sends data or closes within the handshake: {other:?}"),
            }
            self.received.drain(..discard);
            if is_done {
                return Ok(sent);
            }
        }
    }

    /// Returns whether the last flight ends the handshake on this side.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Takes the keys of a finished handshake.
    pub fn into_sealer(self) -> Sealer {
        let (secrets, kernel) =
            self.connection.dangerous_into_kernel_connection().expect("the handshake is finished");
        let suite = kernel.negotiated_cipher_suite();
        let mut sealer = Sealer {
            encrypter: encrypter(suite, secrets.tx.1),
            encrypted: 0,
            decrypter: decrypter(suite, secrets.rx.1),
            decrypted: secrets.rx.0,
            kernel,
        };
        // The cryptography takes the first nonce for that of record 0, so the records of the handshake are sealed again.
        (0..secrets.tx.0).for_each(|_| drop(sealer.seal(ContentType::Handshake, &[])));
        sealer
    }
}

/// Seals and opens the records of one connection.
pub struct Sealer {
    kernel: KernelConnection<ClientConnectionData>,
    encrypter: Box<dyn MessageEncrypter>,
    /// The number of the next record, in both directions.
    encrypted: u64,
    decrypter: Box<dyn MessageDecrypter>,
    decrypted: u64,
}

impl Sealer {
    pub fn is_tls13(&self) -> bool {
        self.kernel.protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// Returns a record of this type.
    pub fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        self.encrypted += 1;
        self.encrypter.encrypt(plain, self.encrypted - 1).expect("a record").encode()
    }

    /// Returns a TLS 1.3 record with `zeros` bytes of padding (RFC 8446 section 5.4).
    pub fn seal_padded(&mut self, typ: ContentType, payload: &[u8], zeros: usize) -> Vec<u8> {
        if zeros == 0 || !self.is_tls13() {
            return self.seal(typ, payload);
        }
        // The type is the last byte that is not zero. Sealing appends the last zero, in place of a type.
        let mut padded = payload.to_vec();
        padded.push(typ.into());
        padded.resize(payload.len() + zeros, 0);
        self.seal(ContentType::Unknown(0), &padded)
    }

    /// Seals with the keys after a key update that was sent otherwise. Changes nothing in TLS 1.2, which has none.
    pub fn change_keys(&mut self) {
        if let Ok((first, secrets)) = self.kernel.update_tx_secret() {
            self.encrypter = encrypter(self.kernel.negotiated_cipher_suite(), secrets);
            self.encrypted = first;
        }
    }

    /// Opens whole records of the server and follows its key updates.
    ///
    /// # Errors
    /// A record was not sealed with the right key or in this order.
    pub fn open(&mut self, records: &[u8]) -> Result<Vec<(ContentType, Vec<u8>)>, Error> {
        let (mut opened, mut rest) = (Vec::new(), records);
        while let Some((&[typ, _, _, high, low], behind)) = rest.split_first_chunk() {
            let (payload, behind) = behind.split_at(u16::from_be_bytes([high, low]).into());
            let mut payload = payload.to_vec();
            let record =
                InboundOpaqueMessage::new(typ.into(), ProtocolVersion::TLSv1_2, payload.as_mut_slice());
            let plain = self.decrypter.decrypt(record, self.decrypted)?;
            self.decrypted += 1;
            let is_update = plain.typ == ContentType::Handshake && plain.payload == KEY_UPDATE;
            opened.push((plain.typ, plain.payload.to_vec()));
            if is_update {
                let (number, secrets) = self.kernel.update_rx_secret()?;
                self.decrypter = decrypter(self.kernel.negotiated_cipher_suite(), secrets);
                self.decrypted = number;
            }
            rest = behind;
        }
        Ok(opened)
    }
}

fn encrypter(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Box<dyn MessageEncrypter> {
    let (key, iv, salt) = parts(secrets);
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            suite.aead_alg.encrypter(key, &iv.as_ref()[..salt], &iv.as_ref()[salt..])
        }
    }
}

fn decrypter(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Box<dyn MessageDecrypter> {
    let (key, iv, salt) = parts(secrets);
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => suite.aead_alg.decrypter(key, &iv.as_ref()[..salt]),
    }
}

/// Returns the key, the nonce, and the length of the part of the nonce that TLS 1.2 does not send.
fn parts(
    secrets: ConnectionTrafficSecrets,
) -> (rustls::crypto::cipher::AeadKey, rustls::crypto::cipher::Iv, usize) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            (key, iv, SALT)
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            let len = iv.as_ref().len();
            (key, iv, len)
        }
        _ => panic!("a cipher that the provider does not have"),
    }
}
