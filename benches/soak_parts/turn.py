"""As much of STUN and TURN as a client in a test needs: requests with integrity, ChannelData, three transports."""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import time

COOKIE = 0x2112A442
BINDING, ALLOCATE, REFRESH, SEND, CREATE_PERMISSION, CHANNEL_BIND = 0x001, 0x003, 0x004, 0x016, 0x008, 0x009
USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, CHANNEL_NUMBER, LIFETIME = 0x0006, 0x0008, 0x0009, 0x000C, 0x000D
XOR_PEER_ADDRESS, DATA, REALM, NONCE, XOR_RELAYED_ADDRESS = 0x0012, 0x0013, 0x0014, 0x0015, 0x0016
REQUESTED_TRANSPORT = 0x0019
UDP = bytes([17, 0, 0, 0])
# Seconds to wait for an answer.
PATIENCE = 4.0


class Refused(Exception):
    """The server refused a request, or did not answer."""


def attribute(kind, value):
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(kind, body, transaction=None):
    return struct.pack(">HHI", kind, len(body), COOKIE) + (transaction or os.urandom(12)) + body


def signed(kind, body, key):
    """A message with MESSAGE-INTEGRITY after its attributes."""
    unsigned = message(kind, body)
    covered = unsigned[:2] + struct.pack(">H", len(body) + 24) + unsigned[4:]
    return covered + attribute(MESSAGE_INTEGRITY, hmac.digest(key, covered, "sha1"))


def channel_data(number, payload):
    """Padded, as on a stream; over UDP the padding does no harm."""
    return struct.pack(">HH", number, len(payload)) + payload + bytes(-len(payload) % 4)


def xor_address(address):
    ip = int.from_bytes(socket.inet_aton(address[0]), "big")
    return struct.pack(">BBHI", 0, 1, address[1] ^ (COOKIE >> 16), ip ^ COOKIE)


def unxor_address(value):
    _, _, port, ip = struct.unpack(">BBHI", value[:8])
    return socket.inet_ntoa((ip ^ COOKIE).to_bytes(4, "big")), port ^ (COOKIE >> 16)


def attributes(packet):
    found, at = {}, 20
    while at + 4 <= len(packet):
        kind, length = struct.unpack_from(">HH", packet, at)
        found.setdefault(kind, packet[at + 4 : at + 4 + length])
        at += 4 + length + (-length % 4)
    return found


def rest_login(secret, user):
    """TURN REST credentials, valid for two days."""
    name = f"{int(time.time()) + 2 * 86400}:{user}"
    return name, base64.b64encode(hmac.digest(secret.encode(), name.encode(), "sha1")).decode()


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def client_hello():
    """A ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        tls_context().wrap_bio(incoming, outgoing, server_hostname="relay.test").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def connected(transport, server, source, receive_buffer=0):
    """A socket connected to the server, after the TLS handshake if there is one."""
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    one = socket.socket(socket.AF_INET, kind)
    try:
        if receive_buffer:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        one.settimeout(PATIENCE)
        one.bind((source, 0))
        one.connect(server)
        if transport != "udp":
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return tls_context().wrap_socket(one, server_hostname="relay.test") if transport == "tls" else one
    except OSError:
        one.close()
        raise


class Cutter:
    """Splits a byte stream into messages."""

    def __init__(self):
        self.bytes = b""

    def feed(self, data):
        self.bytes += data
        whole = []
        while len(self.bytes) >= 4:
            length = struct.unpack_from(">H", self.bytes, 2)[0]
            length = 20 + length if self.bytes[0] < 0x40 else 4 + length + (-length % 4)
            if len(self.bytes) < length:
                break
            whole.append(self.bytes[:length])
            self.bytes = self.bytes[length:]
        return whole


class Client:
    """A blocking client."""

    def __init__(self, transport, server, source, login, receive_buffer=0):
        self.transport, self.login = transport, login
        self.socket = connected(transport, server, source, receive_buffer)
        self.key, self.realm, self.nonce, self.relayed = None, b"", b"", None
        self.cutter, self.waiting = Cutter(), []

    def close(self):
        self.socket.close()

    def receive(self, until):
        while not self.waiting:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            data = self.socket.recv(65536)
            if self.transport == "udp":
                return data
            if not data:
                raise Refused("closed")
            self.waiting = self.cutter.feed(data)
        return self.waiting.pop(0)

    def answer(self, packet):
        """Sends a request, over UDP up to three times, and returns its answer."""
        for wait in (0.5, 1.0, 2.0) if self.transport == "udp" else (PATIENCE,):
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(packet)
            until = time.monotonic() + wait
            try:
                while True:
                    got = self.receive(until)
                    if got[4:20] == packet[4:20]:
                        return got
            except TimeoutError:
                pass
        raise Refused("no answer")

    def credentials(self):
        name = attribute(USERNAME, self.login[0].encode())
        return name + attribute(REALM, self.realm) + attribute(NONCE, self.nonce)

    def request(self, method, body):
        """Sends a request, answers challenges (401 and 438), and returns the attributes of the answer."""
        code = 0
        for _ in range(3):
            if self.key is None:
                packet = message(method, body)
            else:
                packet = signed(method, body + self.credentials(), self.key)
            got = self.answer(packet)
            found = attributes(got)
            if not got[1] & 0x10:
                return found
            code = found[ERROR_CODE][2] * 100 + found[ERROR_CODE][3]
            if code not in (401, 438) or (code == 401 and self.key is not None):
                break
            self.realm, self.nonce = found.get(REALM, self.realm), found[NONCE]
            text = f"{self.login[0]}:{self.realm.decode()}:{self.login[1]}"
            self.key = hashlib.md5(text.encode()).digest()
        raise Refused(f"{method:#x}: {code}")

    def allocate(self):
        found = self.request(ALLOCATE, attribute(REQUESTED_TRANSPORT, UDP))
        self.relayed = unxor_address(found[XOR_RELAYED_ADDRESS])
        return self

    def bind(self, number, peer):
        """Binds a channel, which also creates a permission (RFC 8656 section 12)."""
        body = attribute(CHANNEL_NUMBER, struct.pack(">HH", number, 0)) + attribute(XOR_PEER_ADDRESS, xor_address(peer))
        self.request(CHANNEL_BIND, body)
        return self

    def refresh(self, seconds):
        self.request(REFRESH, attribute(LIFETIME, struct.pack(">I", seconds)))
