"""An operator, a broker, a package server and a node: runs a script and judges the end."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from host_sim import ctrl_c, sample
from host_sim.campaigns.campaign import Outcome
from host_sim.campaigns.orders import script
from host_sim.campaigns.orders.broker import PUBLISH, Broker
from host_sim.campaigns.orders.judge import Order, judge
from host_sim.campaigns.orders.script import Act, Script, Wake
from host_sim.node import flash
from host_sim.node.node import Node, Run
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY

#: What a node may wait for a move of the network; shorter where the broker never answers.
TIMEOUT_S, SILENT_TIMEOUT_S = 5, 0.5
WAKE_TIMEOUT_S = 60
#: Wakes without any trouble until there is nothing left to do.
GOOD_WAKES = 12


class Server:
    """A context manager: a port at which each connection says a line, and something is done."""

    def __init__(self, answer) -> None:
        self._answer = answer

    def __enter__(self) -> Server:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            line = connection.makefile("rb").readline().strip()
            if line:
                connection.sendall(self._answer(line))


class Bench:
    """A context manager: a broker, and flashed nodes for one script after the other."""

    def __init__(self, firmware: Path = flash.FIRMWARE) -> None:
        self._firmware = firmware

    def __enter__(self) -> Bench:
        logging.getLogger("littlefs").setLevel(logging.WARNING)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ctrl_c.memory())))
            self.broker = stack.enter_context(Broker())
            self.image = folder / "node.img"
            self._flashed = {
                (report, client): self._flash(folder / f"{report}{client}", report, client)
                for report in ("installed", "confirmed")
                for client in (False, True)
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _flash(self, root: Path, report: str, client: bool) -> bytes:
        config = {
            "device_id": DEVICE_ID,
            "device_key": DEVICE_KEY,
            "control_channel": CONTROL_CHANNEL,
            "mqtt": {"host": "127.0.0.1", "tls": False, "grace_ms": 2},
            "report": report,
            "max_attempts": 30,
            "trial_boots": 9,
        }
        tree = script.old_tree(client) | {"ota.json": json.dumps(config).encode()}
        sample.write_tree(tree, root)
        flash.build(root, self.image, blocks=112, mpy=True, firmware=self._firmware)
        return self.image.read_bytes()

    def run(self, seed: int) -> Outcome:
        """Run the script of a seed."""
        return self.play(script.make(seed))

    def play(self, play: Script) -> Outcome:
        """Run a script."""
        self.image.write_bytes(self._flashed[play.report, play.client])
        self.broker.begin()
        with Performance(self, play) as performance:
            return performance.run()


class Performance:
    """One script on a bench."""

    def __init__(self, bench: Bench, play: Script) -> None:
        self._bench, self._broker, self._play = bench, bench.broker, play
        self._node = Node(bench.image, mtime=False)
        self._orders: list[Order] = []
        self._acts: dict[str, list[Act]] = {}
        self._first = 0
        self._outcome = Outcome(play.seed, [])
        self._text = [str(play)]

    def __enter__(self) -> Performance:
        with contextlib.ExitStack() as stack:
            self._steps = stack.enter_context(Server(self._on_step))
            self._packages = stack.enter_context(Server(self._on_download))
            self._stack = stack.pop_all()
        self._broker.refusal = self._play.refusal
        self._broker.before = lambda number, kind: self._on_packet("before", number, kind)
        self._broker.after = lambda number, kind: self._on_packet("after", number, kind)
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.before = self._broker.after = lambda _number, _kind: True
        self._broker.refusal = ""
        self._stack.close()

    def run(self) -> Outcome:
        """All wakes, and the judgement."""
        outcome, broker = self._outcome, self._broker
        began = time.monotonic()
        cause = "power_on"
        for wake in self._play.wakes:
            run = self._wake(wake, cause)
            cause = "power_on" if "power_cut" in run.names() else "deepsleep"
        self._rest(cause)
        if self._play.refusal:
            # Somebody lets the node do it after all. But it does not try again what has cost an
            # application its connection: then the operator does it.
            broker.refusal = ""
            if self._play.client and self._play.refusal == "closes":
                broker.retain(b"")
            self._rest("deepsleep")
        if broker.retained:
            outcome.wrong.append(f"still retained: {broker.retained!r}")
        left = [p for p in flash.read_tree(self._node.image) if p.startswith("/.ota")]
        if left:
            outcome.wrong.append(f"left behind: {left}")
        with broker.lock:
            ends, wrong = judge(self._orders, broker.story, self._play.report)
        outcome.wrong += wrong
        outcome.ends = Counter(end.name for end in ends)
        outcome.seconds = time.monotonic() - began
        self._text += [str(change) for change in broker.story]
        self._text += [f"end: {end}" for end in ends]
        outcome.story = "\n".join(self._text)
        return outcome

    def _rest(self, cause: str) -> None:
        """Good wakes until there is nothing left to do."""
        for _ in range(GOOD_WAKES):
            run = self._wake(Wake(()), cause)
            cause = "deepsleep"
            if run.output.endswith("check: idle None\n") and not run.ops:
                return
        self._outcome.wrong.append(f"not at rest after {GOOD_WAKES} good wakes")

    def _wake(self, wake: Wake, cause: str) -> Run:
        self._acts = {}
        for act in wake.acts:
            self._acts.setdefault(act.moment, []).append(act)
        self._first = self._broker.packets
        self._act("start")
        silent = self._play.refusal == "silent"
        self._node.environ = {
            "STEP_PORT": str(self._steps.port),
            "PACKAGE_PORT": str(self._packages.port),
            "MQTT_PORT": str(self._broker.port),
            "TIMEOUT_S": str(SILENT_TIMEOUT_S if silent else TIMEOUT_S),
        }
        options = {}
        if wake.cut:
            options = {"cut": wake.cut[0], "torn": wake.cut[1], "seed": self._play.seed}
        run = self._node.run(wakes=1, timeout_s=WAKE_TIMEOUT_S, cause=cause, **options)
        outcome, names = self._outcome, run.names()
        outcome.wakes += 1
        outcome.boots += run.boots
        outcome.power_cuts += "power_cut" in names
        self._text += [f"-- wake {outcome.wakes}: {' '.join(names)}", run.output.strip()]
        if "power_cut" in names:
            self._note("power")
        if "timeout" in names:
            outcome.wrong.append(f"timeout in wake {outcome.wakes}")
        for traceback in run.output.split("Traceback")[1:]:
            if "ZeroDivisionError" not in traceback:
                outcome.wrong.append(f"traceback: {traceback[:300]}")
        return run

    # -- what happens --------------------------------------------------------------------------

    def _note(self, what: str, payload: bytes = b"") -> None:
        with self._broker.lock:
            self._broker.note(what, payload)

    def _on_step(self, line: bytes) -> bytes:
        self._note("step", line)
        self._act(line.split(b" ")[0].decode())
        return b"."

    def _on_download(self, line: bytes) -> bytes:
        self._note("download", line)
        fuid = line.decode()
        return next(o.package.archive() for o in self._orders if o.fuid == fuid)

    def _on_packet(self, when: str, number: int, kind: int) -> bool:
        if when == "before" and kind == PUBLISH:
            self._note("clearing")
        return self._act(f"{when} {number - self._first}")

    def _act(self, moment: str) -> bool:
        """Do what the script has for this moment. False: the connection ends."""
        goes_on = True
        for act in self._acts.pop(moment, ()):
            with self._broker.lock:
                for move in act.moves:
                    goes_on &= self._move(move)
        return goes_on

    def _move(self, move: str) -> bool:
        if move == "ask":
            self._ask()
        elif move == "cancel":
            # The console shows nothing to cancel where nothing is retained.
            if self._broker.retained:
                self._gone()
                self._broker.retain(b"")
        elif move == "again":
            if self._broker.retained:
                self._broker.retain(self._broker.retained)
        elif move == "power":
            self._node.cut_power()
        else:
            self._note("end")
            return False
        return True

    def _ask(self) -> None:
        package = self._play.packages[len(self._orders)]
        fuid = f"{self._play.seed:x}-{package.version}"
        pack = [
            {"n": "e", "v": 0},
            {"n": "i", "vs": fuid},
            {"n": "t", "vs": ".tar.gz"},
            {"n": "s", "v": len(package.archive())},
        ]
        payload = json.dumps(pack, separators=(",", ":")).encode()
        self._gone()
        self._orders.append(Order(fuid, package, payload, self._broker.now()))
        self._broker.retain(payload)

    def _gone(self) -> None:
        """Nobody wants what was asked for before."""
        for order in self._orders:
            if order.gone is None:
                order.gone = self._broker.now()
