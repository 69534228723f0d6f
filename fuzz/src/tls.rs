//! TLS on a stream: a handshake and what a client may do beside it. Records in plaintext, records sealed by hand, cut
//! into reads anywhere, data of the server between them. Then the server seals and closes.

#[path = "../../tests/support/sealer.rs"]
mod sealer;

use std::sync::{Arc, OnceLock};

use hallpass::cert::{provider, self_signed};
use hallpass::net::counters::TlsOutcome;
use hallpass::net::scratch::{Buffers, READ_MAX};
use hallpass::net::stream::record::INCOMING_MAX;
use hallpass::net::stream::tls::{Choice, Received, Tls, TlsChooser};
use hallpass::wire::client_hello::{Peek, peek};
use rustls::ContentType::{Alert, ApplicationData};
use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom};
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ContentType, NamedGroup};

use super::bytes::take;
use sealer::{Handshake, KEY_UPDATE, Sealer};

/// Maximum number of operations of one input.
const OPS_MAX: usize = 256;
/// Bytes of the client after which no operation follows.
const STREAM_MAX: usize = 96 << 10;
/// Reads after which the rest arrives in whole reads: each read copies what was kept.
const CUTS_MAX: usize = 300;
/// Records without data that a client may send after the handshake.
const SILENT_MAX: usize = 16;
/// Records beyond that which may pass. The server subtracts three records for the end of the handshake, of which one or
/// more arrive in its last read.
const FINISHING: usize = 2;
/// Records that the server passes to rustls at once, and so processes beyond the limit.
const AT_ONCE: usize = 16;
/// What looks like the header of a long record. Repeated as data, it stands wherever the server might look for a header.
const HEADER: [u8; 5] = [23, 3, 3, 0xff, 0xff];

/// One input: the version, how its bytes are cut into reads, and operations.
pub fn tls(data: &[u8]) {
    let mut run = Run::new(data);
    for _ in 0..OPS_MAX {
        if run.input.is_empty() || run.is_ended || run.read + run.unread.len() > STREAM_MAX {
            break;
        }
        run.step();
    }
    run.end();
}

/// Fills everything with the same bytes, so that an input means the same in every run: the order of extensions is fixed, and
/// the client's records have the same lengths. Only the key shares and signatures differ.
#[derive(Debug)]
struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        buffer.fill(0x5A);
        Ok(())
    }
}

/// The server's choice, made at once or when the ClientHello is complete.
struct Chooser {
    config: Arc<ServerConfig>,
    waits: bool,
}

impl TlsChooser for Chooser {
    fn choose(&self, received: &[u8], _shared: bool) -> Choice {
        match peek(received) {
            Peek::NeedMore if self.waits => Choice::NeedMore,
            Peek::NotTls if self.waits => Choice::NotTls,
            _ => Choice::Config(Arc::clone(&self.config)),
        }
    }
}

/// Returns the provider with these groups, in order of preference.
fn with_groups(groups: &[NamedGroup]) -> CryptoProvider {
    let all = provider();
    let of_name = |name| all.kx_groups.iter().copied().filter(move |group| group.name() == name);
    let kx_groups = groups.iter().copied().flat_map(of_name).collect();
    CryptoProvider { kx_groups, secure_random: &Fixed, ..CryptoProvider::clone(&all) }
}

/// The server, and clients of TLS 1.2, of TLS 1.3, and of TLS 1.3 with a HelloRetryRequest.
fn configs() -> &'static (Arc<ServerConfig>, [Arc<ClientConfig>; 3]) {
    static CONFIGS: OnceLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 3])> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        use rustls::version::{TLS12, TLS13};
        let key = self_signed(&[], &[], 1_700_000_000).expect("a certificate").key;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(key));
        let server = ServerConfig::builder_with_provider(Arc::new(with_groups(&[NamedGroup::X25519])))
            .with_safe_default_protocol_versions()
            .expect("both versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        let same = [NamedGroup::X25519];
        let other = [NamedGroup::secp256r1, NamedGroup::X25519];
        let clients = [(&same[..], &TLS12), (&same[..], &TLS13), (&other[..], &TLS13)];
        let client = |(groups, version)| sealer::config(with_groups(groups), version);
        (Arc::new(server), clients.map(client))
    })
}

/// The client's side.
enum Client {
    Shaking(Box<Handshake>),
    Sealing(Box<Sealer>),
    /// The server's answer ended the handshake.
    Failed,
}

/// A whole record, sealed after the handshake.
struct Record {
    /// Its end in the client's stream.
    end: usize,
    /// The length of its data.
    data: usize,
}

