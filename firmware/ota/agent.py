"""The update agent of one node, as far as an idle check needs it.

What a check that finds nothing does not need is imported where it is used: an idle node pays for
the control channel only.
"""

import gc
import sys
import time

from micropython import const

from . import drop
from .errors import name_of

_COUNTED = const("ota.counted")


class Agent:
    """The update agent of one node.

    config: dict, as from load_config(). progress: called as progress(step, value) with the steps
    request, notice, space, download, bytes, file, commit, install, clear, report, confirm, failed
    and later; without it they are printed, but for bytes and file. open_stream: called with the
    download's URL in place of the built-in verified HTTPS (the URL holds the device key: never
    log it); returns a response as requests does: `status_code`, `raw` with `readinto(buffer, n)`,
    `readinto(buffer)` or `read(n)`, `close()`. client: the application's own connected client,
    shaped as umqtt.simple's, to use in place of one of ours. policy: called with the Request
    (`file_id`, `kind`, `size`) before anything is done for it; returns "go", "later", or
    ("refuse", reason). watchdog: an object with `feed()`, called whenever something has moved.

    `reason` is the text of the last failure, None after a cycle without one. `pending` is True
    when handle() has heard of a request that check() has not seen yet.
    """

    def __init__(
        self, config, progress=None, open_stream=None, client=None, policy=None, watchdog=None
    ):
        self.reason = None
        self.pending = False
        self._echo = None
        from .config import complete

        self.config = complete(config)
        drop("config")
        self.open_stream = open_stream
        self.policy = policy
        self.limits = None
        self.control = None
        self.client = client
        self._hook = progress or _print
        self.watchdog = watchdog
        # For an application's client: the first poll() has to look. ticks_ms, or None.
        self.retry_at = time.ticks_ms() if client else None
        self.patient = False  # as Control.connect() has it; poll() makes it None
        self._begun = None  # the control channel that begin() has made, for check()
        self.learned = None  # of the broker, at the last contact; keep() has not seen it yet
        self.settled_at = None  # when serve() takes a connection for one that lasts
        self.refusals = 0  # in a row, for serve()
        self.cleared_at = None  # when a request that the broker keeps was cleared last, ticks_ms
        self.gone = None  # the file id of the request that was withdrawn last
        self.born = time.ticks_ms()

    def check(self):
        """One cycle: deliver what is owed, confirm a trial, act on a waiting request.

        Returns "idle", "later" (the control channel can not be reached, or the request stays for
        another wake), "failed" (reported), "installed", "confirmed" or "rolled_back" (reported).
        Resets the node after an install, so that only an update that changed nothing returns
        "installed".
        """
        try:
            outcome = self.contact()
        finally:
            self.leave()
            self.limits = None
            drop("wire", "trust")
        self.remember(outcome)
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
            self.approach()
            control, self.control = self.control, None
            self._begun = control
            control.begin()
            if not self.client:
                return control.client
            # The application gets its client back, and shows handle() what comes meanwhile.
            control.close()
            # Not that of an adapter, which is shown them by the application.
            if not (self.client.cb or hasattr(self.client.sock, "readable")):
                self.client.set_callback(self.handle)
            self.pending = bool(control.pending()) or self.pending
            return self.client
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
        from .control import topic_of

        if topic != topic_of(self.config):
            return False
        if payload and payload != self._echo:
            from .request import read

            # Never back to False: what comes next may be the echo of a report.
            if any(read(payload)):
                self.pending = True
        return True

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
        connect = "connect"
        try:
            if self._begun and not (patient and self.client):
                self.control = self._begun
                self.limits.renew()
                connect = "finish"
            else:
                self.approach()
            self._begun = None
        except MemoryError as error:  # its code is loaded again each time
            return self._trouble(error)
        outcome = self.act(connect, patient)
        # A newer request may have come while the older one was brought to its end.
        self.pending = outcome != "later" and bool(self.control and self.control.pending())
        return outcome

    def approach(self):
        """Make a control channel, not connected yet, and the limits for what goes on there."""
        gc.collect()  # loading leaves garbage, which is to be reused before the heap grows
        kept = None
        if self.config["mqtt"]["grace_ms"] < 0:
            # Now: where a report follows an install, flash has the new version's module by then.
            from .backoff import kept

            kept = kept()
            drop("backoff")
        from .control import approach

        if self.client:
            from .borrowed import approach
        approach(self)
        self.control.kept = kept

    def act(self, connect=None, patient=False):
        """Do whatever waits to be done on the control channel.

        connect: what makes the channel first: the name of a method of Control, which is called
        with patient. By its name, because a method would keep Control's code in RAM.
        """
        self.reason = None
        try:
            busy = connect and getattr(self.control, connect)(patient)
            self.learned = self.control.kept
            if not (busy or self.control.pending()):
                return "idle"  # nothing on trial, nothing owed, no litter
            self.keep()  # this may end in a reset
            drop("backoff")
            from .cycle import run

            return run(self)
        except Exception as error:
            run = None  # it would keep the code of cycle
            return self._trouble(error)

    def _trouble(self, error):
        try:
            if type(error) is MemoryError:
                drop("cycle", "install", "package")  # room for what tells the platform
            from .install.attempt import outcome_of

            return outcome_of(self, error)
        except MemoryError:
            return self.later("out of memory")

    def leave(self):
        """Close the control channel."""
        control, self.control = self.control or self._begun, None
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
            drop("control", "link", "borrowed")

    def later(self, reason):
        """The request, if any, stays for another time. Returns "later"."""
        self.reason = str(reason)
        self.progress("later", self.reason)
        return "later"

    def progress(self, step, value):
        """Tell watchdog and application that something has moved."""
        self.feed()
        try:
            self._hook(step, value)
        except Exception as error:
            # The application's: it must not stand between an install and its reset or report.
            print("ota: the hook failed,", name_of(error))

    def feed(self):
        """Tell the watchdog that something has moved."""
        # That of a trial can not be stopped when it is over, and somebody has to feed it.
        trial = sys.modules.get(_COUNTED)
        watchdog = self.watchdog or (type(trial) is list and trial[2])
        if watchdog:
            watchdog.feed()

    def reset(self):
        """Leave the control channel and reset the node. Nothing of this boot runs after it."""
        import machine

        self.leave()
        machine.reset()

    def keep(self):
        """Keep what the contact has learned of the broker, for the contacts to come."""
        learned, self.learned = self.learned, None
        if learned:
            try:
                from .backoff import kept

                kept(learned)
            except MemoryError:
                pass  # the next waits are not what they should be; the request goes on

    def remember(self, outcome):
        """Count failures in a row, for retry_ms(), and keep what the contact has learned."""
        self.keep()
        try:
            from .backoff import remember

            remember(outcome == "later")
            drop("backoff")
        except MemoryError:
            pass  # the next pause is shorter than it should be; the outcome is what it is


def _print(step, value):
    if step not in ("bytes", "file"):
        print("ota:", step, value)
