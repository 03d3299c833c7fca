"""Our Adam on a CPU is torch's, bit for bit, and takes up what the other one left."""

import pytest
import torch

from pyrogen.inference.vi.cpu_adam import CpuAdam


def groups(dtype):
    generator = torch.Generator().manual_seed(1)
    make = lambda *shape: torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()  # noqa: E731
    return [[make(7, 3), make()], [make(5)]]


def train(adam, groups, steps):
    """Steps with gradients of many sizes; a parameter has none at first."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for group, rate in zip(adam.param_groups, (0.1 / (step + 1), 0.003), strict=True):
            group["lr"] = rate
        adam.zero_grad(set_to_none=True)
        for i, parameter in enumerate(p for group in groups for p in group):
            if step >= 2 or i != 1:
                noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
                parameter.grad = noise * 10.0 ** (4 * i - 6)
        adam.step()


def torchs(its, betas):
    return torch.optim.Adam([{"params": group} for group in its], betas=betas)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99)])
def test_the_bits_are_those_of_torch(dtype, betas):
    """A checkpoint of one goes on with the other."""
    makers = [torchs, CpuAdam]
    found = []
    for before in makers:
        for after in makers:
            its = groups(dtype)
            first = before(its, betas)
            train(first, its, range(30))
            second = after(its, betas)
            second.load_state_dict(first.state_dict() | {"param_groups": second.state_dict()["param_groups"]})
            train(second, its, range(30, 60))
            found.append([p.detach() for group in its for p in group])
            moments = [second.state_dict()["state"][i] for i in range(3)]
            found[-1] += [state[name] for state in moments for name in ("step", "exp_avg", "exp_avg_sq")]
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))
    assert not torch.equal(found[0][0], groups(dtype)[0][0])


def test_a_loaded_state_is_a_copy():
    its = groups(torch.float32)
    first, second = CpuAdam(its, (0.9, 0.999)), CpuAdam(its, (0.9, 0.999))
    train(first, its, range(3))
    second.load_state_dict(first.state_dict())
    kept = first.state[its[0][0]]["exp_avg"].clone()
    train(second, its, range(3, 6))
    assert torch.equal(first.state[its[0][0]]["exp_avg"], kept)
