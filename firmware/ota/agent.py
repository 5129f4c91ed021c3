"""The update agent of one node, as far as an idle check needs it.

What a check that finds nothing does not need is imported where it is used: an idle node pays for
the control channel only.
"""

import gc
import os
import time

from . import drop
from .errors import Transient, name_of


class Agent:
    """The update agent of one node.

    config: dict, as from load_config(). progress: called as progress(step, value) with the steps
    request, space, download, bytes, file, commit, install, clear, report, confirm, failed and
    later; without it they are printed, but for bytes and file. open_stream: called with the
    download's URL in place of the built-in verified HTTPS (the URL holds the device key: never
    log it); returns a urequests-shaped response: `status_code`, `raw` with `readinto(buffer, n)`,
    `close()`. client: the application's own connected client, shaped as umqtt.simple's, to use in
    place of one of ours. policy: called with the Request (`file_id`, `kind`, `size`) before
    anything is done for it; returns "go", "later", or ("refuse", reason). watchdog: an object
    with `feed()`, called whenever something has moved.

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
        self.settled_at = None  # when serve() takes a connection for one that lasts
        self.unclosed = None  # a file that must not be closed, see Staging.leave_open()

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

    def serve(self):
        """Stay connected and act on each request at once; never returns.

        For nodes that never sleep. A lost connection is made anew after a pause that grows with
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
        self.pending = False
        try:
            self.approach()
        except MemoryError:  # its code is loaded anew each time
            return self.later("out of memory")
        outcome = self.act(True)
        # A newer request may have come while the older one was brought to its end.
        self.pending = outcome != "later" and bool(self.control and self.control.pending())
        return outcome

    def approach(self):
        """Make a control channel, not connected yet, and the limits for what goes on there."""
        gc.collect()  # loading leaves garbage, which is to be reused before the heap grows
        from .control import approach

        approach(self)

    def act(self, connect=False):
        """Do whatever waits to be done on the control channel, which connect makes first."""
        self.reason = None
        try:
            if connect:
                self.control.connect()
            outcome = self._act()
        except Transient as error:
            outcome = self.later(error)
        except MemoryError:
            outcome = self.later("out of memory")
        except OSError as error:  # the network's have become Transient
            outcome = self.later("flash failed, " + name_of(error))
            self.reset_after_flash_error()
        except Exception as error:
            # Nobody expects it; a node that leaves its application for the REPL can not be mended.
            outcome = self.later("failed, " + name_of(error))
        return outcome

    def leave(self):
        """Close the control channel."""
        control, self.control = self.control, None
        if control:
            if self.client:
                # What came meanwhile nobody else has heard.
                self.pending = bool(control.pending())
                self._echo = control.echo or self._echo
            try:
                control.close()
            except Exception as error:
                # An application's, say: nothing may stand between an install and its reset.
                print("ota: the control channel did not close,", name_of(error))
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
            print("ota: the progress hook failed,", name_of(error))

    def feed(self):
        """Tell the watchdog that something has moved."""
        if self.watchdog:
            self.watchdog.feed()

    def reset_after_flash_error(self):
        """Write nothing more before a reset, for the reason that recovery.install() gives.

        Once in a wake: flash that always fails must not keep a battery awake.
        """
        import machine

        if machine.reset_cause() in (machine.PWRON_RESET, machine.DEEPSLEEP_RESET):
            self.leave()
            machine.reset()

    def _act(self):
        if not self.control.pending():
            try:
                os.stat("/.ota")
            except OSError:
                return "idle"  # nothing on trial, nothing owed, no litter
        from .cycle import run

        return run(self)

    def remember(self, outcome):
        """Count failures in a row, for retry_ms()."""
        try:
            from .backoff import remember

            remember(outcome == "later")
        except MemoryError:
            pass  # the next pause is shorter than it should be; the outcome is what it is


def _print(step, value):
    if step not in ("bytes", "file"):
        print("ota:", step, value)
