"""Runs a command at a terminal of its own and types answers to what it asks.

Its one argument is JSON: {"command": [...], "steps": [[TEXT, ANSWER], ...]}. Each ANSWER is typed once TEXT has
appeared; "signal:NAME" sends that signal to the command instead. Prints JSON: what appeared, how the command
ended, whether the terminal echoes afterwards, and how many processes are left of it.
"""

import fcntl
import json
import os
import pty
import select
import signal
import sys
import termios
import time

DEADLINE = time.monotonic() + 60


def session_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[3])


def left_of(session):
    return sum(session_of(pid) == session for pid in os.listdir("/proc") if pid.isdigit())


def appeared(terminal, shown):
    """What appears next, within a moment."""
    assert time.monotonic() < DEADLINE, f"not in time; so far: {shown}"
    if not select.select([terminal], [], [], 0.2)[0]:
        return ""
    return os.read(terminal, 4096).decode(errors="replace")


spec = json.loads(sys.argv[1])
# Our own side of it stays open, so that its settings outlive the command.
terminal, own = pty.openpty()
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(own, termios.TIOCSCTTY, 0)
    for descriptor in range(3):
        os.dup2(own, descriptor)
    os.closerange(3, 64)
    os.execvp(spec["command"][0], spec["command"])

shown, at = "", 0
for text, answer in spec["steps"]:
    while text not in shown[at:]:
        shown += appeared(terminal, shown)
        assert text in shown[at:] or os.waitpid(child, os.WNOHANG) == (0, 0), f"no {text!r} in {shown!r}"
    at = shown.index(text, at) + len(text)
    if answer.startswith("signal:"):
        os.kill(child, getattr(signal, answer.removeprefix("signal:")))
    else:
        os.write(terminal, answer.encode())

ended = (0, 0)
while ended == (0, 0):
    shown += appeared(terminal, shown)
    ended = os.waitpid(child, os.WNOHANG)
while more := appeared(terminal, shown):
    shown += more
echoes = bool(termios.tcgetattr(own)[3] & termios.ECHO)
while left_of(child) and time.monotonic() < DEADLINE - 40:
    time.sleep(0.01)
code = os.waitstatus_to_exitcode(ended[1])
print(json.dumps({"shown": shown, "code": code, "echoes": echoes, "left": left_of(child)}))
