# The field's utils. A "flag" file is one of /data, where the node has that partition.

import logging
import os

import esp32

key_value_storage = esp32.NVS("insighio")


def _try(what, call, failed=False):
    # As all of these: what goes wrong is logged, and told by the result only.
    logging.debug(what)
    try:
        return call()
    except Exception as e:
        logging.exception(e, "Error: " + what)
        return failed


def existsFile(source):
    try:
        os.stat(source)
        return True
    except OSError:
        return False


_USE_DATA_DIR = existsFile("/data")


def update_USE_DATA_DIR():
    global _USE_DATA_DIR
    _USE_DATA_DIR = existsFile("/data")


def data_partition_in_use():
    return _USE_DATA_DIR


def list_files_recursive(folder):
    files = []
    for entry in os.ilistdir(folder):  # raises where there is no such folder
        path = folder + "/" + entry[0]
        if entry[1] == 0x4000:
            files.extend(list_files_recursive(path))
        else:
            files.append(path)
    return files


def copyFile(source, destination):
    def copy():
        with open(source, "rb") as old, open(destination, "wb") as new:
            while True:
                piece = old.read(4096)
                if not piece:
                    return True
                new.write(piece)

    return _try("copyFile: %s, %s" % (source, destination), copy)


def renameFile(source, destination):
    def rename():
        os.rename(source, destination)
        return True

    return _try("renameFile: %s, %s" % (source, destination), rename)


def readFromFile(source):
    def read():
        with open(source) as file:
            return file.read()

    return _try("readFromFile: " + source, read, "")


def writeToFile(destination, content, do_append=False):
    def write():
        with open(destination, "a" if do_append else "w") as file:
            file.write(content)
        return True

    return _try("writeToFile: " + destination, write)


def appendToFile(destination, content):
    return writeToFile(destination, content, True)


def deleteFile(destination):
    def delete():
        os.remove(destination)
        return True

    return _try("deleteFile: " + destination, delete)


def countFileLines(source):
    def count():
        with open(source) as file:
            return sum(1 for _ in file)

    return _try("countFileLines: " + source, count, 0)


def decorateFlagPath(path):
    if not _USE_DATA_DIR:
        return path
    return "/data" + ("" if path.startswith("/") else "/") + path


def existsFlagFile(source):
    return existsFile(decorateFlagPath(source))


def copyFlagFile(source, destination):
    return copyFile(decorateFlagPath(source), decorateFlagPath(destination))


renameFlagFile = copyFlagFile  # the old name stays, in the field too


def readFromFlagFile(source):
    return readFromFile(decorateFlagPath(source))


def appendToFlagFile(destination, content):
    return appendToFile(decorateFlagPath(destination), content)


def writeToFlagFile(destination, content):
    return writeToFile(decorateFlagPath(destination), content)


def deleteFlagFile(destination):
    return deleteFile(decorateFlagPath(destination))


def countFlagFileLines(destination):
    return countFileLines(decorateFlagPath(destination))


def getKeyValueInteger(key):
    try:
        return key_value_storage.get_i32(key)
    except OSError:
        return None


def saveKeyValueInteger(key, value):
    if getKeyValueInteger(key) != value:
        key_value_storage.set_i32(key, value)
        key_value_storage.commit()


def eraseKeyValue(key):
    try:
        key_value_storage.erase_key(key)
    except OSError:
        logging.debug("Key [%s] not set" % key)


def clearCachedStates():
    eraseKeyValue("tz_sec_offset")
    deleteFlagFile("/pcnt_last_read_timestamp")


def deleteModule(module_name):
    import sys

    def delete():
        del sys.modules[module_name]

    _try("deleteModule: " + module_name, delete)


def get_var_from_module(module, key):
    return getattr(module, key, None)