struct Run<'d> {
    input: &'d [u8],
    /// Lengths of reads, repeated.
    cuts: &'d [u8],
    reads: usize,
    chooser: Chooser,
    tls: Tls,
    buffers: Buffers,
    client: Client,
    is_tls13: bool,
    /// What the client has sent and the server has not read.
    unread: Vec<u8>,
    /// Bytes that the server has read.
    read: usize,
    records: Vec<Record>,
    /// The position from which on the server may refuse what the client sends.
    doubtful: Option<usize>,
    /// All data that the client sealed.
    sealed: Vec<u8>,
    /// All data that came out of the server.
    plain: Vec<u8>,
    /// What the server has sent and the client has not received.
    sent: Vec<u8>,
    /// All data that the server sealed.
    answered: Vec<u8>,
    is_ended: bool,
}

impl<'d> Run<'d> {
    fn new(mut input: &'d [u8]) -> Self {
        let [mode, cuts] = take(&mut input);
        let (cuts, input) = input.split_at(input.len().min(usize::from(cuts % 16)));
        let (server, clients) = configs();
        let version = usize::from(mode % 3);
        Self {
            input,
            cuts,
            reads: 0,
            chooser: Chooser { config: Arc::clone(server), waits: mode & 0x80 != 0 },
            tls: Tls::default(),
            buffers: Buffers::default(),
            client: Client::Shaking(Box::new(Handshake::new(Arc::clone(&clients[version])))),
            is_tls13: version > 0,
            unread: Vec::new(),
            read: 0,
            records: Vec::new(),
            doubtful: None,
            sealed: Vec::new(),
            plain: Vec::new(),
            sent: Vec::new(),
            answered: Vec::new(),
            is_ended: false,
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        take(&mut self.input)
    }

    /// Takes bytes from the input, at most 63.
    fn take_some(&mut self) -> &'d [u8] {
        let [len] = self.take();
        let (taken, rest) = self.input.split_at(self.input.len().min(usize::from(len % 64)));
        self.input = rest;
        taken
    }

    /// Runs the next operation. The seeds contain its number, so the numbers must not change.
    fn step(&mut self) {
        let [op] = self.take();
        match op % 20 {
            0 => self.flight(None),
            1 => {
                let [len] = self.take();
                self.flight(Some(size(len)));
            }
            2 => self.read_all(),
            3 => {
                let raw = self.take_some();
                self.doubt();
                self.unread.extend_from_slice(raw);
            }
            4 => {
                let [typ] = self.take();
                let payload = self.take_some();
                self.doubt();
                self.unread.extend(plain_record(typ, payload));
            }
            5 => {
                let (message, piece) = self.message();
                self.doubt();
                message.chunks(piece).for_each(|piece| self.unread.extend(plain_record(22, piece)));
            }
            // Everything else needs the keys.
            _ if !self.complete() => {}
            6 => self.server_seals(),
            7 => {
                let [typ, zeros] = self.take();
                let payload = self.take_some();
                self.doubt();
                // Zero is padding: the payload would end in the type.
                self.seal(typ.max(1).into(), payload, zeros);
            }
            8 => {
                let (message, piece) = self.message();
                self.doubt();
                message.chunks(piece).for_each(|piece| self.seal(ContentType::Handshake, piece, 0));
            }
            9 => {
                let [requests, zeros] = self.take();
                self.key_update(&[24, 0, 0, 1, requests % 2], 5, zeros);
            }
            10 => {
                let [count] = self.take();
                (0..count % 40).for_each(|_| self.key_update(&KEY_UPDATE, 5, 0));
            }
            11 => {
                let [piece] = self.take();
                self.key_update(&KEY_UPDATE, usize::from(piece % 5) + 1, 0);
            }
            12 | 13 => {
                let [count, len] = self.take();
                let data: Vec<u8> = (0..size(len)).map(|at| (at + self.sealed.len()) as u8).collect();
                (0..=count % 4).for_each(|_| self.seal(ApplicationData, &data, 0));
            }
            14 => {
                let [count] = self.take();
                self.seal(ApplicationData, &HEADER.repeat(usize::from(count) + 1), 0);
            }
            15 => {
                let [zeros] = self.take();
                self.seal(ApplicationData, &[], zeros);
            }
            16 | 17 => {
                let [zeros] = self.take();
                if !self.is_tls13 {
                    self.doubt();
                }
                self.seal(ContentType::Handshake, &[], zeros);
            }
            18 => {
                self.doubt();
                self.seal(ApplicationData, b"damaged", 0);
                self.sealed.truncate(self.sealed.len() - b"damaged".len());
                self.unread.last_mut().into_iter().for_each(|last| *last ^= 1);
            }
            _ => {
                let [level, description] = self.take();
                self.doubt();
                // Usually a close_notify.
                self.seal(Alert, &[1 + level / 128, description / 128 * (description % 128)], 0);
            }
        }
    }

