# A firewall that opens every TLS connection redirected to it with a certificate of its own, and forwards what is inside.
#   argv: port, certificate, key
import select, socket, ssl, struct, sys, threading

inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
inside.load_cert_chain(sys.argv[2], sys.argv[3])
outside = ssl.create_default_context()
outside.check_hostname, outside.verify_mode = False, ssl.CERT_NONE


def forward(ends):
    """Copies both ways until one end closes, on one thread, because an SSL object is not for two."""
    for end in ends:
        end.setblocking(False)
    while True:
        for source in select.select(ends, [], [])[0]:
            sink = ends[1 - ends.index(source)]
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
                return
            except ssl.SSLWantReadError:
                pass


def serve(flow):
    packed = flow.getsockopt(socket.SOL_IP, 80, 16)  # SO_ORIGINAL_DST
    address = (socket.inet_ntoa(packed[4:8]), struct.unpack('>H', packed[2:4])[0])
    try:
        client = inside.wrap_socket(flow, server_side=True)
        server = outside.wrap_socket(socket.create_connection(address, 5))
    except OSError as error:
        print('failed', error, flush=True)
        return flow.close()
    print('opened', address, flush=True)
    try:
        forward([client, server])
    except OSError:
        pass
    for end in (client, server):
        end.close()


listener = socket.create_server(('0.0.0.0', int(sys.argv[1])), backlog=64)
print('bound', flush=True)
while True:
    flow, _ = listener.accept()
    threading.Thread(target=serve, args=(flow,), daemon=True).start()
