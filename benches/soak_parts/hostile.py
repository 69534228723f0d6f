"""Hostile clients: bad messages, bad connections and bad behaviour, each kind at a fixed rate and counted.

The content follows from a seed and the timing does not, so two runs are similar but not identical.
"""

import contextlib
import os
import random
import socket
import ssl
import struct
import time

from . import turn
from .turn import Client, Refused, attribute, channel_data, connected, message, rest_login, signed, xor_address

# Actions a second, by kind.
DATAGRAMS = {
    "mutated STUN, udp": 40,
    "mutated and signed, udp": 20,
    "mutated ChannelData, udp": 30,
    "noise, udp": 10,
    "64 KB datagrams": 0.5,
    "strangers": 20,
    "forged nonces": 20,
    "wrong passwords": 5,
    "forbidden peers": 3,
    "peers without permission": 20,
    "packets to closed ports (ICMP)": 20,
    "abandoned allocations": 2,
}
STREAMS = {
    "half-open tcp": 2,
    "half-open tls": 2,
    "abandoned handshakes": 3,
    "mutated ClientHello": 2,
    "mutated STUN, tcp": 4,
    "mutated STUN, tls": 2,
    "garbage after the handshake": 0.5,
    "a byte at a time": 0.5,
    "slow readers, tcp": 0.03,
    "slow readers, tls": 0.05,
}
KINDS = list(DATAGRAMS) + list(STREAMS)
FORBIDDEN = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.0.2.1", "0.0.0.0", "255.255.255.255"]
# Sockets that one process holds at once.
HELD = 300
HOLD = (1.0, 40.0)
RENEW = 15.0
TICK = 0.01
# Bytes a second towards one slow reader, and the seconds that it stays.
FLOOD = 400_000
SLOW = 40.0


class Hostile:
    """Performs each kind of action at its rate."""

    rates = {}

    def __init__(self, plan, counts, seed):
        self.plan, self.counts = plan, counts
        self.random = random.Random(seed)

    def run(self, stopped):
        start = time.monotonic()
        due = {kind: start + self.random.random() / rate for kind, rate in self.rates.items()}
        while not stopped.wait(TICK) and os.getppid() == self.plan.parent:
            now = time.monotonic()
            for kind, rate in self.rates.items():
                while due[kind] <= now:
                    # After a pause, at most 0.2 s are made up for.
                    due[kind] = max(due[kind] + 1 / rate, now - 0.2)
                    # The server may refuse any of this, or close the connection.
                    with contextlib.suppress(OSError, ssl.SSLError, Refused, KeyError):
                        self.act(kind)
                        self.counts[KINDS.index(kind)] += 1
            with contextlib.suppress(OSError, ssl.SSLError, Refused, KeyError):
                self.tick(now)

    def user(self, name):
        return rest_login(self.plan.secret, name)

    def mutated(self, packet):
        """Damages a packet: flips bits, sets a byte or the length, cuts the end off, or inserts bytes."""
        packet = bytearray(packet)
        for _ in range(self.random.choice((1, 1, 1, 2, 4, 16))):
            where = self.random.randrange(len(packet)) if packet else 0
            what = self.random.randrange(6)
            if what == 0 and packet:
                packet[where] ^= 1 << self.random.randrange(8)
            elif what == 1 and packet:
                packet[where] = self.random.choice((0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xFF))
            elif what == 2 and len(packet) >= 4:
                struct.pack_into(">H", packet, 2, self.random.choice((0, 1, 3, 4, 0xFFFC, 0xFFFF, len(packet))))
            elif what == 3:
                del packet[where:]
            elif what == 4:
                packet[where:where] = self.random.randbytes(self.random.choice((1, 4, 64)))
            else:
                packet[where:where] = packet[: self.random.randrange(64)]
        return bytes(packet[:1400])

    def body(self):
        """A random selection of attributes, in random order."""
        peer = (self.random.choice([*FORBIDDEN, self.plan.peer]), self.random.randrange(65536))
        choice = [
            attribute(turn.REQUESTED_TRANSPORT, turn.UDP),
            attribute(turn.LIFETIME, struct.pack(">I", self.random.choice((1, 60, 600, 0xFFFFFFFF)))),
            attribute(turn.XOR_PEER_ADDRESS, xor_address(peer)),
            attribute(turn.CHANNEL_NUMBER, struct.pack(">HH", self.random.randrange(65536), 0)),
            attribute(turn.DATA, self.random.randbytes(self.random.randrange(200))),
            attribute(0x0018, bytes([self.random.choice((0, 0x80))])),
            attribute(0x0022, self.random.randbytes(8)),
            attribute(0x0017, bytes([self.random.choice((1, 2, 9)), 0, 0, 0])),
            attribute(0x001A, b""),
            attribute(0x8022, b"hostile"),
            attribute(self.random.randrange(65536), self.random.randbytes(self.random.randrange(40))),
        ]
        return b"".join(self.random.sample(choice, self.random.randrange(1, 6)))

    def method(self):
        methods = (turn.BINDING, turn.ALLOCATE, turn.CREATE_PERMISSION, turn.CHANNEL_BIND, turn.SEND)
        return self.random.choice((*methods, turn.REFRESH, self.random.randrange(0x4000)))


