"""Content: holes, ranges, copies, mappings, sizes, programs that run, room."""
import ctypes
import fcntl
import mmap
import os
import resource
import signal
import struct
import subprocess
import time

from asking import *

SIZE_MAX = (1 << 32) - 1  # blocks of 4 KiB


@ask
def holes():
    answers = []
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        os.pwrite(file, b"x" * 4096, 1 << 20)
        os.pwrite(file, b"y" * 10000, 3 << 20)
        os.ftruncate(file, 4 << 20)
        for place in (0, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 4096, (3 << 20) + 9999, (4 << 20) - 1, 4 << 20, 1 << 40, -1):
            answers.append((said(os.lseek, file, place, os.SEEK_DATA), said(os.lseek, file, place, os.SEEK_HOLE)))
        os.fsync(file)
        answers.append((os.lseek(file, 5, os.SEEK_DATA), os.lseek(file, 1 << 20, os.SEEK_HOLE), os.fstat(file).st_blocks))
    made("empty")
    with opened("empty") as file, opened(".", os.O_RDONLY) as directory:
        answers += [said(os.lseek, file, 0, os.SEEK_HOLE), said(os.lseek, directory, 0, os.SEEK_DATA)]
    return answers


def ranges(mode, offset, length):
    """What a mode does to 64 KiB of which each page is its number.

    Of the blocks only whether some were added: 128 sectors are the file's own, and 8 are a block of extents, which ext4 needs or
    not as it happened to place the file.
    """
    made("f", b"".join(bytes([page + 1]) * 4096 for page in range(16)))
    with opened("f") as file:
        os.fsync(file)
        answer = said(fallocate, file, mode, offset, length)
    meta = os.stat("f")
    return answer, meta.st_size, summary(content("f")), said(lambda: meta.st_blocks > 136)


@ask
def holes_behind_a_store():
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        os.ftruncate(file, 1 << 20)
        memory = mmap.mmap(file, 1 << 20)
        memory[8192:12288] = b"x" * 4096
        found = said(os.lseek, file, 0, os.SEEK_DATA), said(os.lseek, file, 8192, os.SEEK_HOLE)
    memory[40960:45056] = b"y" * 4096
    with opened("f", os.O_RDONLY) as file:
        found += said(os.lseek, file, 12288, os.SEEK_DATA), said(os.lseek, file, 40960, os.SEEK_HOLE)
    subprocess.check_output(["cp", "f", "copy"])
    return found, content("copy") == content("f")


@ask
def fallocate_modes():
    asked = [(0, 60000, 10000), (KEEP_SIZE, 60000, 100000), (PUNCH_HOLE | KEEP_SIZE, 5000, 9000), (PUNCH_HOLE | KEEP_SIZE, 8192, 8192),
             (PUNCH_HOLE | KEEP_SIZE, 60000, 1 << 20), (PUNCH_HOLE, 0, 4096), (ZERO, 5000, 9000), (ZERO, 60000, 19000),
             (ZERO | KEEP_SIZE, 60000, 90000), (ZERO | PUNCH_HOLE, 0, 4096), (UNSHARE, 0, 4096), (128, 0, 4096), (0, 0, 0), (0, -1, 5),
             (0, 5, -1), (0, 1 << 62, 1 << 62), (KEEP_SIZE, 1 << 44, 4096), (0, 1 << 44, 4096)]
    return [ranges(*what) for what in asked]


@ask
def fallocate_collapse():
    return [ranges(COLLAPSE, *what) for what in ((4096, 8192), (100, 4096), (8192, 1 << 20))]


@ask
def fallocate_insert():
    return [ranges(INSERT, *what) for what in ((4096, 8192), (100, 4096), (1 << 20, 4096))]


@ask
def fallocate_elsewhere():
    made("f"), os.mkfifo("p")
    answers = []
    for name, flags in (("f", os.O_RDONLY), (".", os.O_RDONLY), ("p", os.O_RDWR)):
        with opened(name, flags) as file:
            answers.append(said(fallocate, file, 0, 0, 4096))
    with opened("f", os.O_WRONLY | os.O_APPEND) as file:
        answers += [said(fallocate, file, 0, 0, 4096), said(fallocate, file, PUNCH_HOLE | KEEP_SIZE, 0, 100)]
    return answers