    /// Takes a handshake message of zeros, and the length of its pieces.
    fn message(&mut self) -> (Vec<u8>, usize) {
        let [typ, high, low, len, piece] = self.take();
        let mut message = vec![typ, 0, high, low];
        message.resize(size(len), 0);
        (message, size(piece))
    }

    /// Notes that the server may refuse what follows.
    fn doubt(&mut self) {
        self.doubtful.get_or_insert(self.read + self.unread.len());
    }

    /// Sends the next flight of the handshake, with its plaintext messages in records of at most `size` bytes.
    fn flight(&mut self, size: Option<usize>) {
        self.read_all();
        let Client::Shaking(handshake) = &mut self.client else { return };
        if self.is_ended {
            return;
        }
        let Ok(flight) = handshake.flight(&std::mem::take(&mut self.sent)) else {
            assert!(self.doubtful.is_some(), "a correct handshake fails");
            self.client = Client::Failed;
            return;
        };
        if size.is_some() && !self.is_tls13 && flight.first_chunk() != Some(&[22, 3, 1]) {
            // Records beyond the usual three in the read that ends the handshake count as records without data.
            self.doubt();
        }
        let mut is_plain = true;
        for record in records(&flight) {
            is_plain &= self.is_tls13 || record[0] != 20;
            match size {
                Some(size) if is_plain && record[0] == 22 => {
                    record[5..].chunks(size).for_each(|piece| self.unread.extend(plain_record(22, piece)));
                }
                _ => self.unread.extend_from_slice(record),
            }
        }
        if let Client::Shaking(handshake) = &self.client
            && handshake.is_finished()
            && let Client::Shaking(handshake) = std::mem::replace(&mut self.client, Client::Failed)
        {
            self.client = Client::Sealing(Box::new(handshake.into_sealer()));
        }
    }

    /// Sends what the handshake still needs; returns whether the client has its keys.
    fn complete(&mut self) -> bool {
        for _ in 0..4 {
            if matches!(self.client, Client::Shaking(_)) {
                self.flight(None);
            }
        }
        matches!(self.client, Client::Sealing(_))
    }

    fn seal(&mut self, typ: ContentType, payload: &[u8], zeros: u8) {
        let Client::Sealing(sealer) = &mut self.client else { return };
        self.unread.extend(sealer.seal_padded(typ, payload, zeros.into()));
        let data = if typ == ApplicationData { payload } else { &[] };
        self.sealed.extend_from_slice(data);
        self.records.push(Record { end: self.read + self.unread.len(), data: data.len() });
    }

    /// Seals a key update in records of at most `piece` bytes.
    fn key_update(&mut self, message: &[u8], piece: usize, zeros: u8) {
        if !self.is_tls13 {
            self.doubt();
        }
        message.chunks(piece).for_each(|piece| self.seal(ContentType::Handshake, piece, zeros));
        if let Client::Sealing(sealer) = &mut self.client {
            sealer.change_keys();
        }
    }

    /// The server seals data between two reads, as the relay does when a peer sends.
    fn server_seals(&mut self) {
        self.read_all();
        let [len] = self.take();
        if self.is_ended || self.tls.is_handshaking() {
            return;
        }
        let data: Vec<u8> = (0..size(len)).map(|at| (at + self.answered.len()) as u8).collect();
        let output = &mut self.buffers.output;
        output.clear();
        self.tls.seal(&data, output).expect("a connection without an error");
        self.answered.extend(data);
        self.sent.extend_from_slice(output.bytes());
    }

    /// The server reads everything that the client has sent.
    fn read_all(&mut self) {
        while !self.unread.is_empty() && !self.is_ended {
            let cut = self.cuts.get(self.reads % self.cuts.len().max(1)).filter(|_| self.reads < CUTS_MAX);
            let len = cut.map_or(READ_MAX, |&cut| size(cut));
            self.reads += 1;
            self.read_some(len.min(self.unread.len()));
        }
    }

