"""Bytes: random small writes into a 64 MiB file, stores through a mapping, sparse files, files removed while open."""
import ctypes
import mmap
import os
import random

SIZE = 64 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16


def fallocate(file, mode, offset, length):
    LIBC.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length))


large = os.open("large", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(large, SIZE)
mapped = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(mapped, 1 << 20)
memory = mmap.mmap(mapped, 1 << 20)
nameless = []
turn = 0
while True:
    turn += 1
    for _ in range(20):
        os.pwrite(large, os.urandom(random.randrange(1, 6000)), random.randrange(SIZE - 6000))
    for _ in range(10):
        place = random.randrange((1 << 20) - 100)
        memory[place:place + 100] = os.urandom(100)
    if turn % 7 == 0:
        memory.flush()
    if turn % 5 == 0:
        os.fdatasync(large)
    name = f"sparse.{turn % 9}"
    sparse = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(sparse, os.urandom(3000), random.randrange(1 << 22))
    os.pwrite(sparse, b"end", random.randrange(1 << 33))
    fallocate(sparse, PUNCH_HOLE | KEEP_SIZE, random.randrange(1 << 22), 70000)
    fallocate(sparse, ZERO_RANGE | KEEP_SIZE, random.randrange(1 << 22), 5000)
    fallocate(sparse, 0, 0, 20000)
    os.ftruncate(sparse, random.randrange(1 << 23))
    os.close(sparse)
    name = f"doomed.{turn % 4}"
    doomed = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(doomed, os.urandom(5000))
    os.unlink(name)
    os.write(doomed, os.urandom(500))
    nameless.append(doomed)
    if len(nameless) > 5:
        os.close(nameless.pop(0))
    with open(b"not utf-8 \xff\xfe %d" % (turn % 5), "ab") as log:
        log.write(b"appended %d\n" % turn)
