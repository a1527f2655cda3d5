"""What databases and file servers ask of a file system besides read and write: O_DIRECT, aio, io_uring, locks, leases.

Runs in the current directory and prints one line for each question; two file systems that print the same answer alike.
Given a word, only what has it in its name is asked.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NR = {"io_setup": 206, "io_destroy": 207, "io_getevents": 208, "io_submit": 209, "uring_setup": 425, "uring_enter": 426}
F_OFD_GETLK, F_OFD_SETLK = 36, 37
PAGE = 4096


def call(name, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(NR[name]), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def page(byte, pages=1):
    """Aligned memory, as O_DIRECT wants it."""
    memory = mmap.mmap(-1, PAGE * pages)
    memory.write(bytes([byte]) * PAGE * pages)
    return memory


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def content(path):
    with open(path, "rb") as file:
        data = file.read()
    return f"{len(data)} bytes, {sum(data)}"


def direct(flags=0):
    return os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT | flags, 0o644)


def o_direct_write():
    fd = direct()
    written = [os.pwrite(fd, page(i, 16), i * PAGE * 16) for i in range(1, 5)]
    os.close(fd)
    return f"{written}, {content('direct')}"


def o_direct_read():
    fd, memory = direct(), page(0, 4)
    read = os.preadv(fd, [memory], PAGE * 16)
    os.close(fd)
    return f"{read}, {sum(memory[:])}"


def o_direct_sync():
    fd = direct(os.O_DSYNC)
    written = os.pwrite(fd, page(9), 0)
    os.close(fd)
    return f"{written}, {content('direct')}"


def o_direct_and_buffered():
    with open("direct", "r+b") as other:
        other.seek(PAGE)
        other.write(b"buffered")
        other.flush()
        fd, memory = direct(), page(0)
        os.preadv(fd, [memory], PAGE)
        os.pwrite(fd, page(3), PAGE * 2)
        os.close(fd)
        other.seek(PAGE * 2)
        return f"{bytes(memory[:8])}, {other.read(2)}"


class Iocb(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_int32), ("opcode", ctypes.c_uint16),
        ("prio", ctypes.c_int16), ("fd", ctypes.c_uint32), ("buf", ctypes.c_uint64), ("nbytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64), ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("resfd", ctypes.c_uint32),
    ]


class Event(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint64), ("obj", ctypes.c_uint64), ("res", ctypes.c_int64), ("res2", ctypes.c_int64)]


def aio(blocks):
    """All at once; what became of each, in order."""
    context = ctypes.c_ulong(0)
    call("io_setup", 64, ctypes.byref(context))
    requests = [Iocb(data=i, opcode=op, fd=fd, buf=buf, nbytes=length, offset=at) for i, (op, fd, buf, length, at) in enumerate(blocks)]
    pointers = (ctypes.POINTER(Iocb) * len(requests))(*[ctypes.pointer(r) for r in requests])
    done, events = {}, (Event * 64)()
    submitted = 0
    while submitted < len(requests):
        rest = ctypes.cast(ctypes.byref(pointers, submitted * ctypes.sizeof(ctypes.c_void_p)), ctypes.c_void_p)
        submitted += call("io_submit", context.value, len(requests) - submitted, rest)
    while len(done) < len(requests):
        for i in range(call("io_getevents", context.value, 1, 64, ctypes.byref(events), None)):
            done[events[i].data] = events[i].res
    call("io_destroy", context.value)
    return [done[i] for i in range(len(requests))]


def aio_write_read_sync(flags=os.O_DIRECT):
    fd = os.open("aio", os.O_RDWR | os.O_CREAT | flags, 0o644)
    pages = [page(i + 1) for i in range(32)]
    wrote = aio([(1, fd, address(m), PAGE, i * PAGE) for i, m in enumerate(pages)])
    synced = aio([(2, fd, 0, 0, 0), (3, fd, 0, 0, 0)])
    back = [page(0) for _ in range(32)]
    read = aio([(0, fd, address(m), PAGE, i * PAGE) for i, m in enumerate(back)])
    os.close(fd)
    same = all(one[:] == other[:] for one, other in zip(pages, back))
    return f"{set(wrote)} {synced} {set(read)} {same}, {content('aio')}"


def aio_buffered():
    return aio_write_read_sync(0)


class Ring:
    """A ring of 64 entries, without a library."""

    def __init__(self):
        params = bytearray(120)
        self.fd = call("uring_setup", 64, (ctypes.c_char * 120).from_buffer(params))
        words = struct.unpack("30I", params)
        self.sq, self.cq = words[10:20], words[20:30]
        entries, cq_entries = words[0], words[1]
        self.sq_ring = mmap.mmap(self.fd, self.sq[6] + entries * 4, offset=0)
        self.cq_ring = mmap.mmap(self.fd, self.cq[5] + cq_entries * 16, offset=0x8000000)
        self.sqes = mmap.mmap(self.fd, entries * 64, offset=0x10000000)

    def word(self, ring, at):
        return struct.unpack_from("I", ring, at)[0]

    def run(self, entries):
        """All at once; what became of each, in order."""
        tail, mask = self.word(self.sq_ring, self.sq[1]), self.word(self.sq_ring, self.sq[2])
        for i, (op, fd, addr, length, offset, flags) in enumerate(entries):
            slot = (tail + i) & mask
            struct.pack_into("BBHiQQIIQ24x", self.sqes, slot * 64, op, 0, 0, fd, offset, addr, length, flags, i)
            struct.pack_into("I", self.sq_ring, self.sq[6] + slot * 4, slot)
        struct.pack_into("I", self.sq_ring, self.sq[1], tail + len(entries))
        call("uring_enter", self.fd, len(entries), len(entries), 1, None, 0)
        done = {}
        head, mask = self.word(self.cq_ring, self.cq[0]), self.word(self.cq_ring, self.cq[2])
        while head != self.word(self.cq_ring, self.cq[1]):
            data, result, _ = struct.unpack_from("QiI", self.cq_ring, self.cq[5] + (head & mask) * 16)
            done[data] = result
            head += 1
        struct.pack_into("I", self.cq_ring, self.cq[0], head)
        return [done[i] for i in range(len(entries))]


READ, WRITE, FSYNC, FALLOCATE, RENAME, UNLINK, MKDIR = 22, 23, 3, 17, 35, 36, 37


def io_uring_data(flags=0):
    ring = Ring()
    fd = os.open("uring", os.O_RDWR | os.O_CREAT | flags, 0o644)
    pages = [page(i + 1) for i in range(32)]
    wrote = ring.run([(WRITE, fd, address(m), PAGE, i * PAGE, 0) for i, m in enumerate(pages)])
    synced = ring.run([(FSYNC, fd, 0, 0, 0, 0), (FSYNC, fd, 0, 0, 0, 1)])
    back = [page(0) for _ in range(32)]
    read = ring.run([(READ, fd, address(m), PAGE, i * PAGE, 0) for i, m in enumerate(back)])
    # the length of a fallocate stands where others have an address, its mode where they have a length
    grown = ring.run([(FALLOCATE, fd, PAGE, 0, 40 * PAGE, 0)])
    os.close(fd)
    same = all(one[:] == other[:] for one, other in zip(pages, back))
    return f"{set(wrote)} {synced} {set(read)} {grown} {same}, {content('uring')}"


def io_uring_direct():
    return io_uring_data(os.O_DIRECT)


def io_uring_names():
    ring = Ring()
    keep = [ctypes.create_string_buffer(name) for name in (b"made", b"uring", b"made/moved", b"none")]
    made, uring, moved, none = [ctypes.addressof(name) for name in keep]
    at = -100
    results = ring.run([(MKDIR, at, made, 0o750, 0, 0)])
    results += ring.run([(RENAME, at, uring, at & 0xFFFFFFFF, moved, 0)])
    results += ring.run([(UNLINK, at, none, 0, 0, 0)])
    return f"{results} {sorted(os.listdir('made'))} {oct(os.stat('made').st_mode)}"


def lock(kind, start, length):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def attempt(fd, command, kind, start=0, length=0):
    try:
        answer = struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, lock(kind, start, length)))
        return f"type {answer[0]} at {answer[2]} for {answer[3]}" if command == F_OFD_GETLK else "got it"
    except OSError as error:
        return errno.errorcode[error.errno]


def ofd_locks():
    one, two = (os.open("locked", os.O_RDWR | os.O_CREAT, 0o644) for _ in range(2))
    said = [
        attempt(one, F_OFD_SETLK, fcntl.F_WRLCK, 0, 100),
        attempt(two, F_OFD_SETLK, fcntl.F_WRLCK, 50, 100),
        attempt(two, F_OFD_GETLK, fcntl.F_WRLCK, 50, 100),
        attempt(two, F_OFD_SETLK, fcntl.F_WRLCK, 100, 10),
        attempt(one, F_OFD_SETLK, fcntl.F_RDLCK, 0, 100),
        attempt(two, F_OFD_SETLK, fcntl.F_RDLCK, 0, 50),
        # a lock of the process does not go with another descriptor of it, and one of the descriptor does
        attempt(two, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 50),
    ]
    os.close(one)
    said.append(attempt(two, F_OFD_SETLK, fcntl.F_WRLCK, 0, 100))
    os.close(two)
    return said


def ofd_locks_pass_to_children():
    one, two = (os.open("locked", os.O_RDWR) for _ in range(2))
    attempt(one, F_OFD_SETLK, fcntl.F_WRLCK)
    enter, leave = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(leave)
        os.read(enter, 1)
        os._exit(0)
    os.close(one)
    held = attempt(two, F_OFD_SETLK, fcntl.F_WRLCK)
    os.close(leave)
    os.waitpid(child, 0)
    return [held, attempt(two, F_OFD_SETLK, fcntl.F_WRLCK)]


def flock_between_processes():
    one, two = (os.open("locked", os.O_RDWR) for _ in range(2))
    fcntl.flock(one, fcntl.LOCK_EX)
    try:
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "both"
    except OSError as error:
        return errno.errorcode[error.errno]


def lease():
    os.close(os.open("leased", os.O_WRONLY | os.O_CREAT, 0o644))
    fd = os.open("leased", os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    try:
        os.open("leased", os.O_WRONLY | os.O_NONBLOCK)
        broken = "no"
    except OSError as error:
        broken = errno.errorcode[error.errno]
    return f"{fcntl.fcntl(fd, fcntl.F_GETLEASE)}, who comes: {broken}"


def file_server_reopens():
    """A file server looks first and opens what it looked at."""
    looked = os.open("locked", os.O_PATH | os.O_NOFOLLOW)
    fd = os.open(f"/proc/self/fd/{looked}", os.O_RDWR)
    written = os.write(fd, b"through /proc")
    os.close(fd)
    return f"{written}, {content('locked')}, {os.fstat(looked).st_size}"


def file_server_attributes():
    os.setxattr("locked", "user.DOSATTRIB", b"\0\0\5\0\5\0")
    os.setxattr("locked", "user.org.netatalk.Metadata", bytes(402))
    names = sorted(os.listxattr("locked"))
    os.utime("locked", ns=(1, -1_000_000_001))
    return f"{names} {os.stat('locked').st_mtime_ns}"


def file_server_streams():
    fd = os.open("locked", os.O_RDWR)
    os.posix_fallocate(fd, 0, 1 << 16)
    pid = os.fork()
    if pid == 0:
        os._exit(os.sendfile(os.open("sent", os.O_WRONLY | os.O_CREAT, 0o600), fd, 0, 1 << 16) >> 12)
    os.close(fd)
    return f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}, {content('sent')}"


def file_handle():
    """As an NFS server keeps it: good without the file being open."""
    handle, mount_id = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128), ctypes.c_int()
    if libc.name_to_handle_at(-100, b"locked", handle, ctypes.byref(mount_id), 0) < 0:
        return "no handle: " + errno.errorcode[ctypes.get_errno()]
    return "a handle"


QUESTIONS = [
    o_direct_write, o_direct_read, o_direct_sync, o_direct_and_buffered, aio_write_read_sync, aio_buffered, io_uring_data,
    io_uring_direct, io_uring_names, ofd_locks, ofd_locks_pass_to_children, flock_between_processes, file_server_reopens,
    file_server_attributes, file_server_streams, lease, file_handle,
]

# a lease that is broken is told by this signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
wanted = sys.argv[1] if len(sys.argv) > 1 else ""
for question in QUESTIONS:
    if wanted in question.__name__:
        try:
            answer = question()
        except OSError as error:
            answer = errno.errorcode.get(error.errno, error.errno)
        print(f"{question.__name__}: {answer}", flush=True)
