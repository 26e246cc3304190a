"""Looks at a folder, again and again, until it holds too much; after SIGTERM once more."""

import os
import signal
import sys
import time

TOO_MANY_BYTES, UNREADABLE = 11, 12
# What every file counts at least: an empty one takes room, too.
ENTRY_BYTES_MIN = 4096
# A look rests for so many times as long as it took, and at least so many seconds.
REST_FACTOR = 3
REST_S_MIN = 0.25


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


def main(folder, bytes_max):
    asked = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    is_last = False
    while True:
        begun = time.monotonic()
        look(folder, int(bytes_max))
        if is_last:
            return
        rest = max(REST_S_MIN, (time.monotonic() - begun) * REST_FACTOR)
        is_last = signal.sigtimedwait(asked, rest) is not None


main(*sys.argv[1:])
