"""Asks a directory what it does, one answer a line. A mount must answer as the file system below it does."""
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


def tell(what, ask, *arguments, **options):
    try:
        print(what, ask(*arguments, **options))
    except OSError as error:
        print(what, errno.errorcode[error.errno])


def open_file(name, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
    return os.open(name, flags, mode)


def fallocate(file, mode, offset, length):
    if LIBC.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")
    return os.fstat(file).st_size


def look(name):
    meta = os.lstat(name)
    return oct(meta.st_mode), meta.st_size, meta.st_nlink, meta.st_uid, meta.st_gid


# holes and data
holes = open_file("holes")
os.pwrite(holes, b"x" * 4096, 1 << 20)
os.ftruncate(holes, 2 << 20)
for place in (0, 5000, 1 << 20, (1 << 20) + 4096, 2 << 20):
    tell(f"data from {place}", os.lseek, holes, place, os.SEEK_DATA)
    tell(f"hole from {place}", os.lseek, holes, place, os.SEEK_HOLE)
tell("punch", fallocate, holes, 3, 1 << 20, 4096)
tell("data after the punch", os.lseek, holes, 0, os.SEEK_DATA)
tell("zero range past the end", fallocate, holes, 16, 3 << 20, 4096)
tell("reserve", fallocate, holes, 0, 0, 5 << 20)
tell("reserve, size kept", fallocate, holes, 1, 0, 9 << 20)
tell("punch without keep-size", fallocate, holes, 2, 0, 4096)
tell("negative offset", fallocate, holes, 0, -1, 10)
tell("negative size", os.ftruncate, holes, -1)
tell("far too large", os.ftruncate, holes, (1 << 63) - 1)

# appending, two descriptors
first, second = open_file("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), open_file("log", os.O_WRONLY | os.O_APPEND)
os.write(first, b"one\n")
os.write(second, b"two\n")
os.pwrite(first, b"pwrite appends on Linux\n", 0)
tell("appended", lambda: open("log").read())

# sharing: a mapping and descriptors see the same bytes
shared = open_file("shared")
os.ftruncate(shared, 8192)
memory = mmap.mmap(shared, 8192)
memory[4000:4100] = b"m" * 100
tell("store seen by pread", os.pread, shared, 100, 4000)
os.pwrite(shared, b"w" * 10, 4050)
tell("write seen by the mapping", lambda: memory[4040:4070])
memory.flush()
tell("copy_file_range", os.copy_file_range, shared, holes, 5000, 0, 100)
tell("copy_file_range onto itself", os.copy_file_range, shared, shared, 5000, 0, 10)

# locks, with another process
lock = open_file("lock")
other = """
import fcntl, os, sys
file = os.open("lock", os.O_RDWR)
for kind in (fcntl.flock, fcntl.lockf):
    try:
        kind(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print(kind.__name__, "taken", end=" ")
    except OSError as error:
        print(kind.__name__, "refused", end=" ")
"""
for what, take in (("flock", fcntl.flock), ("lockf", fcntl.lockf)):
    take(lock, fcntl.LOCK_EX)
    tell(f"another process while {what} is held:", subprocess.check_output, [sys.executable, "-c", other])
    take(lock, fcntl.LOCK_UN)
tell("another process afterwards:", subprocess.check_output, [sys.executable, "-c", other])

# names
os.mkdir("d")
os.mkdir("d/e")
open("d/f", "w").close()
for what, ask, arguments in [
    ("rmdir of a full directory", os.rmdir, ("d",)),
    ("unlink of a directory", os.unlink, ("d/e",)),
    ("rmdir of a file", os.rmdir, ("d/f",)),
    ("rename into itself", os.rename, ("d", "d/e/x")),
    ("rename of a directory over a file", os.rename, ("d/e", "d/f")),
    ("rename of a file over a directory", os.rename, ("d/f", "d/e")),
    ("link of a directory", os.link, ("d", "d2")),
    ("name of 256 bytes", os.mkdir, ("n" * 256,)),
    ("name of 255 bytes", os.mkdir, ("n" * 255,)),
    ("symlink loop", os.stat, ("loop",)),
    ("below a file", os.stat, ("d/f/x",)),
    ("empty name", os.mkdir, ("",)),
    ("trailing dot", os.rmdir, ("d/e/.",)),
    ("dot dot", os.rmdir, ("d/e/..",)),
]:
    if what == "symlink loop":
        os.symlink("loop", "loop")
    tell(what, ask, *arguments)
tell("O_EXCL", open_file, "d/f", os.O_CREAT | os.O_EXCL)
tell("O_DIRECTORY on a file", open_file, "d/f", os.O_DIRECTORY)
tell("O_NOFOLLOW on a link", open_file, "loop", os.O_NOFOLLOW)
tell("write to a directory", open_file, "d", os.O_WRONLY)
removed = os.open("d/e", os.O_RDONLY)
os.rmdir("d/e")
tell("create in a removed directory", os.mkdir, "x", dir_fd=removed)
tell("list a removed directory", os.listdir, removed)

# a file without a name lives on
nameless = open_file("nameless")
os.unlink("nameless")
os.write(nameless, b"still here")
tell("nameless", os.pread, nameless, 100, 0)
tell("links of a nameless file", lambda: os.fstat(nameless).st_nlink)
os.fchmod(nameless, 0o600)
tell("mode of a nameless file", lambda: oct(os.fstat(nameless).st_mode))
os.ftruncate(nameless, 3)
tell("cut nameless", os.pread, nameless, 100, 0)
tell("link of a nameless file", os.link, f"/proc/self/fd/{nameless}", "again", follow_symlinks=True)

# owners, modes, times, attributes
os.mkdir("sgid")
os.chmod("sgid", 0o2775)
if os.geteuid() == 0:
    os.chown("sgid", 0, 4321)
open("sgid/file", "w").close()
os.mkdir("sgid/directory")
tell("made in an sgid directory", look, "sgid/file")
tell("directory made in an sgid directory", look, "sgid/directory")
open("suid", "w").close()
os.chmod("suid", 0o6755)
if os.geteuid() == 0:
    os.chown("suid", 7, 8)
    tell("suid after chown", look, "suid")
    os.chmod("suid", 0o6777)
    subprocess.call(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "echo x >>suid"])
    tell("suid after a stranger's write", look, "suid")
    os.chmod("suid", 0o6777)
    subprocess.call(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "truncate", "-s", "1", "suid"])
    tell("suid after a stranger's truncate", look, "suid")
    os.chmod("suid", 0o600)
    code = subprocess.call(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", "suid"], stderr=subprocess.DEVNULL)
    tell("a stranger reads what is not for him", lambda: code)
for times in ((0, 0), (-1, -1), (0, 999_999_999), (0, 4 * 10**18)):
    tell("utime", os.utime, "suid", ns=times)
    tell("mtime", lambda: os.stat("suid").st_mtime_ns)
tell("xattr", os.setxattr, "suid", "user.x", b"1")
tell("xattr again, create", os.setxattr, "suid", "user.x", b"1", os.XATTR_CREATE)
tell("xattr replaced that is not there", os.setxattr, "suid", "user.y", b"1", os.XATTR_REPLACE)
tell("xattr of no name space", os.setxattr, "suid", "nothing.x", b"1")
tell("xattr on a link", os.setxattr, "loop", "user.x", b"1", follow_symlinks=False)
tell("xattrs", os.listxattr, "suid")
tell("xattr removed twice", lambda: (os.removexattr("suid", "user.x"), os.removexattr("suid", "user.x")))
tell("large xattr", os.setxattr, "suid", "user.large", b"x" * 70000)
tell("name max", lambda: os.statvfs(".").f_namemax)
tell("umask", lambda: (os.umask(0o027), open("masked", "w").close(), os.mkdir("masked-directory"), look("masked"), look("masked-directory"))[3:])
tell("fifo", lambda: (os.mkfifo("fifo"), stat.S_ISFIFO(os.stat("fifo").st_mode))[1])
tell("listing", lambda: sorted(os.listdir(".")))
tell("read of a directory", lambda: os.read(os.open("d", os.O_RDONLY), 10))
tell("fsync of a directory", lambda: os.fsync(os.open("d", os.O_RDONLY)))
