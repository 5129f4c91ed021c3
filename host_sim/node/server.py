"""Starts MicroPython in under a millisecond: a small process that forks itself, ready to run.

Run as a script by :mod:`host_sim.node.process`; it imports nothing else of the project, has one
thread, and ends, with all its children, when the other end of its socket closes.

Requests are JSON lines: ``{"spawn": argv, "env": {…}}`` with the child's file descriptors attached
(they become 0, 1, 2, … in the child) answers ``{"pid": N}``; ``{"end": pid}`` kills a child that
still runs and answers ``{"status": N}``. A process id stays valid until its ``end``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from pathlib import Path

MAX_FDS = 16


def become_node(request: dict, fds: list[int], run_main) -> int:
    """In the child: arrange the descriptors and run the interpreter; returns its exit code."""
    # Above all targets first, so that no dup2 below closes one that is still needed.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
    os.closerange(0, 64)
    for target, fd in enumerate(high):
        os.dup2(fd, target)
    os.closerange(64, 64 + 2 * MAX_FDS)
    # A signal without effect, but it interrupts a blocking system call, and MicroPython then runs
    # due callbacks.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(request["env"])
    return run_main(request["spawn"])


def serve(channel: socket.socket, run_main) -> None:
    """Answer requests until the other side closes the socket."""
    children: set[int] = set()
    pending = b""
    while True:
        data, fds, _, _ = socket.recv_fds(channel, 65536, MAX_FDS)
        if not data:
            break
        pending += data
        if not pending.endswith(b"\n"):
            raise SystemExit("node server: request too long")
        request, pending = json.loads(pending), b""
        if "spawn" in request:
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    channel.close()
                    code = become_node(request, fds, run_main)
                finally:
                    os._exit(code & 255)
            children.add(pid)
            reply = {"pid": pid}
        else:
            pid = request["end"]
            children.discard(pid)
            os.kill(pid, signal.SIGKILL)
            reply = {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
        for fd in fds:
            os.close(fd)
        reply["number"] = request["number"]
        channel.sendall(json.dumps(reply).encode() + b"\n")
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> None:
    """``server.py FD FOLDER``: the socket's number and where the extension module lives.

    FOLDER may be an interpreter's own program instead, such as one with words of 32 bits.
    """
    program = Path(sys.argv[2])
    if program.is_file():

        def run_main(argv: list[str]) -> int:
            # A handler does not outlive exec, and this signal's default ends the process.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            os.execv(program, argv)
    else:
        sys.path.append(str(program))
        from micropython_run import run_main

    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel, run_main)


if __name__ == "__main__":
    main()
