"""Attributes: modes and who takes them away, ACLs, extended attributes, times, locks."""
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import subprocess
import time

from asking import *

CAPABILITY = "security.capability"
# version 2, effective; cap_net_raw
CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def privileged(name="f", mode=0o6777, data=b"x" * 8192):
    made(name, data)
    if IS_ROOT:
        os.chown(name, 0, 0)
    os.chmod(name, mode)
    return name


def write_it(name):
    with opened(name, os.O_WRONLY) as file:
        os.write(file, b"y")


def write_through_cache(name):
    with opened(name, os.O_RDWR) as file:
        os.write(file, b"y")


def write_nothing(name):
    with opened(name, os.O_WRONLY) as file:
        os.write(file, b"")


def write_direct(name):
    with opened(name, os.O_RDWR | os.O_DIRECT) as file:
        os.pwritev(file, [mmap.mmap(-1, 4096)], 0)


def append(name):
    with opened(name, os.O_WRONLY | os.O_APPEND) as file:
        os.write(file, b"y")


def truncate_open(name):
    os.close(os.open(name, os.O_WRONLY | os.O_TRUNC))


def truncate_same(name):
    os.truncate(name, os.stat(name).st_size)


def ftruncate(name):
    with opened(name) as file:
        os.ftruncate(file, 100)


def range_of(mode):
    def change(name):
        with opened(name) as file:
            fallocate(file, mode, 0, 4096)
    return change


def copy_into(name):
    with opened("/proc/self/exe", os.O_RDONLY) as source, opened(name) as target:
        os.sendfile(target, source, 0, 100)


def copy_range_into(name):
    with opened(name) as file:
        os.copy_file_range(file, file, 100, 0, 4096)


def store(name):
    with opened(name) as file:
        memory = mmap.mmap(file, 4096)
        memory[0:1] = b"z"
        memory.flush()


WAYS = {
    "write": write_it, "cached": write_through_cache, "nothing": write_nothing, "direct": write_direct, "append": append,
    "O_TRUNC": truncate_open, "truncate": lambda name: os.truncate(name, 5), "same size": truncate_same, "ftruncate": ftruncate,
    "allocate": range_of(0), "keep": range_of(KEEP_SIZE), "punch": range_of(PUNCH_HOLE | KEEP_SIZE), "zero": range_of(ZERO),
    "sendfile": copy_into, "copy range": copy_range_into,
}


def taken(mode, who):
    answers = []
    for what, way in WAYS.items():
        privileged("f", mode)
        if IS_ROOT:
            os.setxattr("f", CAPABILITY, CAP_NET_RAW)
        answer = who(way, "f")
        caps = "" if not IS_ROOT or CAPABILITY in os.listxattr("f") else " no caps"
        answers.append(f"{what} {answer or ''}{mode_of('f')}{caps}")
        os.unlink("f")
    return ", ".join(answers)


@ask_root
def privileges_taken_by_a_stranger():
    return taken(0o6777, lambda way, name: "" if as_user(way, name) == "None" else "refused ")


@ask_root
def privileges_without_group_execution():
    return taken(0o6767, lambda way, name: "" if as_user(way, name) == "None" else "refused ")


@ask_root
def who_runs_behind_a_change():
    program = content("/usr/bin/id")
    same = {
        "write": (os.O_WRONLY, lambda file: os.write(file, program[:100])),
        "direct": (os.O_WRONLY | os.O_DIRECT, lambda file: os.pwritev(file, [memory], 0)),
        "append": (os.O_WRONLY | os.O_APPEND, lambda file: os.write(file, b"y")),
        "cached": (os.O_RDWR, lambda file: os.write(file, program[:100])),
        "truncate": (os.O_RDWR, lambda file: os.ftruncate(file, len(program) + 10)),
        "allocate": (os.O_WRONLY, lambda file: fallocate(file, 0, 0, 4096)),
        "copy": (os.O_RDWR, lambda file: os.copy_file_range(file, file, 100, 0, len(program))),
    }
    memory = mmap.mmap(-1, 4096)
    memory[:] = program[:4096]

    def change_and_run(flags, change):
        with opened("f", flags) as file:
            change(file)
        return subprocess.run(["./f", "-u"], capture_output=True, check=True).stdout

    answers = []
    for what, way in same.items():
        privileged("f", 0o4777, program)
        os.stat("f")
        answers.append((what, as_user(change_and_run, *way), mode_of("f")))
        os.unlink("f")
    return answers


