"""The frame of the questions: each function is one, asked in a directory of its own; one line of answer each."""
import contextlib
import ctypes
import errno
import os
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
IS_ROOT = os.geteuid() == 0
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
STRANGER = 65534

QUESTIONS = []


def ask(question):
    QUESTIONS.append(question)
    return question


def ask_root(question):
    """Asked of root alone: it needs owners, devices, capabilities or another user."""
    return ask(question) if IS_ROOT else question


def ask_user(question):
    """Asked of a user alone: it takes long to copy what it needs."""
    return question if IS_ROOT else ask(question)


def said(call, *arguments, **options):
    """What a call returns, or the name of its error."""
    try:
        return call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]


def checked(result, what=""):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def long(value):
    return ctypes.c_long(value)


def syscall(number, *arguments):
    words = [long(a) if isinstance(a, int) else a for a in arguments]
    return checked(LIBC.syscall(long(number), *words), str(number))


def fallocate(file, mode, offset, length):
    checked(LIBC.fallocate(file, mode, long(offset), long(length)), "fallocate")
    return "done"


def linkat(old_at, old, new_at, new, flags):
    return checked(LIBC.linkat(old_at, os.fsencode(old), new_at, os.fsencode(new), flags), "linkat")


def rename(old, new, flags):
    return checked(LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags), "rename")


def made(name, content=b"", mode=0o644):
    """A file of this content, and its path."""
    with open(name, "wb") as file:
        file.write(content)
    os.chmod(name, mode)
    return name


@contextlib.contextmanager
def opened(name, flags=os.O_RDWR, mode=0o644):
    file = os.open(name, flags, mode)
    try:
        yield file
    finally:
        os.close(file)


def content(name):
    with open(name, "rb") as file:
        return file.read()


def summary(data):
    """Runs of equal bytes: short for what tests write."""
    runs, at = [], 0
    while at < len(data):
        run = len(data[at:]) - len(data[at:].lstrip(data[at:at + 1]))
        runs.append(f"{data[at]:#x}*{run}")
        at += run
    return " ".join(runs[:20])


def mode_of(file):
    return oct(os.stat(file).st_mode & 0o7777)


def as_user(call, *arguments, uid=STRANGER, gid=STRANGER, groups=()):
    """The answer of a child that is somebody else."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.write(write, str(said(call, *arguments)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def moved(name, change, *what):
    """Which times a change moves."""
    before = os.stat(name)
    time.sleep(0.02)
    answer = said(change)
    after = os.stat(name)
    times = [t for t in what or ("mtime", "ctime") if getattr(before, f"st_{t}_ns") != getattr(after, f"st_{t}_ns")]
    return f"{answer}, moves {' and '.join(times) or 'nothing'}"


def main(noun):
    """Asks all, or those that have one of the given words in their names."""
    top, words = os.getcwd(), sys.argv[1:]
    for question in QUESTIONS:
        name = f"{noun}/{question.__name__}"
        if words and not any(word in name for word in words):
            continue
        place = f"{top}/{noun}.{question.__name__}"
        os.mkdir(place)
        os.chdir(place)
        os.umask(0o022)
        print(f"{name}: {said(question)}", flush=True)
        os.chdir(top)
