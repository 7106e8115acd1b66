"""The server's half of a run on Flower: the global state, and what becomes of updates.

It knows which devices there are and how many samples each says that it holds, and no more of their
data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sqlalchemy import Engine
from torch import Tensor

from distreal_dse.data.batches import size_of
from distreal_dse.data.evaluation import evaluate
from distreal_dse.fronts import Front, find_front
from distreal_dse.study import Data
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.client import VirtualTraining, virtual_training
from fl.contents import file_hashes, study_hash
from fl.flower.config import AppConfig
from fl.flower.words import Greeting, Hello
from fl.merging import Checkpoint, Held, Judged, Merging, device_rounds, limited_rules
from fl.planning import count_mini_batches
from fl.results import RoundResult, Update, round_result
from fl.server_optimizers import make_server_optimizer
from fl.world.exact import Seconds, exact

# Of the time that the server waits, what devices may train for: the way there and back, and the
# start of their apps, take the rest. Our own choice.
FOR_TRAINING = Fraction(4, 5)

# Where devices are waited for in virtual time, nothing says how long: three centuries, so that the
# clock stays a clock. Our own choice.
MOST_SECONDS = 1e10


@dataclass(frozen=True, eq=False)
class RoundTimes:
    """When a round starts, and by when devices have to be done.

    Parameters
    ----------
    start
        Seconds since the start of the run.
    deadline
        Likewise, for devices; infinite where they are waited for.
    limit
        Seconds since the start of the round, for the server.
    """

    start: Seconds
    deadline: Seconds
    limit: Seconds

    @property
    def most_seconds(self) -> Seconds:
        """What a device that has trained a mini-batch can say that its round took."""
        return MOST_SECONDS if math.isinf(self.deadline) else self.limit


class Serving:
    """The global state of a run, moved on from round to round.

    Parameters
    ----------
    app
        What the app is told.
    database
        Where its front may lie.
    clock
        Seconds that pass, for devices in their own time.

    Raises
    ------
    DistrealError
        If study, data, front or a setting can't be used.
    """

    def __init__(
        self, app: AppConfig, database: Engine, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app, self._clock = app, clock
        spec = app.spec
        study = StudySource(spec.study, spec.options).load()
        settings = spec.settings()
        self.front: Front | None = find_front(database, spec.front) if spec.front else None
        full, data = prepare(study, spec.seed, spec.device)
        self.fingerprint = full.channels.fingerprint
        if self.front is not None:
            self.front.check_model(self.fingerprint, f"study {study.name}")
        strategy = spec.made_strategy(study, full, self.front)
        self.devices = settings.population()
        self.rules = limited_rules(strategy, settings.rules)
        self._data: Data = data
        self._optimizer = make_server_optimizer(spec.server)
        self._optimizer.schedule.check(settings.rounds)
        # Of the clock and the network alone; there are no devices here that train.
        self._training: VirtualTraining = virtual_training(
            study, data.validation, full, strategy, self.front, settings
        )
        self.network = self._training.network
        self._merging = Merging(
            self.network, strategy, self.rules, settings.cohort, settings.robust
        )
        self._factor = self._optimizer.schedule.over(settings.rounds, None)
        parameters = full.module.parameters()
        self.contents = {
            "study": study_hash(study, parameters, self._training.labels, size_of(data.test)),
            **file_hashes(settings),
        }
        self.hello = Hello(
            self.network.channels.fingerprint,
            self.front.label if self.front else "",
            self.front.content_hash if self.front else "",
            spec.strategy,
        )
        self.study = study.name
        self.state: Mapping[str, Tensor] = self.network.copy_state()
        self.round, self._now, self._began = 0, 0.0, clock()

    @property
    def begun(self) -> int:
        """Devices that begin a round."""
        return self.rules.begun(self.app.spec.cohort)

    def checkpoint(self) -> Checkpoint:
        """Return what is needed to go on after the round that was finished last."""
        return Checkpoint(self.round, self._now, self.state, self._optimizer.state_dict())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on after the round of a checkpoint of the same run.

        Raises
        ------
        InputError
            If its state is of another network.
        """
        checkpoint.check(self.state, self.study)
        where = next(self.network.module.parameters()).device
        self.state = {name: tensor.to(where) for name, tensor in checkpoint.state.items()}
        self._optimizer.load_state_dict({n: t.to(where) for n, t in checkpoint.server.items()})
        self._now, self.round = checkpoint.virtual_seconds, checkpoint.round

    def times(self, known: Sequence[Greeting]) -> RoundTimes:
        """Begin the next round; return its times.

        Parameters
        ----------
        known
            All devices that there are, at least one: a deadline is so many mini-batches of an
            average one.
        """
        start = exact(self._now)
        if self.app.time == "live":
            self._began = self._clock()
            limit: Seconds = Fraction(self.app.timeout)
            return RoundTimes(start, start + limit * FOR_TRAINING, limit)
        if (deadline := self.rules.deadline) is None:
            limit = math.inf
        else:
            batch_size, epochs = self._training.study.batch_size, self._training.epochs
            total = sum(one.samples for one in known)
            batches = -(-total // (len(known) * batch_size)) * epochs
            limit = self._training.clock.slots(exact(deadline) * batches)
        return RoundTimes(start, math.inf if self.rules.late == "wait" else start + limit, limit)

    def due(self, member: Greeting) -> int:
        """Return the mini-batches that a device has to train in a round, ≥ 1."""
        batch_size, epochs = self._training.study.batch_size, self._training.epochs
        return max(1, count_mini_batches(member.samples, batch_size, epochs))

    def finish(
        self, updates: Sequence[Update], members: Sequence[Greeting], times: RoundTimes
    ) -> tuple[Judged, RoundResult]:
        """Merge the updates of the round that began, and move on.

        Parameters
        ----------
        updates
            Of all devices that took part, by ascending index.
        members
            What each of them has said of itself, in the same order.
        times
            Of the round.

        Returns
        -------
        judged
            What became of the updates.
        result
            Figures of the round, without accuracy.
        """
        held = [one.samples for one in members]
        classes = {one.device: one.device_class for one in members}
        due = [self.due(one) for one in members]
        judged = self._merging.judge(self.state, updates, Held(held, due), times.limit)
        merged = self._merging.merge(self.state, judged)
        if merged is not None:
            factor = self._factor(self.round + 1, self._now)
            self.state = self._optimizer.step(self.state, merged, factor)
        seconds = judged.seconds
        if self.app.time == "live":
            seconds = self._clock() - self._began
        self._now, self.round = float(times.start) + seconds, self.round + 1
        devices = tuple(
            # Of an update that could not be read, nothing is known.
            figures if update.state else replace(figures, mini_batches=0, mean_cost_share=None)
            for update, figures in zip(
                updates, device_rounds(updates, judged.outcomes, classes.__getitem__), strict=True
            )
        )
        return judged, round_result(self.round, self._now, devices)

    def scored(self, result: RoundResult) -> RoundResult:
        """Return figures with accuracy and loss of the global state, where the round has them.

        Statistics of batch normalisation are measured on validation data, which the server has.
        """
        spec = self.app.spec
        if result.round % spec.evaluate_every and result.round < spec.rounds:
            return result
        self.network.load_state(self.state)
        module, data, loss = self.network.module, self._data, self._training.study.loss
        held_out = data.test if spec.evaluate_on == "test" else data.validation
        where = next(module.parameters()).device
        score = evaluate(module, held_out, loss, data.validation, where)
        return replace(result, accuracy=score.accuracy, loss=score.loss)

    def began(self) -> RoundResult:
        """Return the figures of round 0, the untrained network, without accuracy."""
        return round_result(0, 0.0, ())