@ask_root
def capabilities_behind_a_store():
    privileged(), os.setxattr("f", CAPABILITY, CAP_NET_RAW)
    store("f")
    return mode_of("f"), CAPABILITY in os.listxattr("f")


@ask
def privileges_of_the_owner():
    return taken(0o6755, said)


def without_fsetid(way, name):
    """As root that may not keep what it writes to set-user-id."""
    child = os.fork()
    if child == 0:
        LIBC.prctl(24, 4, 0, 0, 0)
        header, data = struct.pack("Ii", 0x20080522, 0), bytearray(24)
        LIBC.capget(header, (ctypes.c_char * 24).from_buffer(data))
        for word in (0, 4, 8):
            struct.pack_into("I", data, word, struct.unpack_from("I", data, word)[0] & ~(1 << 4))
        LIBC.capset(header, (ctypes.c_char * 24).from_buffer(data))
        try:
            way(name)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@ask_root
def privileges_of_a_write_without_cap_fsetid():
    answers = []
    for way in (write_it, write_through_cache, append):
        without_fsetid(way, privileged())
        answers.append(mode_of("f"))
    return answers


@ask_root
def privileges_of_a_truncation_without_cap_fsetid():
    answers = []
    for way in (truncate_open, ftruncate, range_of(0)):
        without_fsetid(way, privileged())
        answers.append(mode_of("f"))
    return answers


@ask_root
def privileges_taken_by_chown():
    answers = []
    for mode in (0o6755, 0o6745, 0o2755, 0o2745, 0o4644):
        for uid, gid in ((5, 5), (-1, 5), (5, -1), (0, 0)):
            privileged("f", mode)
            os.setxattr("f", CAPABILITY, CAP_NET_RAW)
            os.chown("f", uid, gid)
            answers.append((mode_of("f"), CAPABILITY in os.listxattr("f")))
    os.mkdir("d"), os.chmod("d", 0o6755)
    os.chown("d", 5, 5)
    return answers, mode_of("d")


@ask_root
def privileges_taken_by_chown_of_nothing():
    privileged("f", 0o6755)
    os.chown("f", -1, -1)
    return mode_of("f")


@ask_root
def privileges_taken_by_an_owner_who_gives_to_a_group():
    made("f"), os.chown("f", 7, 7), os.chmod("f", 0o6755)
    answers = [as_user(os.chown, "f", -1, 8, uid=7, gid=7, groups=[8]), mode_of("f")]
    os.chmod("f", 0o6755)
    answers += [as_user(os.chown, "f", -1, 9, uid=7, gid=7), mode_of("f"), as_user(os.chown, "f", 8, -1, uid=7, gid=7)]
    answers += [as_user(os.chmod, "f", 0o2755, uid=7, gid=7), mode_of("f"), as_user(os.chmod, "f", 0o777), mode_of("f")]
    return answers


@ask_root
def groups_of_new_objects():
    os.mkdir("d"), os.chown("d", 0, 77), os.chmod("d", 0o2777)

    def make():
        made("d/f"), os.mkdir("d/e"), os.symlink("x", "d/l"), os.mkfifo("d/p")
        os.close(os.open("d/s", os.O_CREAT | os.O_WRONLY, 0o2775))
        os.close(os.open("d/m", os.O_CREAT | os.O_WRONLY, 0o2765))
        os.umask(0)
        os.mkdir("d/t", 0o7777)
    answer = as_user(make)
    return answer, {name: (oct(meta.st_mode), meta.st_uid, meta.st_gid) for name in sorted(os.listdir("d")) for meta in [os.lstat(f"d/{name}")]}


