"""How many rows are worked on at once: by device, memory and the user's bound; half as many where memory runs out."""

import pytest
import torch
from known import Location

import pyrogen as pg
from pyrogen import memory
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential

GB = 10**9


def test_rows_of_a_cpu_are_those_of_the_caller_and_of_a_card_those_of_its_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 16 * GB)
    assert memory.rows_at_once("cpu", 1000) == memory.CPU_ROWS == 4096
    assert memory.rows_at_once("cpu", 1000, cpu=77) == 77
    assert memory.rows_at_once("cuda", 1) == memory.CARD_ROWS  # more gain nothing
    assert memory.rows_at_once("cuda", 8000) == 1 << 19  # half the memory holds 1,000,000 rows
    assert memory.rows_at_once("cuda", 1e12) == 1


def test_free_memory_is_what_the_card_and_torch_have_left(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * GB)
    assert memory.free_bytes(torch.device("cuda")) == 7 * GB
    assert memory.rows_at_once("cuda", 3500) == 1 << 19


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_user_bounds_the_memory(monkeypatch, device):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 16 * GB)
    monkeypatch.setenv("PYROGEN_MEMORY_GB", "0.001")
    assert memory.rows_at_once(device, 1000) == {"cpu": 1000, "cuda": 512}[device]
    for wrong in ("lots", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("PYROGEN_MEMORY_GB", wrong)
        with pytest.raises(ValueError, match="PYROGEN_MEMORY_GB is '" + wrong):
            memory.rows_at_once(device, 1000)


def test_the_larger_a_network_the_more_a_row_takes():
    shapes = [(32, 3), (32,), (5, 32), (5,)]
    assert memory.row_bytes(shapes, torch.float32) == 4 * 16 * 32
    assert memory.row_bytes(shapes, torch.float64, gradient=True) == 8 * 8 * 37
    assert memory.row_bytes([(1,)], torch.float32) > 0


def test_work_that_finds_no_memory_goes_on_with_half_the_rows():
    tried, holds = [], [3]

    def work(rows):
        tried.append((rows.start, rows.stop))
        if rows.stop - rows.start > holds[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(rows.start, rows.stop))

    found = list(memory.in_chunks(work, 10, 8))
    assert sum((values for _, values in found), []) == list(range(10))
    assert [values[0] for _, values in found] == [rows.start for rows, _ in found]
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]  # and no more than that from there on
    holds[0] = 0
    with pytest.raises(torch.OutOfMemoryError):
        list(memory.in_chunks(work, 10, 8))


def test_errors_of_the_caller_are_not_those_of_the_work():
    with pytest.raises(torch.OutOfMemoryError):
        for _ in memory.in_chunks(lambda rows: rows, 10, 8):
            raise torch.OutOfMemoryError("in the loop's body")


class Recording(Location):
    """Notes the largest number of events that it is given, and runs out of memory beyond a limit."""

    largest, limit = 0, 10**9

    def log_prob(self, x):
        Recording.largest = max(Recording.largest, len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().log_prob(x)


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr(Recording, "largest", 0)
    model = pg.BayesianFlow(Recording(2), preprocessing=None)
    events = torch.randn(5000, 2)
    return model, events, lambda: Potential(model, TrainingData(events, None, None, None, None, ""))


def test_a_gradient_holds_the_rows_that_fit(monkeypatch, recording):
    model, _, potential = recording
    theta = model.initial_theta.expand(2, -1) + 0.1
    value, gradient = potential().value_and_gradient(theta)
    assert Recording.largest == 5000
    needed = memory.row_bytes(model.packing.shapes, model.dtype, gradient=True)
    monkeypatch.setenv("PYROGEN_MEMORY_GB", str(1000 * needed / GB))
    bounded = potential()
    Recording.largest = 0
    bounded_value, bounded_gradient = bounded.value_and_gradient(theta)
    assert Recording.largest == 500  # of two chains
    assert torch.allclose(value, bounded_value) and torch.allclose(gradient, bounded_gradient, rtol=1e-4)


def test_a_gradient_that_finds_no_memory_is_the_same_in_smaller_chunks(monkeypatch, recording):
    model, _, potential = recording
    theta = model.initial_theta.expand(2, -1) + 0.1
    value, gradient = potential().value_and_gradient(theta)
    limited = potential()
    monkeypatch.setattr(Recording, "limit", 1300)
    found_value, found_gradient = limited.value_and_gradient(theta)
    assert torch.allclose(value, found_value) and torch.allclose(gradient, found_gradient, rtol=1e-4)
    assert torch.allclose(value, limited.value(theta))
