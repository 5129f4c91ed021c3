"""Packages that need little space by their size and much by what littlefs makes of them."""


def content(n, size):
    """size bytes that differ from any other n's."""
    return (b"%d " % n * (size // 2 + 1))[:size]


def small_files_in_new_folders():
    package = []
    for n in range(100):
        path = "/new%d/deeper%d/file%d.txt" % (n % 4, n % 20, n)
        package.append((path, content(n, 1 + n * 4)))
    return {}, package


def empty_files_in_one_folder():
    return {}, [("/new/empty%d" % n, b"") for n in range(60)]


def long_names_in_one_folder():
    """The names stand in their folder only after the install; staged, they are numbers."""
    return {}, [("/new/%0240d" % n, b"") for n in range(100)]


def long_names_of_replaced_files():
    old = {"/old/%0240d" % n: b"1" for n in range(30)}
    return old, [(path, content(n, 100)) for n, path in enumerate(old)]


def long_names_of_folders():
    return {}, [("/n/%0240d" % n, None) for n in range(20)]


def long_names_then_folders():
    """What the names take must not be what the folders were promised."""
    names = [("/new/%0240d" % n, b"") for n in range(70)]
    return {}, names + [("/other%d/inner" % n, None) for n in range(12)]


def replaced_in_many_folders():
    old, package = {}, []
    for n in range(12):
        for m in range(4):
            path = "/folder%d/file%d.txt" % (n, m)
            old[path] = content(m, 10)
            package.append((path, content(n + m, 100)))
    return old, package


def added_where_folders_split():
    """Each old folder is one entry away from splitting, and new folders come after."""
    old, package = {}, []
    for n in range(8):
        for m in range(14):
            old["/folder%d/file%d.txt" % (n, m)] = content(m, 110)
        old["/folder%d/brink" % n] = b""
        package.append(("/folder%d/added.txt" % n, content(n, 120)))
    return old, package + [("/new%d/inner" % n, None) for n in range(8)]


def replaced_where_folders_split():
    """The new content is longer than the old, and stands inside the folder."""
    old, package = added_where_folders_split()
    package = package[:8]
    for n in range(8):
        path = "/folder%d/added.txt" % n
        old[path] = b"1"
    return old, package


def big_files():
    old = {"/data/a.bin": content(1, 30000), "/data/b.bin": content(2, 500)}
    package = [("/data/a.bin", content(3, 31000)), ("/data/b.bin", content(4, 40000))]
    return old, package + [("/data/new/c.bin", content(5, 50000))]


def files_of_the_root():
    old, package = {}, []
    for n in range(12):
        old["/file%d.txt" % n] = content(n, n * 700)
        package.append(("/file%d.txt" % n, content(n + 1, 8000 - n * 600)))
    for n in range(4):
        old["/module%d.py" % n] = b"a = %d\n" % n
        package.append(("/module%d.mpy" % n, b"M\x06\x00\x1f" + content(n, 200)))
    return old, package


def folders_alone():
    return {}, [("/new%d/inner" % n, None) for n in range(20)]


def retired_twins():
    old, package = {}, []
    for n in range(40):
        old["/lib/module%d.py" % n] = content(n, 100)
        package.append(("/lib/module%d.mpy" % n, b"M\x06\x00\x1f" + content(n, 80)))
    return old, package


KINDS = (
    small_files_in_new_folders,
    empty_files_in_one_folder,
    long_names_in_one_folder,
    long_names_of_replaced_files,
    long_names_of_folders,
    long_names_then_folders,
    replaced_in_many_folders,
    added_where_folders_split,
    replaced_where_folders_split,
    big_files,
    files_of_the_root,
    folders_alone,
    retired_twins,
)
