//! Connections to the relay: UDP, TCP and TLS, directly or through the proxy.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::client::TlsStream;

use super::proxy::Proxy;
use super::stage::{Cause, Fault, Stage};
use super::tls::{Certificate, Trust};
use super::watch::{Watch, now};
use crate::base::time::Instant;
use crate::base::transport::Transport;

/// Limit for a TCP connection: SYN is repeated after one and after three seconds.
const CONNECT: Duration = Duration::from_secs(5);
/// Limit for the proxy's answer: it connects to the relay meanwhile.
const TUNNEL: Duration = Duration::from_secs(6);
/// Limit for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Addresses of the proxy that are tried.
const PROXY_ADDRESSES_MAX: usize = 2;

/// An open connection. Dropping a future of [`Link::receive`] loses nothing.
pub enum Link {
    /// UDP, connected to the relay's address.
    Udp(UdpSocket),
    /// TCP.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What to connect to.
pub struct Target<'a> {
    /// The relay's name or address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The transport.
    pub transport: Transport,
    /// How it is reached.
    pub way: Way<'a>,
    /// Bytes in front of everything else on a stream: a PROXY header for a relay that expects one.
    pub greeting: &'static [u8],
}

impl Target<'_> {
    /// The address that the relay answers from. Through a proxy nothing depends on it.
    pub fn server(&self) -> SocketAddr {
        match self.way {
            Way::Direct(address) => address,
            Way::Proxy(..) => (Ipv4Addr::UNSPECIFIED, self.port).into(),
        }
    }
}

/// How the relay is reached.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// At this address.
    Direct(SocketAddr),
    /// Through this proxy at one of these addresses.
    Proxy(&'a Proxy, &'a [IpAddr]),
}

/// What opening a connection showed.
#[derive(Default)]
pub struct Opening {
    /// Time until the TCP connection was open, through the proxy if there is one.
    pub connect: Option<Duration>,
    /// Time of the TLS handshake.
    pub handshake: Option<Duration>,
    /// The relay's certificate.
    pub certificate: Option<Certificate>,
    /// This computer's address.
    pub local: Option<SocketAddr>,
}

/// Opens a connection before `until`, and notes what that shows even if it fails.
///
/// # Errors
/// The stage that failed: TCP or TLS.
pub async fn open(
    target: &Target<'_>,
    trust: &Trust,
    until: Instant,
    opening: &mut Opening,
) -> Result<Link, Fault> {
    let at = |stage| move |cause| Fault { stage, cause };
    let watch = Watch::start();
    let stream = match (target.transport, target.way) {
        (Transport::Udp, Way::Direct(address)) => {
            let socket = udp(address).await.map_err(|error| at(Stage::Stun)(Cause::of_error(&error)))?;
            opening.local = socket.local_addr().ok();
            return Ok(Link::Udp(socket));
        }
        // The plan has no such rung.
        (Transport::Udp, Way::Proxy(..)) => {
            return Err(at(Stage::Tcp)(Cause::System("a proxy carries no UDP".to_owned())));
        }
        (_, Way::Direct(address)) => {
            let mut stream = tcp(address, until).await.map_err(at(Stage::Tcp))?;
            let greeted = stream.write_all(target.greeting).await;
            greeted.map_err(|error| at(Stage::Tcp)(Cause::of_error(&error)))?;
            stream
        }
        (_, Way::Proxy(proxy, addresses)) => {
            tunnel(target, proxy, addresses, until).await.map_err(at(Stage::Tcp))?
        }
    };
    opening.connect = Some(watch.elapsed());
    opening.local = stream.local_addr().ok();
    if target.transport == Transport::Tcp {
        return Ok(Link::Tcp(stream));
    }
    let watch = Watch::start();
    let handshake = trust.handshake(stream, target.host);
    let made = within(HANDSHAKE, until, handshake).await.map_err(at(Stage::Tls))?;
    opening.certificate = made.certificate;
    let stream = made.stream.map_err(at(Stage::Tls))?;
    opening.handshake = Some(watch.elapsed());
    Ok(Link::Tls(stream))
}

/// Whether this computer has a route to the address. Sends no packet.
pub async fn has_route(address: SocketAddr) -> bool {
    udp(address).await.is_ok()
}

async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Opens a TCP connection.
///
/// # Errors
/// Why it cannot be opened.
pub async fn tcp(address: SocketAddr, until: Instant) -> Result<TcpStream, Cause> {
    let stream = within(CONNECT, until, TcpStream::connect(address)).await?;
    let stream = stream.map_err(|error| Cause::of_error(&error))?;
    stream.set_nodelay(true).map_err(|error| Cause::of_error(&error))?;
    Ok(stream)
}

async fn tunnel(
    target: &Target<'_>,
    proxy: &Proxy,
    addresses: &[IpAddr],
    until: Instant,
) -> Result<TcpStream, Cause> {
    let mut last = Cause::NameUnknown;
    for &address in addresses.iter().take(PROXY_ADDRESSES_MAX) {
        match tcp(SocketAddr::new(address, proxy.port), until).await {
            Err(cause) => last = cause,
            Ok(mut stream) => {
                let asked = proxy.connect(&mut stream, target.host, target.port);
                within(TUNNEL, until, asked).await??;
                return Ok(stream);
            }
        }
    }
    Err(Cause::NoProxy(Box::new(last)))
}

/// Waits for `future` for `limit` at most, and not beyond `until`.
///
/// # Errors
/// [`Cause::NoAnswer`].
pub async fn within<T>(limit: Duration, until: Instant, future: impl Future<Output = T>) -> Result<T, Cause> {
    let limit = limit.min(until.since(now()));
    tokio::time::timeout(limit, future).await.map_err(|_| Cause::NoAnswer(limit))
}

impl Link {
    /// Whether it carries bytes in order, not datagrams.
    pub fn is_stream(&self) -> bool {
        !matches!(self, Self::Udp(_))
    }

    /// Waits for input and returns its length.
    ///
    /// # Errors
    /// The error of the system; `UnexpectedEof` at the end of a stream.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = match self {
            Self::Udp(socket) => return socket.recv(buffer).await,
            Self::Tcp(stream) => stream.read(buffer).await?,
            Self::Tls(stream) => stream.read(buffer).await?,
        };
        if len == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(len) }
    }

    /// Sends a datagram, or the next bytes of a stream.
    ///
    /// # Errors
    /// The error of the system.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).await.map(|_| ()),
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}