@ask_root
def sticky_directories():
    os.mkdir("d"), os.chmod("d", 0o1777), made("d/mine"), made("d/theirs"), os.chown("d/theirs", STRANGER, STRANGER)
    return [as_user(call, *what) for call, *what in ((os.unlink, "d/mine"), (os.rename, "d/mine", "d/x"), (os.unlink, "d/theirs"))]


@ask_root
def who_may():
    made("f", b"x", 0o640), os.chown("f", 7, 8), os.mkdir("d", 0o710), made("d/f")
    os.chown("d", 7, 8)
    calls = [(content, "f"), (write_it, "f"), (os.listdir, "d"), (os.stat, "d/f"), (os.unlink, "f"), (os.utime, "f"), (os.access, "f", os.W_OK)]
    people = ((7, 9, ()), (9, 8, ()), (9, 9, (8,)), (9, 9, ()))
    return [[as_user(*call, uid=uid, gid=gid, groups=groups)[:12] for call in calls] for uid, gid, groups in people]


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, who) for tag, perm, who in entries)


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
FULL = acl((USER_OBJ, 7, NOBODY), (USER, 7, 12), (GROUP_OBJ, 5, NOBODY), (GROUP, 6, 34), (MASK, 7, NOBODY), (OTHER, 5, NOBODY))


def shown(path):
    def entries(name):
        value = said(os.getxattr, path, name)
        return value if isinstance(value, str) else " ".join("%d:%d:%d" % entry for entry in struct.iter_unpack("<HHi", value[4:]))
    return mode_of(path), entries(ACCESS), entries(DEFAULT)


@ask
def acls_that_are_inherited():
    os.mkdir("d")
    os.setxattr("d", DEFAULT, FULL)
    answers = [shown("d")]
    for umask, mode in ((0o022, 0o666), (0o077, 0o600), (0, 0o777)):
        os.umask(umask)
        os.close(os.open(f"d/f{mode:o}", os.O_CREAT | os.O_WRONLY, mode))
        os.mkdir(f"d/d{mode:o}", mode), os.mkfifo(f"d/p{mode:o}", mode)
        answers += [shown(f"d/{kind}{mode:o}") for kind in "fdp"]
    os.symlink("f666", "d/l")
    return answers, os.listxattr("d/l", follow_symlinks=False)


@ask
def acls_and_modes():
    made("f"), os.mkdir("d")
    os.setxattr("f", ACCESS, FULL)
    answers = [shown("f")]
    os.chmod("f", 0o640)
    answers.append(shown("f"))
    os.setxattr("f", ACCESS, acl((USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 0, NOBODY)))
    answers.append(shown("f"))
    os.setxattr("f", ACCESS, FULL), os.removexattr("f", ACCESS)
    answers += [shown("f"), said(os.removexattr, "f", ACCESS), said(os.setxattr, "f", DEFAULT, FULL), said(os.setxattr, "d", ACCESS, b"\x02\0\0\0")]
    answers += [said(os.setxattr, "f", ACCESS, b"\x03\0\0\0" + FULL[4:]), said(os.setxattr, "f", ACCESS, FULL[:-3]), said(os.setxattr, "f", ACCESS, acl((USER, 7, 1)))]
    answers += [said(os.setxattr, "f", ACCESS, FULL, os.XATTR_CREATE), shown("f"), said(os.setxattr, "f", ACCESS, FULL, os.XATTR_CREATE), os.listxattr("f")]
    os.setxattr("d", DEFAULT, FULL), os.setxattr("d", DEFAULT, b"")
    return answers, shown("d")


