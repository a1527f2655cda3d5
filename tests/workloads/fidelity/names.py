"""Names: made, without a name, moved with flags, listed, and reached through /proc."""
import ctypes
import os
import socket
import stat

from asking import *

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def proc(file):
    return f"/proc/self/fd/{file}"


@ask
def o_tmpfile():
    file = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(file, b"without a name")
    linked = linkat(AT_FDCWD, proc(file), AT_FDCWD, "named", AT_SYMLINK_FOLLOW)
    return linked, content("named"), mode_of("named"), os.fstat(file).st_nlink


@ask
def o_tmpfile_exclusive():
    file = os.open(".", os.O_TMPFILE | os.O_EXCL | os.O_RDWR, 0o640)
    return said(linkat, AT_FDCWD, proc(file), AT_FDCWD, "named", AT_SYMLINK_FOLLOW)


@ask
def rename_noreplace():
    made("a", b"a"), made("b", b"b"), os.mkdir("d")
    answers = [said(rename, old, new, NOREPLACE) for old, new in [("a", "b"), ("a", "d"), ("a", "c"), ("d", "e"), ("x", "y")]]
    return answers, sorted(os.listdir("."))


@ask
def rename_exchange():
    made("a", b"a"), made("b", b"b"), os.mkdir("d"), os.mkdir("d/e"), os.symlink("a", "l")
    pairs = [("a", "b"), ("a", "d"), ("l", "d"), ("a", "x"), ("x", "a"), ("a", "a")]
    answers = [said(rename, old, new, EXCHANGE) for old, new in pairs]
    kinds = {name: oct(stat.S_IFMT(os.lstat(name).st_mode)) for name in sorted(os.listdir("."))}
    return answers, kinds, os.lstat(".").st_nlink


@ask
def rename_exchange_across_directories():
    os.makedirs("one/sub"), os.makedirs("two")
    made("two/file", b"f")
    rename("one/sub", "two/file", EXCHANGE)
    into_itself = said(rename, "two", "two/file", EXCHANGE)
    return os.lstat("one").st_nlink, os.lstat("two").st_nlink, os.listdir("one"), os.listdir("two"), into_itself


@ask
def rename_whiteout():
    made("a", b"a"), made("b", b"b")
    answers = [said(rename, "a", "c", WHITEOUT), said(rename, "c", "b", WHITEOUT)]
    left = [(oct(meta.st_mode), meta.st_rdev, meta.st_uid) for meta in (os.lstat(name) for name in sorted(os.listdir(".")))]
    return answers, sorted(os.listdir(".")), left, content("b")


@ask
def rename_flags_together():
    made("a"), made("b")
    flags = (NOREPLACE | EXCHANGE, EXCHANGE | WHITEOUT, 8, 1 << 31)
    return [said(rename, "a", "b", flag) for flag in flags]


@ask
def rename_of_what_is_the_same():
    made("a", b"a"), os.link("a", "b")
    os.rename("a", "b")
    return sorted(os.listdir(".")), os.stat("a").st_nlink


@ask
def whole_names():
    long_name, longer = "n" * 255, "n" * 256
    bytes_name = b"\xff" * 255
    answers = [said(os.mkdir, long_name), said(os.mkdir, longer), said(os.mkdir, bytes_name)]
    for name in (long_name, longer):
        made(f"{long_name}/x", b"1")
        answers += [
            said(os.rename, f"{long_name}/x", f"{long_name}/{name}"), said(os.link, f"{long_name}/{long_name}", name + "l"),
            said(os.symlink, "x", f"{long_name}/{name[:-1]}s"), said(os.mkfifo, f"{long_name}/{name[:-1]}f"),
            said(os.unlink, f"{long_name}/{name}"), said(os.lstat, f"{name}"), said(os.setxattr, long_name, f"user.{name[5:]}", b"")
        ]
    answers = [answer if not isinstance(answer, os.stat_result) else answer.st_nlink for answer in answers]
    return answers, sorted(map(len, os.listdir(long_name)))


@ask
def long_paths():
    os.symlink("x" * 4095, "longest")
    too_long = said(os.symlink, "x" * 4096, "longer")
    empty = said(os.symlink, "", "empty")
    depth = 0
    while depth < 30:
        os.mkdir("p" * 200), os.chdir("p" * 200)
        depth += 1
    answers = [len(os.readlink("../" * depth + "longest")), os.getcwd().count("/" + "p" * 200), said(os.mkdir, "/".join(["q" * 200] * 21))]
    for _ in range(depth):
        os.chdir(".."), os.rmdir("p" * 200)  # no path leads there
    return answers, too_long, empty


