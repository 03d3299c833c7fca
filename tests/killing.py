"""SIGKILL at several moments of a run that goes on from its checkpoint."""

import signal
import time


def kill_again_and_again(start, checkpoint, ready, delays):
    """Start the run once for every delay, and kill it that many seconds after its first new checkpoint.

    Args:
        start: starts the run; returns its process, whose output is a pipe.
        checkpoint: the file it writes.
        ready: the line it prints before its work.
        delays: seconds.

    Returns:
        How often it was killed before it came to its end.
    """
    kills = 0
    for delay in delays:
        with start() as process:
            assert process.stdout.readline() == ready
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            # The moment counts from a new checkpoint, so that every round gets further, however busy the machine is.
            while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
                time.sleep(0.002)
            time.sleep(delay)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    return kills
