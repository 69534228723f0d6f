"""Runs a command, and disturbs it once its output has a text. Arguments: how, the text, the command for sh. Makes the file
`disturbed` once it has done so for the first time.

terminal  the command has a terminal, which closes
keys      the command has a terminal, where Ctrl-C is pressed until it ends
reader    the command writes into a pipe that nobody reads any more
"""

import os
import pty
import select
import sys

how, text, command = sys.argv[1:]
if how == "reader":
    end, other = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(other, 1)
        os.dup2(other, 2)
        os.close(end)
        os.execvp("sh", ["sh", "-c", command])
    os.close(other)
else:
    pid, end = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", command])


def read():
    try:
        return os.read(end, 4096)
    except OSError:
        # The last process of a terminal has ended.
        return b""



def disturbed():
    open("disturbed", "w").close()


seen = b""
while text.encode() not in seen:
    more = read()
    if not more:
        sys.exit(f"it ended before it wrote {text}:\n{seen.decode()}")
    seen += more
if how == "keys":
    while True:
        try:
            os.write(end, b"\x03")
        except OSError:
            break
        disturbed()
        ready, _, _ = select.select([end], [], [], 0.05)
        if ready:
            more = read()
            if not more:
                break
            seen += more
else:
    os.close(end)
    disturbed()
os.waitpid(pid, 0)
sys.stdout.write(seen.decode(errors="replace"))
