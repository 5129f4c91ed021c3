"""The update agent of one node, as far as an idle check needs it.

What a check that finds nothing does not need is imported where it is used: an idle node pays for
the control channel only.
"""

import sys
import time

from micropython import const

from . import drop
from .errors import name_of

_COUNTED = const("ota.counted")


class Agent:
    """The update agent of one node.

    config: dict, as from load_config(). progress: called as progress(step, value) with the steps
    request, notice, space, download, staged, bytes, file, commit, install, clear, report, confirm,
    failed and later; without it they are printed, but for bytes and file. open_stream: called with
    the download's URL in place of the built-in verified HTTPS (the URL holds the device key: never
    log it); returns a response as requests does: `status_code`, `raw` with `readinto(buffer, n)`,
    `readinto(buffer)` or `read(n)`, `close()`. client: the application's own connected client,
    shaped as umqtt.simple's, to use in place of one of ours. policy: called with the Request
    (`file_id`, `kind`, `size`) before anything is done for it; returns "go", ("go", the bytes that
    this wake may fetch), "later", or ("refuse", reason). watchdog: an object with `feed()`, called
    whenever something has moved.

    `budget` is how many bytes of a package a wake may fetch, 0: as the configuration says.
    `reason` is the text of the last failure, None after a cycle without one. `pending` is True
    when handle() has heard of a request that check() has not seen yet.
    """

    # Where none is given or there: an object takes more memory for what it has itself.
    policy = None
    theirs = True  # whether umqtt.simple is not ours to forget: check() has found it there
    _begun = None  # the control channel that begin() has made, for check()
    _echo = None  # the last report, as an application's client hears it
    allowed = 0  # bytes that policy lets this wake fetch, 0: as `budget` says
    fetched = 0  # bytes of the package on its way, in earlier wakes
    whole = False  # whether its index is not looked at
    resumed = False  # whether this attempt goes on with what they have staged
    stat = None  # what tells the platform meanwhile, where that is wanted

    def __init__(
        self, config, progress=None, open_stream=None, client=None, policy=None, watchdog=None
    ):
        self.reason = None
        self.pending = False
        from .config import complete

        self.config = complete(config)
        del complete  # or its module stays until this function ends, and perhaps longer
        drop("config")
        self.open_stream = open_stream
        self.budget = 0
        if policy:
            self.policy = policy
        self.limits = None
        self.control = None
        self.client = client
        self.hook = progress
        self.watchdog = watchdog
        # That of a trial can not be stopped when it is over, and somebody has to feed it. Asked
        # once: what is missing is compared with all that sys.modules ever had.
        trial = sys.modules.get(_COUNTED)
        self._trial = trial if type(trial) is list else None
        self.patient = False  # as Control.connect() has it; poll() makes it None
        self.learned = None  # of the broker, at the last contact; keep() has not seen it yet
        self.born = time.ticks_ms()

    def check(self):
        """One cycle: deliver what is owed, confirm a trial, act on a waiting request.

        Returns "idle", "later" (the control channel can not be reached, or the request stays for
        another wake), "failed" (reported), "installed", "confirmed" or "rolled_back" (reported).
        Resets the node after an install, so that only an update that changed nothing returns
        "installed".
        """
        self.theirs = "umqtt.simple" in sys.modules
        try:
            outcome = self.contact()
        finally:
            self.leave(self.theirs)
            self.limits = None
            drop("wire", "trust")
        self.keep(outcome == "later")
        return outcome

    def begin(self):
        """The first half of a check(), for an application that has something to send.

        A broker may take long to send what is retained: let it do so while the application
        publishes, and call check() last. Returns the client to publish with, connected and shaped
        as umqtt.simple's: the application's, or else ours, until check(). None where there is no
        connection; check() tries again then, and tells why. Raises nothing.
        """
        self.leave()
        try:
            from .halves import begin

            self._begun = begin(self)
            return self.client or self._begun.client
        except Exception:
            self.leave()

    def serve(self):
        """Stay connected and act on each request at once; never returns.

        For nodes that never sleep. A lost connection is made again after a pause that grows with
        each failure and is drawn at random, so that a fleet does not come back all at once.
        """
        from .serve import serve

        serve(self)

    def poll(self):
        """One step of serve(), for applications with a loop of their own.

        Waits for no message, but connecting, and acting on a request, take their time. Returns
        what check() does, or None when there was nothing to do.
        """
        from .serve import step

        return step(self)

    def install(self, stream, size, reset=True):
        """Install a package that the application has itself: from a card, over BLE, a web form.

        stream: with `readinto(buffer)` or `read(n)`, which wait for bytes; size: how many it has,
        none behind them is read. The platform is neither asked nor told. reset: False leaves the
        reset to the application. Returns "committed" (only without reset: the next boot installs
        it, and a trial follows), "installed" (all of it was there already), "failed" (it can not
        be taken), or "later" (not now); then `reason` tells why. Raises nothing; resets the node
        where flash has failed.
        """
        try:
            from .local import install

            return install(self, stream, size, reset)
        except MemoryError:
            return self.later("out of memory")

    def handle(self, topic, payload):
        """For an application that owns the subscription: True when the message was ours.

        topic, payload: bytes, as the client's callback has them. Notes in `pending` that check()
        has to be called, which is not for a callback to do.
        """
        from .halves import handle

        return handle(self, topic, payload, self._echo)

    def retry_ms(self):
        """How long to wait after a "later", in ms: more with each in a row, and drawn at random.

        The count survives deep sleep in the RTC's memory, unless the application uses that.
        """
        try:
            from .backoff import pause_ms

            return pause_ms(self.config["retry_s"])
        except MemoryError:
            return self.config["retry_s"] * 1000

    # -- for the other modules of this package -------------------------------------------------

    def contact(self):
        """check() without leaving the control channel."""
        # A request that handle() was shown is subscribed to again, and waited for: it may be late.
        patient = self.pending or self.patient
        self.pending = self.patient = False
        outcome = self.act(True, patient)
        # A newer request may have come while the older one was brought to its end.
        self.pending = outcome != "later" and bool(self.control and self.control.pending())
        return outcome

    def approach(self):
        """Make a control channel, not connected yet, and the limits for what goes on there."""
        from .dial import approach

        client, seen = approach(self)
        del approach
        if "ota.cycle" not in sys.modules:
            # In the middle of an update it stays: flash may have another version's later.
            drop("dial", "trust")
        if client is not self.client:
            from .enter import enter

            client = enter(self.config, client)
            del enter
            drop("enter")
        self.control = None  # where memory ends here, no client of ours may take another's place
        if self.client:
            from .borrowed import Borrowed as Control
        else:
            from .control import Control
        # Where memory ends before it, the next collection closes what is open.
        self.control = Control(self.config, self.limits, client, seen)

    def act(self, connect=False, patient=False):
        """Do whatever waits to be done on the control channel.

        connect: whether to make it first; patient: as Control.connect() has it.
        """
        self.reason = None
        try:
            busy = connect and self._connect(patient)
            if not (busy or self.control.pending()):
                return "idle"  # nothing on trial, nothing owed, no litter
            self.keep()  # this may end in a reset
            from .cycle import run

            return run(self)
        except Exception as error:
            run = None  # it would keep the code of cycle
            try:
                if type(error) is MemoryError:
                    drop("cycle", "install", "package")  # room for what tells the platform
                if not self.control:
                    drop("dial", "enter", "link", "borrowed")
                from .install.trouble import outcome_of

                return outcome_of(self, error)
            except MemoryError:
                return self.later("out of memory")

    def _connect(self, patient):
        control = self._begun
        if control and not (patient and self.client):
            self.control = control
            self._begun = None
            self.limits.renew()
            from .halves import finish

            busy = finish(control, patient)
        else:
            # Of the check before. And loading leaves garbage, which is to be reused before the
            # heap grows.
            drop("cycle")
            self.approach()
            control = self.control
            if self._begun:
                self._begun = None
            busy = control.connect(patient)
        self.learned = control.learned
        return busy

    def leave(self, umqtt=True):
        """Close the control channel. umqtt: False forgets umqtt.simple: no application has it."""
        control, self.control = self.control or self._begun, None
        if self._begun:
            self._begun = None
        if control:
            if self.client:
                # What came meanwhile nobody else has heard.
                self.pending = bool(control.pending()) or self.pending
                self._echo = control.echo or self._echo
            try:
                control.close()
            except Exception as error:
                # An application's, say: nothing may stand between an install and its reset.
                print("ota: not closed,", name_of(error))
            del control
            # The application may need the memory more than the next check does.
            drop("control", "link", "borrowed", "dial", "enter", "halves")
        if not umqtt:
            sys.modules.pop("umqtt.simple", None)
            sys.modules.pop("umqtt", None)

    def later(self, reason):
        """The request, if any, stays for another time. Returns "later"."""
        self.reason = str(reason)
        self.progress("later", self.reason)
        return "later"

    def progress(self, step, value):
        """Tell watchdog and application that something has moved."""
        self.feed()
        try:
            if self.hook:
                self.hook(step, value)
            elif step not in ("bytes", "file"):
                print("ota:", step, value)
        except Exception as error:
            # The application's: it must not stand between an install and its reset or report.
            print("ota: the hook failed,", name_of(error))

    def feed(self, _step=None, _value=None):
        """Tell the watchdog that something has moved."""
        watchdog = self.watchdog or (self._trial and self._trial[2])
        if watchdog:
            watchdog.feed()

    def reset(self):
        """Leave the control channel and reset the node. Nothing of this boot runs after it."""
        import machine

        self.leave()
        machine.reset()

    def keep(self, failed=None):
        """Keep what the contact has learned of the broker, for the contacts to come.

        failed: True counts a failure for retry_ms(), False begins again at none.
        """
        learned, self.learned = self.learned, None
        try:
            from .backoff import remember

            remember(failed, learned)
            del remember
            drop("backoff")
        except MemoryError:
            pass  # the next waits are not what they should be; the outcome is what it is
