"""Looks at a folder, again and again, until it holds too much or its disk has too little space;
after SIGTERM once more."""

import os
import signal
import sys
import time

TOO_MANY_BYTES, UNREADABLE, DISK_FULL = 11, 12, 13
# What every file counts at least: an empty one takes room, too.
ENTRY_BYTES_MIN = 4096
# A look rests for so many times as long as it took, and at least so many seconds.
REST_FACTOR = 3
REST_S_MIN = 0.25
# The disk's free space is one question, asked more often.
FREE_S = 0.05


def look(folder, bytes_max):
    size = 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    try:
                        taken = entry.stat(follow_symlinks=False).st_blocks * 512
                    except FileNotFoundError:
                        continue
                    size += max(taken, ENTRY_BYTES_MIN)
                    if size > bytes_max:
                        sys.exit(TOO_MANY_BYTES)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            # It went meanwhile.
            continue
        except OSError:
            sys.exit(UNREADABLE)


def see_to_reserve(folder, free_min):
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < free_min:
        sys.exit(DISK_FULL)


def main(folder, bytes_max, free_min):
    asked = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    is_last = False
    next_at = 0
    while True:
        see_to_reserve(folder, int(free_min))
        begun = time.monotonic()
        if is_last or begun >= next_at:
            look(folder, int(bytes_max))
            now = time.monotonic()
            next_at = now + max(REST_S_MIN, (now - begun) * REST_FACTOR)
        if is_last:
            return
        is_last = signal.sigtimedwait(asked, FREE_S) is not None


main(*sys.argv[1:])
