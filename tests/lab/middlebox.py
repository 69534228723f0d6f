# A firewall that inspects every TCP flow redirected to it, and forwards or resets it.
#   argv: port, allowed name, and any of: prober (the server must be a website), web (only connections that offer HTTP in
# their ClientHello), cut=SECONDS (the age at which the
# first flow and those started within five seconds of it are reset)
import socket, ssl, struct, sys, threading, time

port, allowed = int(sys.argv[1]), sys.argv[2].encode()
options = dict(word.partition('=')[::2] for word in sys.argv[3:])
cut_after = float(options.get('cut', 0))
first = None
# Flows to be reset by the thread that reads from them.
dead = set()


def reset(*flows):
    for flow in flows:
        try:
            flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            # Wakes the thread that reads from the socket and would otherwise keep it open.
            flow.shutdown(socket.SHUT_RD)
        except OSError:
            pass
        try:
            flow.close()
        except OSError:
            pass


def server_name(hello):
    """SNI of a whole ClientHello in one or more records; None: incomplete; False: no SNI or no ClientHello."""
    message, rest = b'', hello
    while len(rest) >= 5:
        if rest[0] != 22 or rest[1] != 3:
            return False
        length = struct.unpack('>H', rest[3:5])[0]
        message, rest = message + rest[5:5 + length], rest[5 + length:]
    if hello[:1] not in (b'', b'\x16') or message[:1] not in (b'', b'\x01'):
        return False
    if len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], 'big'):
        return None
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at:at + 2], 'big')
    at += 1 + message[at]
    end = at + 2 + int.from_bytes(message[at:at + 2], 'big')
    at += 2
    while at + 4 <= end:
        kind, length = struct.unpack('>HH', message[at:at + 4])
        if kind == 0:
            return message[at + 9:at + 4 + length]
        at += 4 + length
    return False


def is_website(address):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(address, 5) as plain, context.wrap_socket(plain, server_hostname=allowed.decode()) as tls:
            tls.sendall(b'GET / HTTP/1.1\r\nHost: ' + allowed + b'\r\nConnection: close\r\n\r\n')
            return tls.recv(12).startswith(b'HTTP/1.1 ')
    except OSError:
        return False


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        if source in dead:
            return reset(source, sink)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        reset(source, sink)


def serve(flow):
    packed = flow.getsockopt(socket.SOL_IP, 80, 16)  # SO_ORIGINAL_DST
    address = (socket.inet_ntoa(packed[4:8]), struct.unpack('>H', packed[2:4])[0])
    hello, name = b'', None
    try:
        flow.settimeout(10)
        while name is None:
            data = flow.recv(65536)
            if not data:
                return reset(flow)
            hello += data
            name = server_name(hello)
        no_http = 'web' in options and b'http/1.1' not in hello
        if name != allowed or no_http or ('prober' in options and not is_website(address)):
            print('refused', address, hello[:8], name, flush=True)
            return reset(flow)
        print('passed', address, name, flush=True)
        onwards = socket.create_connection(address, 5)
        onwards.sendall(hello)
        flow.settimeout(None)
        onwards.settimeout(None)
        for side in (flow, onwards):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        return reset(flow)
    global first
    first = first or time.monotonic()
    if cut_after and time.monotonic() < first + 5:
        threading.Timer(cut_after, reset_both, (flow, onwards)).start()
    threading.Thread(target=copy, args=(flow, onwards), daemon=True).start()
    copy(onwards, flow)


def reset_both(flow, onwards):
    print('reset', flush=True)
    dead.update((flow, onwards))
    for side in (flow, onwards):
        try:
            # Wakes the thread that reads from the socket, which then resets it.
            side.shutdown(socket.SHUT_RD)
        except OSError:
            pass


listener = socket.create_server(('0.0.0.0', port), backlog=64)
print('bound', flush=True)
while True:
    flow, _ = listener.accept()
    threading.Thread(target=serve, args=(flow,), daemon=True).start()