@ask_root
def acls_decide():
    made("f", b"x", 0o600), os.setxattr("f", ACCESS, FULL)
    answers = [as_user(content, "f", uid=uid, gid=gid) for uid, gid in ((12, 1), (1, 34), (1, 0), (1, 1))]
    answers += [as_user(write_it, "f", uid=uid, gid=gid) for uid, gid in ((12, 1), (1, 34), (1, 0), (1, 1))]
    os.chmod("f", 0o600)
    answers += [as_user(content, "f", uid=uid, gid=gid) for uid, gid in ((12, 1), (1, 34))]
    return answers, as_user(os.setxattr, "f", ACCESS, FULL)


@ask_root
def acl_by_an_owner_outside_the_group():
    made("f"), os.chown("f", 7, 8), os.chmod("f", 0o2775)
    answers = [as_user(os.setxattr, "f", ACCESS, FULL, uid=7, gid=7), mode_of("f")]
    os.chmod("f", 0o2775)
    answers += [as_user(os.setxattr, "f", ACCESS, FULL, uid=7, gid=7, groups=[8]), mode_of("f")]
    os.setxattr("f", ACCESS, FULL)
    return answers + [mode_of("f")]


@ask
def extended_attributes():
    made("f"), os.mkdir("d"), os.symlink("f", "l"), os.mkfifo("p")
    answers = [said(os.setxattr, name, "user.x", b"1", follow_symlinks=False) for name in "fdlp"]
    answers += [said(os.setxattr, "f", name, b"1") for name in ("user." + "n" * 250, "user." + "n" * 251, "user.", "user", "", "none.x", "system.x")]
    answers += [said(os.setxattr, "f", "user.v", bytes(size)) for size in (0, 1, 1000, 65537)]
    answers += [said(os.setxattr, "f", "user.v", b"2", os.XATTR_CREATE), said(os.setxattr, "f", "user.w", b"2", os.XATTR_REPLACE), said(os.setxattr, "f", "user.w", b"2", 3)]
    answers += [len(os.getxattr("f", "user.v")), said(os.getxattr, "f", "user.none"), said(os.removexattr, "f", "user.none"), sorted(os.listxattr("f"))[:2]]
    buffer = ctypes.create_string_buffer(10)
    answers += [said(lambda: checked(LIBC.getxattr(b"f", b"user.v", buffer, 10), "get")), said(lambda: checked(LIBC.listxattr(b"f", buffer, 5), "list"))]
    return answers, moved("f", lambda: os.setxattr("f", "user.x", b"3")), moved("f", lambda: os.removexattr("f", "user.x"))


@ask
def room_of_extended_attributes():
    made("f")
    count = 0
    while said(os.setxattr, "f", f"user.{count}", b"x" * 100) is None:
        count += 1
    larger = said(os.setxattr, "f", "user.0", b"x" * 4000)
    values = {len(os.getxattr("f", name)) for name in os.listxattr("f")}
    made("g")
    largest = max(size for size in range(3000, 4200) if said(os.setxattr, "g", "user.x", bytes(size)) is None)
    return count, said(os.setxattr, "f", f"user.{count}", b"x" * 100), larger, values, largest, said(os.setxattr, "g", "user.y", bytes(65536))


@ask_root
def extended_attributes_of_root():
    made("f", b"", 0o666), os.symlink("f", "l"), os.mknod("n", 0o600 | 0o020000, 0x103)
    names = ("trusted.x", "security.x", "user.x")
    answers = [[said(os.setxattr, path, name, b"1", follow_symlinks=False) for name in names] for path in "fln"]
    answers += [[as_user(call, "f", name, *rest) for name in names] for call, *rest in ((os.setxattr, b"2"), (os.getxattr,), (os.removexattr,))]
    return answers, sorted(os.listxattr("f")), as_user(lambda: sorted(os.listxattr("f")))


