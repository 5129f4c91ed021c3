"""A test runner that fits in the interpreter: one line per test, for the host to count."""

import sys


def run(namespace):
    """Call every test_… function of a module's globals() and print `ok NAME` or `FAILED NAME`."""
    for name in sorted(namespace):
        if name.startswith("test_"):
            try:
                namespace[name]()
            except BaseException as error:
                sys.print_exception(error)
                print("FAILED", name)
            else:
                print("ok", name)


def boot(recovery):
    """What boot.py does with recovery, which then clears itself from RAM; here it is needed."""
    names = {name: getattr(recovery, name) for name in dir(recovery)}
    sys.modules.pop("ota.counted", None)
    try:
        recovery.boot()
    finally:
        for name in names:
            setattr(recovery, name, names[name])


def equal(got, expected):
    """Fail unless got == expected; not an `assert`, which -O3 would remove."""
    if got != expected:
        raise AssertionError("got %.300r, expected %.300r" % (got, expected))


def raises(kind, text, call, *args):
    """Fail unless call(*args) raises kind with text in its message; returns the exception."""
    try:
        call(*args)
    except kind as error:
        if text not in str(error):
            raise AssertionError("%r does not say %r" % (str(error), text))
        return error
    raise AssertionError("nothing raised")