class Datagrams(Hostile):
    """Over UDP."""

    rates = DATAGRAMS

    def __init__(self, plan, counts, seed):
        super().__init__(plan, counts, seed)
        self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sink.bind((plan.peer, 0))
        # Nothing reads from these sockets: the kernel drops what exceeds their buffers.
        self.uninvited = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.uninvited.bind((plan.stranger, 0))
        self.client, self.renewed, self.left = None, 0.0, 0

    def open(self):
        return Client("udp", self.plan.servers["udp"], self.plan.stranger, self.user("mallory"))

    def tick(self, now):
        """Keeps a client with an allocation, since its packets get further. It is replaced, and abandoned, every RENEW s."""
        if self.client and now < self.renewed + RENEW:
            return
        if self.client:
            self.client.close()
        self.client = None
        self.renewed = now
        client = self.open().allocate()
        client.bind(0x4000, self.sink.getsockname())
        # No socket has this port, so a datagram to it causes an ICMP error.
        client.bind(0x4001, (self.plan.peer, 9))
        self.client = client

    def send(self, packet):
        """Sends without reading the answers."""
        if self.client:
            self.client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self.client.socket.send(packet)

    def act(self, kind):
        if self.client is None:
            return
        client, key = self.client, self.client.key
        if kind == "mutated STUN, udp":
            self.send(self.mutated(signed(self.method(), self.body() + client.credentials(), key)))
        elif kind == "mutated and signed, udp":
            # The credentials and the signature stay valid, so that the server reads the rest.
            body = self.body() if self.random.random() < 0.5 else self.mutated(self.body())
            self.send(signed(self.method(), body[: len(body) & ~3] + client.credentials(), key))
        elif kind == "mutated ChannelData, udp":
            self.send(self.mutated(channel_data(0x4000, self.random.randbytes(self.random.randrange(400)))))
        elif kind == "noise, udp":
            self.send(self.random.randbytes(self.random.randrange(1, 1200)))
        elif kind == "64 KB datagrams":
            self.send(message(turn.BINDING, bytes(60_000)))
        elif kind == "strangers":
            with connected("udp", self.plan.servers["udp"], self.plan.stranger) as one:
                one.send(message(self.random.choice((turn.BINDING, turn.ALLOCATE)), b""))
        elif kind == "forged nonces":
            nonce = bytearray(client.nonce)
            for _ in range(3):
                nonce[self.random.randrange(len(nonce))] = self.random.choice(b"0123456789abcdefXYZ-_")
            body = attribute(turn.USERNAME, client.login[0].encode()) + attribute(turn.REALM, client.realm)
            self.send(signed(turn.REFRESH, body + attribute(turn.NONCE, bytes(nonce)), key))
        elif kind == "wrong passwords":
            self.send(signed(turn.ALLOCATE, client.credentials(), self.random.randbytes(16)))
        elif kind == "forbidden peers":
            peer = attribute(turn.XOR_PEER_ADDRESS, xor_address((self.random.choice(FORBIDDEN), 443)))
            self.send(signed(turn.CREATE_PERMISSION, peer + client.credentials(), key))
        elif kind == "peers without permission":
            self.uninvited.sendto(self.random.randbytes(100), client.relayed)
        elif kind == "packets to closed ports (ICMP)":
            self.send(channel_data(0x4001, bytes(100)))
        else:
            self.left += 1
            abandoned = Client("udp", self.plan.servers["udp"], self.plan.client, self.user(f"gone-{self.left}"))
            with contextlib.closing(abandoned):
                abandoned.allocate().bind(0x4000, self.sink.getsockname())


