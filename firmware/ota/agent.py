"""One update cycle from request to reset; the only module that knows all others.

What an idle check does not need is imported where it is used.
"""

import gc
import os
import time

from .config import complete
from .control import Control
from .errors import Refused, Transient, name_of


class Agent:
    """The update agent of one node.

    config: dict, as from load_config(). progress: called as progress(step, value) with the steps
    request, space, download, bytes, file, commit, install, clear, report, confirm, failed and
    later; without it they are printed, but for bytes and file. open_stream: called with the
    download's URL in place of the built-in verified HTTPS (the URL holds the device key: never
    log it); returns a urequests-shaped response: `status_code`, `raw` with `readinto(buffer, n)`,
    `close()`.

    `reason` is the text of the last failure, None after a cycle without one.
    """

    def __init__(self, config, progress=None, open_stream=None):
        self.reason = None
        self._config = complete(config)
        self._hook = progress or _print
        self._open_stream = open_stream
        self._control = None
        self._last_ping = time.ticks_ms()

    def check(self):
        """One cycle: deliver what is owed, confirm a trial, act on a waiting request.

        Returns "idle", "later" (the control channel can not be reached, or the request stays for
        another wake), "failed" (reported), "installed", "confirmed" or "rolled_back" (reported).
        Resets the node after an install, so that only an update that changed nothing returns
        "installed".
        """
        self.reason = None
        control = self._control = Control(self._config)
        try:
            control.connect()
            return self._cycle(control)
        except Transient as error:
            return self._later(error)
        except MemoryError:
            return self._later("out of memory")
        except OSError as error:  # the network's have become Transient
            self._later("flash failed, " + name_of(error))
            self._reset_after_flash_error()
            return "later"
        finally:
            control.close()
            self._control = None

    def _cycle(self, control):
        outcome = "idle"
        try:
            os.stat("/.ota")
        except OSError:
            pass  # nothing on trial, nothing owed, no litter
        else:
            outcome = self._settle()
            if outcome == "open":
                return self._later("a transaction waits for the next boot")
        if control.bad:
            return self._fail(control.bad.file_id, str(control.bad))
        if control.request:
            return self._take(control.request)
        return outcome

    def _settle(self):
        """Confirm a trial and deliver an owed report, before anything new is begun."""
        from . import recovery

        outcome = "idle"
        # A node that reaches its control channel can be mended from there.
        if recovery.confirm():
            self._progress("confirm", "")
            outcome = "confirmed"
        owed = recovery.load("report")
        if owed:
            self._send(owed)
            recovery.forget("report")
            if owed.startswith("2 "):
                self.reason = owed.split(" ", 2)[2]
                outcome = "rolled_back" if self.reason.startswith("rolled back") else "failed"
        if recovery.in_transaction():
            # Another version's, or boot.py could not finish it: staging would overwrite it.
            return "open"
        recovery.discard()
        if not self._control.request:
            recovery.forget("attempts")
        return outcome

    def _take(self, request):
        from . import recovery

        self._progress("request", request.file_id)
        try:
            self._check_space(request)
            last = self._count_attempt(recovery, request.file_id)
            staged = self._stage(request)
        except Refused as error:
            return self._fail(request.file_id, str(error))
        except Transient as error:
            reason = str(error)
        except MemoryError:
            reason = "can not apply: out of memory"
        except OSError as error:
            if error.args[0] == 28:
                reason = "not enough space: flash is full"
            else:
                reason = "can not apply: flash failed, " + name_of(error)
            return self._fail(request.file_id, reason, False)
        except Exception as error:
            # Nobody expects it, so nobody may be left without an answer for it.
            reason = "can not apply: " + name_of(error)
        else:
            return self._install(request, staged)
        recovery.discard()
        return self._fail(request.file_id, reason) if last else self._later(reason)

    def _check_space(self, request):
        from .staging import enough_for, free_blocks

        if not enough_for(request.size):
            raise Refused(
                "not enough space",
                "%d bytes announced, %d blocks are free" % (request.size, free_blocks()),
            )
        self._progress("space", free_blocks())

    def _count_attempt(self, recovery, file_id):
        """Count this attempt on flash before it begins; True when it is the last one.

        One that ends in a watchdog reset or a power cut is counted as well: such a package would
        otherwise be fetched for ever. Raises Refused when there have been enough.
        """
        count = 1
        before = recovery.load("attempts")
        if before and before.split(" ")[0] == file_id:
            count += int(before.split(" ")[1])
        most = self._config["max_attempts"]
        if count > most:
            raise Refused("can not apply", "interrupted %d times" % most)
        recovery.save("attempts", "%s %d" % (file_id, count))
        return count == most

    def _stage(self, request):
        """Download, verify and stage; the live tree is not touched. Returns changed paths."""
        from .download import Body, open_package
        from .inflate import open_archive
        from .staging import Staging
        from .tarfile_lite import TarReader
        from .vetting import clean_path

        if self._config["mqtt"]["tls"]:
            # Two TLS connections at a time are more than a node without PSRAM can hold.
            self._control.close()
        gc.collect()
        self._last_ping = time.ticks_ms()
        response = open_package(self._config, request, self._open_stream)
        staging = None
        try:
            self._progress("download", request.size)
            body = Body(response.raw, request.size, self._on_bytes)
            archive = open_archive(body)
            reader = TarReader(archive)
            protected = [clean_path(path) for path in self._config["protected"]]
            staging = Staging(self._progress, protected + [clean_path(self._config["ca"])])
            while reader.next():
                staging.add(reader)
            body.end()
            if reader.name is None:
                raise Refused("can not apply", "bad archive, it is empty")
            staging.finish()
            return staging.staged
        finally:
            if staging:
                staging.close()
            try:
                response.close()
            except Exception:
                pass  # an integrator's; everything that matters has been read

    def _install(self, request, staged):
        from . import recovery

        config = self._config
        if not staged:
            # Nothing differs from what runs: no trial, and no reset.
            self._end(recovery, "1 " + request.file_id)
            return "installed"
        try:
            recovery.commit(
                request.file_id,
                config["trial_boots"],
                config["trial_wakes"],
                config["trial_deadline_s"],
                config["report"],
            )
            self._progress("commit", staged)
            recovery.install()
            recovery.forget("attempts")
            self._progress("install", staged)
            owed = recovery.load("report")
            if owed:
                self._send(owed)
                recovery.forget("report")
        except Transient as error:
            self._later(error)  # the report waits on flash
        finally:
            # Whatever happened, flash errors included: the modules in memory are no longer those
            # on flash, and only a boot can go on.
            if recovery.in_transaction():
                import machine

                self._control.close()
                machine.reset()
        return "later"

    def _fail(self, file_id, reason, flash_works=True):
        from . import recovery

        self.reason = reason
        self._progress("failed", reason)
        self._end(recovery, "2 %s %s" % (file_id, reason), flash_works)
        return "failed"

    def _end(self, recovery, owed, flash_works=True):
        """Report the end of a request that leaves no transaction."""
        try:
            if flash_works:
                recovery.discard()
                # On flash before the clear: a cut between clear and report must not lose the end.
                recovery.save("report", owed)
                recovery.forget("attempts")
        except OSError:
            flash_works = False
        try:
            self._send(owed)
            if flash_works:
                recovery.forget("report")
        except Transient as error:
            # It waits on flash, and goes out first at the next contact; where flash fails, the
            # request still stands, and its attempts are counted.
            self._later(error)
        if not flash_works:
            self._reset_after_flash_error()

    def _reset_after_flash_error(self):
        """Write nothing more before a reset, for the reason that recovery.install() gives.

        Once in a wake: flash that always fails must not keep a battery awake.
        """
        import machine

        if machine.reset_cause() in (machine.PWRON_RESET, machine.DEEPSLEEP_RESET):
            self._control.close()
            machine.reset()

    def _send(self, owed):
        event, file_id, text = (owed + "  ").split(" ", 2)
        self._control.finish(int(event), file_id, text.strip() or None, self._progress)

    def _progress(self, step, value):
        try:
            self._hook(step, value)
        except Exception as error:
            # The application's: it must not stand between an install and its reset or report.
            print("ota: the progress hook failed,", name_of(error))

    def _later(self, reason):
        self.reason = str(reason)
        self._progress("later", self.reason)
        return "later"

    def _on_bytes(self, count):
        self._progress("bytes", count)
        # The broker drops who is silent for one and a half times the keep-alive.
        now = time.ticks_ms()
        keepalive_ms = self._config["mqtt"]["keepalive"] * 1000
        if keepalive_ms and time.ticks_diff(now, self._last_ping) > keepalive_ms // 2:
            self._last_ping = now
            self._control.keep_alive()


def status():
    """{"state", "file_id", "boots", "undelivered"} for people and for the application.

    state: "idle", "staged", "commit", "trial" or "back"; boots: as the state counts them;
    undelivered: the waiting report, or None.
    """
    from . import recovery

    state = recovery.read_state()
    staged = recovery.exists("/.ota/journal")
    return {
        "state": state[0] if state else "staged" if staged else "idle",
        "file_id": state[1] if state else None,
        "boots": int(state[2]) if state else 0,
        "undelivered": recovery.load("report"),
    }


def _print(step, value):
    if step not in ("bytes", "file"):
        print("ota:", step, value)
