# An HTTP proxy with CONNECT only, and only to the ports that proxies usually allow.
#   argv: the address to listen on, the address of relay.test
import socket, sys, threading

names = {'relay.test': sys.argv[2]}


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(flow):
    try:
        head = b''
        while b'\r\n\r\n' not in head:
            data = flow.recv(4096)
            if not data:
                return
            head += data
        method, target = head.split()[:2]
        host, _, port = target.decode().rpartition(':')
        if method != b'CONNECT' or port not in ('80', '443'):
            print('refused', method, target, flush=True)
            return flow.sendall(b'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
        onwards = socket.create_connection((names.get(host, host), int(port)), 5)
        print('connected', target, flush=True)
        flow.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n')
        onwards.sendall(head.split(b'\r\n\r\n', 1)[1])
        threading.Thread(target=copy, args=(flow, onwards), daemon=True).start()
        copy(onwards, flow)
    except OSError:
        pass
    finally:
        flow.close()


listener = socket.create_server((sys.argv[1], 3128), backlog=64)
print('bound', flush=True)
while True:
    flow, _ = listener.accept()
    threading.Thread(target=serve, args=(flow,), daemon=True).start()
