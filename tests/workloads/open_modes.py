"""Handles of every kind on one file at the same time, beside a plain file that gets the same.

open_modes.py matrix WRITER DIRECTORY TWIN on|off: one kind of writer beside every kind of reader
open_modes.py tangle FIRST COUNT DIRECTORY TWIN: random interleavings
"""
import ctypes
import mmap
import os
import random
import sys
import time

SIZE = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
CACHESTAT = 451


def cached_pages(descriptor):
    """Pages in the cache of the inode that the mount shows: none where reads pass through."""
    span, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    if LIBC.syscall(CACHESTAT, descriptor, ctypes.byref(span), ctypes.byref(found), 0) != 0:
        raise OSError(ctypes.get_errno(), "cachestat")
    return found[0]


def write_all(descriptor, data, offset):
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done


def allocate(descriptor, mode, offset, length):
    arguments = [ctypes.c_int(descriptor), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length)]
    if LIBC.fallocate(*arguments) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def tiny_appends(path, data, late):
    handle = os.open(path, os.O_WRONLY)
    for turn in range(300):
        write_all(handle, data[turn * 10:turn * 10 + 10], SIZE + turn * 10)
    return handle


def hot_pages(path, data, late):
    handle = os.open(path, os.O_WRONLY)
    for turn in range(200):
        write_all(handle, data[turn:turn + 4096], turn % 4 * 4096)
    return handle


def unaligned_megabytes(path, data, late):
    handle = os.open(path, os.O_RDWR)
    write_all(handle, data * 3, 100)
    return handle


def stores(path, data, late):
    handle = os.open(path, os.O_RDWR)
    memory = mmap.mmap(handle, SIZE)
    for turn in range(40):
        memory[turn * 5000:turn * 5000 + 700] = data[turn:turn + 700]
    memory.flush()
    late.append(memory)
    memory[:700] = data[9:709]  # and one that nobody syncs
    return handle


def o_append(path, data, late):
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    for turn in range(20):
        os.write(handle, data[turn:turn + 777])
    return handle


def o_trunc(path, data, late):
    handle = os.open(path, os.O_RDWR | os.O_TRUNC)
    write_all(handle, data[:5000], 0)
    os.ftruncate(handle, SIZE)  # who has it mapped must not fall off its end
    return handle


def truncate_by_path(path, data, late):
    os.truncate(path, SIZE - 99)
    os.truncate(path, SIZE + 12345)
    return os.open(path, os.O_RDONLY)


def fallocate(path, data, late):
    handle = os.open(path, os.O_RDWR)
    allocate(handle, 3, 100, 9000)  # punches a hole
    allocate(handle, 16, 20_000, 5000)  # zeroes
    allocate(handle, 0, SIZE, 4096)
    return handle


def copy_file_range(path, data, late):
    source, handle = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    done = 0
    while done < 70_000:
        done += os.copy_file_range(source, handle, 70_000 - done, 500_000 + done, 11 + done)
    os.close(source)
    return handle


def both_ways(path, data, late):
    """A writer that was there before the mapping, and stores into the same page."""
    first, second = os.open(path, os.O_WRONLY), os.open(path, os.O_RDWR)
    memory = mmap.mmap(second, SIZE)
    for turn in range(30):
        at = turn * 4096
        memory[at:at + 100] = data[turn:turn + 100]
        write_all(first, data[turn + 500:turn + 600], at + 2000)
        assert memory[at:at + 4096] == os.pread(second, 4096, at), "mapping and read differ"
        assert memory[at + 2000:at + 2100] == data[turn + 500:turn + 600], "a mapping shows an old write"
    os.ftruncate(first, SIZE + 4096)
    assert os.fstat(second).st_size == SIZE + 4096, "an old size"
    allocate(first, 16, 200_000, 100)
    assert memory[200_000:200_100] == bytes(100), "an old page after fallocate"
    late.append(memory)
    os.close(first)
    return second


WRITERS = {function.__name__: function for function in (
    tiny_appends, hot_pages, unaligned_megabytes, stores, o_append, o_trunc, truncate_by_path, fallocate, copy_file_range,
    both_ways)}


class Handle:
    def __init__(self, path):
        self.handle = os.open(path, os.O_RDONLY)

    def see(self, length):
        return os.pread(self.handle, length, 0)

    def close(self):
        os.close(self.handle)


class Shared(Handle):
    access = {"flags": mmap.MAP_SHARED}

    def __init__(self, path):
        super().__init__(path)
        self.memory = mmap.mmap(self.handle, SIZE, prot=mmap.PROT_READ, **self.access)

    def see(self, length):
        return self.memory[:length]

    def close(self):
        self.memory.close()
        super().close()


class Private(Shared):
    access = {"flags": mmap.MAP_PRIVATE}


class Direct(Handle):
    def __init__(self, path):
        self.handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, 2 * SIZE)

    def see(self, length):
        os.preadv(self.handle, [self.buffer], 0)
        return self.buffer[:length]


def whole(path):
    with open(path, "rb") as file:
        return file.read()


def same(one, two, what):
    if one != two:
        at = next((i for i, (a, b) in enumerate(zip(one, two)) if a != b), min(len(one), len(two)))
        raise AssertionError(f"{what}: differs from byte {at} on, lengths {len(one)} and {len(two)}")


