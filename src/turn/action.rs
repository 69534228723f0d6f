//! What the protocol answers: verdicts on single packets and actions for the network side.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Announced, OnWire};
use super::change::TableChange;
use super::five_tuple::{Client, FiveTuple, Link};
pub use super::id::{RelayId, UserId};
use super::identity::refusal::Refusal;
use crate::base::host::HostId;

/// The verdict on one message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromClient {
    /// Send `message[payload]` from relay `relay` to `peer`; no action follows.
    Relay {
        /// The relayed address to send from.
        relay: RelayId,
        /// The destination.
        peer: OnWire,
        /// The range of the message that is the payload.
        payload: Range<usize>,
        /// Whether this one datagram must carry DF (RFC 8656 section 15).
        dont_fragment: bool,
    },
    /// The message was handled; take the actions with `poll_action`.
    Control,
    /// The message was dropped and counted under this reason; no action follows.
    Dropped(DropReason),
}

/// The verdict on one datagram of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromPeer {
    /// Send it to the client with this header in front.
    Relay {
        /// The client to send to.
        client: Client,
        /// The header.
        header: PeerHeader,
    },
    /// The datagram was dropped and counted under this reason; no action follows.
    Dropped(DropReason),
}

/// The header in front of a peer's data on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerHeader {
    /// ChannelData with this channel number.
    Channel(u16),
    /// A Data indication.
    Data {
        /// The XOR-PEER-ADDRESS.
        peer: Announced,
        /// The indication's transaction id.
        transaction_id: [u8; 12],
    },
}

/// Work for the network side. After every input, take actions with `poll_action` until it returns `None`.
#[derive(Debug)]
pub enum Action {
    /// Send one whole STUN message to a client.
    Reply {
        /// The client to send to.
        client: Client,
        /// The encoded message.
        message: Vec<u8>,
        /// Whether it answers a request whose credentials verified.
        authenticated: bool,
    },
    /// Bind a UDP socket; report the outcome with `handle_relay_opened`.
    OpenRelay {
        /// The number of the relay until it is closed.
        relay: RelayId,
        /// The local address to bind.
        address: OnWire,
    },
    /// Close the relay's socket; no answer is expected. The number may be reused at once.
    CloseRelay {
        /// The relay.
        relay: RelayId,
    },
    /// An allocation began; one line for the log at debug level.
    Began(Box<Beginning>),
    /// An allocation ended; one line for the log.
    Ended(Box<Session>),
    /// A request was refused; one line for the log. Not every refusal is reported.
    Refused(Box<Refusal>),
    /// New settings ended something that was running; one line for the log.
    Reviewed(Review),
    /// The table changed. Reported only while `handle_mirror` has switched it on.
    Changed(Box<TableChange>),
}

/// What new settings ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Permissions, with their channels, for peers that are denied now.
    pub permissions: usize,
    /// Allocations made with a revoked secret, or by a static user that is gone.
    pub allocations: usize,
}

/// Why a relay socket could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another program holds this port; another port may work.
    InUse,
    /// This machine does not have this address.
    NoAddress,
    /// Descriptors or memory ran out, or a firewall forbids it: another port will not help.
    Unavailable,
}

/// An ICMP error about a relayed datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIcmp {
    /// The destination of the datagram.
    pub peer: OnWire,
    /// ICMP or ICMPv6 type.
    pub kind: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// The next hop's MTU for "too big", else 0.
    pub data: u32,
}

/// A new allocation, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The five-tuple of the allocation.
    pub five_tuple: FiveTuple,
    /// The user name as sent (REST: `expiry:user`).
    pub user: Arc<str>,
    /// The named host whose secret verified.
    pub host: Arc<str>,
    /// That host's number.
    pub host_id: HostId,
    /// The relayed addresses.
    pub relayed: Vec<Announced>,
}

/// An ended allocation, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The five-tuple of the allocation.
    pub five_tuple: FiveTuple,
    /// The client's link.
    pub link: Link,
    /// The user name as sent (REST: `expiry:user`).
    pub user: Arc<str>,
    /// The named host whose secret verified.
    pub host: Arc<str>,
    /// That host's number.
    pub host_id: HostId,
    /// The relayed addresses.
    pub relayed: Vec<Announced>,
    /// From the Allocate success to the end.
    pub duration: Duration,
    /// Payload bytes and packets relayed towards peers.
    pub from_client: Traffic,
    /// Payload bytes and packets relayed towards the client.
    pub from_peer: Traffic,
    /// Why it ended.
    pub reason: EndReason,
}

/// Payload relayed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Payload bytes, without any TURN header.
    pub bytes: u64,
}

