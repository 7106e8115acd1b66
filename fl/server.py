"""The server's half of a round: who takes part, and which updates may be merged.

How they are merged is in `fl.averaging`, and what the server makes of that in
`fl.server_optimizers`.

References
----------
Yin, Chen, Kannan, Bartlett: Byzantine-robust distributed learning, ICML 2018 (why a median: it
stays among the values of the honest as long as these are more than half).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from operator import truediv
from statistics import median_high

import torch
from torch import Tensor

from distreal_dse.errors import described
from distreal_dse.support.seeding import generator
from fl.averaging import is_statistic
from fl.results import State, Update
from fl.world.devices import Device
from fl.world.exact import Seconds

# Times the median change per mini-batch of a round that an update may change the parameters by for
# each of its own. Our own choice: the largest seen was 5.0, on digits with devices from full speed
# to a fiftieth and all strategies (docs/strategies.md).
LARGEST_CHANGE = 20.0

# No honest round comes near, and no sum of such numbers leaves the range of floats. Our own choice.
LARGEST_FIGURE = 1e24


def select_cohort(
    devices: Sequence[Device],
    count: int,
    round_number: int,
    seed: int,
    is_available: Callable[[Device], bool] = lambda device: True,
) -> list[Device]:
    """Draw ``count`` of the available devices uniformly without replacement, in their order.

    Fewer, if fewer are available. Asks for no more devices than it needs to.
    """
    order = torch.randperm(len(devices), generator=generator(seed, "cohort", round_number))
    available = (i for i in order.tolist() if is_available(devices[i]))
    return [devices[i] for i in sorted(islice(available, count))]


def faults_of(
    updates: Sequence[Update],
    state: State,
    units: int,
    largest_change: float = LARGEST_CHANGE,
    held: Sequence[int] | None = None,
    due: Sequence[int] | None = None,
) -> list[str | None]:
    """Say of each update of a round why it must not be merged; None where it may.

    An update is refused for what it contains (see `fault_of`), or because it changes the parameters
    by more per mini-batch than ``largest_change`` times the median of the updates that are not. The
    scale of changes differs by orders of magnitude between studies and falls during training, so no
    fixed limit would do; a median can't be moved by less than half of the cohort, while a mean or
    the largest could by a single device. Of an even number of updates it is the larger of the two
    in the middle, so that one device alone can't have the other of two refused. It is per
    mini-batch because devices train different numbers of them: who has many samples, or the time
    for all of them, is not hostile for that.

    What is not noticed: changes of an ordinary size in a wrong direction, and samples or
    mini-batches made up where ``held`` or ``due`` is not known.

    Parameters
    ----------
    updates
        Those of the round that arrived in time, and no others: what is not merged says nothing of
        what may be. Those that trained no mini-batch don't count for the median.
    state
        The global state that the round started from.
    units
        Of the network's channel groups; columns of an update's masks.
    largest_change
        Factor of the median, > 1.
    held
        Samples that each of the devices holds, in the order of the updates: none may say that it
        has more, as samples are weights. None where the server does not know.
    due
        Mini-batches that each of them has to train, likewise, as changes count for each of them.
    """
    unknown = [None] * len(updates)
    faults = [
        fault_of(update, state, units, samples, batches)
        for update, samples, batches in zip(updates, held or unknown, due or unknown, strict=True)
    ]
    trusted = [i for i, fault in enumerate(faults) if fault is None and updates[i].mini_batches]
    norms = _changes([updates[i].state for i in trusted], state)
    steps = [updates[i].mini_batches for i in trusted]
    middle = median_high(map(truediv, norms, steps)) if trusted else 0.0
    # If most devices changed nothing at all, there is nothing to compare with.
    limit = largest_change * middle if middle else math.inf
    for i, norm, count in zip(trusted, norms, steps, strict=True):
        if norm > (most := limit * count):
            faults[i] = (
                f"change of the parameters: expected a norm up to {most:.3g} in "
                f"{count} mini-batches, found {norm:.3g}"
            )
    return faults


def fault_of(
    update: Update,
    state: State,
    units: int | None = None,
    held: int | None = None,
    due: int | None = None,
) -> str | None:
    """Say why an update must not be merged; None if it may. Never raises, whatever is in it.

    Parameters
    ----------
    update
        As it came from a device.
    state
        The global state that the round started from: names, shapes and types are those of it.
    units
        Of the network's channel groups; None does not check the columns of the masks.
    held
        Samples that the device holds; None where that is not known.
    due
        Mini-batches that it has to train; None where that is not known.

    Returns
    -------
    str or None
        What is wrong, what was expected and what was found.
    """
    try:
        return (
            _fault_of_numbers(update, held)
            or _fault_of_masks(update, units, due)
            or _fault_of_state(update.state, state)
        )
    except Exception as error:  # it may hold anything
        return f"expected an update, found something that can't be read: {described(error)}"


def fault_of_figures(update: Update, most_seconds: Seconds = math.inf) -> str | None:
    """Say why the figures of an update must be neither stored nor added up; None if they may.

    Parameters
    ----------
    update
        As it came from a device.
    most_seconds
        That a device which has trained a mini-batch can have taken.
    """
    figures = {"seconds": (update.seconds,), "training MACs": (update.training_macs,)}
    for name, values in {**figures, "cost shares": update.cost_shares}.items():
        for value in values:
            if not 0 <= value <= LARGEST_FIGURE:  # nor is NaN
                return f"{name}: expected 0 to {LARGEST_FIGURE:g}, found {value!r}"
    if update.mini_batches and update.seconds > most_seconds:
        most = float(most_seconds)
        return f"seconds: expected at most the {most:g} of the round, found {update.seconds!r}"
    if not 0 <= update.over_budget <= update.mini_batches:
        return (
            f"mini-batches over the budget: expected 0 to {update.mini_batches}, found "
            f"{update.over_budget!r}"
        )
    return None


def _fault_of_numbers(update: Update, held: int | None) -> str | None:
    samples = update.samples
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        return f"samples: expected a whole number, 1 or more, found {samples!r}"
    if held is not None and samples > held:
        # Not in full: Python refuses to write integers of thousands of digits.
        return f"samples: expected at most the {held} that the device holds, found more"
    if not isinstance(update.loss, (int, float)) or not math.isfinite(update.loss):
        return f"loss: expected a finite number, found {update.loss!r}"
    return fault_of_figures(update)


def _fault_of_masks(update: Update, units: int | None, due: int | None) -> str | None:
    if due is not None and update.mini_batches > due:
        found = update.mini_batches
        return f"mini-batches: expected at most the {due} that the device has, found {found}"
    masks = update.masks
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool or masks.dim() != 2:
        return "masks: expected a boolean tensor of shape [mini-batches, units], found another"
    columns = masks.shape[1] if units is None else units
    expected = (update.mini_batches, columns)
    if tuple(masks.shape) != expected:
        return f"masks: expected shape {expected}, found {tuple(masks.shape)}"
    return None


def _fault_of_state(found: State, expected: State) -> str | None:
    if odd := found.keys() ^ expected.keys():
        names = ", ".join(sorted(map(str, odd))[:3])
        return f"tensors: expected those of the global state, found {names} in one of them only"
    for name, like in expected.items():
        tensor = found[name]
        if not isinstance(tensor, Tensor) or tensor.layout != like.layout:
            return f"tensor {name}: expected a dense tensor, found {type(tensor).__name__}"
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            return (
                f"tensor {name}: expected {like.dtype} of shape {tuple(like.shape)}, found "
                f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            )
    variances = [name for name in expected if name.endswith("running_var")]
    if variances and float(_in_a_row(found, variances).min()) < 0:
        name = next(name for name in variances if bool((found[name] < 0).any()))
        return f"tensor {name}: expected variances, found negative values"
    numbers = [name for name, like in expected.items() if like.is_floating_point()]
    # A norm is finite if all values are, unless they are very large, and takes a tenth of the time.
    if not math.isfinite(float(torch.linalg.vector_norm(_in_a_row(found, numbers)))):
        for name in numbers:
            if not bool(found[name].isfinite().all()):
                return f"tensor {name}: expected finite values, found others"
    return None


def _changes(states: Sequence[State], old: State) -> list[float]:
    """Norms of the changes of what is learned, summed in double precision.

    Running statistics move far in the first rounds, and no training depends on them.
    """
    names = [n for n, one in old.items() if one.is_floating_point() and not is_statistic(n)]
    begun = _in_a_row(old, names)
    # A change too large for its type is infinite, and so larger than any limit.
    changes = (_in_a_row(state, names).sub_(begun) for state in states)
    return [float(torch.linalg.vector_norm(one, dtype=torch.float64)) for one in changes]


def _in_a_row(state: State, names: Sequence[str]) -> Tensor:
    """All values of some tensors of a state in one: few calls instead of several for each."""
    if not names:
        return torch.zeros(0)
    return torch.cat([state[name].reshape(-1) for name in names])
