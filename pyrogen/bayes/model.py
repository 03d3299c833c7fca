"""The Bayesian lifting: any flow with ``log_prob`` and ``sample`` becomes a Pyro model over its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.bayes.buffers import flow_buffers, load_flow_buffers
from pyrogen.bayes.contract import check_output, given, told
from pyrogen.bayes.distribution import EventWeights, FlowDistribution
from pyrogen.bayes.evaluation import in_evaluation_mode
from pyrogen.bayes.inputs import as_tensor, check_rows, data_digest
from pyrogen.bayes.local import LocalFlow, LocalReparameterizationError
from pyrogen.bayes.packing import WeightPacking
from pyrogen.bayes.scales import default_bijection, input_dtype, own_bijection
from pyrogen.checks import DEVICE, DTYPE, TEXT, array, door, each, optional, require
from pyrogen.events import check_weights
from pyrogen.events.bijection import Bijection, from_config
from pyrogen.events.conditions import StandardiseContext
from pyrogen.events.doors import EVENTS as EVENTS_LIKE
from pyrogen.events.multiplicity import Multiplicity
from pyrogen.events.preprocessing import Identity
from pyrogen.events.sample import EventSample
from pyrogen.flows import MultiplicityFlow, ShowerFlow, is_own, rebuilt
from pyrogen.flows.own import DTYPES, OWN
from pyrogen.printing import Compact, Shown, brief
from pyrogen.seeds import untouched

THETA = "theta"  #: name of the sample site that holds all weights
EVENTS = "events"  #: name of the observed site


class BayesianFlow(Compact, PyroModule):
    """A flow with a prior over its weights, as a Pyro model ``p(theta) prod_n p(x_n | theta)`` [A eq. 15].

    All weights are one sample site ``"theta" [P]`` with a Gaussian prior; the events are an observed site ``"events"``
    in a data plate that scales a mini-batch to the training size. Plain Pyro tools work on it::

        model = pg.BayesianFlow(pg.CouplingFlow(2))
        guide = pyro.infer.autoguide.AutoNormal(model)
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
        svi.step(batch, size=300_000)

    Args:
        flow: any :class:`torch.nn.Module` with ``log_prob(x)`` and ``sample(n)`` (``context`` is passed on as second
            argument where it is given). It is copied; its present weights are where training starts. The copy is in
            evaluation mode: dropout is off, and batch normalisation takes its running averages as they are.
        prior_scale: width of the prior of every weight, or widths by parameter-name pattern
            (``{"*.bias": 0.1, "*": 1.0}``, the first match counts), or ``"fan-in"``: 1 over the square root of the
            number of inputs for weight matrices, 1 for biases. Then the prior of a layer's outputs does not grow with
            the width of the network, and samplers take larger steps (``docs/sampling.md``).
        preprocessing: a bijection from the events' units to the flow's, part of the model: every density is per unit
            of the events' own variables. ``"auto"``: standardise (events with a varying number of objects:
            :class:`~pyrogen.events.WhitenPerMultiplicity`), or nothing for a flow on the unit box; ``None``: nothing.
            Bijections that are not yet fitted act as the identity until a backend's ``fit`` (or :meth:`prepare`) sets
            their constants.
        context_preprocessing: a bijection for the conditions, likewise; its Jacobian does not count. ``"auto"``:
            :class:`~pyrogen.events.StandardiseContext`, so that conditions may have any unit, or nothing with
            ``preprocessing=None``; ``None``: nothing.

    Raises:
        TypeError: the flow lacks ``log_prob`` or ``sample``, or a preprocessing is no bijection.
        ValueError: a prior width that is not positive, a pattern that matches nothing, or batch normalisation without
            running averages.

    Warns:
        UserWarning: the flow is in training mode, and has dropout or batch normalisation.
    """

    def __init__(
        self,
        flow: nn.Module,
        prior_scale: float | str | Mapping[str, float] = 1.0,
        preprocessing: Bijection | str | None = "auto",
        context_preprocessing: Bijection | str | None = "auto",
    ) -> None:
        super().__init__()
        missing = [name for name in ("log_prob", "sample") if not callable(getattr(flow, name, None))]
        if not isinstance(flow, nn.Module) or missing:
            raise TypeError(
                f"cannot lift a {type(flow).__name__}: a flow is a torch.nn.Module with log_prob(x) and sample(n)"
                + (f"; it lacks {' and '.join(missing)}" if missing else "")
            )
        self.flow = in_evaluation_mode(copy.deepcopy(flow)).requires_grad_(False)  # type: ignore[misc]
        layout = getattr(flow, "layout", None)
        #: How rows of events with a varying number of objects are laid out, where the flow tells it; None: no NaN.
        self.multiplicity = None if layout is None else Multiplicity(**layout)
        self.preprocessing = own_bijection(  # type: ignore[misc]
            preprocessing, default_bijection(self.flow, self.multiplicity), "preprocessing"
        )
        plain = self.context == 0 or preprocessing is None or isinstance(flow, ShowerFlow)
        default = Identity() if plain else StandardiseContext()
        self.context_preprocessing = own_bijection(  # type: ignore[misc]
            context_preprocessing, default, "context_preprocessing"
        )
        #: Whether events and conditions are float64 until they are preprocessed, as float32 would not hold them.
        self.wide = False
        self.packing = WeightPacking(self.flow)
        scales = self.packing.scales(prior_scale)
        self.prior_scale: float | str | dict[str, float]
        if isinstance(prior_scale, Mapping):
            self.prior_scale = {pattern: float(width) for pattern, width in prior_scale.items()}
        else:
            self.prior_scale = prior_scale if isinstance(prior_scale, str) else float(prior_scale)
        self._local: LocalFlow | None = None
        self._local_obstacle: str | None = None
        self._features = told(flow, "features")
        theta = self.packing.pack()
        self.register_buffer("_initial_theta", theta)
        self.register_buffer("_prior_scales", scales.to(theta))
        self.register_buffer("_prior_centres", torch.zeros_like(theta))
        #: Whether the prior is one of :meth:`with_prior`, with a centre and a width of its own for every weight.
        self.has_own_prior = False

    def extra_repr(self) -> str:
        return f"{self.packing.size} weights, prior_scale={self.prior_scale!r}"

    def _summary(self) -> str:
        columns = "" if self.features is None else f" of {self.features} features"
        given = f", context={self.context}" if self.context else ""
        ready = "" if self.preprocessing.fitted else ", not fitted"
        return (
            f"{type(self.flow).__name__}{columns}{given}, {self.packing.size:,} weights, "
            f"prior_scale={brief(self.prior_scale)}, preprocessing {type(self.preprocessing).__name__}{ready}"
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "flow": repr(self.flow) if isinstance(self.flow, Shown) else type(self.flow).__name__,
            "preprocessing": repr(self.preprocessing),
            "preprocessing of conditions": repr(self.context_preprocessing) if self.context else "none",
            "multiplicity": "none" if self.multiplicity is None else repr(self.multiplicity),
            "precision": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    # Properties, as Pyro's own attribute access would register the plain weights of a submodule as Pyro parameters,
    # which they are not: their values come from the sample site.
    @property
    def flow(self) -> nn.Module:
        """The flow; its own weights are those that it had when it was lifted, and predict nothing."""
        return self._modules["flow"]  # type: ignore[return-value]

    @property
    def preprocessing(self) -> Bijection:
        """The bijection from the events' units to the flow's."""
        return self._modules["preprocessing"]  # type: ignore[return-value]

    @property
    def context_preprocessing(self) -> Bijection:
        """The bijection from the units of the conditions to the flow's."""
        return self._modules["context_preprocessing"]  # type: ignore[return-value]

    @property
    def prior_scales(self) -> Tensor:
        """Width of the prior of every weight, ``[P]``."""
        return self._buffers["_prior_scales"]  # type: ignore[return-value]

    @property
    def prior_centres(self) -> Tensor:
        """Where the prior of every weight has its centre, ``[P]``: zero, but for :meth:`with_prior`."""
        return self._buffers["_prior_centres"]  # type: ignore[return-value]

    @property
    def on_unit_box(self) -> bool:
        """Whether the flow has a density on the unit box alone."""
        return getattr(self.flow, "on_unit_box", False)

    @property
    def initial_theta(self) -> Tensor:
        """The weights ``[P]`` that the flow had when it was lifted: the deterministic initialisation."""
        return self._buffers["_initial_theta"]  # type: ignore[return-value]

    @property
    def weights(self) -> int:
        """Number of weights P."""
        return self.packing.size

    @property
    def features(self) -> int | None:
        """Number of features of an event, where the flow or the training events told it."""
        return self._features

    @property
    def context(self) -> int | None:
        """Number of conditions per event; None where the flow does not tell."""
        return told(self.flow, "context")

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.initial_theta.dtype

    @property
    def input_dtype(self) -> torch.dtype:
        """Floating-point type of events and conditions before their preprocessing, and of generated events.

        That of the weights, or float64 where float32 would not hold the training events.
        """
        return torch.float64 if self.wide else self.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.initial_theta.device

    def train(self, mode: bool = True) -> BayesianFlow:
        """As of any module; the flow itself stays in evaluation mode, in which it is a density."""
        super().train(mode)
        self.flow.eval()
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> BayesianFlow:
        super()._apply(fn, recurse)
        self._local = None  # no module of this one: it is made anew, on the new device
        return self

    def prior(self) -> TorchDistribution:
        """The prior over ``theta [P]``, independent Gaussians around zero, or as :meth:`with_prior` says."""
        return dist.Normal(self.prior_centres, self.prior_scales, validate_args=False).to_event(1)

    @door(centres=array(1), scales=array(1))
    def with_prior(self, centres: Tensor, scales: Tensor) -> BayesianFlow:
        """A copy with another prior, independent Gaussians ``N(centre, scale^2)``, whose centres training starts at.

        Such as a mean-field posterior of other events: then it goes on as if it had seen these (sequential Bayes).

        Args:
            centres: of every weight, ``[P]``.
            scales: widths, ``[P]``, positive.

        Raises:
            ValueError: another number of weights, or numbers that are no centres or widths.
        """
        found = {}
        for name, values in (("centres", centres), ("scales", scales)):
            found[name] = as_tensor(values, torch.float64)
            right = f"{self.weights} finite numbers, one per weight"
            require(found[name].shape == (self.weights,) and bool(found[name].isfinite().all()), name, values, right)
        require(bool((found["scales"] > 0).all()), "scales", scales, "positive")
        copied = self.packing.copied(self)
        copied.has_own_prior = True
        for buffer, name in (("_prior_centres", "centres"), ("_prior_scales", "scales"), ("_initial_theta", "centres")):
            copied._buffers[buffer] = found[name].to(self.initial_theta, copy=True)
        return copied

    @door(
        weights=optional(array(1)),
        context=optional(EVENTS_LIKE),
        names=optional(each(TEXT, "a sequence of names", 1)),
        dtype=optional(DTYPE),
        device=optional(DEVICE),
    )
    def prepare(
        self,
        events: Tensor,
        weights: Tensor | None = None,
        context: Tensor | None = None,
        *,
        names: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> BayesianFlow:
        """A copy of the model ready for training on ``events [N, d]`` with conditions ``context [N, k]``.

        Its preprocessing constants are fitted to both, if they were not set before, and its weights have the given
        type and are on the given device. The model itself is left as it is. Errors call the columns by ``names``.
        """
        if self.multiplicity is None:
            EVENTS_LIKE("events", events)
        else:
            check_rows(events, None, "events", names, self.multiplicity)
        if weights is not None:
            check_weights(weights, len(events))
        prepared = self.packing.copied(self)
        prepared._features = events.shape[-1]
        if isinstance(prepared.flow, MultiplicityFlow):
            prepared.flow.centre_on(events, weights)
        if not prepared.preprocessing.fitted:
            prepared.preprocessing.fit(EventSample(events, names, weights=weights, multiplicity=self.multiplicity))
        if context is not None and not prepared.context_preprocessing.fitted:
            prepared.context_preprocessing.fit(context, weights)
        if isinstance(prepared.flow, ShowerFlow) and context is not None:
            incident = as_tensor(context, torch.float64, events.device)
            prepared.flow.centre_on(prepared.preprocessing(events)[0], incident, weights)
        for bijection in (prepared.preprocessing, prepared.context_preprocessing):
            bijection.to(device=device)  # its constants stay in float64
        prepared.wide = self.wide or input_dtype(dtype or self.dtype, events, context) != (dtype or self.dtype)
        prepared.flow.to(device=device, dtype=dtype)
        for name, buffer in prepared._buffers.items():
            if buffer is not None:
                prepared._buffers[name] = buffer.to(device=device, dtype=dtype)
        # These refer to the flow, so a copied model needs its own.
        prepared.packing, prepared._local = WeightPacking(prepared.flow), None
        return prepared

    def describe(self) -> dict[str, Any]:
        """What the model is, in JSON types: enough to rebuild it around a flow that has a ``config``."""
        flow = self.flow
        return {
            "flow": type(flow).__name__,
            "flow_config": flow.config if is_own(flow) else None,
            "features": self._features,
            "weights": self.packing.size,
            "parameters": [
                [name, list(shape)] for name, shape in zip(self.packing.names, self.packing.shapes, strict=True)
            ],
            "prior_scale": self.prior_scale,
            "preprocessing": self.preprocessing.config(),
            "dtype": str(self.dtype).removeprefix("torch."),
            **self._describe_inputs(),
        }

    def _describe_inputs(self) -> dict[str, Any]:
        """What is not as in files of old versions: prior, preprocessing of conditions, type of the inputs."""
        told: dict[str, Any] = {}
        if self.has_own_prior:
            told["prior_sha256"] = data_digest({"centres": self.prior_centres, "scales": self.prior_scales})
        if self.context_preprocessing.fitted and not isinstance(self.context_preprocessing, Identity):
            told["context_preprocessing"] = self.context_preprocessing.config()
        if self.input_dtype != self.dtype:
            told["input_dtype"] = str(self.input_dtype).removeprefix("torch.")
        return told

    @classmethod
    def from_description(
        cls,
        description: Mapping[str, Any],
        initial_theta: Tensor,
        buffers: Mapping[str, Tensor],
        flow: nn.Module | None = None,
        prior: Mapping[str, Tensor] | None = None,
    ) -> BayesianFlow:
        """The model that :meth:`describe` described.

        Args:
            description: what :meth:`describe` told.
            initial_theta: the weights ``[P]`` that the flow had when it was lifted.
            buffers: the flow's buffers by name, as :meth:`flow_buffers` has them.
            flow: the flow, where it is not one of pyrogen's own; it is copied.
            prior: ``centres [P]`` and ``scales [P]`` of a model :meth:`with_prior`.

        Raises:
            ValueError: a flow that has to be given, or one that does not fit, or another prior.
        """
        if flow is None:
            if description["flow"] not in OWN:
                raise ValueError(
                    f"holds a posterior over a {description['flow']}; give pg.load(path, flow=...) such a flow"
                )
            flow = rebuilt(description["flow"], description["flow_config"])
        flow = copy.deepcopy(flow).to("cpu", DTYPES[description["dtype"]])  # the caller's module stays as it is
        context = description.get("context_preprocessing")  # absent where conditions are taken as they are
        model = cls(
            flow,
            description["prior_scale"],
            from_config(description["preprocessing"]),
            None if context is None else from_config(context),
        )
        model._features = description["features"]
        model.wide = description.get("input_dtype", description["dtype"]) != description["dtype"]
        if model.describe()["parameters"] != description["parameters"]:
            raise ValueError("the parameters of the flow given differ in name or shape from those saved")
        load_flow_buffers(model.flow, buffers)
        if prior:
            model = model.with_prior(**prior)
        if model.describe().get("prior_sha256") != description.get("prior_sha256"):
            raise ValueError("the prior of the weights is another one than the description tells of, or is missing")
        model.initial_theta.copy_(initial_theta)
        return model

    def flow_buffers(self) -> dict[str, Tensor]:
        """The flow's buffers by name: what of it is neither a weight nor an argument."""
        return flow_buffers(self.flow)

    def forward(
        self,
        events: Tensor | None = None,
        weights: Tensor | None = None,
        context: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """The Pyro model.

        Args:
            events: a batch ``[M, d]`` in the events' units, or None to generate (prior and posterior predictive).
            weights: factors ``[M]`` of the events' log-likelihoods, of either sign; the backends pass weights that
                sum to the effective sample size (:func:`normalise_weights`).
            context: conditions ``[M, k]`` of a conditional flow.
            size: number of training events N that the batch stands for (default: M); with ``events=None`` the number
                of events to generate.

        Returns:
            The events, observed or generated.
        """
        if events is None and size is None:
            raise ValueError("model() has neither events to score nor a size, the number of events to generate")
        batch = len(events) if events is not None else int(size)  # type: ignore[arg-type]
        size = batch if size is None else size
        if weights is not None and weights.shape != (batch,):
            raise ValueError(
                f"weights of shape {list(weights.shape)} for {batch} events; one number per event is needed"
            )
        if size < batch:
            raise ValueError(f"size is {size}, less than the {batch} events of the batch; it is the training size")
        theta = pyro.sample(THETA, self.prior())
        # The subsample is named, not drawn: the batch was chosen by whoever calls the model.
        with pyro.plate("data", size, subsample=torch.arange(batch)), EventWeights(weights):
            return pyro.sample(EVENTS, FlowDistribution(self, theta, batch, context), obs=events)

    def log_prob(self, theta: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density ``[N]`` of events ``x [N, d]`` for one weight vector ``theta [P]``, in the events' units."""
        inner, log_jacobian = self._inner(x)
        log_density = self.packing.call(theta, "log_prob", inner, *self._conditions(context))
        return check_output(self.flow, "log_prob", log_density, inner.shape[:-1]) + log_jacobian

    def local_log_prob(self, mean: Tensor, scale: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density ``[N]`` with activations drawn per event for weights ~ N(mean [P], scale [P]^2); for training.

        Flows that :func:`~pyrogen.bayes.side_by_side.stands_side_by_side` take R networks at once: ``[R, N]`` for
        means and widths ``[R, P]`` and events ``[R, N, d]``.
        """
        if self._local is None:
            self._local = self._checked_local()
        inner, log_jacobian = self._inner(x)
        log_density = self._local.log_prob(mean, scale * scale, inner, *self._conditions(context))
        return check_output(self.flow, "log_prob", log_density, inner.shape[:-1]) + log_jacobian

    def sample_events(self, theta: Tensor, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` events ``[n, d]`` of the network with weights ``theta [P]``, in the events' units."""
        inner = self._sample_inner(theta, n, context)
        return self.preprocessing.inverse(inner.to(self.input_dtype))[0]

    def _inner(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Events in the flow's variables and type, and the log-Jacobian ``[N]``."""
        inner, log_jacobian = self.preprocessing(x)
        return inner.to(self.dtype), log_jacobian.to(self.dtype)

    def _conditions(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """Conditions in the flow's units and type, as an optional argument."""
        return given(None if context is None else self.context_preprocessing(context)[0].to(self.dtype))

    def _sample_inner(self, theta: Tensor, n: int, context: Tensor | None) -> Tensor:
        """``n`` events ``[n, d]`` of the network with weights ``theta [P]``, in the flow's units."""
        inner = self.packing.call(theta, "sample", n, *self._conditions(context))
        d = self._features or (inner.shape[-1] if isinstance(inner, Tensor) and inner.ndim else 1)
        return check_output(self.flow, "sample", inner, torch.Size((n, d)))

    def local_obstacle(self) -> str | None:
        """Why the flow's layers do not allow local reparameterization; None where they do."""
        if self._local is None and self._local_obstacle is None:
            try:
                self._local = self._checked_local()
            except LocalReparameterizationError as error:
                self._local_obstacle = str(error)
        return self._local_obstacle

    def _checked_local(self) -> LocalFlow:
        local = LocalFlow(self.flow)
        n = 7  # no number that layers have for reasons of their own
        context = torch.zeros(n, self.context).to(self.initial_theta) if self.context else None
        with untouched(self.device), torch.no_grad():
            example = self._sample_inner(self.initial_theta, n, context)
            if self.multiplicity is not None:  # events with all objects, as every layer has a row of each of these
                example = example.nan_to_num()
            local.check(self.initial_theta, 0 * self.initial_theta, example, *self._conditions(context))
        return local


def normalise_weights(weights: Tensor) -> Tensor:
    """Event weights ``[N]`` scaled to sum to the effective sample size ``(sum w)^2 / sum w^2`` ([A] sec. 5).

    The weighted ELBO is then the unweighted one with N replaced by the effective sample size.
    """
    return weights * (weights.sum() / (weights * weights).sum())