class Streams(Hostile):
    """Over TCP and TLS."""

    rates = STREAMS

    def __init__(self, plan, counts, seed):
        super().__init__(plan, counts, seed)
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind((plan.peer, 0))
        self.peer.setblocking(False)
        self.hello = turn.client_hello()
        # Idle connections with the time to close them; clients that do not read; clients that write slowly.
        self.held, self.slow, self.dripping = [], [], []
        self.last = time.monotonic()

    def hold(self, one):
        self.held.append((time.monotonic() + self.random.uniform(*HOLD), one))
        while len(self.held) > HELD:
            self.end(self.held.pop(0)[1])

    def end(self, one):
        """Closes a connection, half of the time with a reset."""
        with contextlib.suppress(OSError):
            if self.random.random() < 0.5:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()

    def connect(self, transport):
        return connected(transport, self.plan.servers[transport], self.plan.stranger)

    def raw(self):
        """A TCP connection to the TLS listener, without TLS."""
        return connected("tcp", self.plan.servers["tls"], self.plan.stranger)

    def tick(self, now):
        passed, self.last = min(now - self.last, 0.2), now
        for one in [entry for entry in self.held if entry[0] <= now]:
            self.held.remove(one)
            self.end(one[1])
        for entry in list(self.slow):
            until, client = entry
            if now >= until:
                self.slow.remove(entry)
                self.end(client.socket)
            else:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(int(FLOOD * passed / 1200) + 1):
                        self.peer.sendto(bytes(1200), client.relayed)
        for entry in list(self.dripping):
            one, rest = entry
            try:
                if self.random.random() < TICK:
                    one.send(rest[:1])
                    entry[1] = rest[1:]
            except OSError:
                entry[1] = b""
            if not entry[1]:
                self.dripping.remove(entry)
                self.end(one)

    def act(self, kind):
        credentials = attribute(turn.USERNAME, b"somebody") + attribute(turn.REALM, b"relay.test")
        packet = signed(self.method(), self.body() + credentials, bytes(16))
        if kind == "half-open tcp":
            one = self.connect("tcp")
            one.send(packet[: self.random.randrange(20)])
            self.hold(one)
        elif kind == "half-open tls":
            one = self.raw()
            one.send(self.hello[: self.random.randrange(len(self.hello))])
            self.hold(one)
        elif kind == "abandoned handshakes":
            one = self.raw()
            one.send(self.hello)
            one.recv(65536)
            self.end(one)
        elif kind == "mutated ClientHello":
            one = self.raw()
            one.send(self.mutated(self.hello) or b"\x16")
            self.hold(one)
        elif kind in ("mutated STUN, tcp", "mutated STUN, tls"):
            one = self.connect(kind[-3:])
            # A valid request first, so that the server takes it for a TURN client; then damaged messages.
            for part in (message(turn.BINDING, b""), self.mutated(packet), self.mutated(channel_data(0x4000, packet))):
                one.send(part or b"\0")
            self.hold(one)
        elif kind == "garbage after the handshake":
            with self.connect("tls") as one:
                below = socket.socket(fileno=os.dup(one.fileno()))
                below.send(bytes([0x17, 3, 3, 0, 64]) + self.random.randbytes(64))
                below.close()
        elif kind == "a byte at a time":
            if len(self.dripping) < HELD:
                self.dripping.append([self.connect("tcp"), packet])
        else:
            transport = kind[-3:]
            client = Client(
                transport, self.plan.servers[transport], self.plan.stranger, self.user("slow"), receive_buffer=4096
            )
            client.allocate().bind(0x4000, self.peer.getsockname())
            self.slow.append((time.monotonic() + SLOW, client))


def run(kind, plan, counts, stopped):
    {"datagrams": Datagrams, "streams": Streams}[kind](plan, counts, f"{plan.seed} {kind}").run(stopped)