def matrix(writer, directory, twin, passes):
    for kind in (Handle, Shared, Private, Direct):
        what = f"{writer} beside {kind.__name__}"
        data = random.Random(what).randbytes(SIZE)
        path, plain = (os.path.join(place, f"{writer}-{kind.__name__}") for place in (directory, twin))
        for place in (path, plain):
            with open(place, "wb") as file:
                file.write(data[::-1])
        readers = [Handle(path), kind(path)]
        same(readers[0].see(SIZE), data[::-1], f"before {what}")
        pages = cached_pages(readers[0].handle)
        assert (pages == 0) == passes, f"{pages} pages in the cache of the mount before {what}"
        late = []
        handles = [WRITERS[writer](place, data, late) for place in (path, plain)]
        expected = whole(plain)
        number = min(SIZE - 99, len(expected))
        # readers of the volume's own file see what nobody has synced a moment later
        patience = time.monotonic() + (30 if writer in ("stores", "both_ways") else 0)
        while any(reader.see(number) != expected[:number] for reader in readers) and time.monotonic() < patience:
            time.sleep(0.02)
        for reader in readers:
            same(reader.see(number), expected[:number], what)
            assert os.fstat(reader.handle).st_size == os.stat(path).st_size == len(expected), f"size: {what}"
            assert os.fstat(reader.handle).st_ino == os.stat(path).st_ino == os.fstat(handles[0]).st_ino, f"number: {what}"
        same(whole(path), expected, f"a new reader, {what}")
        for memory in late:
            memory.close()
        for handle in handles:
            os.close(handle)
        same(whole(path), expected, f"later, {what}")
        for reader in readers:
            reader.close()
        same(whole(path), expected, f"last, {what}")


class Tangle:
    """Handles and mappings on two files, and what must be in these."""

    def __init__(self, seed, paths):
        self.random, self.paths = random.Random(seed), paths
        self.expected = [bytearray(whole(path)) for path in paths]
        self.handles, self.maps = [], []

    def step(self):
        turn = self.random.randrange(10)
        if turn <= 2:
            self.open()
        elif turn <= 4 and self.handles:
            os.close(self.handles.pop(self.random.randrange(len(self.handles)))[1])
        elif turn == 5 and self.maps:
            self.maps.pop(self.random.randrange(len(self.maps)))[1].close()
        elif turn == 6:
            self.write()
        elif turn == 7:
            self.store()
        elif turn == 8:
            self.truncate()
        self.read()

    def open(self):
        which, mode = self.random.randrange(2), self.random.choice([os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
        handle = os.open(self.paths[which], mode)
        if mode == os.O_RDWR and self.random.randrange(2):
            self.maps.append((which, mmap.mmap(handle, SIZE)))
        self.handles.append((which, handle, mode))

    def write(self):
        writers = [handle for handle in self.handles if handle[2] != os.O_RDONLY]
        if writers:
            which, handle, _ = self.random.choice(writers)
            offset, data = self.random.randrange(SIZE - 9000), self.random.randbytes(self.random.randrange(1, 8000))
            write_all(handle, data, offset)
            self.expected[which][offset:offset + len(data)] = data

    def store(self):
        if self.maps:
            which, memory = self.random.choice(self.maps)
            offset, data = self.random.randrange(SIZE - 600), self.random.randbytes(500)
            memory[offset:offset + 500] = data
            self.expected[which][offset:offset + 500] = data
            memory.flush()

    def truncate(self):
        which = self.random.randrange(2)
        if not any(mapped == which for mapped, _ in self.maps):
            length = SIZE - self.random.randrange(300_000)
            os.truncate(self.paths[which], length)
            os.truncate(self.paths[which], SIZE)
            self.expected[which][length:] = bytes(SIZE - length)

    def read(self):
        offset = self.random.randrange(SIZE - 9000)
        for which, handle, mode in self.handles:
            if mode != os.O_WRONLY:
                same(os.pread(handle, 8192, offset), self.expected[which][offset:offset + 8192], f"handle {mode} at {offset}")
        for which, memory in self.maps:
            same(memory[offset:offset + 8192], self.expected[which][offset:offset + 8192], f"mapping at {offset}")

    def end(self):
        for _, memory in self.maps:
            memory.close()
        for _, handle, _ in self.handles:
            os.close(handle)
        for path, expected in zip(self.paths, self.expected):
            same(whole(path), expected, path)


def tangle(first, count, directory, twin):
    for seed in range(first, first + count):
        paths = [os.path.join(directory, f"tangle{seed % 5}-{number}") for number in range(2)]
        for path in paths:
            # a new file each time: what had two inodes once passes nothing through again
            with open(path + ".new", "wb") as file:
                file.write(bytes(SIZE))
            os.rename(path + ".new", path)
        tangled = Tangle(seed, paths)
        try:
            for _ in range(40):
                tangled.step()
            tangled.end()
        except Exception as error:
            raise AssertionError(f"interleaving {seed}") from error
        for path, expected in zip(paths, tangled.expected):
            same(whole(os.path.join(twin, os.path.basename(path))), expected, f"below, {seed}")


if __name__ == "__main__":
    if sys.argv[1] == "matrix":
        matrix(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5] == "on")
    else:
        tangle(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