@ask
def times_of_ranges():
    made("f", b"x" * 65536)
    with opened("f") as file:
        modes = ((0, 0, 4096), (KEEP_SIZE, 1 << 20, 4096), (PUNCH_HOLE | KEEP_SIZE, 0, 4096), (ZERO, 0, 4096), (0, 1 << 20, 4096))
        answers = [moved("f", lambda mode=mode: fallocate(file, *mode)) for mode in modes]
        answers += [moved("f", lambda size=size: os.ftruncate(file, size)) for size in (2 << 20, 2 << 20, 0, 0)]
        answers += [moved("f", lambda: os.write(file, b"")), moved("f", lambda: os.write(file, b"x"))]
    return answers


def copy(source, target, count, at=None, to=None):
    return said(os.copy_file_range, source, target, count, at, to)


@ask
def copy_file_range():
    made("from", bytes(range(256)) * 16384), made("to"), made("log", b"log")
    with opened("from") as source, opened("to") as target:
        whole, place = 0, os.lseek(source, 0, os.SEEK_SET)
        while (count := os.copy_file_range(source, target, 1 << 30)) > 0:
            whole += count
        answers = [whole, place, os.lseek(source, 0, os.SEEK_CUR), os.lseek(target, 0, os.SEEK_CUR), content("from") == content("to")]
        answers += [copy(source, target, 100, 1 << 22, 0), copy(source, target, 100, (1 << 22) - 40, 1 << 23), os.fstat(target).st_size]
        answers += [copy(source, source, 100, 0, 50), copy(source, source, 100, 0, 100), copy(source, target, 0, 0, 0)]
        answers += [moved("to", lambda: os.copy_file_range(source, target, 10, 0, 0)), copy(source, target, 10, 0, (1 << 63) - 5)]
        with opened("log", os.O_WRONLY | os.O_APPEND) as log, opened("to", os.O_RDONLY) as read, opened(".", os.O_RDONLY) as directory:
            answers += [copy(source, log, 10, 0, 0), copy(source, read, 10, 0, 0), copy(log, target, 10), copy(directory, target, 10)]
    return answers


@ask
def copies_between_file_systems():
    made("f", b"x" * 100000)
    with opened("f") as here, opened("/dev/shm", os.O_TMPFILE | os.O_RDWR) as there:
        return copy(here, there, 100000), os.sendfile(here, there, 0, 5000), os.fstat(here).st_size


@ask
def clones():
    made("f", b"x" * 4096), made("g")
    with opened("f") as source, opened("g") as target:
        return said(fcntl.ioctl, target, 0x40049409, source)


@ask
def mapped_and_written():
    made("f", bytes(8192))
    with opened("f") as one, opened("f") as two, opened("f", os.O_WRONLY) as three:
        memory = mmap.mmap(one, 8192)
        memory[100:104] = b"mmap"
        answers = [os.pread(two, 4, 100)]
        os.pwrite(two, b"two", 100)
        answers.append(memory[100:104])
        os.pwrite(three, b"three", 4094)
        answers.append(memory[4090:4100])
        memory[4094:4096] = b"@@"
        answers.append(os.pread(two, 5, 4094))
        os.ftruncate(three, 4095)
        answers.append(content("f")[-3:])
        os.ftruncate(three, 8192)
        answers.append(memory[4090:4100])
        private = mmap.mmap(two, 8192, flags=mmap.MAP_PRIVATE)
        private[0:3] = b"own"
        answers += [memory[0:3], said(mmap.mmap, three, 4096), os.posix_fadvise(one, 0, 0, os.POSIX_FADV_DONTNEED)]
    memory.flush()
    return answers, summary(content("f"))


@ask
def mapped_beyond_the_end():
    made("f", b"x" * 8192)
    child = os.fork()
    if child == 0:
        with opened("f") as file:
            memory = mmap.mmap(file, 8192)
            os.ftruncate(file, 100)
            memory[200:201] = b"y"
            memory[5000:5001] = b"y"
        os._exit(0)
    died = os.WTERMSIG(os.waitpid(child, 0)[1])
    return signal.Signals(died).name if died else "lives", summary(content("f"))


@ask
def mtime_of_a_store_that_was_synced():
    made("f", bytes(4096))
    with opened("f") as file:
        memory = mmap.mmap(file, 4096)

        def store():
            memory[0:1] = b"x"
            memory.flush()
        answers = [moved("f", store), moved("f", store), moved("f", lambda: memory[0:1])]

        def unmapped():
            memory[5:6] = b"y"
            memory.close()
            os.fsync(file)
        return answers + [moved("f", unmapped)]


@ask
def mtime_of_a_store():
    made("f", bytes(4096))
    with opened("f") as file:
        memory = mmap.mmap(file, 4096)

        def store():
            memory[0:1] = b"x"
        return moved("f", store)


