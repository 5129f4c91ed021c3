# machine.RTC: memory that survives deep sleep and resets, not power loss.

import time

import _sim


class RTC:
    def memory(self, data=None):
        if data is None:
            _sim.rtc.seek(0)
            size = _sim.rtc.read(2)
            return _sim.rtc.read(size[0] | size[1] << 8) if size else b""
        data = bytes(data)
        if len(data) > 2048:
            raise ValueError("buffer too long")
        _sim.rtc.seek(0)
        _sim.rtc.write(bytes((len(data) & 255, len(data) >> 8)) + data)

    def datetime(self, new=None):
        if new is not None:
            _sim.load("_clock").set_time(new)
            return
        t = time.gmtime()
        return (t[0], t[1], t[2], t[6], t[3], t[4], t[5], 0)
