"""Carries a rollout on from wherever its state stands: decides, visits, writes down."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from host_sim.errors import SimError
from insigh_ota.rollout.devices import Device, in_order
from insigh_ota.rollout.gates import Tally, decide
from insigh_ota.rollout.records import FINAL, OUT, Phase, Record, Sign, count
from insigh_ota.rollout.state import Store
from insigh_ota.rollout.visits import Away, Heard, Refused, Task, Transport

#: What a person and a program are told: an event's name, its fields, and the line of it.
Tell = Callable[[dict[str, Any], str], None]

#: A device that has been out for long is looked at less often: each twentieth of that time.
_AGE_SHARE = 20
#: So many visits in a row fail, over so long, before it is the broker's fault; or this device's.
_FAILURES_AWAY, _AWAY_AFTER_S, _FAILURES_DEVICE = 3, 2.0, 5
_LONGEST_PAUSE_S = 30.0
_TICK_S = 0.2
_WITHDRAW = frozenset({Phase.SENDING, Phase.ASKED, Phase.TAKEN, Phase.SILENT})
_URGENCY = (Task.WITHDRAW, Task.ASK, Task.LOOK_WELL, Task.LOOK, Task.FORGET)
_TASKS = {
    Phase.DUE: Task.ASK,
    Phase.SENDING: Task.ASK,
    Phase.ASKED: Task.LOOK,
    Phase.TAKEN: Task.LOOK,
    Phase.INSTALLED: Task.LOOK,
    Phase.SILENT: Task.LOOK,
    Phase.LOST: Task.LOOK,
    Phase.WITHDRAWING: Task.WITHDRAW,
}


class Runner:
    """One process's part of a rollout; the `Book` of its visits."""

    def __init__(
        self,
        store: Store,
        devices: Sequence[Device],
        transport: Transport,
        tell: Tell,
        *,
        connections: int,
        look_every: float,
        keep_requests: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._state = store, store.state
        self._lock = store.lock
        self._devices = {device.id: device for device in devices}
        self._order = in_order(devices, self._state.seed)
        self._transport, self._tell = transport, tell
        self._connections, self._look_every = connections, look_every
        self._keep_requests = keep_requests
        self._time = clock
        self._wake = threading.Event()
        self._interrupted = False
        self._fatal: Exception | None = None
        self._visited: set[str] = set()
        self._next: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._in_a_row = self._decided = 0
        self._first_failure = self._away_since = 0.0
        # Nothing is decided before all that happened meanwhile has been heard.
        self._unheard = {one for one, r in self._state.records.items() if r.phase in OUT}

    # -- what a person wants ---------------------------------------------------------------------

    def go_on(self) -> None:
        """After a stop: the bad ends so far have been looked at."""
        with self._lock:
            if self._state.stage == "stopped":
                self._state.stage, self._state.why = "running", ""
            for record in self._state.records.values():
                record.seen = record.phase in (Phase.FAILED, Phase.SILENT, Phase.LOST)
            self._store.changed(*self._state.records)
        self._store.commit()

    def cancel(self) -> None:
        """Withdraw all that is out; the rollout is over."""
        with self._lock:
            self._state.stage = "cancelled"
            self._withdraw()
        self._store.commit()

    def interrupt(self) -> None:
        """End soon; requests stay where they are. For a signal's handler: it takes no lock."""
        self._interrupted = True

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the rollout is over or stopped, or was interrupted. Raises SimError."""
        try:
            while not self._interrupted and self._fatal is None:
                self._wake.clear()
                self._decide()
                tasks = self._due_tasks()
                if tasks:
                    self._transport.start(tasks, self)
                elif self._is_finished():
                    break
                self._wake.wait(_TICK_S)
        finally:
            self._transport.close()
        if self._fatal is not None:
            if isinstance(self._fatal, SimError):
                raise self._fatal
            raise RuntimeError("a visit failed") from self._fatal
        self._store.commit()

    def tallies(self) -> dict[str, Tally]:
        """How each board stands."""
        tallies = {board: Tally(len(ids)) for board, ids in self._order.items()}
        with self._lock:
            for one, record in self._state.records.items():
                count(tallies[self._devices[one].board], record)
        return tallies

    def _now(self) -> float:
        """The rollout's clock: it stands still while the broker is away."""
        gone = self._time() - self._away_since if self._away_since else 0.0
        return self._time() - self._state.away - gone

    def _decide(self) -> None:
        with self._lock:
            if self._state.stage != "running" or self._unheard or self._away_since:
                return
            if self._store.version == self._decided:
                return
            self._decided = self._store.version
            tallies = self.tallies()
            decision = decide(tallies, self._state.rules)
            if decision.stop:
                self._stop(decision.stop)
            elif decision.over:
                self._state.stage = "done"
                self._store.changed()
            elif decision.ask:
                self._choose(decision.ask)
            else:
                return
        self._store.commit()
        if decision.ask and not decision.stop:
            self._tell_step(decision.wave, decision.ask, tallies)

    def _choose(self, wanted: Mapping[str, int]) -> None:
        now, records = self._now(), self._state.records
        for board, number in wanted.items():
            withdrawn, new = [], []
            for one in self._order[board]:
                if one not in records:
                    new.append(one)
                elif records[one].phase is Phase.WITHDRAWN:
                    withdrawn.append(one)
            for one in (withdrawn + new)[:number]:
                records[one] = Record(Phase.DUE, now, now, session=True)
                self._next.pop(one, None)
                self._store.changed(one)
        self._state.steps += 1
        self._store.changed()

    def _stop(self, why: str) -> None:
        self._state.stage = "stopped"
        self._state.why = why + self._example()
        if not self._keep_requests:
            self._withdraw()
        self._store.changed()
        self._tell({"event": "stop", "why": self._state.why}, f"STOPPED: {self._state.why}")

    def _example(self) -> str:
        """The commonest reason of those that count, and one device with it."""
        found: dict[str, list[str]] = {}
        for one, record in self._state.records.items():
            if record.phase is Phase.FAILED and not record.seen:
                found.setdefault(record.text, []).append(one)
        if not found:
            return ""
        text, ids = max(found.items(), key=lambda item: len(item[1]))
        return f"; {ids[0]}: {text}"

    def _withdraw(self) -> None:
        now = self._now()
        for one, record in self._state.records.items():
            if record.phase in _WITHDRAW:
                record.phase, record.since = Phase.WITHDRAWING, now
            elif record.phase is Phase.DUE:
                record.phase, record.since = Phase.WITHDRAWN, now
            self._next.pop(one, None)
        self._store.changed(*self._state.records)

    def _due_tasks(self) -> dict[str, Task]:
        """Who is visited now, those that matter most first."""
        now = self._time()
        room = self._connections - len(self._visited)
        if self._away_since:
            room = min(room, 1 - len(self._visited))
        if room <= 0:
            return {}
        waiting: list[tuple[int, float, str, Task]] = []
        with self._lock:
            for one, record in self._state.records.items():
                at = self._next.get(one, 0.0)
                if at > now or one in self._visited:
                    continue
                task = self._task(record)
                if task is not None:
                    waiting.append((_URGENCY.index(task), at, one, task))
            chosen = heapq.nsmallest(room, waiting)
            self._visited.update(one for _, _, one, _ in chosen)
        return {one: task for _, _, one, task in chosen}

    def _task(self, record: Record) -> Task | None:
        """What is to be done for it, if its time has come."""
        stage = self._state.stage
        task = _TASKS.get(record.phase)
        if self._is_to_clear(record):
            task = Task.WITHDRAW
        if stage != "running" and task is not Task.WITHDRAW:
            task = None
        if task is None and record.session:
            over = record.phase in FINAL or stage in ("done", "cancelled")
            return Task.FORGET if over else None
        if task is Task.LOOK and self._is_overdue(record):
            return Task.LOOK_WELL
        return task

    def _is_finished(self) -> bool:
        with self._lock:
            if self._visited or self._state.stage == "running":
                return False
            records = self._state.records.values()
            if any(r.phase is Phase.WITHDRAWING or self._is_to_clear(r) for r in records):
                return False
            forget = self._state.stage in ("done", "cancelled")
            return not any(r.session and (forget or r.phase in FINAL) for r in records)

    def _is_to_clear(self, record: Record) -> bool:
        """A node that fell silent while it installed may find its request again, one day."""
        stage = self._state.stage
        wanted = stage == "cancelled" or (stage == "stopped" and not self._keep_requests)
        return wanted and record.phase is Phase.LOST and not record.cleared

    def _deadline(self, record: Record) -> float:
        """When its phase ends by itself, on the rollout's clock."""
        if record.phase in (Phase.ASKED, Phase.TAKEN):
            return record.since + self._state.times.silence
        if record.phase is Phase.INSTALLED:
            return record.since + self._state.times.settle
        return float("inf")

    def _is_overdue(self, record: Record) -> bool:
        return record.phase is not Phase.INSTALLED and self._now() >= self._deadline(record)

    # -- Book: what visits tell ------------------------------------------------------------------

    def heard(self, device_id: str, heard: Heard) -> None:
        """Signs, in their order."""
        device = self._devices[device_id]
        proven = (device.report or self._state.report) == "confirmed"
        with self._lock:
            record = self._state.records[device_id]
            before = record.as_json()
            for sign, text in heard:
                if sign is Sign.APPLIED and proven:
                    sign = Sign.CONFIRMED
                record.hear(sign, self._now(), text)
            if record.as_json() != before:
                self._store.changed(device_id)

    def looked(self, device_id: str, task: Task, retained: bool) -> None:
        """All that there was has been heard."""
        sign = None
        with self._lock:
            record = self._state.records[device_id]
            if task is Task.WITHDRAW and record.phase is Phase.LOST:
                record.cleared = True
                self._store.changed(device_id)
            elif task is Task.WITHDRAW:
                sign = Sign.KEPT if record.begun and not retained else Sign.CLEARED
            elif record.phase is Phase.INSTALLED and self._now() >= self._deadline(record):
                sign = Sign.SETTLED
            elif task is Task.LOOK_WELL:
                sign = Sign.OVERDUE if retained else Sign.OVERDUE_GONE
        if sign is not None:
            self.heard(device_id, [(sign, "")])

    def may_send(self, device_ids: Sequence[str], known: bool) -> list[str]:
        """Which of them get the request now."""
        chosen = []
        with self._lock:
            for one in device_ids:
                record = self._state.records[one]
                if record.phase is Phase.DUE and self._state.stage == "running":
                    record.phase, record.since = Phase.SENDING, self._now()
                elif record.phase is not Phase.SENDING:
                    continue
                elif not known:
                    # Sent or not: the broker has lost what it kept for us. Not sent twice.
                    record.phase, record.since = Phase.TAKEN, self._now()
                    self._store.changed(one)
                    continue
                self._store.changed(one)
                chosen.append(one)
        self._store.commit()
        return chosen

    def commit(self) -> None:
        """Return when all that was told is on disk."""
        self._store.commit()

    def is_over(self, device_id: str) -> bool:
        """Whether its session can go."""
        with self._lock:
            record = self._state.records[device_id]
            ended = self._state.stage in ("done", "cancelled")
            open_ = record.phase is Phase.WITHDRAWING or self._is_to_clear(record)
            return record.session and (record.phase in FINAL or (ended and not open_))

    def forgotten(self, device_id: str) -> None:
        """The session is gone."""
        with self._lock:
            self._state.records[device_id].session = False
            self._store.changed(device_id)

    def done(self, device_id: str, error: Exception | None) -> None:
        """The visit is over."""
        with self._lock:
            record = self._state.records[device_id]
            if error is None:
                self._failures.pop(device_id, None)
                self._unheard.discard(device_id)
                self._next[device_id] = self._time() + self._pause(record)
                self._in_a_row = 0
                self._is_back()
            elif isinstance(error, (Away, Refused)):
                self._on_failure(device_id, record, error)
            else:
                self._fatal = error
            self._visited.discard(device_id)
        self._wake.set()

    def _pause(self, record: Record) -> float:
        """How long until the next look."""
        if record.phase not in OUT:
            return 0.0
        now = self._now()
        pause = max(self._look_every, (now - record.since) / _AGE_SHARE)
        return min(pause, max(0.0, self._deadline(record) - now))

    def _on_failure(self, device_id: str, record: Record, error: Exception) -> None:
        self._failures[device_id] += 1
        tries = self._failures[device_id]
        self._next[device_id] = self._time() + min(_LONGEST_PAUSE_S, 2.0**tries / 4)
        if isinstance(error, Refused):
            self._in_a_row = 0
            self._is_back()
            if record.phase is Phase.DUE:
                self._give_up(device_id, record, str(error))
                return
        else:
            if not self._in_a_row:
                self._first_failure = self._time()
            self._in_a_row += 1
            lasted = self._time() - self._first_failure >= _AWAY_AFTER_S
            if self._in_a_row >= _FAILURES_AWAY and lasted and not self._away_since:
                self._away_since = self._first_failure
                text = f"the broker is away ({error}): tried again until it is back"
                self._tell({"event": "away", "why": str(error)}, text)
        if tries >= _FAILURES_DEVICE and not self._away_since:
            self._give_up(device_id, record, str(error))

    def _give_up(self, device_id: str, record: Record, why: str) -> None:
        """One device does not get through, and others do."""
        self._unheard.discard(device_id)
        before = record.phase
        if before is Phase.DUE:
            record.hear(Sign.FAILED, self._now(), f"can not connect: {why}")
            record.session = False
        elif before is Phase.WITHDRAWING:
            record.hear(Sign.KEPT, self._now(), why)
            text = f"{device_id}: its request could not be withdrawn: {why}"
            self._tell({"event": "kept", "device": device_id, "why": why}, text)
        elif self._is_to_clear(record):
            record.cleared = True
            text = f"{device_id}: its request could not be withdrawn: {why}"
            self._tell({"event": "kept", "device": device_id, "why": why}, text)
        elif self._task(record) is Task.FORGET:
            record.session = False
        elif before is Phase.INSTALLED and self._now() >= self._deadline(record):
            record.hear(Sign.UNHEARD, self._now(), why)
        elif self._is_overdue(record):
            record.hear(Sign.OVERDUE, self._now(), why)
        self._store.changed(device_id)

    def _is_back(self) -> None:
        if self._away_since:
            gone = self._time() - self._away_since
            self._state.away += gone
            self._away_since = 0.0
            self._store.changed()
            text = f"the broker is back after {gone:.0f} s"
            self._tell({"event": "back", "seconds": round(gone, 1)}, text)

    # -- what is told ----------------------------------------------------------------------------

    def _tell_step(self, wave: int, ask: Mapping[str, int], before: Mapping[str, Tally]) -> None:
        fleet = sum(before.values(), Tally(0))
        share = self._state.rules.waves[wave]
        new = sum(ask.values())
        boards = ", ".join(f"{number} {board or 'devices'}" for board, number in ask.items())
        counts = self.counts()
        event = {
            "event": "step",
            "wave": wave + 1,
            "share": share,
            "ask": dict(ask),
            "asked": fleet.asked + new,
            "of": fleet.size,
            **counts,
        }
        text = (
            f"wave {wave + 1} ({share:g} %): {fleet.asked + new:,} of {fleet.size:,} asked, "
            f"{new:,} of them now ({boards}); so far {words(counts)}"
        )
        self._tell(event, text)

    def counts(self) -> dict[str, int]:
        """How many devices ended how."""
        return counts(self._state.records.values())


def counts(records: Any) -> dict[str, int]:
    """How many ended how; without those that were withdrawn."""
    phases = Counter(record.phase for record in records)
    out = (Phase.DUE, Phase.SENDING, Phase.ASKED, Phase.TAKEN, Phase.INSTALLED)
    found = {
        "good": phases[Phase.GOOD],
        "failed": phases[Phase.FAILED],
        "silent": phases[Phase.SILENT],
        "lost": phases[Phase.LOST],
        "other": phases[Phase.OTHER],
        "withdrawn": phases[Phase.WITHDRAWN] + phases[Phase.WITHDRAWING],
        "out": sum(phases[phase] for phase in out),
    }
    return found


def words(found: Mapping[str, int]) -> str:
    """The counts for people."""
    names = {
        "good": "well",
        "failed": "failed",
        "silent": "silent",
        "lost": "silent after they took it",
        "other": "with another request",
        "withdrawn": "withdrawn",
        "out": "out",
    }
    kept = ("good", "failed", "silent")
    return ", ".join(f"{found[n]:,} {text}" for n, text in names.items() if found[n] or n in kept)