impl Traffic {
    /// Adds one datagram.
    pub fn add(&mut self, bytes: u16) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    /// Subtracts datagrams that were added before, but no more than there are. Returns what was subtracted.
    pub fn take_back(&mut self, unsent: Traffic) -> Traffic {
        let packets = unsent.packets.min(self.packets);
        let bytes = unsent.bytes.min(self.bytes);
        self.packets -= packets;
        self.bytes -= bytes;
        Traffic { packets, bytes }
    }
}

/// One datagram that was counted as relayed and is not sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The relayed address that it leaves from or arrived at.
    pub relay: RelayId,
    /// The direction.
    pub from_client: bool,
    /// Payload bytes. No UDP datagram has more than 65,507.
    pub bytes: u16,
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client asked: Refresh with LIFETIME 0.
    Deleted,
    /// Its lifetime expired without a Refresh.
    Expired,
    /// The client closed its stream.
    Closed,
    /// The client's stream was reset or timed out.
    Reset,
    /// The client broke the framing or the TLS of its stream.
    Broken,
    /// Its secret was revoked, or its static user removed.
    Revoked,
    /// The local address that it relayed from is gone, or is no longer relayed from.
    AddressGone,
    /// The server stops.
    Shutdown,
}

impl EndReason {
    /// The word for the log.
    pub const fn name(self) -> &'static str {
        match self {
            EndReason::Deleted => "deleted",
            EndReason::Expired => "expired",
            EndReason::Closed => "closed",
            EndReason::Reset => "reset",
            EndReason::Broken => "broken",
            EndReason::Revoked => "revoked",
            EndReason::AddressGone => "address gone",
            EndReason::Shutdown => "shutdown",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// Why a message was dropped. Each reason has a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[$doc])* $name,)+ }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The label in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    /// First byte is neither STUN nor ChannelData.
    NotTurn = "not_turn",
    /// Not a well-formed STUN message, or a wrong FINGERPRINT.
    MalformedStun = "malformed_stun",
    /// ChannelData whose length does not fit.
    MalformedChannelData = "malformed_channel_data",
    /// A STUN response, or an indication other than Send; this server sends no requests.
    Unsolicited = "unsolicited",
    /// A Send indication without XOR-PEER-ADDRESS or DATA, or with a malformed or an unknown required attribute.
    MalformedIndication = "malformed_indication",
    /// A request with an unsupported method (RFC 8489 section 6.3).
    UnknownMethod = "unknown_method",
    /// Data from a client that has no allocation.
    NoAllocation = "no_allocation",
    /// Data for a peer that the client has no live permission for.
    NoPermission = "no_permission",
    /// ChannelData on a channel that is not bound.
    NoChannel = "no_channel",
    /// A peer that the policy refuses.
    PeerDenied = "peer_denied",
    /// The allocation has no relayed address of the peer's family.
    NoFamily = "no_family",
    /// Data through a relay that is not open, or has expired.
    NoRelay = "no_relay",
    /// Too many requests without good credentials, or Bindings, from this source.
    Throttled = "throttled",
    /// The password can only be verified by trying secrets, and the budget for that is used up. A later retransmission may pass.
    SearchDeferred = "search_deferred",
    /// More requests than the user may send.
    RequestsOverRate = "requests_over_rate",
    /// A datagram over UDP, while others waited that need the time: a request or QUIC, which clients repeat, or media of a user
    /// that had much relayed at once.
    Backlog = "backlog",
    /// Not the beginning of a QUIC connection, or too many of them.
    QuicRefused = "quic_refused",
    /// The answer would be too large for the request (amplification).
    Amplification = "amplification",
    /// More than the allocation may relay.
    AllocationOverRate = "allocation_over_rate",
    /// More than the user may relay.
    UserOverRate = "user_over_rate",
    /// More than the named host's users may relay.
    HostOverRate = "host_over_rate",
    /// The client reads its stream too slowly; the oldest media is dropped first.
    QueueFull = "queue_full",
    /// Media that waited so long for a slow stream that a call has no use for it.
    Stale = "stale",
    /// For a stream that is closed, or was closed while the message waited.
    ConnectionClosed = "connection_closed",
    /// From a peer, while the receive buffer of the relayed address was full.
    ReceiveFull = "receive_full",
    /// The kernel refused the datagram: a firewall rule, or a full queue.
    SendFailed = "send_failed",
    /// The kernel has no route to its destination.
    NoRoute = "no_route",
    /// An answer to an unproven address, while much of the listener's send buffer is unsent.
    SendBacklog = "send_backlog",
    /// Larger than the transport can carry.
    TooLarge = "too_large",
}

impl DropReason {
    /// A small number for arrays of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether a byte stream that carried such a message has lost its framing.
    pub const fn breaks_stream(self) -> bool {
        matches!(self, DropReason::NotTurn | DropReason::MalformedStun | DropReason::MalformedChannelData)
    }
}
