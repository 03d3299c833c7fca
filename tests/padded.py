"""Checks that every bijection of rows padded with NaN must pass."""

from __future__ import annotations

import json

import torch

from pyrogen.events import Resonance
from pyrogen.events.bijection import from_config


def check_padded(bijection, x, tolerance=1e-9, single=1e-3):
    """The whole contract on rows ``x [N, d]`` in float64, which hold every number of objects.

    Args:
        tolerance: of the way there and back, relative to one plus the size of the number.
        single: likewise, with float32.
    """
    layout = bijection.layout
    u, log_jacobian = bijection(x)
    assert torch.equal(u.isnan(), x.isnan()) and log_jacobian.isfinite().all() and log_jacobian.shape == x.shape[:-1]
    back, inverse = bijection.inverse(u)
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance, equal_nan=True)
    torch.testing.assert_close(inverse, -log_jacobian, rtol=tolerance, atol=tolerance)
    _check_single_precision(bijection, x, single)
    _check_jacobian(bijection, x)
    _check_order(bijection, x)
    _check_shapes(bijection, x)
    rebuilt = from_config(json.loads(json.dumps(bijection.config())))
    for old, new in zip((u, log_jacobian), rebuilt(x), strict=True):
        assert torch.equal(old.nan_to_num(7.0), new.nan_to_num(7.0))
    assert rebuilt.layout == layout and rebuilt.fitted == bijection.fitted
    fresh = from_config(json.loads(json.dumps(bijection.config())))
    fresh.load_state_dict(bijection.state_dict())
    assert torch.equal(fresh(x)[1], log_jacobian)


def _check_single_precision(bijection, x, tolerance):
    u, log_jacobian = bijection(x)
    narrow, single = bijection(x.float())
    assert narrow.dtype == single.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), u, rtol=tolerance, atol=tolerance, equal_nan=True)
    torch.testing.assert_close(single.double(), log_jacobian, rtol=tolerance, atol=tolerance)
    back = bijection.inverse(narrow)[0]
    assert back.dtype == torch.float32
    torch.testing.assert_close(back.double(), x, rtol=tolerance, atol=tolerance, equal_nan=True)


def _check_jacobian(bijection, x):
    """Autograd's Jacobian, and gradients without NaN, for every number of objects."""
    counts = bijection.layout.counts(x)
    for n in bijection.layout.numbers:
        for row in x[counts == n][:1]:
            there = ~row.isnan()
            jacobian = torch.autograd.functional.jacobian(lambda row: bijection(row)[0], row)
            block = jacobian[there][:, there]
            # Columns that are not there take no part.
            assert torch.equal(jacobian[:, ~there].nan_to_num(9.0), torch.zeros_like(jacobian[:, ~there]))
            torch.testing.assert_close(bijection(row)[1], torch.linalg.slogdet(block)[1], rtol=1e-7, atol=1e-7)
            u = bijection(row)[0].detach()
            outward = torch.autograd.functional.jacobian(lambda u: bijection.inverse(u)[0], u)[there][:, there]
            torch.testing.assert_close(bijection.inverse(u)[1], torch.linalg.slogdet(outward)[1], rtol=1e-6, atol=1e-6)
    for direction, rows in ((bijection, x), (bijection.inverse, bijection(x)[0])):
        leaf = rows.clone().requires_grad_()
        new, log_jacobian = direction(leaf)
        total = torch.where(rows.isnan(), 0.0, new).sum() + log_jacobian.sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        assert gradient.isfinite().all() and (gradient[rows.isnan()] == 0).all()


def _check_order(bijection, x):
    """What an object becomes does not depend on later ones, of events with the same number of objects."""
    layout = bijection.layout
    rows = x[layout.counts(x) == layout.most]
    for j in range(layout.least, layout.most):
        before = layout.columns(j).start
        mixed = torch.cat([rows[:1, :before].expand(len(rows) - 1, -1), rows[1:, before:]], -1)
        u, log_jacobian = bijection(mixed)
        there = log_jacobian.isfinite()  # jets must be ordered, say
        assert there.any()
        expected = bijection(rows[:1])[0][:, :before].expand(int(there.sum()), -1)
        torch.testing.assert_close(u[there, :before], expected, rtol=1e-12, atol=1e-12)


def _check_shapes(bijection, x):
    u, log_jacobian = bijection(x[:6])
    shaped = bijection(x[:6].reshape(2, 3, -1))
    mapped = torch.func.vmap(bijection)(x[:6])
    for new in (shaped, mapped, [torch.stack(parts) for parts in zip(*map(bijection, x[:6]), strict=True)]):
        torch.testing.assert_close(new[0].reshape(u.shape), u, rtol=1e-12, atol=1e-12, equal_nan=True)
        torch.testing.assert_close(new[1].reshape(-1), log_jacobian, rtol=1e-12, atol=1e-12)
    if not any(isinstance(part, Resonance) for part in bijection.modules()):  # it looks at how far its steps go
        back = torch.func.vmap(bijection.inverse)(u)[0]
        torch.testing.assert_close(back, bijection.inverse(u)[0], rtol=1e-12, atol=1e-12, equal_nan=True)
