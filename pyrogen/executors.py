"""Work in parts on an executor: any object with ``submit(function, *arguments)`` whose futures have ``result()``.

Process pools of Python, clients of Dask, submitit and Parsl are such objects. pyrogen starts no workers itself.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor
from typing import Any

import torch

from pyrogen.checks import having
from pyrogen.progress import bar
from pyrogen.warn import warn

#: What runs functions elsewhere.
EXECUTOR = having(
    "an executor, such as concurrent.futures.ProcessPoolExecutor() or dask.distributed.Client()", "submit"
)
TRIES = 3  # how often a part is tried before the whole is refused
SHOWN = 5  # failed parts that an error describes
SAME_AGAIN = (ValueError, TypeError, NotImplementedError, ImportError)  # errors that another try would repeat

_one_at_a_time = threading.Lock()  # warnings and the number of threads belong to the whole process


class PartsError(RuntimeError):
    """Parts of a work failed on their executor; the text names them, and says what is kept and how to go on."""


def run_parts(
    executor: Any,
    function: Callable[..., Any],
    parts: Mapping[str, tuple[Any, ...]],
    finished: Callable[[str, Any], None],
    *,
    what: str,
    go_on: str,
    done: int = 0,
    progress: bool = True,
) -> None:
    """Run a function for every part on an executor, and take the results in the order of the parts.

    A part that fails, as its worker was killed, is tried again, after all others. An error of the arguments is not:
    it would come again. Warnings of the workers are repeated here.

    Args:
        executor: with ``submit(function, *arguments)``; its futures have ``result()``, and may have ``cancel()``.
        function: a function of a module, which workers import.
        parts: arguments of every part, by the name of the part in messages. They have to be plain.
        finished: called with the name and the result of each part.
        what: the work, for the bar and for messages.
        go_on: what becomes of the finished parts, and how to go on; a sentence.
        done: number of parts that were finished before.
        progress: show a bar, which counts parts.

    Raises:
        PartsError: a part failed every time, or the executor takes no more work. All other parts are finished first.
        KeyboardInterrupt: Ctrl-C. Parts that were not begun are cancelled; the text says how to go on.
    """
    total, counted = done + len(parts), done
    left, failed = dict(parts), dict[str, str]()
    futures: dict[str, Any] = {}
    try:
        with bar(total, what, " parts", show=progress, done=done) as shown:
            for _ in range(TRIES):
                left, again = {}, left
                token = secrets.token_hex(8)  # Dask would give the same future for the same arguments
                for name, arguments in again.items():
                    futures[name] = _submitted(executor, token, function, arguments)
                for name, arguments in again.items():
                    outcome = _waited_for(futures[name])
                    del futures[name]  # with which its result goes
                    for category, text in outcome.get("warnings", ()):
                        warn(f"{name}: {text}", category)
                    if "error" in outcome:
                        failed[name] = outcome["error"]
                        if not outcome["final"]:
                            left[name] = arguments
                        continue
                    finished(name, outcome["result"])
                    failed.pop(name, None)
                    counted += 1
                    shown.update()
                if not left:
                    break
    except KeyboardInterrupt as stop:
        if stop.args:
            raise
        raise KeyboardInterrupt(
            f"{what} was stopped by Ctrl-C; {counted} of {total} parts are finished. {go_on}"
        ) from None
    except _SubmitError as error:
        raise PartsError(f"{what}: {error}; {counted} of {total} parts are finished. {go_on}") from error.__cause__
    finally:
        for future in futures.values():
            with contextlib.suppress(Exception):
                future.cancel()
    if failed:
        told = "; ".join(f"{name}: {error}" for name, error in list(failed.items())[:SHOWN])
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        raise PartsError(
            f"{what}: {len(failed)} of {total} parts failed on the executor ({told}{more}); {counted} are finished. "
            f"{go_on}"
        )


def outcome_of(token: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """What a worker does: call the function on one CPU thread; returns what came of it, errors and warnings too.

    An error comes back in words, as not every engine can carry every exception.
    """
    threads = torch.get_num_threads()
    with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            torch.set_num_threads(1)
            outcome: dict[str, Any] = {"result": function(*arguments)}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {error} (in {where.name}, line {where.lineno} of {where.filename})"
            outcome = {"error": told, "final": isinstance(error, SAME_AGAIN)}
        finally:
            torch.set_num_threads(threads)
    return outcome | {"warnings": [(one.category, str(one.message)) for one in caught]}


class _SubmitError(Exception):
    """The executor takes no more work."""


def _submitted(executor: Any, *arguments: Any) -> Any:
    """A future of the executor.

    Raises:
        _SubmitError: the executor takes no more work.
    """
    try:
        return executor.submit(outcome_of, *arguments)
    except Exception as error:
        advice = ""
        if isinstance(error, BrokenExecutor):
            advice = ". One of its workers was killed, perhaps as memory ran out; make a new executor"
        raise _SubmitError(
            f"executor.submit failed with {type(error).__name__}: {error}".rstrip(". ") + advice
        ) from error


def _waited_for(future: Any) -> dict[str, Any]:
    """The outcome of a part; where the engine lost it, that is an error of it."""
    try:
        return future.result()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".strip(), "final": False}