@ask
def bytes_in_names():
    names = [b"new\nline", b"\x80\xff", b" ", b"\\", b"-rf", "n\u00e9".encode(), "ne\u0301".encode(), b"..."]
    for name in names:
        os.mkdir(name)
    return sorted(os.listdir(b".")) == sorted(names), said(os.mkdir, b"a/b"), said(os.mkdir, b"...")


@ask
def links_of_directories():
    for i in range(5):
        os.makedirs(f"d/{i}/deep")
    counts = [os.stat("d").st_nlink]
    os.rename("d/0", "e"), os.rmdir("d/1/deep"), os.rmdir("d/1")
    counts += [os.stat("d").st_nlink, os.stat("e").st_nlink, os.stat(".").st_nlink]
    with opened("e/deep", os.O_RDONLY) as held:
        os.rmdir("e/deep")
        counts += [os.fstat(held).st_nlink, os.stat("e").st_nlink]
    os.makedirs("f/x"), os.mkdir("g")
    os.rename("g", "f/x")
    return counts + [os.stat("f").st_nlink, os.stat(".").st_nlink]


@ask
def sizes_of_directories():
    os.mkdir("d")
    sizes = [os.stat("d").st_size]
    for i in range(300):
        os.mkdir(f"d/{'x' * 100}{i}")
    sizes.append(os.stat("d").st_size)
    for i in range(300):
        os.rmdir(f"d/{'x' * 100}{i}")
    return sizes, os.stat("d").st_size == sizes[1], os.stat("d").st_blocks > 0


@ask_user
def so_many_links():
    """Most of them were made before: 64,990 names of one file."""
    count = 0
    while (answer := said(os.link, "../links/f", f"{count}")) is None and count < 100:
        count += 1
    return count, answer, os.stat("../links/f").st_nlink


@ask
def link_of_a_link():
    os.symlink("nowhere", "l"), made("f")
    answers = [said(linkat, AT_FDCWD, "l", AT_FDCWD, name, flags) for name, flags in (("m", 0), ("n", AT_SYMLINK_FOLLOW))]
    with opened("f", os.O_PATH) as file:
        answers.append(said(linkat, file, "", AT_FDCWD, "o", AT_EMPTY_PATH) if IS_ROOT else 0)
        answers.append(said(linkat, AT_FDCWD, proc(file), AT_FDCWD, "p", AT_SYMLINK_FOLLOW))
    return answers, os.lstat("l").st_nlink, os.stat("f").st_nlink


class Listing:
    """telldir(3) and seekdir(3), which the library of Python does not have."""

    def __init__(self, path):
        for name, result in (("opendir", ctypes.c_void_p), ("readdir64", ctypes.c_void_p), ("telldir", ctypes.c_long)):
            getattr(LIBC, name).restype = result
        self.stream = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))

    def next(self):
        entry = LIBC.readdir64(self.stream)
        # inode (8), offset (8), length (2), type (1), name
        return (ctypes.string_at(entry + 19), ctypes.string_at(entry + 18, 1)[0]) if entry else None

    def all(self):
        return list(iter(self.next, None))

    def tell(self):
        return LIBC.telldir(self.stream)

    def seek(self, place):
        LIBC.seekdir(self.stream, long(place))

    def rewind(self):
        LIBC.rewinddir(self.stream)


@ask
def places_in_a_large_directory():
    os.mkdir("d")
    for i in range(8000):
        made(f"d/{i}") if i % 10 else os.mkdir(f"d/{i}")
    listing, other = Listing("d"), Listing("d")
    told = []
    while True:
        place, entry = listing.tell(), listing.next()
        if entry is None:
            break
        told.append((place, entry))
    names = [entry for _, entry in told]
    right, elsewhere = [], []
    for place, entry in told[::97][::-1]:
        listing.seek(place), other.seek(place)
        right.append(listing.next() == entry)
        elsewhere.append(other.next() == entry)
    listing.rewind()
    again = listing.all()
    end = listing.next()
    types = sorted({kind for _, kind in names})
    return len(set(names)), all(right), all(elsewhere), again == names, end, types, sorted(names) == sorted(Listing("d").all())


@ask
def a_listing_goes_on_while_names_come_and_go():
    os.mkdir("d")
    for i in range(3000):
        made(f"d/{i:04}")
    listing, seen = Listing("d"), []
    for turn in range(3002):
        entry = listing.next()
        if entry is None:
            break
        seen.append(entry[0])
        if turn % 3 == 0:
            os.unlink(f"d/{turn:04}") if turn < 1500 else made(f"d/new{turn}")
    stayed = {f"{i:04}".encode() for i in range(3000) if i % 3 or i >= 1500}
    old = [name for name in seen if name in stayed]
    return len(old) == len(set(old)), stayed <= set(seen)


