"""Runs that generate a file: killed at every step they go on to the same bits, and no two of them mix."""

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import stopped_at

import pyrogen as pg
from pyrogen.locks import PathInUseError
from pyrogen.posterior.fingerprint import UnknownStateError, fingerprint

TOP = 3.0


@pytest.fixture(scope="module")
def posterior():
    torch.manual_seed(0)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)))
    return pg.SVI(epochs=1, batch_size=100, progress=False).fit(model, torch.randn(200, 2))


def run(posterior, path, **options):
    return posterior.generate_to(
        path, **{"n": 7, "draws": 2, "chunk": 4, "log_weights": True, "progress": False} | options
    )


@pytest.mark.parametrize(("how", "stride"), [("kill", 3), ("interrupt", 5)])
def test_stopped_at_any_step_it_goes_on_to_the_same_bits(posterior, tmp_path, monkeypatch, how, stride):
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))  # the label comes first
    whole = run(posterior, tmp_path / "whole.h5").read_bytes()
    for step in itertools.count(1, stride):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        path = folder / "a.h5"
        if not stopped_at(step, lambda: run(posterior, path), folder, how):  # noqa: B023 (called at once)
            break
        if path.exists():
            assert path.read_bytes() == whole  # at no moment something else
        run(posterior, path)
        assert path.read_bytes() == whole and os.listdir(folder) == ["a.h5"], step
    assert step > 40


def test_a_whole_file_is_not_made_again_where_only_the_parts_were_to_go(posterior, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pyrogen.events.parts.PartsFolder.remove", stop)
        run(posterior, path)
    (tmp_path / "a.h5.parts" / "000000.h5").unlink()
    before = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(posterior.predictor, "sample", stop)
        run(posterior, path)
    assert path.stat().st_mtime_ns == before and os.listdir(tmp_path) == ["a.h5"]


def test_what_is_wrong_with_a_folder_of_parts_is_said(posterior, tmp_path):
    path, folder = tmp_path / "a[1].h5", tmp_path / "a[1].h5.parts"

    def stop(sample):
        raise InterruptedError

    def begin():
        with pytest.raises(InterruptedError):
            run(posterior, path, finish=stop)

    begin()
    label = folder / "job.json"
    label.write_text('{"n": 7')
    run(posterior, path)  # no part is there yet
    assert os.listdir(tmp_path) == ["a[1].h5"]
    folder.mkdir()
    (folder / "000000.h5").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"a\[1\].h5.parts holds parts of a run, but job.json in it, .* is missing or"):
        run(posterior, path)
    for wrong in ('{"n": 7', "[]", "\xff"):
        label.write_bytes(wrong.encode("latin-1"))
        with pytest.raises(ValueError, match="missing or damaged; delete the folder"):
            run(posterior, path)
    label.write_text(json.dumps({"n": 7, "draws": 2}))
    with pytest.raises(ValueError, match="another version of pyrogen"):
        run(posterior, path)
    label.unlink()
    (folder / "000000.h5").unlink()
    run(posterior, path)


