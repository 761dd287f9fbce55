"""A training step as a CUDA graph: hundreds of kernels that are launched as one."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from igkd_hpo.distillation.batches import EpochPlan
from igkd_hpo.errors import IgkdError

_WARM_UP_STEPS = 3  # the libraries choose their kernels and take their workspaces, which nothing may do in a capture
_TIMED_STEPS = 5
_TOLERANCE = 0.05  # of the length of the eager step's update, by which the graph's may differ: bfloat16 rounds

Update = Callable[[EpochPlan, int], Tensor]


class NotCaptured(IgkdError):
    """The error of a step that cannot be had as a graph, or whose graph does something else or is no faster."""


@contextmanager
def undone(modules: Iterable[nn.Module], optimizer: Optimizer) -> Iterator[None]:
    """Undo, afterwards and in place, all that steps did to the modules' tensors and to the optimizer's state.

    State that the optimizer had not made yet is zero afterwards, which for SGD's momentum and for Adam is the same.
    """
    held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())] + _state(optimizer)
    copies = [tensor.detach().clone() for tensor in held]
    copied = {id(tensor) for tensor in held}
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(held, copies, strict=True):
                tensor.copy_(copy)
            for tensor in _state(optimizer):
                if id(tensor) not in copied:
                    tensor.zero_()
        optimizer.zero_grad(set_to_none=True)


def _state(optimizer: Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


class StepGraph:
    """One step, recorded once and replayed with new samples in the same memory.

    The recorded step reads its samples' plan and the learning rate from tensors of its own, so nothing is recorded
    again within a training. A replay that does not do what the step does would be silent; so the first one is
    compared with the step itself, from the same weights on the same samples.
    """

    def __init__(
        self,
        update: Update,
        plan: EpochPlan,
        modules: Iterable[nn.Module],
        optimizer: Optimizer,
        *,
        only_if_faster: bool = True,
    ) -> None:
        """Record `update`; the modules and the optimizer are afterwards what they were.

        Args:
            update: one step of the training, all of it on the device, without a host read; returns the loss.
            plan: of any epoch, on the device.
            modules: all that the step changes.
            optimizer: steps in `update`; its groups share one learning rate, which is a tensor from now on, see
                `rate_as_number`.
            only_if_faster: a graph that saves nothing is none; on a GPU that others use too, that is partly luck.

        Raises:
            NotCaptured: the step waits for the device, or the replay differs from it or takes longer.
            torch.OutOfMemoryError: there is no memory for it, nor for the step itself.
        """
        modules = list(modules)
        device = plan.rows.device
        self._optimizer = optimizer
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._plan = plan.only(0)
        self._numbers = [float(group["lr"]) for group in optimizer.param_groups]
        self._rates = [torch.tensor(number, device=device) for number in self._numbers]
        self._graph = torch.cuda.CUDAGraph()
        self._set_rates(self._rates)
        try:
            with self.stream(), undone(modules, optimizer):
                for _ in range(_WARM_UP_STEPS):
                    update(self._plan, 0)
                self._capture(update)
            with self.stream():
                self._compare(update, plan, modules, only_if_faster)
        except Exception:
            self._set_rates(self._numbers)
            raise
        torch.cuda.empty_cache()  # the eager steps' activations, which nothing on this stream will want again

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Launch kernels on the graph's stream inside; they wait for those before, and those after wait for them."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def replay(self, plan: EpochPlan, step: int) -> Tensor:
        """Return the loss of one step of the plan, which the next replay overwrites. Call it in `stream`."""
        self._plan.copy_step(plan, step)
        self._graph.replay()
        return self._loss

    @contextmanager
    def rate_as_number(self) -> Iterator[None]:
        """Make the optimizer's learning rates plain numbers inside, which schedules and state dicts are made for."""
        self._set_rates(self._numbers)
        try:
            yield
        finally:
            self._numbers = [float(group["lr"]) for group in self._optimizer.param_groups]
            for rate, number in zip(self._rates, self._numbers, strict=True):
                rate.fill_(number)
            self._set_rates(self._rates)

    def release(self) -> None:
        """Give the optimizer its plain numbers back; the graph is of no use afterwards."""
        self._set_rates(self._numbers)

    def _set_rates(self, rates: Sequence[float | Tensor]) -> None:
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _capture(self, update: Update) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        try:
            # Threads of this process that do not touch the device, such as the one that tells of steps, may go on.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._loss = update(self._plan, 0)
        except RuntimeError as error:
            raise NotCaptured(f"the step cannot be captured: {error}") from error

    def _compare(self, update: Update, plan: EpochPlan, modules: list[nn.Module], only_if_faster: bool) -> None:
        step = len(plan.rows) - 1
        eager_update, eager = self._try(lambda: update(plan, step), modules)
        graph_update, graph = self._try(lambda: self.replay(plan, step), modules)
        difference = (graph_update - eager_update).norm() / eager_update.norm()
        if not float(difference) <= _TOLERANCE:
            raise NotCaptured(f"the replayed step differs from the step itself by {float(difference):.0%}")
        if only_if_faster and graph >= eager:
            raise NotCaptured(f"the replayed step is no faster: {graph * 1e3:.1f} ms, {eager * 1e3:.1f} ms without")

    def _try(self, step: Callable[[], Tensor], modules: list[nn.Module]) -> tuple[Tensor, float]:
        """Return the change of the weights by one step, as one vector, and the seconds that each of several takes."""

        def weights() -> Tensor:
            return torch.cat([weight.detach().flatten() for module in modules for weight in module.parameters()])

        with undone(modules, self._optimizer):
            before = weights()
            torch.manual_seed(0)  # dropout, in anyone's network; the caller puts the generators back
            step()
            change = weights() - before
        with undone(modules, self._optimizer):
            torch.cuda.synchronize(self._stream.device)
            begun = time.perf_counter()
            for _ in range(_TIMED_STEPS):
                step()
            torch.cuda.synchronize(self._stream.device)
            return change, (time.perf_counter() - begun) / _TIMED_STEPS
