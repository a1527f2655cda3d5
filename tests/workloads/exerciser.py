"""One file, changed and read at random through every kind of handle by one or more processes in turn; all that is read, and
its size, must be what was written before, by whomever. What fsx does, with O_DIRECT and with several processes.

exerciser.py FILE OPERATIONS SEED PROCESSES KIND...   KIND: plain, two (read and write apart), direct, append, mapped
"""
import ctypes
import mmap
import os
import random
import sys

MAX = 256 << 10
SECTOR = 4096
KEEP_SIZE, PUNCH_HOLE, ZERO = 1, 2, 16
LIBC = ctypes.CDLL(None, use_errno=True)


def fallocate(file, mode, offset, length):
    if LIBC.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Model:
    """What the file must hold; shared by all processes."""

    def __init__(self):
        self.memory = mmap.mmap(-1, MAX + 8)

    @property
    def size(self):
        return int.from_bytes(self.memory[MAX:], "little")

    def resize(self, size):
        old = self.size
        self.memory[min(old, size):max(old, size)] = bytes(abs(size - old))
        self.memory[MAX:] = size.to_bytes(8, "little")

    def write(self, offset, data):
        end = offset + len(data)
        if end > self.size:
            self.resize(end)
        self.memory[offset:end] = data

    def read(self, offset, length):
        return self.memory[offset:min(offset + length, self.size)]


class Handle:
    """The file, open in one way."""

    def __init__(self, path, kind):
        self.kind = kind
        extra = {"direct": os.O_DIRECT, "append": os.O_APPEND}.get(kind, 0)
        if kind == "two":
            self.reader, self.writer = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
        else:
            self.reader = self.writer = os.open(path, os.O_RDWR | extra)
        self.map = mmap.mmap(self.reader, MAX) if kind == "mapped" else None
        self.buffer = mmap.mmap(-1, MAX)

    def close(self):
        if self.map:
            self.map.close()
        for file in {self.reader, self.writer}:
            os.close(file)

    def read(self, offset, length):
        if self.map:
            return self.map[offset:offset + length]
        if self.kind == "direct":
            count = os.preadv(self.reader, [memoryview(self.buffer)[:length]], offset)
            return self.buffer[:count]
        return os.pread(self.reader, length, offset)

    def write(self, offset, data):
        if self.map:
            self.map[offset:offset + len(data)] = data
        elif self.kind == "direct":
            self.buffer[:len(data)] = data
            return os.pwritev(self.writer, [memoryview(self.buffer)[:len(data)]], offset)
        elif self.kind == "append":
            return os.write(self.writer, data)
        else:
            return os.pwrite(self.writer, data, offset)
        return len(data)


class Process:
    """One who has the file open."""

    def __init__(self, path, model, seed, kinds):
        self.path, self.model, self.kinds = path, model, kinds
        self.random = random.Random(seed)
        self.handle = None
        self.reopen()

    def reopen(self):
        if self.handle:
            self.handle.close()
        kind = self.random.choice(self.kinds)
        # the whole of a mapping must lie within the file
        if kind == "mapped" and self.model.size < MAX:
            os.truncate(self.path, MAX)
            self.model.resize(MAX)
        self.handle = Handle(self.path, kind)

    def place(self):
        unit = SECTOR if self.handle.kind == "direct" else 1
        offset = self.random.randrange(MAX // unit) * unit
        length = min(self.random.choice((1, 10, 4096, 65536)) * self.random.randrange(1, 4), MAX - offset)
        return offset, max(unit, length // unit * unit)

    def check(self, step):
        size = os.fstat(self.handle.reader).st_size
        assert size == self.model.size, f"{step}: {size} bytes, not {self.model.size}"

    def turn(self, number):
        chance = self.random.random()
        handle, model = self.handle, self.model
        offset, length = self.place()
        step = f"operation {number} ({handle.kind}, at {offset} for {length})"
        if chance < 0.4:
            length = length if not handle.map else max(0, min(length, model.size - offset))
            found, wanted = handle.read(offset, length), model.read(offset, length)
            if found != wanted:
                at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))
                raise AssertionError(f"{step}: {len(found)} bytes read, not {len(wanted)}; they differ from {offset + at} on")
        elif chance < 0.7:
            if handle.map:
                length = max(0, min(length, model.size - offset))
            elif handle.kind == "append":
                offset, length = model.size, min(length, MAX - model.size)
            data = self.random.randbytes(length)
            written = handle.write(offset, data)
            assert written == length, f"{step}: {written} written"
            if length:
                model.write(offset, data)
        else:
            self.change(chance, offset, length)
        self.check(step)

    def change(self, chance, offset, length):
        handle, model = self.handle, self.model
        if chance < 0.75:
            # nobody may have mapped what is cut off
            size = self.random.randrange(MAX) if "mapped" not in self.kinds else MAX
            os.ftruncate(handle.writer, size)
            model.resize(size)
        elif chance < 0.80:
            fallocate(handle.writer, PUNCH_HOLE | KEEP_SIZE, offset, length)
            end = min(offset + length, model.size)
            model.memory[offset:max(offset, end)] = bytes(max(0, end - offset))
        elif chance < 0.84:
            fallocate(handle.writer, ZERO, offset, length)
            model.write(offset, bytes(length))
        elif chance < 0.86:
            fallocate(handle.writer, 0, offset, length)
            model.resize(max(model.size, offset + length))
        elif chance < 0.90 and handle.kind not in ("append", "direct"):
            target = self.random.randrange(MAX - length + 1)
            if abs(target - offset) >= length:
                data = model.read(offset, length)
                count = os.copy_file_range(handle.reader, handle.writer, length, offset, target)
                assert count <= len(data), f"copied {count} of {len(data)}"
                model.write(target, data[:count]) if count else None
        elif chance < 0.93:
            self.random.choice((os.fsync, os.fdatasync))(handle.writer)
            if handle.map:
                handle.map.flush()
        elif chance < 0.95:
            os.posix_fadvise(handle.reader, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            self.reopen()


def child(path, model, seed, kinds):
    """A process that takes its turn when it is told to: pipes for the turn and its end."""
    (told, tell), (done, say) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(tell), os.close(done)
        process = Process(path, model, seed, kinds)
        os.write(say, b"x")
        while word := os.read(told, 8):
            process.turn(int.from_bytes(word, "little"))
            os.write(say, b"x")
        os._exit(0)
    os.close(told), os.close(say)
    assert os.read(done, 1) == b"x"
    return tell, done


def main():
    path, operations, seed, processes = sys.argv[1], *map(int, sys.argv[2:5])
    kinds, model, choice = sys.argv[5:], Model(), random.Random(seed)
    os.close(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644))
    if processes == 1:
        alone = Process(path, model, seed, kinds)
        for number in range(operations):
            alone.turn(number)
    else:
        children = [child(path, model, seed + index, kinds) for index in range(processes)]
        for number in range(operations):
            tell, done = choice.choice(children)
            os.write(tell, number.to_bytes(8, "little"))
            assert os.read(done, 1) == b"x", f"a process has ended at operation {number}"
        for tell, _ in children:
            os.close(tell)
        for _ in children:
            assert os.wait()[1] == 0
    with open(path, "rb") as file:
        assert file.read() == model.read(0, MAX), "what was left"
    print(f"{operations} operations agree")


main()
