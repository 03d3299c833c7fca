"""A chain of flows for events with a varying number of objects: its density, its events, its rows."""

import math

import pytest
import torch

import pyrogen as pg
from pyrogen.events import Multiplicity
from pyrogen.flows import MultiplicityFlow, rebuilt, rows

SMALL = {"hidden": (8,), "blocks": 2, "bins": 4}


def flow(shared=1, each=1, most=2, least=1, **options):
    return MultiplicityFlow(shared, each, most, least, **{**SMALL, "dtype": torch.float64, **options})


@torch.no_grad()
def some(a_flow, n=200, **arguments):
    return a_flow.sample(n, **arguments)


def on_grid(columns, filled, points, low=-7.0, high=7.0):
    """Rows ``[points^filled, columns]`` on a grid of the first ``filled`` columns, NaN behind, and the cell's size."""
    step = (high - low) / points
    axis = low + step * (torch.arange(points, dtype=torch.float64) + 0.5)
    grid = torch.cartesian_prod(*[axis] * filled).reshape(-1, filled)
    missing = grid.new_full((len(grid), columns - filled), math.nan)
    return torch.cat([grid, missing], 1), step**filled


@pytest.mark.parametrize("context", [None, 0.7])
def test_density_integrates_to_one_over_all_numbers_of_objects(context):
    made = flow(context=0 if context is None else 1, hidden=(3,), activation="tanh", bins=3)
    total, probabilities = 0.0, []
    for filled, points in ((2, 80), (3, 50)):
        x, cell = on_grid(3, filled, points)
        given = None if context is None else x.new_full((len(x), 1), context)
        with torch.no_grad():
            probabilities.append(float(made.log_prob(x, given).exp().sum() * cell))
        total += probabilities[-1]
    assert total == pytest.approx(1, abs=2e-3)
    given = None if context is None else torch.tensor([context], dtype=torch.float64)
    assert made.probabilities(given).tolist() == pytest.approx(probabilities, abs=2e-3)
    assert min(probabilities) > 0.05


def test_density_on_the_unit_box_with_an_angle_and_a_uniform_column_integrates_to_one():
    made = flow(shared=2, each=1, most=1, least=0, base="uniform", uniform=(1,), periodic=(0, 1))
    total = 0.0
    for filled in (2, 3):
        x, cell = on_grid(3, filled, 40, 0.0, 1.0)
        with torch.no_grad():
            total += float(made.log_prob(x).exp().sum() * cell)
    assert total == pytest.approx(1, abs=2e-3)


def test_events_follow_the_density():
    made = flow(shared=1, each=2, most=3, periodic=(2, 4, 6), seed=3)
    n = 20_000
    x = some(made, n)
    counts = Multiplicity(1, 2, 3).counts(x)
    expected = made.probabilities().detach()
    for number, p in zip((1, 2, 3), expected, strict=True):
        assert (counts == number).double().mean().item() == pytest.approx(
            p.item(), abs=4 * math.sqrt(p.item() * (1 - p.item()) / n)
        )
    # E_p[q / p] = 1 for every density q that lives where p does: another flow, a little different from this one.
    other = flow(shared=1, each=2, most=3, periodic=(2, 4, 6), seed=3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        ratio = (other.log_prob(x) - made.log_prob(x)).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=4 * ratio.std().item() / math.sqrt(n))
    assert ratio.std() > 0.1
    for number in (2, 3):  # also where there are just these objects
        rows_ = counts == number
        share = other.probabilities()[number - 1] / expected[number - 1]
        its = ratio[rows_] / share
        assert its.mean().item() == pytest.approx(1, abs=4 * its.std().item() / math.sqrt(len(its)))


def test_the_density_is_that_of_its_parts():
    made = flow(shared=2, each=2, most=2, seed=1, periodic=(3,))
    x = some(made, 50)
    x = x[~x.isnan().any(1)]
    one_hot = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(len(x), 2)
    angle = 2 * math.pi * x[:, [3]]
    first = made.parts[0].flow.log_prob(x[:, :4], one_hot)
    second = made.parts[1].flow.log_prob(x[:, 4:], torch.cat([x[:, [0, 1, 2]], angle.cos(), angle.sin()], 1))
    expected = made.probabilities()[1].log() + first + second
    assert torch.allclose(made.log_prob(x), expected)