    /// The server reads `len` bytes; 0 is the end of the client's stream.
    fn read_some(&mut self, len: usize) {
        let Buffers { records, plain, output } = &mut self.buffers;
        self.tls.restore(records);
        assert!(records.bytes().len() <= INCOMING_MAX, "{} bytes are kept", records.bytes().len());
        records.append(&self.unread[..len]).expect("room for a read");
        self.unread.drain(..len);
        self.read += len;
        plain.clear();
        output.clear();
        let received = self.tls.receive(&self.chooser, false, records, plain, output);
        self.plain.extend_from_slice(plain.bytes());
        self.sent.extend_from_slice(output.bytes());
        self.check(received);
    }

    /// Checks what a read has changed.
    fn check(&mut self, received: Result<Received, TlsOutcome>) {
        assert!(self.sealed.starts_with(&self.plain), "other data than the client sealed");
        let known = self.doubtful.unwrap_or(usize::MAX).min(self.read);
        let whole = || self.records.iter().take_while(|record| record.end <= known);
        let silent = whole().filter(|record| record.data == 0).count();
        let data: usize = whole().map(|record| record.data).sum();
        match received {
            Ok(received) => {
                assert!(silent <= SILENT_MAX + FINISHING, "{silent} records without data are accepted");
                assert!(self.plain.len() >= data, "{} of {data} bytes came out", self.plain.len());
                assert!(!received.closed || known < self.read, "the client did not close");
                self.is_ended = received.closed;
            }
            Err(outcome) => {
                let is_correct = silent <= SILENT_MAX && known == self.read;
                assert!(!is_correct, "{outcome:?} for a correct client");
                // The records before the last data that came out were processed.
                let mut seen = 0;
                let processed = whole().take_while(|record| {
                    seen += record.data;
                    seen <= self.plain.len()
                });
                let processed: Vec<&Record> = processed.collect();
                let last = processed.iter().rposition(|record| record.data > 0).unwrap_or(0);
                let silent = processed[..last].iter().filter(|record| record.data == 0).count();
                assert!(silent <= SILENT_MAX + FINISHING + AT_ONCE, "{silent} records were processed");
                self.fail();
            }
        }
    }

    /// After an error nothing follows the alert.
    fn fail(&mut self) {
        self.is_ended = true;
        let Buffers { records, plain, output } = &mut self.buffers;
        plain.clear();
        output.clear();
        assert!(self.tls.seal(b"late", output).is_err());
        self.tls.close(output);
        self.tls.restore(records);
        assert!(records.bytes().is_empty(), "bytes are kept after an error");
        if self.tls.is_handshaking() && self.tls.begins() {
            // Nothing was answered, so a new connection begins; the owner closes the stream instead.
            assert!(output.bytes().is_empty());
            return;
        }
        let _ = records.append(&self.unread[..self.unread.len().min(READ_MAX)]);
        assert!(self.tls.receive(&self.chooser, false, records, plain, output).is_err());
        self.tls.close(output);
        assert!(plain.bytes().is_empty() && output.bytes().is_empty(), "output after an error");
    }

    /// The client ends its stream, and the server closes.
    fn end(mut self) {
        self.read_all();
        if !self.is_ended {
            self.read_some(0);
        }
        let closes = !self.is_ended && !self.tls.is_handshaking();
        if closes {
            self.buffers.output.clear();
            self.tls.close(&mut self.buffers.output);
            self.sent.extend_from_slice(self.buffers.output.bytes());
        }
        let Client::Sealing(sealer) = &mut self.client else { return };
        let opened = sealer.open(&self.sent).expect("records of the server, in order");
        let data = opened.iter().filter(|(typ, _)| *typ == ApplicationData);
        let data: Vec<u8> = data.flat_map(|(_, payload)| payload.iter().copied()).collect();
        assert!(data == self.answered, "other data than the server sealed");
        let is_last =
            |(typ, payload): &(ContentType, Vec<u8>)| *typ == Alert && (payload[0] == 2 || payload[1] == 0);
        let end = opened.iter().position(is_last);
        assert!(end.is_none_or(|end| end + 1 == opened.len()), "records after the last alert");
        assert!(end.is_some() || !closes, "no close_notify");
    }
}

/// Returns a length for a byte: up to 192 exactly, above in steps of 256, up to 16 KiB.
fn size(byte: u8) -> usize {
    match usize::from(byte) {
        small @ 0..192 => small + 1,
        large => (large - 191) << 8,
    }
}

fn plain_record(typ: u8, payload: &[u8]) -> Vec<u8> {
    [&[typ, 3, 3], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

/// Returns the records in `bytes`, with their headers.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let &[_, _, _, high, low] = bytes.first_chunk()?;
        let (record, rest) = bytes.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
        bytes = rest;
        Some(record)
    })
}
