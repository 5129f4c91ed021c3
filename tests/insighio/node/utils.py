# Two functions of the field firmware's utils.


def clearCachedStates():
    print("clearCachedStates")


def writeToFlagFile(path, text):
    with open(path, "w") as file:
        file.write(text)
