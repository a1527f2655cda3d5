"""What handles of one file do to each other's pages.

shared_pages.py waiting FILE FILLER through|first|beside|late: a store beside a write that waits for room; says `waits`, and goes on at a line of input
shared_pages.py opens FILE FILLER OTHER: an open beside a page that waits for room; likewise
shared_pages.py direct FILE BACKING: writes past the cache and stores by one handle with O_DIRECT, over and over
shared_pages.py appends FILE: who appends by two inodes
shared_pages.py synced FILE BACKING: an fsync by one handle, and a store by another
shared_pages.py passed FILE BACKING plain|past|again: stores into pages of a write that is held up, which come back before it; says `missed` when it was not held up for long enough
shared_pages.py durable FILE SOURCE COUNT copy|allocate [DSYNC]: changes that are no writes
"""
import ctypes
import mmap
import os
import sys
import threading
import time

SIZE = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def waits(thread):
    """Whether a thread waits for the answer to a request."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/wchan") as wchan:
            return wchan.read() == "request_wait_answer"
    except OSError:
        return False


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def started(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def filling(filler):
    """A thread that writes more than the journal holds, and waits for room by now."""
    full = os.open(filler, os.O_WRONLY | os.O_CREAT)
    written = [0]

    def fill():
        # more than the journal holds; whoever is slowed down goes on in time
        for _ in range(24):
            written[0] += os.pwrite(full, bytes(SIZE), 0)

    first = started(fill)
    stands = [written[0], time.monotonic()]

    def stopped():
        if written[0] != stands[0]:
            stands[:] = [written[0], time.monotonic()]
        return waits(first) and time.monotonic() - stands[1] > 2

    until(stopped)
    return first


def opens(path, filler, other):
    reader, storer = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)
    memory = mmap.mmap(storer, SIZE)
    assert memory[0] == reader_of(other)[0]
    first = filling(filler)
    memory[0:4] = b"YYYY"
    time.sleep(0.5)  # it is brought to the reader, and waits for room on its way
    handles = []
    started(lambda: handles.append(os.open(other, os.O_RDWR)))
    until(lambda: handles)
    assert os.pread(handles[0], 4, 0) == b"aaaa"
    assert waits(first), "there was room"
    print("waits", flush=True)
    sys.stdin.readline()
    first.join()
    memory.flush()
    assert os.pread(reader, 4, 0) == b"YYYY"


def direct(path, backing):
    handle = os.open(path, os.O_RDWR | os.O_DIRECT)
    below = os.open(backing, os.O_RDONLY)
    memory, block = mmap.mmap(handle, SIZE), mmap.mmap(-1, 4096)
    for turn in range(200):
        page = turn % 7 * 4096
        block[:] = bytes([turn]) * 4096
        assert os.pwrite(handle, block, page) == 4096
        assert memory[page:page + 4096] == block[:]
        memory[page + 100:page + 200] = b"s" * 100
        memory.flush()
        expected = bytes([turn]) * 100 + b"s" * 100 + bytes([turn]) * 3896
        assert memory[page:page + 4096] == expected, f"turn {turn}: what was stored is gone"
        assert os.pread(below, 4096, page) == expected, f"turn {turn}: what was stored is not in the file"


def reader_of(path):
    """The first byte, by a handle that stays open."""
    return os.pread(os.open(path, os.O_RDONLY), 1, 0)


def waiting(path, filler, kind):
    def stores():
        handle = os.open(path, os.O_RDWR)
        return handle, mmap.mmap(handle, SIZE)

    # whoever only writes goes past the cache when he is the first, and through it beside a reader
    if kind == "first":
        writer = os.open(path, os.O_WRONLY)
    if kind != "late":
        reader = os.open(path, os.O_RDONLY)
        assert os.pread(reader, 1, 0) == b"a"
    if kind != "first":
        writer = os.open(path, os.O_WRONLY)
    if kind != "late":
        storer, memory = stores()
    first = filling(filler)
    second = started(lambda: os.pwrite(writer, b"XXXX", 100))
    until(lambda: waits(second))
    time.sleep(0.3)  # what the second inode has is dropped before the write, and that cannot be seen
    if kind == "late":
        storer, memory = stores()
        reader = storer
    memory[0:4] = b"YYYY"
    print("waits", flush=True)
    sys.stdin.readline()
    first.join()
    second.join()
    assert memory[100:104] == b"XXXX" and memory[0:4] == b"YYYY", bytes(memory[0:128])
    memory.flush()
    for handle in [storer, reader, os.open(path, os.O_RDONLY)]:
        assert os.pread(handle, 128, 0) == b"YYYY" + b"a" * 96 + b"XXXX" + b"a" * 24
    # what is stored later is nobody's to take back
    memory[100:104] = b"ZZZZ"
    memory.flush()
    assert os.pread(reader, 4, 100) == b"ZZZZ"


def appends(path):
    reader = os.open(path, os.O_RDONLY)
    assert os.pread(reader, 1, 0) == b"a"
    first = os.open(path, os.O_WRONLY | os.O_APPEND)
    second = os.open(path, os.O_RDWR | os.O_APPEND)
    expected = b"a" * SIZE
    for turn in range(20):
        for handle, letter in [(second, b"2"), (first, b"1"), (first, b"3"), (second, b"4")]:
            piece = letter * (1000 + turn)
            assert os.write(handle, piece) == len(piece)
            expected += piece
        size = os.stat(path).st_size
        assert size == len(expected), f"turn {turn}: {size} bytes instead of {len(expected)}"
    os.truncate(path, 10)
    os.write(first, b"after")
    expected = expected[:10] + b"after"
    for handle in [reader, second, os.open(path, os.O_RDONLY)]:
        assert os.pread(handle, SIZE, 0) == expected


def synced(path, backing):
    reader = os.open(path, os.O_RDONLY)
    assert os.pread(reader, 1, 0) == b"a"
    first = os.open(path, os.O_WRONLY)
    second = os.open(path, os.O_RDWR)
    memory = mmap.mmap(second, SIZE)
    below = os.open(backing, os.O_RDONLY)
    for turn in range(50):
        memory[turn * 5000:turn * 5000 + 4] = b"%4d" % turn
        os.fsync(first)
        assert os.pread(below, 4, turn * 5000) == b"%4d" % turn, f"store {turn} is not there after the fsync"


def written_back(handle):
    """The first page comes back as the kernel does it by itself; msync would wait for the write."""
    if LIBC.sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(4096), 7) != 0:
        raise OSError(ctypes.get_errno(), "sync_file_range")


def passed(path, backing, kind):
    writer, storer, below = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR), os.open(backing, os.O_RDONLY)
    memory = mmap.mmap(storer, SIZE)
    assert memory[0] == memory[SIZE - 1] == ord("a")
    if kind == "past":
        # nobody has read that page since
        block = mmap.mmap(-1, 4096)
        block[:] = b"d" * 4096
        assert os.pwrite(os.open(path, os.O_RDWR | os.O_DIRECT), block, 0) == 4096
    writing = started(lambda: os.pwrite(writer, b"w" * SIZE, 0))
    until(lambda: memory[SIZE - 1] == ord("w") and waits(writing))
    time.sleep(0.005)  # the request has been read by now: what is stored is not in it
    if kind == "again":
        os.open(path, os.O_WRONLY)  # past the cache, which drops its pages
        assert memory[0] == ord("a"), "nothing was read again"
    memory[100:101] = b"S"
    written_back(storer)
    is_first = waits(writing)
    assert os.pread(below, 1, 100) == b"S", "the store is not there"
    writing.join()
    if kind == "again":
        # as if it had been stored before; the pages that were read again go
        until(lambda: memory[0:200] == b"w" * 200)
        assert os.pread(below, SIZE, 0) == b"w" * SIZE, "what was written is gone"
    else:
        assert memory[100:101] == b"S"
        expected = b"w" * 100 + b"S" + b"w" * (SIZE - 101)
        assert os.pread(below, SIZE, 0) == expected, "what was written, or stored later, is gone"
    print("passed" if is_first else "missed", flush=True)


def durable(path, source, count, what, flag=""):
    target = os.open(path, os.O_WRONLY | getattr(os, "O_" + flag, 0))
    origin = os.open(source, os.O_RDONLY)
    for turn in range(int(count)):
        if what == "copy":
            assert os.copy_file_range(origin, target, 4096, 0, turn * 4096) == 4096
        elif LIBC.fallocate(target, 0, ctypes.c_int64(turn * 4096), ctypes.c_int64(4096)) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")


if __name__ == "__main__":
    {"waiting": waiting, "opens": opens, "direct": direct, "appends": appends, "synced": synced, "passed": passed, "durable": durable}[sys.argv[1]](*sys.argv[2:])
