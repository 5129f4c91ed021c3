# Before the copying: folders, and away with what an earlier attempt left aside. Runs on the board.
import os

for folder in args["folders"]:
    try:
        os.mkdir(folder)
    except OSError:
        pass  # it is there
for path in args["remove"]:
    os.remove(path)
