"""AT commands: what the modem understands, and what it answers."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from host_sim.modem.http import Http
from host_sim.modem.mqtt import Mqtt
from host_sim.modem.store import Store

if TYPE_CHECKING:
    from host_sim.modem.modem import Modem

#: How long a command takes that asks nobody else, in ms.
QUICK_MS = 5
OPERATOR = "20201"

#: Commands that are answered with these lines and OK, whatever comes after their name and "=".
PLAIN: dict[str, list[str]] = {
    "AT": [],
    "ATI": ["Quectel", "BG600L-M3", "Revision: BG600LM3LAR02A02"],
    "ATZ": [],
    "AT&F": [],
    "AT+CGMI": ["Quectel"],
    "AT+CGMM": ["BG600L-M3"],
    "AT+CGMR": ["BG600LM3LAR02A02"],
    "AT+CGSN": ["867730050000001"],
    "AT+GSN": ["867730050000001"],
    "AT+CIMI": ["202010000000001"],
    "AT+QCCID": ["+QCCID: 89300100000000000001"],
    "AT+CMEE": [],
    "AT+CPIN?": ["+CPIN: READY"],
    "AT+CFUN?": ["+CFUN: 1"],
    "AT+QDSIM?": ["+QDSIM: 0"],
    "AT+QSIMVOL?": ["+QSIMVOL: 0"],
    "AT+QSIMDET?": ["+QSIMDET: 0,0"],
    "AT+CESQ": ["+CESQ: 99,99,255,255,20,50"],
    "AT+CGDCONT": [],
    "AT+CTZU": [],
    "AT+QICSGP": [],
    "AT+QSSLCFG": [],
    "AT+QGPSCFG": [],
    "AT+QGPSEND": [],
    "AT+QGPS?": ["+QGPS: 0"],
    "AT+CRSM": [],
    "AT+QNVFD": [],
}

#: What AT+QCFG says at first.
QCFG = {
    "nwscanseq": "020301",
    "nwscanmode": "0",
    "iotopmode": "0",
    "band": "0xf,0x80084,0x80084",
    "simeffect": "1",
    "servicedomain": "2,1",
}


class Commands:
    """One command after the other, or the data that one has asked for.

    What an answer is worth stands in the methods `say` (a line), `ok` and `error`.
    """

    def __init__(self, modem: Modem) -> None:
        self.modem = modem
        self.qcfg = dict(QCFG)  # it survives resets, as the choice of an operator
        self._by_hand = False
        self.store = Store(self)
        self.mqtt = Mqtt(self)
        self.http = Http(self)
        self._own: dict[str, Callable[[list[str]], None]] = {
            "ATE0": lambda _: self._set_echo(False),
            "ATE1": lambda _: self._set_echo(True),
            "AT+CFUN=": self._function,
            "AT+CREG?": lambda _: self._registration("+CREG"),
            "AT+CEREG?": lambda _: self._registration("+CEREG"),
            "AT+CREG=": self._registration_format,
            "AT+CEREG=": self._registration_format,
            "AT+COPS?": self._operator,
            "AT+COPS=": self._choose_operator,
            "AT+COPS=?": lambda _: self.ok(f'+COPS: (2,"sim","sim","{OPERATOR}",8),,(0-4)'),
            "AT+CGATT?": lambda _: self.ok(f"+CGATT: {int(self.attached)}"),
            "AT+CGATT=": self._attach,
            "AT+CGACT?": lambda _: self.ok(f"+CGACT: 1,{int(self.active)}"),
            "AT+CGACT=": lambda given: self._activate(given[0] == "1"),
            "AT+QIACT=": lambda _: self._activate(True),
            "AT+QIACT?": lambda _: self.ok(*(['+QIACT: 1,1,1,"10.0.0.1"'] * self.active)),
            "AT+QIDEACT=": lambda _: self._activate(False),
            "AT+CSQ": lambda _: self.ok("+CSQ: %s,99" % (20 if self.registered else 99)),
            "AT+QCSQ": lambda _: self.ok(self._signal()),
            "AT+CCLK?": self._clock,
            "AT+QNTP=": self._ntp,
            "AT+QCFG=": self._config,
            "AT+QPOWD": self._power_down,
            "AT+QPOWD=": self._power_down,
            **self.store.commands(),
            **self.mqtt.commands(),
            **self.http.commands(),
        }
        self._reset()

    def _reset(self) -> None:
        self.echo = True
        self.report_cells = False
        self.attached = self.active = False
        self.registered_at = float("inf")
        self._typed, self._line_ended = b"", False
        self._wanted: tuple[int | bytes, Callable[[bytes], None]] | None = None
        self.fault: str | int | None = None

    # -- power ----------------------------------------------------------------------------------

    def start(self, *, booting: bool = False) -> None:
        """Power is there."""
        self._reset()
        self.awake_at = self.modem.now + (self.modem.boot_s * 1000 if booting else 0)
        self.registered_at = self.modem.now + self.modem.registration_s * 1000
        if booting:
            self.modem.later(self.modem.boot_s * 1000, lambda: self.say("APP RDY"))

    def drop(self) -> None:
        """Lose all connections, as without power."""
        self.mqtt.drop()
        self.store.drop()
        self.http.drop()

    def restart(self) -> None:
        """As AT+CFUN=1,1, and the fault of that name."""
        self.modem.line.cut(self.modem.now)
        self.drop()
        self.start(booting=True)

    def lose_network(self) -> None:
        """The network has ended the context."""
        self.active = False
        self.mqtt.lose()
        self.say('+QIURC: "pdpdeact",1')

    @property
    def registered(self) -> bool:
        """Whether the modem is in the network."""
        return self.modem.now >= self.registered_at

    # -- answers --------------------------------------------------------------------------------

    def say(self, line: str, after_ms: float = QUICK_MS) -> None:
        """Send one line."""
        self.send(f"\r\n{line}\r\n".encode(), after_ms)

    def send(self, data: bytes, after_ms: float = QUICK_MS) -> None:
        """Send bytes as they are."""
        self.modem.line.send(data, self.modem.now + after_ms + self._slow_ms)

    def ok(self, *lines: str, after_ms: float = QUICK_MS) -> None:
        """Send these lines and OK."""
        for line in (*lines, "OK"):
            self.say(line, after_ms)

    def error(self, cme: int | None = None) -> None:
        """Refuse."""
        self.say("ERROR" if cme is None else f"+CME ERROR: {cme}")

    def want(self, end: int | bytes, call: Callable[[bytes], None]) -> None:
        """Take so many bytes, or all up to `end`, as data for this command."""
        self._wanted = (end, call)

    # -- what comes -----------------------------------------------------------------------------

    _slow_ms = 0.0

    def feed(self, data: bytes) -> None:
        """Bytes from the node."""
        if not self.modem.is_on or self.modem.now < self.awake_at:
            return
        self._typed += data
        while self._typed:
            if self._line_ended:  # a line feed behind it is no data
                self._line_ended = False
                self._typed = self._typed.removeprefix(b"\n")
                continue
            if self._wanted:
                end, call = self._wanted
                size = end if isinstance(end, int) else self._typed.find(end)
                if size < 0 or len(self._typed) < size:
                    return
                taken, rest = self._typed[:size], self._typed[size:]
                self._typed = rest if isinstance(end, int) else rest[len(end) :]
                self._wanted = None
                call(taken)
                continue
            line, found, rest = self._typed.partition(b"\r")
            if not found:
                return
            self._typed, self._line_ended = rest, True
            text = line.decode("utf-8", "replace").strip()
            if text:
                self._do(text)
            elif self.echo:
                self.send(b"\r\n")

    def hear_news(self) -> None:
        """What has come from brokers meanwhile."""
        if self.modem.is_on:
            self.mqtt.hear_news()

    def _do(self, command: str) -> None:
        modem = self.modem
        modem.heard.append(command)
        self._slow_ms = 1000 * next(
            (s for begin, s in modem.slow.items() if command.upper().startswith(begin.upper())), 0
        )
        if self.echo:
            self.modem.line.send(command.encode() + b"\r\n", modem.now)
        self.fault = next((f.what for f in modem.faults if f.strikes(command)), None)
        if self.fault == "silence":
            return
        if self.fault == "reset":
            self.restart()
            return
        if self.fault == "pdpdeact" and not command.upper().startswith("AT+QHTTPREADFILE"):
            self.lose_network()
            self.error()
            return
        if isinstance(self.fault, str) and self.fault not in ("truncate", "pdpdeact", "again"):
            self.say(self.fault)
            return
        self._answer(command)

    def _answer(self, command: str) -> None:
        name, equals, argument = command.partition("=")
        key = name.upper() + equals
        if argument == "?":
            key, argument = key + "?", ""
        own = self._own.get(key)
        given = next(csv.reader([argument]), [])
        if own:
            try:
                own(given)
            except (IndexError, ValueError):
                self.error()
        elif key.rstrip("=") in PLAIN:
            self.ok(*(PLAIN[key.rstrip("=")] if not equals else []))
        else:
            self.error()

    # -- the network ----------------------------------------------------------------------------

    def _set_echo(self, on: bool) -> None:
        self.echo = on
        self.ok()

    def _function(self, given: list[str]) -> None:
        self.ok()
        if given[1:] == ["1"]:
            self.modem.later(QUICK_MS * 4, self.restart)
        elif given[0] == "0":
            self.registered_at = float("inf")
            self.attached = self.active = False
        elif self.registered_at == float("inf"):
            self.registered_at = self.modem.now + self.modem.registration_s * 1000

    def _registration(self, name: str) -> None:
        form = 2 if self.report_cells else 0
        if not self.registered:
            self.ok(f"{name}: {form},2")
        elif self.report_cells:
            self.ok(f'{name}: {form},1,"00C1","0A2B3C4D",8')
        else:
            self.ok(f"{name}: {form},1")

    def _registration_format(self, given: list[str]) -> None:
        self.report_cells = given[0] == "2"
        self.ok()

    def _operator(self, _given: list[str]) -> None:
        mode = int(self._by_hand)
        self.ok(f'+COPS: {mode},2,"{OPERATOR}",8' if self.registered else f"+COPS: {mode}")

    def _choose_operator(self, given: list[str]) -> None:
        if given[0] != "3":  # which is how its name is told
            self._by_hand = given[0] in ("1", "4")
        self.ok()

    def _attach(self, given: list[str]) -> None:
        if given[0] == "1" and not self.registered:
            self.error(30)
            return
        attached, self.attached = self.attached, given[0] == "1"
        wait = self.attached and not attached
        self.ok(after_ms=self.modem.attach_s * 1000 if wait else QUICK_MS)

    def _activate(self, on: bool) -> None:
        if on and not self.registered:
            self.error(30)
            return
        self.active = on
        if on:
            self.attached = True
        else:
            self.mqtt.lose()
        self.ok(after_ms=self.modem.rtt_ms)

    def _signal(self) -> str:
        return '+QCSQ: "eMTC",-60,-90,120,-10' if self.registered else '+QCSQ: "NOSERVICE"'

    def _clock(self, _given: list[str]) -> None:
        now = self.modem.clock() if self.registered else 315964800  # 1980, as without a network
        text = datetime.fromtimestamp(now, timezone.utc).strftime("%y/%m/%d,%H:%M:%S+00")
        self.ok(f'+CCLK: "{text}"')

    def _ntp(self, _given: list[str]) -> None:
        self.ok()
        text = time.strftime("%Y/%m/%d,%H:%M:%S+00", time.gmtime(self.modem.clock()))
        code = f'0,"{text}"' if self.active else "550"
        self.say(f"+QNTP: {code}", 10 * self.modem.rtt_ms)

    def _config(self, given: list[str]) -> None:
        name = given[0].strip('"')
        if len(given) == 1:
            self.ok(f'+QCFG: "{name}",{self.qcfg[name]}') if name in self.qcfg else self.error()
            return
        value = ",".join(given[1:])
        if name == "band":
            value = ",".join("0x" + part.lower().removeprefix("0x") for part in given[1:4])
        self.qcfg[name] = value
        self.ok()

    def _power_down(self, _given: list[str]) -> None:
        self.ok()
        self.say("POWERED DOWN", 300)
        # Its last words take their time on the line.
        self.modem.later(303 + self._slow_ms, lambda: self.modem.power(False))
