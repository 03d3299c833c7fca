"""SIGKILL at several moments of a run that goes on from its checkpoint, and at every step of what writes files."""

import multiprocessing
import os
import signal
import sys
import time
import traceback

#: Starts processes as copies of this one, which have imported all that it has: torch alone takes seconds.
FORK = multiprocessing.get_context("fork")


def forked(work, *arguments):
    """Do some work in a process of its own; returns its exit status, -9 where it was killed."""
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def kill_again_and_again(work, checkpoint, delays):
    """Do some work in a new process for every delay, and kill it that many seconds after its first new checkpoint.

    Args:
        work: a function.
        checkpoint: the file it writes.
        delays: seconds.

    Returns:
        How often it was killed before it came to its end.
    """
    kills = 0
    for delay in delays:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = FORK.Process(target=work)
        process.start()
        # The moment counts from a new checkpoint, so that every round gets further, however busy the machine is.
        while process.is_alive() and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.002)
        process.join(delay)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        kills += process.exitcode != 0
    return kills


#: What a process does to files, as Python's audit events call it.
STEPS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod")


def stopped_at(step, work, folder, how="kill"):
    """Do some work in a process of its own that is stopped before it opens, renames, makes or removes something.

    Args:
        step: the number, from 1, of that moment.
        work: a function.
        folder: what happens in it counts.
        how: ``"kill"``, after which nothing more is done, or ``"interrupt"``, as of Ctrl-C.

    Returns:
        Whether it was stopped; else it came to its end.
    """
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
        return status == 9
    try:
        steps = 0

        def count(event, arguments):
            nonlocal steps
            if event in STEPS and str(arguments[0]).startswith(str(folder)):
                steps += 1
                if steps == step and how == "kill":
                    os._exit(9)
                if steps == step:
                    raise KeyboardInterrupt

        sys.addaudithook(count)
        work()
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(9)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