@ask
def atime():
    """`relatime`: a read moves it when it is not later than mtime or is a day old."""
    made("f", b"x" * 4096), os.symlink("f", "l"), os.mkdir("d")
    day = 86400 * 10**9
    os.utime("f", ns=(time.time_ns() - 3 * day, time.time_ns() - 2 * day))
    before = os.stat("f")
    content("f")
    after = os.stat("f")
    time.sleep(0.02)
    content("f")
    again = os.stat("f")
    return after.st_atime_ns > before.st_atime_ns, again.st_atime_ns == after.st_atime_ns, after.st_mtime_ns == before.st_mtime_ns, \
        after.st_ctime_ns == before.st_ctime_ns


def is_read_again(name, read):
    """Whether a second read moves an atime that was put back."""
    read()
    os.utime(name, ns=(10**9, 2 * 10**9), follow_symlinks=False)
    read()
    return os.lstat(name).st_atime_ns > 10**9


@ask
def atime_of_a_read_from_memory():
    made("f", b"x" * 4096)
    return is_read_again("f", lambda: content("f"))


@ask
def atime_of_a_listing():
    os.mkdir("d"), made("d/f")
    return is_read_again("d", lambda: os.listdir("d"))


@ask
def atime_of_a_link():
    os.symlink("f", "l")
    return is_read_again("l", lambda: os.readlink("l"))


@ask
def o_noatime():
    made("f", b"x" * 4096)
    os.utime("f", ns=(10**9, 2 * 10**9))
    with opened("f", os.O_RDONLY | os.O_NOATIME) as file:
        answers = [os.read(file, 2), os.stat("f").st_atime_ns]
    with opened("f", os.O_WRONLY) as file:
        os.write(file, b"y")
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # the page is not in memory afterwards
    os.utime("f", ns=(10**9, 2 * 10**9))
    with opened("f", os.O_RDONLY) as file:
        answers += [os.read(file, 2), os.stat("f").st_atime_ns > 10**9]
    return answers


@ask
def very_large_files():
    top = SIZE_MAX * 4096
    answers = []
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        for size in (9 << 40, top - 1, top, top + 1, 1 << 50, (1 << 63) - 1):
            answers.append((said(os.ftruncate, file, size), os.fstat(file).st_size))
        answers += [said(os.pwrite, file, b"x" * 4096, place) for place in (8 << 40, top - 4096, top - 100, top, 1 << 50)]
        answers += [os.pread(file, 10, top - 5), os.pread(file, 4, 8 << 40), os.lseek(file, 9 << 40, os.SEEK_DATA) == top - 4096]
        answers += [os.lseek(file, 0, os.SEEK_DATA), os.fstat(file).st_blocks]
        memory = mmap.mmap(file, 8192, offset=(8 << 40) - 4096)
        memory[4095:4099] = b"abcd"
        memory.flush()
        answers += [os.pread(file, 6, (8 << 40) - 2), said(fallocate, file, PUNCH_HOLE | KEEP_SIZE, 8 << 40, 1 << 40)]
        answers += [said(fallocate, file, 0, top - 4096, 8192), os.lseek(file, (8 << 40) + 1, os.SEEK_DATA) == top - 4096]
    with opened("f", os.O_WRONLY | os.O_APPEND) as file:
        answers.append(said(os.write, file, b"more"))
    os.truncate("f", 0)
    return answers


@ask
def a_place_beyond_the_largest_file():
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        return said(os.lseek, file, SIZE_MAX * 4096 + 5, os.SEEK_SET)


@ask
def a_limit_of_file_size():
    made("f")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with opened("f") as file:
            answers = [said(os.pwrite, file, b"x" * 600, 600), said(os.pwrite, file, b"x", 1000), said(os.ftruncate, file, 2000)]
            answers.append(said(fallocate, file, 0, 0, 2000))
        os._exit(0 if answers == [400, "EFBIG", "EFBIG", "EFBIG"] else 1)
    return os.waitpid(child, 0)[1], os.stat("f").st_size