def test_a_damaged_part_is_made_again(posterior, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    path = tmp_path / "a.h5"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pyrogen.events.parts.PartsFolder.finish", stop)
        run(posterior, path)
    whole, part = path.read_bytes(), tmp_path / "a.h5.parts" / "000001.h5"
    part.write_bytes(part.read_bytes()[:500])
    run(posterior, path)
    assert path.read_bytes() == whole and os.listdir(tmp_path) == ["a.h5"]


def test_two_runs_on_one_path_do_not_meet(posterior, tmp_path):
    path = tmp_path / "a.h5"

    def again(sample):
        with pytest.raises(
            PathInUseError, match=rf"generate events to .*a.h5: process {os.getpid()} on .* is doing so"
        ):
            in_a_thread(lambda: run(posterior, path))
        return sample

    run(posterior, path, finish=again, finish_name="again")
    assert len(pg.events.read(path)) == 7 and os.listdir(tmp_path) == ["a.h5"]


def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def small(sample):
    return sample[sample.values[:, 0] < TOP]


def make(top):
    return lambda sample: sample[sample.values[:, 0] < top]


@dataclasses.dataclass(frozen=True)
class Cut:
    top: float
    table: np.ndarray | None = None

    def __call__(self, sample):
        return sample[sample.values[:, 0] < self.top]


def test_a_function_is_known_by_all_that_it_does(monkeypatch):
    pairs = [
        (make(1.0), make(2.0)),
        (functools.partial(make, 1.0), functools.partial(make, 2.0)),
        (functools.partial(make, torch.ones(2)), functools.partial(make, torch.zeros(2))),
        (Cut(1.0), Cut(2.0)),
        (Cut(1.0).__call__, Cut(2.0).__call__),
        (Cut(1.0, np.arange(3)), Cut(1.0, np.arange(3.0))),
        (lambda s: s.select(["x"]), lambda s: s.select(["y"])),
        (lambda s, n=1: s[n:], lambda s, n=2: s[n:]),
        (lambda s, *, n={"a": [1, {2}]}: s, lambda s, *, n={"a": [1, {3}]}: s),  # noqa: B006
        (lambda s: [x + 1 for x in s], lambda s: [x + 2 for x in s]),
        (np.sqrt, np.exp),
    ]
    for one, other in pairs:
        assert fingerprint(one) == fingerprint(one) != fingerprint(other)
    assert fingerprint(make(1.0)) == fingerprint(make(1.0)) and fingerprint(Cut(1.0)) == fingerprint(Cut(1.0))
    before = fingerprint(small)
    monkeypatch.setitem(globals(), "TOP", 4.0)
    assert fingerprint(small) != before
    calls = fingerprint(lambda s: small(s))
    monkeypatch.setitem(globals(), "TOP", 5.0)
    assert fingerprint(lambda s: small(s)) != calls


def test_a_module_of_the_user_is_known_by_its_text(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_cuts.py").write_text("import own_numbers\ndef cut(s): return s[s > own_numbers.top]\n")
    found = []
    for top in (1, 1, 2):
        (tmp_path / "own_numbers.py").write_text(f"top = {top}\n")
        import own_cuts

        found.append(fingerprint(lambda s: own_cuts.cut(s)))  # noqa: B023
    assert found[0] == found[1] != found[2]


SOURCE = """
import numpy as np
from pyrogen.posterior.fingerprint import fingerprint
def f(s, cut={"a", "b", "c"}):
    return np.abs([x for x in s if x in ("p", "q", "r")]) if len(s) else f(s)
found = fingerprint(f)
"""


@pytest.fixture(scope="module")
def there():
    """Fingerprints of the next process: of a function of its own, and of one of the package."""
    code = f"{SOURCE}\nfrom pyrogen import events\nprint(found)\nprint(fingerprint(events.four_vectors))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_a_function_is_the_same_in_the_next_process(there):
    here = {"__name__": "__main__"}
    exec(SOURCE, here)
    assert there[0] == here["found"]


def test_functions_of_the_package_are_known_with_their_doors(there):
    """What checks the arguments encloses a signature, which is that of the function itself."""
    assert there[1] == fingerprint(pg.events.four_vectors)
    assert fingerprint(pg.events.four_vectors) != fingerprint(pg.events.lepton_pair)


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, sample):
        self.calls += 1
        return sample


def test_a_state_that_is_not_known_needs_a_name(posterior, tmp_path):
    path, counter, network = tmp_path / "a.h5", Counter(), torch.nn.Linear(1, 1)
    for finish in (counter, lambda s: counter(s), lambda s, r=network: s):
        with pytest.raises(ValueError, match=r"is a (Counter|Linear), whose state is not known.*finish_name="):
            run(posterior, path, finish=finish)
    with pytest.raises(UnknownStateError, match="contains itself"):
        loop = []
        loop.append(loop)
        fingerprint(lambda s, loop=loop: s)
    with pytest.raises(ValueError, match="finish_name is 3"):
        run(posterior, path, finish=counter, finish_name=3)
    with pytest.raises(TypeError, match="finish is 'all'"):
        run(posterior, path, finish="all")
    assert os.listdir(tmp_path) == []
    with pytest.raises(TypeError, match="finish gave a NoneType; it must give an EventSample"):
        run(posterior, path, finish=print)


def test_a_run_goes_on_with_its_own_function_only(posterior, tmp_path):
    path, calls = tmp_path / "a.h5", Counter()

    def finish(sample):
        calls(sample)
        if calls.calls == 2:
            raise InterruptedError
        return sample

    with pytest.raises(InterruptedError):
        run(posterior, path, finish=finish, finish_name="one")
    for wrong in ({"finish": finish, "finish_name": "two"}, {"finish": small}, {}):
        with pytest.raises(ValueError, match="another run, with other finish"):
            run(posterior, path, **wrong)
    run(posterior, path, finish=finish, finish_name="one")
    assert calls.calls == 3


def test_a_new_working_folder_changes_nothing(posterior, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)

    def leave(sample):
        os.chdir(tmp_path / "there")
        return sample

    run(posterior, "a.h5", finish=leave, finish_name="leave")
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "there"] and os.listdir(tmp_path / "there") == []
