# Takes the agent off the board. Runs there; may be repeated.
import os


def gone(path):
    try:
        entries = os.listdir(path)
    except OSError:
        entries = ()
    for entry in entries:
        gone(path + "/" + entry)
    for call in (os.remove, os.rmdir):
        try:
            return call(path)
        except OSError:
            pass


# The state goes first: without it nothing in /.ota means anything.
gone("/.ota/state")
for path in args["remove"]:
    gone(path)
for folder in args["folders"]:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # somebody else's files are in it
if args["boot_user"]:
    os.rename("/boot_user.py", "/boot.py")
print("@deploy {}")