def test_probabilities_are_those_of_sticks_that_are_broken():
    made = flow(most=3)
    with torch.no_grad():
        made.number.odds.weight.copy_(torch.tensor([[math.log(1.0)], [math.log(3.0)]]))
    assert made.probabilities().tolist() == pytest.approx([0.5, 0.375, 0.125])


def test_probabilities_count_from_the_fractions_of_the_events():
    flow = pg.MultiplicityFlow(1, 1, most=3, blocks=1, hidden=(4,))
    assert flow.probabilities().tolist() == pytest.approx([0.5, 0.25, 0.25])
    events = torch.randn(10, 4)
    events[:9, 3], events[:6, 2] = math.nan, math.nan
    weights = torch.tensor([1.0] * 6 + [1.0, 1.0, -1.0] + [0.5])
    prepared = pg.BayesianFlow(flow, preprocessing=None).prepare(events.repeat(20, 1), weights.repeat(20))
    assert prepared.flow.probabilities().tolist() == pytest.approx([0.8, 0.1333, 0.0667], rel=0.04)
    networks = prepared.packing.call(prepared.initial_theta, "probabilities")
    assert torch.equal(networks, prepared.flow.probabilities())
    again = prepared.prepare(events[:6])  # a run that goes on
    assert torch.equal(again.flow.probabilities(), prepared.flow.probabilities())
    flow.centre_on(events[:6])  # no event has a second object
    assert flow.probabilities()[0].item() == pytest.approx(6.5 / 7)
    assert flow.probabilities().log().isfinite().all()


def test_a_uniform_column_has_the_density_one_and_moves_nothing_else():
    made = flow(shared=3, each=1, most=2, uniform=(2,))
    x = some(made, 100)
    assert ((x[:, 2] > 0) & (x[:, 2] < 1)).all()
    moved = x.clone()
    moved[:, 2] = 0.123
    assert torch.equal(made.log_prob(x), made.log_prob(moved))
    moved[:, 2] = 1.2
    assert (made.log_prob(moved) == -math.inf).all()


def test_angles_are_periodic_in_every_part():
    made = flow(shared=2, each=1, most=3, periodic=(1, 2, 3, 4))
    x = some(made, 300)
    x = x[~x.isnan().any(1)]
    for column in (1, 2, 3, 4):
        ends = x.clone(), x.clone()
        ends[0][:, column], ends[1][:, column] = 0.0, 1.0
        assert torch.allclose(made.log_prob(ends[0]), made.log_prob(ends[1]))


@pytest.mark.parametrize("context", [0, 2])
def test_rows_and_masks_give_the_same_numbers(context, monkeypatch):
    made = flow(shared=2, each=2, most=3, context=context)
    given = torch.randn(60, context, dtype=torch.float64) if context else None
    x = some(made, 60, context=given)
    latent = made._latent(60, x)

    def numbers():
        gradient = torch.autograd.grad(made.log_prob(x, given).sum(), list(made.parameters()))
        events = made._events(latent, given).detach()
        several = made.log_prob(x.view(3, 20, -1), None if given is None else given.view(3, 20, -1))
        return [made.log_prob(x, given), several.flatten(), events, *gradient]

    chosen = numbers()
    assert torch.allclose(chosen[0], chosen[1])
    monkeypatch.setattr(rows, "can_choose", lambda has: False)
    for one, other in zip(chosen, numbers(), strict=True):
        assert torch.allclose(one, other, equal_nan=True)


def test_parts_see_the_rows_that_have_their_object():
    made = flow(most=3)
    x = torch.tensor([[0.1, 0.2, math.nan, math.nan], [0.3, 0.4, 0.5, math.nan]], dtype=torch.float64)
    seen = []
    for part in made.parts:
        part.flow.register_forward_hook(lambda *_: None)
        inverse = part.flow.inverse
        part.flow.inverse = lambda values, context, inverse=inverse: (
            seen.append(len(values)) or inverse(values, context)
        )
    made.log_prob(x)
    assert seen == [2, 1]  # no event has a third object
    seen.clear()
    torch.func.vmap(made.log_prob)(x[None])
    assert seen == [2, 2, 2]


