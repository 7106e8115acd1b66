"""Merging that a few hostile or broken devices can't decide, whatever the strategy.

A defence works on updates and leaves averaging to the strategy. `Defence.screen` sees whole
updates once per round: it leaves some out, or shortens their changes. `Defence.centre` sees what is
averaged together: it gives every device that trained an element the same robust change of it. So
plain, pooled and element-wise averages weigh that change as they weigh any other.

What holds for all defences, all of it our own choice:

- A device speaks for an element if it trained it in at least one mini-batch. What it says of others
  is put back to the global state.
- Running statistics and counters are merged element by element in every defence: by their median,
  or by the trimmed mean where that is the defence. A change that is small beside all weights may be
  absurd for a variance. Those of a device that are absurd in many elements are not merged at all:
  where few devices measured an element, a median alone does not help.
- Devices count alike where values are compared, whatever samples they hold, as in the papers.

No defence helps for an element that mostly hostile devices trained, so `median` and `trimmed-mean`
protect less what few devices train.

References
----------
Yin, Chen, Kannan, Bartlett: Byzantine-robust distributed learning: towards optimal statistical
rates, ICML 2018, definitions 1 and 2 (coordinate-wise median and trimmed mean).

Blanchard, El Mhamdi, Guerraoui, Stainer: Machine learning with adversaries: Byzantine tolerant
gradient descent, NeurIPS 2017, section 4 (Krum) and the section on Multi-Krum.

Sun, Kairouz, Suresh, McMahan: Can you really backdoor federated learning?, 2019, arXiv 1911.07963,
section 3 (clipping of norms).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median_high
from typing import Any, TypeAlias

import torch
from torch import Tensor

from distreal_dse.dropout import ChannelMap
from distreal_dse.errors import InputError
from distreal_dse.support.registry import Entry, Registry
from distreal_dse.support.specs import number
from fl.averaging import LocalSteps, is_statistic
from fl.results import State, Update

Aggregate: TypeAlias = Callable[[State, Sequence[Update], ChannelMap], State]

# A device's running statistics are refused where more than this share of them is further from the
# median of the round than this factor (of a variance; of a mean, so many standard deviations). Our
# own choice: devices start from common statistics, so that honest ones stay near each other.
ABSURD_SHARE, ABSURD_FACTOR = 0.1, 1000.0

# With fewer, one hostile device is half of a cohort.
SMALLEST_COHORT = 3


class Defence:
    """Keeps hostile updates from deciding what is merged.

    Both hooks leave their arguments as they are, and do nothing unless a defence says otherwise.
    """

    def screen(
        self, state: State, updates: Sequence[Update], channels: ChannelMap
    ) -> list[Update | None]:
        """Judge whole updates; called once per round, before all averaging.

        Parameters
        ----------
        state
            The global state that the round started from.
        updates
            At least one, by ascending index of the device, none with a fault (`fl.server`).
        channels
            Of the network that is trained.

        Returns
        -------
        list
            In the order of the updates: what is merged in place of each, None for nothing.
        """
        return list(updates)

    def centre(
        self, state: State, updates: Sequence[Update], channels: ChannelMap
    ) -> Sequence[Update]:
        """Return what is averaged in place of updates; called in each averaging.

        With a masked loss, that is also for the output rows of some classes, and those devices
        alone that hold them; ``state`` and updates then have these tensors only.
        """
        return updates

    def check(self, cohort: int) -> None:
        """Refuse a cohort that is too small for the defence to mean anything.

        Raises
        ------
        InputError
            If it is.
        """
        if cohort < SMALLEST_COHORT:
            raise InputError(
                f"{_KIND} (--robust): expected a cohort of {SMALLEST_COHORT} devices or more, as "
                f"one of two is half of them, found {cohort}; take a larger --cohort"
            )


@dataclass(frozen=True)
class Median(Defence):
    """Coordinate-wise median over the devices that trained an element (Yin et al. 2018).

    Of an even number, it is the mean of the two in the middle.
    """

    def centre(
        self, state: State, updates: Sequence[Update], channels: ChannelMap
    ) -> Sequence[Update]:
        """Give every device that trained an element the median of them all."""
        return _centred(state, updates, channels, _HALF, list(state))


@dataclass(frozen=True)
class _WithShare(Defence):
    """Knows how many devices may be hostile."""

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < _HALF:
            raise InputError(
                f"share of a {_KIND}: expected above 0, below 0.5, found {self.share:g}"
            )


@dataclass(frozen=True)
class TrimmedMean(_WithShare):
    """Coordinate-wise mean without the largest and the smallest values (Yin et al. 2018).

    Of n devices that trained an element, ⌈share · n⌉ values are left out at either end, and as many
    as leave one or two where that leaves none. Rounding up is our own choice: where few devices
    train an element, rounding down leaves nothing out.

    Parameters
    ----------
    share
        In (0, 0.5): of hostile devices, at most.

    Raises
    ------
    InputError
        If it is out of range.
    """

    def centre(
        self, state: State, updates: Sequence[Update], channels: ChannelMap
    ) -> Sequence[Update]:
        """Give every device that trained an element the trimmed mean of them all."""
        return _centred(state, updates, channels, self.share, list(state))


@dataclass(frozen=True)
class Krum(_WithShare):
    """Merges the update that is nearest to its nearest others (Blanchard et al. 2017).

    The score of an update is the sum of its distances to the n − f − 2 nearest others, f being the
    hostile ones of n; the lowest is merged. Devices train different parts here, so two things are
    our own choice. The distance of two is the *mean* squared difference over the weights that both
    trained; a sum would take devices for near that have little in common. And a change counts times
    √(weights trained) / mini-batches: a step is about as long whatever the part, so that it changes
    each weight of a small part by more, and who trains the whole network would seem near to
    everyone. Where all train alike, the scores are those of the paper but for a factor. Two devices
    that have nothing in common are infinitely far apart.

    Of the weights that the chosen device has not trained, nothing is merged: take `MultiKrum`
    where devices train different parts. Devices that trained nothing are neither judged nor left
    out.

    Parameters
    ----------
    share
        In (0, 0.5): of hostile devices, at most; f is ⌈share · n⌉. The paper wants n ≥ 2f + 3;
        where fewer than the cohort come, f is the largest that keeps to it.

    Raises
    ------
    InputError
        If it is out of range.
    """

    def check(self, cohort: int) -> None:
        """Refuse a cohort with fewer than 2f + 3 devices.

        Raises
        ------
        InputError
            If it is.
        """
        super().check(cohort)
        needed = 2 * _part(self.share, cohort) + 3
        if cohort < needed:
            raise InputError(
                f"{_KIND} (--robust): expected a cohort of {needed} devices or more for a share "
                f"of {self.share:g}, found {cohort}; take a larger --cohort or a smaller share"
            )

    def screen(
        self, state: State, updates: Sequence[Update], channels: ChannelMap
    ) -> list[Update | None]:
        """Leave out all but the chosen."""
        settled: list[Update | None] = list(
            _centred(state, updates, channels, _HALF, _measured(state))
        )
        judged = [i for i, update in enumerate(updates) if update.mini_batches]
        if not judged:
            return settled
        apart = distances(state, [updates[i] for i in judged], channels)
        n = len(judged)
        hostile = max(0, min(_part(self.share, n), (n - 3) // 2))
        nearest = min(max(1, n - hostile - 2), n - 1)
        # Of each row, the first is the distance to itself.
        scores = apart.sort(1).values[:, 1 : nearest + 1].sum(1)
        chosen = scores.argsort(stable=True)[: self._merged(n, hostile)].tolist()
        for place in set(range(n)).difference(chosen):
            settled[judged[place]] = None
        return settled

    def _merged(self, n: int, hostile: int) -> int:
        """Return how many updates are merged."""
        return 1


@dataclass(frozen=True)
class MultiKrum(Krum):
    """Merges the n − f updates that are nearest to their nearest others (Blanchard et al. 2017).

    Scores are those of `Krum`. The paper leaves the number open; n − f is our own choice.
    """

    def _merged(self, n: int, hostile: int) -> int:
        return n - hostile


@dataclass(frozen=True)
class Clip(Defence):
    """Shortens changes to a multiple of the median (Sun et al. 2019, with a bound of our own).

    What is compared is the norm of the change of all that a device trained, over its mini-batches,
    as devices train different numbers of them. A norm above ``times`` the median is scaled down to
    it. Of an even number, the median is the larger of the two in the middle.

    Nothing is divided by how many weights a device trained: a step of a small part is about as long
    as one of the whole network. Per weight and step, honest weak devices were up to four times the
    median, per step up to 2.8 times (docs/robustness.md).

    Parameters
    ----------
    times
        Multiple of the median, above 0 and finite.

    Raises
    ------
    InputError
        If it is out of range.
    """

    times: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.times < math.inf:
            raise InputError(f"times of a {_KIND}: expected above 0, finite, found {self.times:g}")

    def screen(
        self, state: State, updates: Sequence[Update], channels: ChannelMap
    ) -> list[Update | None]:
        """Shorten what is longer than the bound."""
        # With what devices did not train put back, so that it does not count.
        settled = _centred(state, updates, channels, _HALF, _measured(state))
        rates = [_change_per_step(state, update) for update in settled]
        known = [rate for rate, one in zip(rates, updates, strict=True) if one.mini_batches]
        bound = self.times * median_high(known) if known else math.inf
        learned = _learned(state)
        found: list[Update | None] = []
        for update, rate in zip(settled, rates, strict=True):
            if rate > bound:
                shorter = {
                    name: (
                        state[name].double()
                        + (update.state[name].double() - state[name].double()) * (bound / rate)
                    ).to(state[name].dtype)
                    for name in learned
                }
                update = replace(update, state={**update.state, **shorter})
            found.append(update)
        return found


def defended(defence: Defence | None, average: Aggregate) -> Aggregate:
    """Return an averaging with what a defence does in each; without one, the averaging itself."""
    if defence is None:
        return average

    def averaged(state: State, updates: Sequence[Update], channels: ChannelMap) -> State:
        return average(state, defence.centre(state, updates, channels), channels)

    return averaged


def distances(state: State, updates: Sequence[Update], channels: ChannelMap) -> Tensor:
    """Mean squared difference of changes over the weights that two devices both trained.

    A change counts times √(weights trained) / mini-batches of its device: its norm per step is then
    the root mean square of what is compared, whatever part it is of.

    Parameters
    ----------
    state, updates, channels
        As for `Defence.screen`; each update has at least one mini-batch.

    Returns
    -------
    Tensor
        Shape [updates, updates], double precision, symmetric; infinite where two trained nothing in
        common, −1 on the diagonal so that it sorts before all others.
    """
    steps = [LocalSteps(update) for update in updates]
    scales = [
        _part_scale(state, one, own, channels) for one, own in zip(updates, steps, strict=True)
    ]
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    common = torch.zeros_like(total)
    for name in _learned(state):
        values, trained = _stacked(name, state, updates, steps, channels)
        changes = torch.stack(
            [(v - state[name].double()) * scale for v, scale in zip(values, scales, strict=True)]
        )
        flat = trained.flatten(1).double()
        common += (flat @ flat.T).cpu() * (values[0].numel() / trained[0].numel())
        for i, own in enumerate(changes):
            squares = torch.where(trained & trained[i], changes - own, 0.0).square()
            total[i] += squares.flatten(1).sum(1).cpu()
    apart = torch.where(common > 0, total / common.clamp(min=1), math.inf)
    return apart.fill_diagonal_(-1.0)


def make_defence(spec: str) -> Defence | None:
    """Make a defence from text.

    Parameters
    ----------
    spec
        ``none``, ``median``, ``trimmed-mean:share=0.2``, ``krum:share=0.2``,
        ``multi-krum:share=0.2`` or ``clip:times=1``; the settings given here are the defaults.

    Returns
    -------
    Defence or None
        None for ``none``.

    Raises
    ------
    InputError
        If there is none of this name, or its settings don't fit.
    """
    made: Defence | None = _DEFENCES.make(spec)
    return made


def _centred(
    state: State,
    updates: Sequence[Update],
    channels: ChannelMap,
    share: float,
    names: Sequence[str],
) -> list[Update]:
    """Return the updates with the robust centre in place of what devices trained.

    What they did not train is put back to the global state. Tensors that are not among ``names``
    keep the devices' own values where these trained them.
    """
    steps = [LocalSteps(update) for update in updates]
    states: list[dict[str, Tensor]] = [{} for _ in updates]
    wanted = set(names)
    credible = ~_absurd(state, updates, steps, channels)
    for name, old in state.items():
        values, trained = _stacked(name, state, updates, steps, channels)
        if name in wanted:
            heard = trained
            if is_statistic(name):
                heard = trained & credible.to(old.device).reshape(-1, *[1] * old.dim())
            centre = _trimmed_mean(values, heard, share)
            values = torch.where(trained & heard.any(0), centre, old.to(values.dtype))
        for own, value in zip(states, values, strict=True):
            own[name] = value.to(old.dtype)
    return [replace(one, state=own) for one, own in zip(updates, states, strict=True)]


def _absurd(
    state: State, updates: Sequence[Update], steps: Sequence[LocalSteps], channels: ChannelMap
) -> Tensor:
    """Whether the running statistics of each device are out of all proportion, shape [updates].

    The furthest is left out, and all others are judged anew: who shares elements with the absurd
    alone would else be far from their median.
    """
    found = torch.zeros(len(updates), dtype=torch.bool)
    measured = [
        [_stacked(one, state, updates, steps, channels) for one in names]
        for names in _normalisations(state)
    ]
    while measured:
        far, count = torch.zeros(2, len(updates), dtype=torch.float64)
        for (values, trained), *means in measured:
            judged = trained & ~found.to(values.device).reshape(-1, *[1] * (values.dim() - 1))
            middle = _trimmed_mean(values, judged, _HALF)
            middle = middle.clamp(min=torch.finfo(torch.float64).tiny)
            odd = (values > ABSURD_FACTOR * middle) | (values * ABSURD_FACTOR < middle)
            for centres, _ in means:
                centre = _trimmed_mean(centres, judged, _HALF)
                odd = odd | ((centres - centre).abs() > ABSURD_FACTOR * middle.sqrt())
            # An element counts as often as devices measured it: so much its median is worth.
            weight = judged.double() * judged.sum(0)
            far += (odd * weight).flatten(1).sum(1).cpu()
            count += weight.expand(values.shape).flatten(1).sum(1).cpu()
        share = far / count.clamp(min=1)
        if not bool((share > ABSURD_SHARE).any()):
            break
        found[share.argmax()] = True
    return found


def _normalisations(state: State) -> list[list[str]]:
    """Names of each running variance, and of the running mean beside it where there is one."""
    pairs = [
        (name, f"{name.removesuffix('var')}mean") for name in state if name.endswith("running_var")
    ]
    return [[name for name in pair if name in state] for pair in pairs]


def _stacked(
    name: str,
    state: State,
    updates: Sequence[Update],
    steps: Sequence[LocalSteps],
    channels: ChannelMap,
) -> tuple[Tensor, Tensor]:
    """Values of a tensor, shape [updates, …], and which are trained, in a shape that broadcasts.

    What is not trained has the value of the global state. Floating-point values are doubles.
    """
    old, axes = state[name], channels.axes.get(name, ())
    trained = torch.stack([one.of(old, axes) > 0 for one in steps])
    values = torch.stack([update.state[name] for update in updates])
    if old.is_floating_point():
        values, old = values.double(), old.double()
    return torch.where(trained, values, old), trained


def _trimmed_mean(values: Tensor, trained: Tensor, share: float) -> Tensor:
    """Mean over the first axis without the outermost values; where nobody trained, anything.

    Integers are counters: of these, it is the median, the larger one of two.
    """
    devices = len(values)
    count = trained.sum(0)
    if not values.is_floating_point():
        whole = values.long().masked_fill(~trained, torch.iinfo(torch.int64).max)
        middle = (count // 2).clamp(max=devices - 1).expand(values.shape[1:])
        return whole.sort(0).values.gather(0, middle[None])[0].to(values.dtype)
    cut = torch.minimum(_parts(share, count), (count - 1) // 2)
    place = torch.arange(devices, device=values.device).reshape(-1, *[1] * (values.dim() - 1))
    kept = (place >= cut) & (place < count - cut)
    rising = values.masked_fill(~trained, math.inf).sort(0).values
    return torch.where(kept, rising, 0.0).sum(0) / kept.sum(0).clamp(min=1)


def _change_per_step(state: State, update: Update) -> float:
    """Norm of the change of what is learned, over the mini-batches; 0 without any."""
    squares = [
        (update.state[name].double() - state[name].double()).square().sum()
        for name in _learned(state)
    ]
    if not squares or not update.mini_batches:
        return 0.0
    return float(torch.stack(squares).sum().sqrt()) / update.mini_batches


def _part_scale(state: State, update: Update, steps: LocalSteps, channels: ChannelMap) -> float:
    """√(weights trained) / mini-batches."""
    weights = 0
    for name in _learned(state):
        trained = steps.of(state[name], channels.axes.get(name, ())) > 0
        weights += int(trained.sum()) * (state[name].numel() // trained.numel())
    return math.sqrt(weights) / update.mini_batches


def _learned(state: State) -> list[str]:
    return [n for n, old in state.items() if old.is_floating_point() and not is_statistic(n)]


def _measured(state: State) -> list[str]:
    """Names of running statistics and of counters."""
    learned = set(_learned(state))
    return [name for name in state if name not in learned]


def _part(share: float, count: int) -> int:
    return int(_parts(share, torch.tensor(count)))


def _parts(share: float, count: Tensor) -> Tensor:
    """⌈share · count⌉; a product that is whole but for rounding is not rounded up."""
    return (share * count.double() - 1e-9).ceil().long()


_KIND = "defence"
_HALF = 0.5  # trimming so much at either end leaves the median
PLUG_INS = "distreal_dse.defences"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a `Defence`."""

_DEFENCES = Registry[Any](
    _KIND,
    Defence,
    {
        "none": Entry(lambda: None),
        "median": Entry(Median),
        "trimmed-mean": Entry(TrimmedMean, {"share": number}),
        "krum": Entry(Krum, {"share": number}),
        "multi-krum": Entry(MultiKrum, {"share": number}),
        "clip": Entry(Clip, {"times": number}),
    },
    PLUG_INS,
)
