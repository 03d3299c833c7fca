"""The Bayesian lifting: any flow with ``log_prob`` and ``sample`` becomes a Pyro model over its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.bayes.contract import EventWeights, check_output, given, told
from pyrogen.bayes.local import LocalFlow, LocalReparameterizationError
from pyrogen.bayes.packing import WeightPacking
from pyrogen.checks import DEVICE, DTYPE, array, door, optional
from pyrogen.events import check_weights
from pyrogen.events.doors import EVENTS as EVENTS_LIKE
from pyrogen.events.preprocessing import Bijection, Identity, Standardise, from_config
from pyrogen.flows import CouplingFlow, upgrade_buffers
from pyrogen.seeds import untouched

THETA = "theta"  #: name of the sample site that holds all weights
EVENTS = "events"  #: name of the observed site


class BayesianFlow(PyroModule):
    """A flow with a prior over its weights, as a Pyro model ``p(theta) prod_n p(x_n | theta)`` [A eq. 15].

    All weights are one sample site ``"theta" [P]`` with a Gaussian prior; the events are an observed site ``"events"``
    in a data plate that scales a mini-batch to the training size. Plain Pyro tools work on it::

        model = pg.BayesianFlow(pg.CouplingFlow(2))
        guide = pyro.infer.autoguide.AutoNormal(model)
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
        svi.step(batch, size=300_000)

    Args:
        flow: any :class:`torch.nn.Module` with ``log_prob(x)`` and ``sample(n)`` (``context`` is passed on as second
            argument where it is given). It is copied; its present weights are where training starts.
        prior_scale: width of the prior of every weight, or widths by parameter-name pattern
            (``{"*.bias": 0.1, "*": 1.0}``, the first match counts), or ``"fan-in"``: 1 over the square root of the
            number of inputs for weight matrices, 1 for biases. Then the prior of a layer's outputs does not grow with
            the width of the network, and samplers take larger steps (``docs/sampling.md``).
        preprocessing: a bijection from the events' units to the flow's, part of the model: every density is per unit
            of the events' own variables. ``"auto"``: standardise, or nothing for a flow on the unit box; ``None``:
            nothing. Bijections that are not yet fitted act as the identity until a backend's ``fit`` (or
            :meth:`prepare`) sets their constants.

    Raises:
        TypeError: the flow lacks ``log_prob`` or ``sample``, or ``preprocessing`` is no bijection.
        ValueError: a prior width that is not positive, or a pattern that matches nothing.
    """

    def __init__(
        self,
        flow: nn.Module,
        prior_scale: float | str | Mapping[str, float] = 1.0,
        preprocessing: Bijection | str | None = "auto",
    ) -> None:
        super().__init__()
        missing = [name for name in ("log_prob", "sample") if not callable(getattr(flow, name, None))]
        if not isinstance(flow, nn.Module) or missing:
            raise TypeError(
                f"cannot lift a {type(flow).__name__}: a flow is a torch.nn.Module with log_prob(x) and sample(n)"
                + (f"; it lacks {' and '.join(missing)}" if missing else "")
            )
        if preprocessing == "auto":
            preprocessing = Identity() if getattr(flow, "on_unit_box", False) else Standardise()
        elif preprocessing is None:
            preprocessing = Identity()
        elif isinstance(preprocessing, str):
            raise ValueError(f'unknown preprocessing {preprocessing!r}; give "auto", None or a bijection')
        elif not isinstance(preprocessing, Bijection):
            what = type(preprocessing).__name__
            raise TypeError(f'preprocessing is a {what}; give "auto", None or a bijection of pg.events')
        self.flow = copy.deepcopy(flow).requires_grad_(False)  # type: ignore[misc]
        self.preprocessing = copy.deepcopy(preprocessing)  # type: ignore[misc]
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

    def extra_repr(self) -> str:
        return f"{self.packing.size} weights, prior_scale={self.prior_scale!r}"

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
    def prior_scales(self) -> Tensor:
        """Width of the prior of every weight, ``[P]``."""
        return self._buffers["_prior_scales"]  # type: ignore[return-value]

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
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.initial_theta.device

    def prior(self) -> TorchDistribution:
        """The prior over ``theta [P]``, independent Gaussians around zero."""
        return dist.Normal(torch.zeros_like(self.prior_scales), self.prior_scales, validate_args=False).to_event(1)

    @door(events=EVENTS_LIKE, weights=optional(array(1)), dtype=optional(DTYPE), device=optional(DEVICE))
    def prepare(
        self,
        events: Tensor,
        weights: Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> BayesianFlow:
        """A copy of the model ready for training on ``events [N, d]``.

        Its preprocessing constants are fitted to the events, if they were not set before, and its weights have the
        given type and are on the given device. The model itself is left as it is.
        """
        if weights is not None:
            check_weights(weights, len(events))
        prepared = copy.deepcopy(self)
        prepared._features = events.shape[-1]
        if not prepared.preprocessing.fitted:
            prepared.preprocessing.fit(events, weights)
        prepared.preprocessing.to(device=device)  # its constants stay in float64
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
            "flow_config": flow.config if isinstance(flow, CouplingFlow) else None,
            "features": self._features,
            "weights": self.packing.size,
            "parameters": [
                [name, list(shape)] for name, shape in zip(self.packing.names, self.packing.shapes, strict=True)
            ],
            "prior_scale": self.prior_scale,
            "preprocessing": self.preprocessing.config(),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_description(
        cls,
        description: Mapping[str, Any],
        initial_theta: Tensor,
        buffers: Mapping[str, Tensor],
        flow: nn.Module | None = None,
    ) -> BayesianFlow:
        """The model that :meth:`describe` described.

        Args:
            description: what :meth:`describe` told.
            initial_theta: the weights ``[P]`` that the flow had when it was lifted.
            buffers: the flow's buffers by name, as :meth:`flow_buffers` has them.
            flow: the flow, where it is not a :class:`~pyrogen.CouplingFlow`; it is copied.

        Raises:
            ValueError: a flow that has to be given, or one that does not fit.
        """
        dtype = {"float32": torch.float32, "float64": torch.float64}
        if flow is None:
            if description["flow"] != CouplingFlow.__name__:
                raise ValueError(
                    f"holds a posterior over a {description['flow']}; give pg.load(path, flow=...) such a flow"
                )
            config = dict(description["flow_config"])
            flow = CouplingFlow(**config | {"dtype": dtype[config["dtype"]]})
        flow = copy.deepcopy(flow).to(dtype[description["dtype"]])  # the caller's module stays as it is
        model = cls(flow, description["prior_scale"], from_config(description["preprocessing"]))
        model._features = description["features"]
        if model.describe()["parameters"] != description["parameters"]:
            raise ValueError("the parameters of the flow given differ in name or shape from those saved")
        model._load_flow_buffers(buffers)
        model.initial_theta.copy_(initial_theta)
        return model

    def _load_flow_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        flow = self.flow
        if isinstance(flow, CouplingFlow):  # its own loading knows the names of its earlier versions
            buffers = upgrade_buffers(buffers)
        wanted = self.flow_buffers()
        if wanted.keys() != buffers.keys():
            raise ValueError(
                f"the file has other buffers than the flow: {sorted(buffers)} in the file, {sorted(wanted)} in the flow"
            )
        wrong = [name for name in wanted if wanted[name].shape != buffers[name].shape]
        if wrong:
            raise ValueError(f"buffers of the flow have another shape in the file: {', '.join(wrong)}")
        if isinstance(flow, CouplingFlow):
            flow.load_state_dict(dict(buffers), strict=False)  # which also sets what is derived from them
            return
        with torch.no_grad():
            for name, buffer in wanted.items():
                buffer.copy_(buffers[name])

    def flow_buffers(self) -> dict[str, Tensor]:
        """The flow's buffers by name: what of it is neither a weight nor an argument.

        Of a :class:`~pyrogen.CouplingFlow` those that are not derived from its arguments; of another flow all, since
        nobody knows which of them decide the density.
        """
        if not isinstance(self.flow, CouplingFlow):
            return dict(self.flow.named_buffers())
        parameters, state = dict(self.flow.named_parameters()), self.flow.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if name not in parameters}

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
        inner, log_jacobian = self.preprocessing(x)
        log_density = self.packing.call(theta, "log_prob", inner, *given(context))
        return check_output(self.flow, "log_prob", log_density, inner.shape[:-1]) + log_jacobian

    def local_log_prob(self, mean: Tensor, scale: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density ``[N]`` with activations drawn per event for weights ~ N(mean [P], scale [P]^2); for training."""
        if self._local is None:
            self._local = self._checked_local()
        inner, log_jacobian = self.preprocessing(x)
        means, variances = self.packing.unpack(mean), self.packing.unpack(scale * scale)
        log_density = self._local.call(means, variances, "log_prob", inner, *given(context))
        return check_output(self.flow, "log_prob", log_density, inner.shape[:-1]) + log_jacobian

    def sample_events(self, theta: Tensor, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` events ``[n, d]`` of the network with weights ``theta [P]``, in the events' units."""
        inner = self._sample_inner(theta, n, context)
        return self.preprocessing.inverse(inner)[0]

    def _sample_inner(self, theta: Tensor, n: int, context: Tensor | None) -> Tensor:
        """``n`` events ``[n, d]`` of the network with weights ``theta [P]``, in the flow's units."""
        inner = self.packing.call(theta, "sample", n, *given(context))
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
        context = torch.zeros(2, self.context).to(self.initial_theta) if self.context else None
        means = self.packing.unpack(self.initial_theta)
        variances = self.packing.unpack(torch.zeros_like(self.initial_theta))
        with untouched(self.device), torch.no_grad():
            example = self._sample_inner(self.initial_theta, 2, context)
            local.check_calls(lambda: local.call(means, variances, "log_prob", example, *given(context)))
        return local


class FlowDistribution(TorchDistribution):
    """The events' distribution for given weights: what the observed site of :class:`BayesianFlow` samples from.

    Args:
        model: the Bayesian flow.
        theta: one weight vector ``[P]``.
        n: number of events in the batch.
        context: conditions ``[n, k]``.
        posterior: ``(mean [P], scale [P])`` of independent Gaussian weights; the log density is then computed with
            local reparameterization, in place of the fixed ``theta``.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(
        self,
        model: BayesianFlow,
        theta: Tensor,
        n: int,
        context: Tensor | None = None,
        posterior: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.model, self.theta, self.context, self.posterior = model, theta, context, posterior
        super().__init__(torch.Size((n,)), torch.Size((model.features or 1,)), validate_args=False)

    def localized(self, mean: Tensor, scale: Tensor) -> FlowDistribution:
        """The same, for weights ~ N(mean, scale^2) by local reparameterization."""
        return FlowDistribution(self.model, self.theta, self.batch_shape[0], self.context, (mean, scale))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        if tuple(batch_shape) != tuple(self.batch_shape):
            raise ValueError(
                f"cannot expand a batch of {self.batch_shape[0]} events to {list(batch_shape)}; "
                "vectorized particles and chains are not supported: run them one after another"
            )
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        if self.posterior is not None:
            return self.model.local_log_prob(*self.posterior, value, self.context)
        return self.model.log_prob(self.theta, value, self.context)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        if sample_shape:
            raise ValueError(f"one set of {self.batch_shape[0]} events at a time; got sample_shape {sample_shape}")
        with torch.no_grad():
            return self.model.sample_events(self.theta, self.batch_shape[0], self.context)


def normalise_weights(weights: Tensor) -> Tensor:
    """Event weights ``[N]`` scaled to sum to the effective sample size ``(sum w)^2 / sum w^2`` ([A] sec. 5).

    The weighted ELBO is then the unweighted one with N replaced by the effective sample size.
    """
    return weights * (weights.sum() / (weights * weights).sum())