TIMES = [(0, 0), (-1, 0), (-1, 999_999_999), (-1, 1), (-2, 500_000_000), (-(1 << 31), 0), (-(1 << 31), 1), (-(1 << 31) - 1, 999_999_999),
         ((1 << 31) - 1, 999_999_999), (1 << 31, 1), ((1 << 32) - 1, 5), (1 << 32, 123_456_789), (7_289_539_200, 1), (15_032_385_535, 999_999_999),
         (15_032_385_536, 0), (1 << 40, 7), (-(1 << 40), 7), ((1 << 63) - 1, 3), (-(1 << 63) + 1, 3)]


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanos", ctypes.c_long)]


def set_times(path, atime, mtime, flags=0x100):
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    checked(LIBC.utimensat(AT_FDCWD, os.fsencode(path), times, flags), "utimensat")


def times_at(path):
    meta = os.lstat(path)
    return [divmod(at, 10**9) for at in (meta.st_atime_ns, meta.st_mtime_ns)]


@ask
def times():
    made("f"), os.mkdir("d"), os.symlink("f", "l")
    answers = []
    for at in TIMES:
        for path in "fdl":
            answer = said(set_times, path, at, at)
            answers.append((at, answer, times_at(path)) if path == "f" or times_at(path) != times_at("f") else "")
    return [answer for answer in answers if answer]


@ask
def the_earliest_time():
    made("f")
    answers = [said(set_times, "f", (-(1 << 63), nanos), (-(1 << 63), nanos)) for nanos in (0, 1)]
    return answers, times_at("f")


@ask
def times_now_and_left_out():
    now, omit = (0, (1 << 30) - 1), (0, (1 << 30) - 2)
    made("f")
    set_times("f", (-5, 5), (-6, 6))
    set_times("f", omit, (-7, 7))
    answers = [times_at("f")]
    set_times("f", (-8, 8), omit)
    answers += [times_at("f"), moved("f", lambda: set_times("f", omit, omit)), moved("f", lambda: set_times("f", now, omit), "atime", "mtime", "ctime")]
    set_times("f", omit, now)
    mtime = os.stat("f").st_mtime_ns
    return answers + [abs(time.time_ns() - mtime) < 5 * 10**9, said(set_times, "f", (0, 10**9), (0, 0)), said(set_times, "f", (0, -1), (0, 0))]


@ask
def what_moves_times():
    made("f", b"x"), os.mkdir("d"), made("d/f")
    answers = [moved(path, lambda call=call, what=what: call(*what)) for path, call, *what in (
        ("f", os.chmod, "f", 0o600), ("f", os.chmod, "f", 0o600), ("f", os.link, "f", "g"), ("f", os.unlink, "g"), ("f", os.rename, "f", "f"),
        ("d", os.rename, "d/f", "d/g"), ("d", made, "d/h"), ("d", os.unlink, "d/h"), ("d", os.mkdir, "d/e"), ("d", write_it, "d/g"),
        ("d", os.rmdir, "d/e"), ("d", os.symlink, "x", "d/l"), ("d", os.chmod, "d/g", 0o600), ("f", os.truncate, "f", 1), ("f", truncate_open, "f"))]
    return answers, moved("f", lambda: os.chown("f", os.getuid(), os.getgid()))


@ask
def mtime_and_ctime_of_a_change():
    """Whether mtime is ever the later one; the second write in a row is one that nobody looked at before."""
    later = False
    with opened(made("f")) as file:
        for _ in range(50):
            os.write(file, b"one"), os.write(file, b"two")
            meta = os.fstat(file)
            later |= meta.st_mtime_ns > meta.st_ctime_ns
    return later


@ask
def birth():
    made("f")
    buffer = bytearray(256)
    syscall(332, AT_FDCWD, ctypes.c_char_p(b"f"), 0, 0xFFF, (ctypes.c_char * 256).from_buffer(buffer))
    return bool(struct.unpack_from("I", buffer)[0] & 0x800)