def test_no_gradient_is_nan():
    """Where rows are masked too, and their NaN would reach the networks."""
    made = flow(shared=2, each=2, most=3, periodic=(3,), dtype=torch.float32)
    x = some(made, 40)
    assert x.isnan().any()
    for log_prob in (made.log_prob(x), torch.func.vmap(made.log_prob)(x[None])):
        for gradient in torch.autograd.grad(log_prob.sum(), list(made.parameters())):
            assert gradient.isfinite().all()


def test_rows_of_another_layout_have_no_density():
    made = flow(shared=1, each=2, most=2)
    n = math.nan
    x = torch.tensor(
        [
            [0.0, 0.1, 0.2, n, n],
            [0.0, 0.1, n, n, n],  # half an object
            [n, 0.1, 0.2, n, n],  # no shared column
            [0.0, n, n, 0.1, 0.2],  # a gap
            [0.0, n, n, n, n],  # too few
            [0.0, 0.1, 0.2, 0.1, n],
        ],
        dtype=torch.float64,
    )
    found = made.log_prob(x)
    assert found[0].isfinite() and (found[1:] == -math.inf).all()


def test_other_parts_may_have_other_sizes():
    made = flow(most=3, blocks=(4, 3, 2), hidden=((16, 16), (8,), (4,)))
    assert [len(part.flow.blocks) for part in made.parts] == [4, 3, 2]
    assert made.parts[2].flow.blocks[0].conditioner.sizes[1:-1] == [4]
    assert torch.equal(rebuilt("MultiplicityFlow", made.config).number.odds.weight, made.number.odds.weight)


def test_it_is_rebuilt_from_its_config():
    made = flow(shared=3, each=2, most=3, context=1, periodic=(1, 4), uniform=(0,), mixing="random", seed=7)
    again = rebuilt("MultiplicityFlow", made.config)
    given = torch.randn(50, 1, dtype=torch.float64)
    x = some(made, 50, context=given)
    assert torch.equal(made.log_prob(x, given), again.log_prob(x, given))
    assert again.config == made.config


def test_one_number_of_objects_has_no_choice_to_learn():
    made = flow(shared=1, each=1, most=2, least=2)
    plain = [name for name, _ in made.named_parameters() if name.startswith("number")]
    assert not plain and made.probabilities().tolist() == [1.0]
    assert made.log_prob(some(made, 10)).isfinite().all()


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"least": 3}, "least is 3; it must be at most most = 2"),
        ({"shared": 0, "least": 0}, "least is 0; it must be at least 1 where no shared column is left to learn"),
        ({"shared": 1, "least": 0, "uniform": (0,)}, "no shared column is left"),
        ({"uniform": (1,)}, "uniform is (1,); it must be shared columns, below 1"),
        ({"periodic": (3,)}, "periodic is (3,); it must be columns of the row, below 3"),
        ({"blocks": (2, 2, 2)}, "blocks is (2, 2, 2); it must be a whole number, or one for each of the 2 parts"),
        ({"hidden": ((2,),)}, "such a sequence for each of the 2 parts"),
        ({"most": 0}, "most is 0"),
        ({"transform": "nothing"}, "unknown transform 'nothing'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, said):
    with pytest.raises(ValueError) as error:
        flow(**arguments)
    assert said in str(error.value)


def test_wrong_shapes_are_refused():
    made = flow()
    with pytest.raises(ValueError, match=r"events of shape \[4, 2\]; this flow needs \[..., 3\]"):
        made.log_prob(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="context was given to a flow without conditions"):
        made.log_prob(torch.zeros(4, 3), torch.zeros(4, 1))
    with pytest.raises(TypeError, match="events are a list"):
        made.log_prob([[0.0, 0.0, 0.0]])


def test_it_learns_in_plain_torch():
    source = flow(shared=1, each=1, most=2, seed=11, hidden=(4,))
    x, made = some(source, 500), flow(shared=1, each=1, most=2, seed=1)
    adam = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(40):
        adam.zero_grad()
        loss = -made.log_prob(x).mean()
        loss.backward()
        adam.step()
    with torch.no_grad():
        assert loss < -source.log_prob(x).mean() + 0.05


def test_it_is_a_flow_of_the_face_of_pyrogen():
    assert pg.MultiplicityFlow is MultiplicityFlow
    assert Multiplicity(**flow().layout) == Multiplicity(1, 1, 2)
