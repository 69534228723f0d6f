# A firewall that opens every TLS connection redirected to it, with a certificate of its own, and forwards what is HTTP.
#   argv: port, files with its certificate and key, the server's name
import select, socket, ssl, struct, sys, threading

port, name = int(sys.argv[1]), sys.argv[4]
own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
own.load_cert_chain(sys.argv[2], sys.argv[3])
own.set_alpn_protocols(['http/1.1'])
onwards = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
onwards.check_hostname, onwards.verify_mode = False, ssl.CERT_NONE
onwards.set_alpn_protocols(['http/1.1'])


def forward(client, server):
    """Copies both ways in one thread: an SSL socket is not safe to use in two."""
    while True:
        ready = [end for end in (client, server) if end.pending()] or select.select((client, server), (), (), 60)[0]
        if not ready:
            return
        for end in ready:
            data = end.recv(65536)
            if not data:
                return
            (server if end is client else client).sendall(data)


def serve(flow):
    packed = flow.getsockopt(socket.SOL_IP, 80, 16)  # SO_ORIGINAL_DST
    address = (socket.inet_ntoa(packed[4:8]), struct.unpack('>H', packed[2:4])[0])
    try:
        flow.settimeout(30)
        client = own.wrap_socket(flow, server_side=True)
        data = client.recv(65536)
        if not data[:4] in (b'GET ', b'POST', b'HEAD'):
            print('refused', data[:4], flush=True)
            return client.close()
        server = onwards.wrap_socket(socket.create_connection(address, 5), server_hostname=name)
        print('opened', data[:20], flush=True)
        server.sendall(data)
        forward(client, server)
        client.close()
        server.close()
    except OSError:
        pass
    finally:
        flow.close()


listener = socket.create_server(('0.0.0.0', port), backlog=64)
print('bound', flush=True)
while True:
    flow, _ = listener.accept()
    threading.Thread(target=serve, args=(flow,), daemon=True).start()
