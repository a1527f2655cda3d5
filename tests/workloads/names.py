"""Names and attributes: renames over existing files, directories renamed across each other, links, owners, ACLs, suid."""
import ctypes
import os
import random
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
IS_ROOT = os.geteuid() == 0
# the parent of a vfork stands in an uninterruptible wait, which looks like a request that is still under way
subprocess._USE_VFORK = subprocess._USE_POSIX_SPAWN = False


def rename(old, new, flags=0):
    LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)


def pick():
    return f"n{random.randrange(4)}/m{random.randrange(4)}/f{random.randrange(12)}"


def somewhere():
    place = f"n{random.randrange(4)}"
    return place if random.random() < 0.4 else f"{place}/m{random.randrange(4)}"


def attempt(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except OSError:
        return None


turn = 0
while True:
    turn += 1
    for outer in range(4):
        for inner in range(4):
            attempt(os.makedirs, f"n{outer}/m{inner}", exist_ok=True)
    for _ in range(12):
        path = pick()
        with attempt(open, path, "wb") or open(os.devnull, "wb") as file:
            file.write(os.urandom(random.randrange(4000)))
        attempt(rename, path, pick())
        attempt(rename, pick(), pick(), EXCHANGE)
        attempt(rename, pick(), pick(), NOREPLACE)
        attempt(os.link, pick(), pick() + ".link")
        attempt(os.symlink, "../" + pick(), pick() + ".symlink")
        attempt(os.mkfifo, pick() + ".fifo")
        attempt(os.setxattr, pick(), "user.reelfs", os.urandom(random.randrange(200)), follow_symlinks=False)
        attempt(os.removexattr, pick(), "user.reelfs", follow_symlinks=False)
        attempt(os.utime, pick(), ns=(0, random.randrange(-10**18, 4 * 10**18)), follow_symlinks=False)
        attempt(os.utime, somewhere(), ns=(0, random.randrange(-10**18, 4 * 10**18)))
        attempt(os.chmod, pick(), random.choice([0o600, 0o4755, 0o2755, 0o6777, 0o1777, 0]))
        if IS_ROOT:
            attempt(os.chown, pick(), random.randrange(3), random.randrange(3), follow_symlinks=False)
        attempt(os.unlink, pick())
        attempt(os.unlink, random.choice([pick() + ".link", pick() + ".symlink", pick() + ".fifo"]))
    rename(somewhere(), somewhere(), EXCHANGE)
    rename(somewhere(), somewhere() + f"/moved{random.randrange(3)}")
    if turn % 5 == 0:
        path, place = pick(), somewhere()
        quiet = {"stderr": subprocess.DEVNULL}
        subprocess.call(["setfacl", "-m", f"u:{random.randrange(9)}:rw", path], **quiet)
        subprocess.call(["setfacl", "-d", "-m", f"g:{random.randrange(9)}:rx", place], **quiet)
        subprocess.call(["setfacl", "-b", pick()], **quiet)
        if IS_ROOT:
            nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            with open("suid", "wb") as file:
                os.fchmod(file.fileno(), 0o6777)
            subprocess.call(nobody + ["sh", "-c", "echo written >>suid"], **quiet)
            subprocess.call(["setcap", "cap_net_raw+ep", "suid"], stdout=subprocess.DEVNULL, **quiet)
            attempt(os.rename, "suid", f"suid.{turn % 20}")
