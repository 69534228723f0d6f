# A long link: forwards frames between two interfaces with a delay, and drops some.
#   argv: the two interfaces, milliseconds one way, percent dropped
import collections, random, select, socket, sys, time

names, delay, loss = sys.argv[1:3], float(sys.argv[3]) / 1000, float(sys.argv[4]) / 100
random.seed(7)
ends = []
for name in names:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.bind((name, 0))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    ends.append(end)
waiting = collections.deque()
print('bound', flush=True)
while True:
    wait = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    for end in select.select(ends, [], [], wait)[0]:
        frame, address = end.recvfrom(65536)
        # The socket also receives copies of the frames that it sends, marked as outgoing.
        if address[2] != socket.PACKET_OUTGOING and random.random() >= loss:
            waiting.append((time.monotonic() + delay, ends[1 - ends.index(end)], frame))
    while waiting and waiting[0][0] <= time.monotonic():
        _, other, frame = waiting.popleft()
        try:
            other.send(frame)
        except OSError:
            pass
