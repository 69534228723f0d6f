"""Runs `hallpass top` in a terminal of 80 by 24, presses keys, and checks that it leaves the terminal as it was.

top.py PROGRAM ADMIN_ADDRESS SERVER_PID
"""

import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import time

PROGRAM, ADMIN, SERVER = sys.argv[1], sys.argv[2], int(sys.argv[3])
LIMIT = 20
# CIBAUD of termios(3).
INPUT_SPEED = 0o02003600000
LEFT = b"\x1b[?1049l"
COLOUR = re.compile(rb"\x1b\[[0-9;]*\b(38;5;|3[0-7]m)")


def modes(terminal):
    """The modes of a terminal, without the speed of its input, which a terminal without a line does not have."""
    found = termios.tcgetattr(terminal)
    found[2] &= ~INPUT_SPEED
    return found


class Top:
    """The program as a job of a small shell in a terminal of its own. The terminal stays open, so that its modes can be read
    afterwards."""

    def __init__(self, **environment):
        self.main, self.terminal = os.openpty()
        self.resize(24, 80)
        self.modes = modes(self.terminal)
        self.output = b""
        self.shell = os.fork()
        if self.shell == 0:
            os.setsid()
            fcntl.ioctl(self.terminal, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(self.terminal, number)
            # The shell hands the terminal to its job, and takes it back from the background.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.environ.pop("NO_COLOR", None)
            os.environ.update(TERM="xterm-256color", **environment)
            self.run_job()

    def run_job(self):
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execv(PROGRAM, [PROGRAM, "top", "--interval", "1", "--admin", ADMIN])
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                os._exit(os.waitstatus_to_exitcode(status))
            restored = modes(0) == self.modes
            os.write(1, b"<stopped, restored>" if restored else b"<stopped in raw mode>")
            os.kill(job, signal.SIGCONT)

    def signal(self, number):
        """Sends a signal to the job."""
        os.kill(os.tcgetpgrp(self.main), number)

    def resize(self, lines, columns):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, *words):
        """Waits until the program has written all these words, then forgets what it wrote up to them.

        A word is found only where the screen was blank or had another style: cells that do not change are not written.
        """
        end = time.monotonic() + LIMIT
        while not all(word in self.output for word in words):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.main], [], [], left)[0]:
                sys.exit(f"no {words} in:\n{self.output!r}")
            self.output += os.read(self.main, 65536)
        end = max(self.output.index(word) + len(word) for word in words)
        seen, self.output = self.output[:end], self.output[end:]
        return seen

    def press(self, keys):
        os.write(self.main, keys)

    def ends(self):
        """Waits until it has left its screen and ended, and compares the modes of the terminal."""
        self.wait_for(LEFT, b"\x1b[?25h")
        _, status = os.waitpid(self.shell, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert modes(self.terminal) == self.modes, "the modes of the terminal are not restored"
        os.close(self.main)
        os.close(self.terminal)


# Keys: the sessions, one in detail, a filter, help, a pause, and the end.
top = Top()
seen = top.wait_for(b"\x1b[?1049h", b"SESSIONS", b"descriptors", b"ready")
assert COLOUR.search(seen), "colours are used unless NO_COLOR is set"
top.press(b"2")
top.wait_for(b"w_ann", b"w_bob")
top.press(b"\r")
top.wait_for(b"permissions:", b"127.0.0.1")
top.press(b"\x1b")
top.wait_for(b"CLIENT")
top.press(b"/bob\r")
top.wait_for(b'only "bob')
top.press(b"?")
top.wait_for(b"control-z")
top.press(b"p")
top.wait_for(b"PAUSED")
# Control-Z gives the terminal back, and a continued program takes it again.
top.press(b"\x1a")
top.wait_for(LEFT, b"<stopped, restored>")
top.wait_for(b"\x1b[?1049h", b"control-z")
top.press(b"q")
top.ends()

# A paste without an end swallows keys, but not control-c.
top = Top()
top.wait_for(b"SESSIONS", b"descriptors")
top.press(b"\x1b[200~text")
top.press(b"q")
top.press(b"\x03")
top.ends()

# A signal ends it as well; and without colours, on a terminal that becomes small.
top = Top(NO_COLOR="1")
seen = top.wait_for(b"SESSIONS", b"descriptors")
top.resize(10, 40)
seen += top.wait_for(b"VIA")
assert not COLOUR.search(seen), seen
top.signal(signal.SIGTERM)
top.ends()

# The server goes away.
top = Top()
top.wait_for(b"SESSIONS", b"descriptors")
os.kill(SERVER, signal.SIGKILL)
top.wait_for(b"ANSWER")
top.press(b"\x03")
top.ends()
