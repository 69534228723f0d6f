"""A probe: a client that sends numbered datagrams to itself through the relay and reports how long they took."""

import os
import select
import socket
import ssl
import struct
import time

from .turn import CHANNEL_BIND, Client, Cutter, Refused, attribute, attributes, channel_data, rest_login, signed
from .turn import xor_address
from .turn import CHANNEL_NUMBER, LIFETIME, NONCE, REFRESH, XOR_PEER_ADDRESS

CHANNEL = 0x4000
PERIOD = 0.04
SIZE = 160
# Seconds after which a datagram counts as lost.
LOST = 2.0
REPORT = 0.5
KEEPALIVE = 20.0


def run(transport, plan, pipe, stopped):
    """Probes until `stopped` is set. After a failure it reports the failure and connects again."""
    while not stopped.is_set() and os.getppid() == plan.parent:
        try:
            probe(transport, plan, pipe, stopped)
        except (OSError, Refused, ssl.SSLError, KeyError) as error:
            pipe.send({"failure": f"probe over {transport}: {error!r}"})
            stopped.wait(1.0)


def probe(transport, plan, pipe, stopped):
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((plan.peer, 0))
    peer.setblocking(False)
    client = Client(transport, plan.servers[transport], plan.client, rest_login(plan.secret, f"probe-{transport}"))
    client.allocate().bind(CHANNEL, peer.getsockname())
    client.socket.setblocking(False)
    cutter, out = Cutter(), b""
    flying, times, lost, number = {}, [], 0, 0
    now = time.monotonic()
    due, reported, refreshed = now, now, now
    while not stopped.is_set() and os.getppid() == plan.parent:
        now = time.monotonic()
        if now >= due:
            # After a pause, the missed datagrams are not sent in a burst.
            due = max(due + PERIOD, now - PERIOD)
            number += 1
            payload = struct.pack(">QQ", number, time.monotonic_ns()).ljust(SIZE, b".")
            flying[number] = now
            out += channel_data(CHANNEL, payload)
        if now >= refreshed + KEEPALIVE:
            refreshed = now
            bind = attribute(CHANNEL_NUMBER, struct.pack(">HH", CHANNEL, 0))
            bind += attribute(XOR_PEER_ADDRESS, xor_address(peer.getsockname()))
            for method, body in ((REFRESH, attribute(LIFETIME, struct.pack(">I", 600))), (CHANNEL_BIND, bind)):
                request = signed(method, body + client.credentials(), client.key)
                if transport == "udp":
                    client.socket.send(request)
                else:
                    out += request
        if out:
            out = out[written(client.socket, out) :]
        if now >= reported + REPORT:
            gone = [key for key, at in flying.items() if now - at > LOST]
            for key in gone:
                del flying[key]
            pipe.send({"us": times, "lost": lost + len(gone)})
            times, lost, reported = [], 0, now
        buffered = isinstance(client.socket, ssl.SSLSocket) and client.socket.pending()
        wait = 0 if buffered else max(due - time.monotonic(), 0)
        readable, _, _ = select.select([client.socket, peer], [], [], wait)
        if peer in readable:
            echo(peer, client.relayed)
        if client.socket in readable or buffered:
            for packet in arrived(client, cutter):
                if packet[0] == CHANNEL >> 8:
                    sequence, at = struct.unpack_from(">QQ", packet, 4)
                    if flying.pop(sequence, None) is not None:
                        times.append((time.monotonic_ns() - at) / 1000)
                elif packet[0] < 0x40 and NONCE in attributes(packet):
                    # 438: a nonce is valid for an hour.
                    client.nonce, refreshed = attributes(packet)[NONCE], 0
    client.socket.setblocking(True)
    client.refresh(0)
    client.close()
    peer.close()


def written(one, out):
    try:
        return one.send(out)
    except (BlockingIOError, ssl.SSLWantWriteError):
        return 0


def echo(peer, relayed):
    try:
        while True:
            data, _ = peer.recvfrom(2048)
            peer.sendto(data, relayed)
    except BlockingIOError:
        pass


def arrived(client, cutter):
    packets = []
    try:
        while True:
            data = client.socket.recv(65536)
            if client.transport == "udp":
                packets.append(data)
            elif data:
                packets += cutter.feed(data)
            else:
                raise Refused("closed")
    except (BlockingIOError, ssl.SSLWantReadError):
        return packets