@ask
def numbers_in_listings():
    made("f"), os.mkdir("d"), os.symlink("f", "l")
    return all(entry.inode() == os.lstat(entry.path).st_ino for entry in os.scandir("."))


@ask
def reopened_through_proc():
    made("f", b"content", 0o600)
    with opened("f", os.O_RDONLY) as read:
        write = os.open(proc(read), os.O_RDWR | os.O_APPEND)
        os.write(write, b" more")
        answer = [content("f"), os.readlink(proc(write)).endswith("/f")]
        os.close(os.open(proc(read), os.O_WRONLY | os.O_TRUNC))
        os.chmod("f", 0o400)
        return answer, os.fstat(read).st_size, said(lambda: os.close(os.open(proc(read), os.O_RDWR)))


@ask
def reopened_without_a_name():
    made("f", b"content")
    with opened("f", os.O_RDONLY) as read:
        os.unlink("f")
        link = os.readlink(proc(read)).endswith("/f (deleted)")
        with opened(proc(read), os.O_RDWR) as write:
            os.pwrite(write, b"CON", 0)
            os.ftruncate(write, 5)
            os.fchmod(write, 0o640)
        with opened(proc(read), os.O_RDONLY) as again:
            answer = os.read(again, 100), os.fstat(again).st_nlink, mode_of(again)
        linked = said(linkat, AT_FDCWD, proc(read), AT_FDCWD, "again", AT_SYMLINK_FOLLOW)
        made("f", b"another")
        with opened(proc(read), os.O_WRONLY | os.O_TRUNC):
            pass
        return link, answer, linked, content("f"), os.fstat(read).st_size


@ask
def reopened_o_path():
    made("f", b"content"), os.mkdir("d"), os.symlink("f", "l")
    with opened("f", os.O_PATH) as file, opened("d", os.O_PATH) as directory, opened("l", os.O_PATH | os.O_NOFOLLOW) as link:
        answers = [said(os.read, file, 1), said(os.fchmod, file, 0o600), said(os.listdir, proc(directory))]
        answers += [os.readlink("", dir_fd=link), said(os.open, proc(link), os.O_RDONLY)]
        with opened(proc(file), os.O_RDONLY) as read:
            answers.append(os.read(read, 100))
        os.rename("f", "g")
        with opened(proc(file), os.O_RDONLY) as read:
            answers.append(os.read(read, 100))
    return answers


@ask
def o_path_without_a_name():
    made("f", b"content")
    with opened("f", os.O_PATH) as file:
        os.unlink("f")
        return os.fstat(file).st_size, said(lambda: os.close(os.open(proc(file), os.O_RDONLY)))


@ask
def removed_directories():
    os.makedirs("d/e")
    with opened("d/e", os.O_RDONLY) as held:
        os.rmdir("d/e")
        answers = [said(os.mkdir, "x", dir_fd=held), said(os.listdir, held), said(os.stat, "..", dir_fd=held).st_ino == os.stat("d").st_ino]
        answers += [said(os.open, proc(held) + "/x", os.O_CREAT), os.fstat(held).st_nlink, said(os.fchmod, held, 0o700)]
    return answers


@ask
def sockets_and_pipes():
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind("s"), server.listen(), client.connect("s")
    os.mkfifo("p")
    read, write = os.open("p", os.O_RDONLY | os.O_NONBLOCK), os.open("p", os.O_WRONLY)
    os.write(write, b"through")
    return os.read(read, 10), oct(os.lstat("s").st_mode), oct(os.lstat("p").st_mode), said(os.open, "s", os.O_RDONLY)


@ask_root
def devices():
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("large", 0o600 | stat.S_IFBLK, os.makedev(0xABC, 0x12345))
    with opened("null") as null:
        wrote = os.write(null, b"x")
    return wrote, os.lstat("large").st_rdev, as_user(os.mknod, "mine", 0o600 | stat.S_IFCHR, os.makedev(1, 3))


@ask
def handles_of_files():
    made("f")
    handle, mount = ctypes.create_string_buffer(b"\x80" + bytes(135)), ctypes.c_int()
    return checked(LIBC.name_to_handle_at(AT_FDCWD, b"f", handle, ctypes.byref(mount), 0), "handle")


main("names")