def record_lock(kind, start=0, length=0):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def locked(file, command, kind, start=0, length=0):
    return "got it" if isinstance(said(fcntl.fcntl, file, command, record_lock(kind, start, length)), bytes) else "refused"


def in_child(call):
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, str(said(call)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    answer = os.read(read, 1000).decode()
    os.close(read)
    return answer


@ask
def locks_of_a_process():
    made("f"), os.link("f", "g")
    one, two, read = os.open("f", os.O_RDWR), os.open("g", os.O_RDWR), os.open("f", os.O_RDONLY)
    other = lambda: locked(os.open("g", os.O_RDWR), fcntl.F_SETLK, fcntl.F_WRLCK, 50, 10)
    answers = [locked(one, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 100), locked(two, fcntl.F_SETLK, fcntl.F_WRLCK, 50, 100), in_child(other)]
    holder = lambda: struct.unpack("hhqqi4x", fcntl.fcntl(os.open("f", os.O_RDWR), fcntl.F_GETLK, record_lock(fcntl.F_WRLCK)))[4] == os.getppid()
    answers += [in_child(holder), locked(read, fcntl.F_SETLK, fcntl.F_WRLCK), locked(os.open("f", os.O_WRONLY), fcntl.F_SETLK, fcntl.F_RDLCK)]
    os.close(two)  # any descriptor of the file that is closed ends them all
    return answers + [in_child(other)]


@ask
def locks_of_a_handle():
    made("f"), os.link("f", "g")
    one, two = os.open("f", os.O_RDONLY), os.open("g", os.O_RDONLY)
    fcntl.flock(one, fcntl.LOCK_EX)
    copy = os.dup(one)
    answers = [said(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB), said(fcntl.flock, copy, fcntl.LOCK_SH)]
    answers += [said(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB), said(fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB)]
    os.close(one)
    answers.append(said(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB))
    os.close(copy)
    answers += [said(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)]
    os.unlink("f")
    through = os.open(f"/proc/self/fd/{two}", os.O_RDONLY)
    return answers + [said(fcntl.flock, through, fcntl.LOCK_SH | fcntl.LOCK_NB)]


@ask
def locks_of_an_open_file():
    made("f"), os.link("f", "g")
    one, two = os.open("f", os.O_RDWR), os.open("g", os.O_RDWR)
    answers = [locked(one, 37, fcntl.F_WRLCK, 0, 100), locked(two, 37, fcntl.F_WRLCK, 99, 10), locked(two, 37, fcntl.F_WRLCK, 100, 10)]
    answers += [locked(two, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 10), locked(one, 37, fcntl.F_RDLCK, 0, 50), locked(two, 37, fcntl.F_RDLCK, 0, 60)]
    answers += [locked(two, 37, fcntl.F_RDLCK, 0, 50)]
    os.close(os.open("f", os.O_RDWR))
    answers.append(locked(two, 37, fcntl.F_WRLCK, 60, 10))
    os.close(one)
    return answers + [locked(two, 37, fcntl.F_WRLCK, 0, 100)]


DEADLOCK = errno.errorcode[errno.EDEADLK]


@ask
def a_deadlock_of_locks():
    made("f")
    fcntl.lockf(one := os.open("f", os.O_RDWR), fcntl.LOCK_EX, 1, 0)
    ready, go = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        file = os.open("f", os.O_RDWR)
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 1)
        os.write(ready[1], b"x"), os.read(go[0], 1)
        # waits for the parent, who waits for us: one of the two is refused
        os._exit(0 if said(fcntl.lockf, file, fcntl.LOCK_EX, 1, 0) in (None, DEADLOCK) else 1)
    os.read(ready[0], 1), os.write(go[1], b"x")
    mine = said(fcntl.lockf, one, fcntl.LOCK_EX, 1, 1)
    os.close(one)
    return mine in (None, DEADLOCK), os.waitpid(child, 0)[1]


main("attributes")