def sleeper(name):
    """A program that runs until it is told to end."""
    os.chmod(made(name, content("/bin/cat")), 0o755)
    return subprocess.Popen([f"./{name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@ask
def programs():
    os.chmod(made("script", b"#!/bin/sh\necho script $1\n"), 0o755)
    os.chmod(made("binary", content("/bin/echo")), 0o755)
    made("plain", b"#!/bin/sh\n")
    answers = [subprocess.check_output(["./script", "runs"]), subprocess.check_output(["./binary", "runs"])]
    return answers, said(os.execv, "./plain", ["plain"]), said(os.execv, ".", ["."])


@ask
def programs_that_run():
    running = sleeper("cat")
    answers = [said(os.open, "cat", flags) for flags in (os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC)]
    answers += [said(os.truncate, "cat", 5), said(os.chmod, "cat", 0o700), said(os.rename, "cat", "other"), said(os.unlink, "other")]
    out, _ = running.communicate(b"still there")
    return answers, out, running.returncode


@ask
def programs_that_are_written():
    os.chmod(made("cat", content("/bin/cat")), 0o755)
    with opened("cat", os.O_WRONLY):
        answer = said(os.execv, "./cat", ["cat"])
    with opened("cat", os.O_RDONLY):
        ran = subprocess.run(["./cat"], input=b"x", capture_output=True)
    memory_of = os.open("cat", os.O_RDWR)
    memory = mmap.mmap(memory_of, 4096)
    os.close(memory_of)
    answers = answer, ran.stdout, said(os.execv, "./cat", ["cat"])
    memory.close()
    return answers, subprocess.run(["./cat"], input=b"y", capture_output=True).stdout


@ask
def room():
    room = os.statvfs(".")
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        os.posix_fallocate(file, 0, 20 << 20)
        now = os.statvfs(".")
        of_file = os.fstatvfs(file)
    used = (room.f_bfree - now.f_bfree) * now.f_frsize
    os.truncate("f", 0)
    return room.f_bsize, room.f_frsize, room.f_blocks, room.f_files, room.f_namemax, used >= 20 << 20, used < 24 << 20, \
        of_file.f_blocks == now.f_blocks, room.f_ffree - now.f_ffree, os.stat(".").st_blksize, now.f_bavail <= now.f_bfree


@ask
def unaligned_o_direct():
    memory = mmap.mmap(-1, 8192)
    with opened("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as file:
        return [said(os.pwritev, file, [memory[:100]], 0), said(os.pwritev, file, [memory], 0), said(os.preadv, file, [memory], 100)]


@ask
def flags_of_a_write():
    made("f", b"x" * 100)
    with opened("f") as file:
        flags = (os.RWF_SYNC, os.RWF_DSYNC, os.RWF_HIPRI, os.RWF_APPEND)
        answers = [said(os.pwritev, file, [b"y"], 0, flag) for flag in flags]
        answers.append(os.fstat(file).st_size)
        answers += [said(os.posix_fadvise, file, 0, 0, advice) for advice in range(6)] + [said(os.posix_fallocate, file, 0, 200)]
        answers += [fcntl.fcntl(file, fcntl.F_GETFL) & (os.O_SYNC | os.O_APPEND), said(fcntl.fcntl, file, fcntl.F_SETFL, os.O_APPEND)]
        os.pwrite(file, b"end", 0)
    return answers, content("f")[-4:]


@ask
def reads_and_writes_that_may_not_wait():
    made("f", b"x" * 100)
    content("f")
    with opened("f") as file:
        return said(os.preadv, file, [bytearray(1)], 0, os.RWF_NOWAIT), said(os.pwritev, file, [b"y"], 0, os.RWF_NOWAIT)


@ask
def appends_of_two():
    with opened("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as one, opened("f", os.O_RDWR | os.O_APPEND) as two:
        for i in range(50):
            os.write(one, b"one"), os.write(two, b"two"), os.pwrite(one, b"!", 0)
        os.write(two, b"z" * 10000), os.write(one, b"w" * 10000)
    return len(content("f")), content("f")[:14], content("f")[-1:]


@ask
def other_requests():
    """ioctls that file systems answer: flags, project, extents, version, trim."""
    made("f", b"x")
    buffer = bytearray(64)
    with opened("f") as file:
        return [said(lambda request=request: "done" if fcntl.ioctl(file, request, buffer) == 0 else 0)
                for request in (0x80086601, 0x801C581F, 0xC020660B, 0x80087601, 0x00000001)]


@ask
def bytes_that_can_be_read():
    made("f", b"x" * 100)
    with opened("f") as file:
        return struct.unpack("i", fcntl.ioctl(file, 0x541B, bytes(4)))[0]


@ask_root
def swap():
    made("f", bytes(1 << 20), 0o600)
    subprocess.check_output(["mkswap", "f"], stderr=subprocess.DEVNULL)
    answer = said(lambda: checked(LIBC.swapon(b"f", 0), "swapon"))
    said(lambda: checked(LIBC.swapoff(b"f"), "swapoff"))
    return answer


main("content")
