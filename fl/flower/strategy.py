"""The `Strategy` of Flower that carries out any of ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from distreal_dse.errors import DistrealError, InputError, in_one_line
from fl.flower.nodes import Node, Nodes
from fl.flower.pieces import put, take, unpack_bits
from fl.flower.records import (
    ASKED,
    FIGURES,
    PLAN,
    TRAIN,
    WEIGHTS,
    arrays_in,
    arrays_of,
    config_of,
    sender,
    size_of,
)  # fmt: skip
from fl.flower.serving import RoundTimes, Serving
from fl.flower.words import Order, Plan, read_update, said
from fl.results import RoundResult, State, Update
from fl.server import fault_of_figures, select_cohort

_logger = logging.getLogger("flwr")

LOOK_SECONDS = 0.5
"""From one look at who is connected to the next, while there are too few."""


@dataclass(frozen=True, eq=False)
class Round:
    """A round under way.

    Parameters
    ----------
    times
        When it starts and ends.
    members
        Who takes part, by Flower's number.
    asked
        The messages that they get.
    """

    times: RoundTimes
    members: Mapping[int, Node]
    asked: list[Message] = field(default_factory=list)


class FlowerStrategy(Strategy):
    """Carries out a strategy of `fl.strategies` on Flower.

    Devices plan and pick by themselves. In each round the cohort is asked first what its plans
    need, and sent that. Devices that need everything whatever their budget is, as with `distreal`,
    are not asked.

    Parameters
    ----------
    serving
        The server's half of the run.
    listen
        Called with each round when it is done.
    """

    def __init__(self, serving: Serving, listen: Callable[[RoundResult], None]) -> None:
        self._serving, self._listen = serving, listen
        self._nodes: Nodes | None = None
        self._round: Round | None = None
        self._result = serving.began()

    def summary(self) -> None:
        """Log what is trained."""
        spec, front = self._serving.app.spec, self._serving.front
        with_front = f" with front {front.label} of hash {front.content_hash}" if front else ""
        _logger.info(
            "\t└──> %s%s on study %s, %d of %d devices per round, %s time",
            spec.strategy, with_front, self._serving.study, spec.cohort, spec.devices,
            self._serving.app.time,
        )  # fmt: skip

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw the cohort, ask it for plans, and give messages with what these need."""
        serving = self._serving
        if self._nodes is None:
            app = serving.app
            self._nodes = Nodes(
                grid, serving.hello, app.spec.devices, app.timeout, app.most_samples
            )
        number = serving.round + 1
        self._wait_for_devices(self._nodes, first=server_round == 1)
        nodes = self._nodes.by_device
        times = serving.times(self._nodes.greetings)
        cohort = select_cohort(
            serving.devices,
            serving.begun,
            number,
            serving.app.spec.seed,
            lambda device: device.index in nodes,
        )
        order = Order(number, times.start, times.deadline, serving.hello.front_hash)
        plans = self._plans(self._nodes, [nodes[device.index] for device in cohort], order)
        messages = [self._message(node, replace(order, plan=plan)) for node, plan in plans]
        self._round = Round(times, {node.number: node for node, _ in plans}, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the updates that came and can be trusted."""
        under_way, serving = self._round, self._serving
        assert under_way is not None, "configure_train() comes before aggregate_train()"
        number = serving.round + 1
        came = {sender(reply, under_way.asked): reply for reply in replies}
        by_device = sorted(under_way.members.items(), key=lambda one: one[1].greeting.device)
        sent = {one.metadata.dst_node_id: size_of(one.content) for one in under_way.asked}
        updates = [
            self._update(node, came.get(flower), number, sent[flower]) for flower, node in by_device
        ]
        members = [node.greeting for _, node in by_device]
        judged, self._result = serving.finish(updates, members, under_way.times)
        for update, fault in zip(updates, judged.faults, strict=True):
            if fault is not None and update.state:  # what could not be read was said before
                _logger.warning(
                    "round %d, device %d: update left out: %s", number, update.device, fault
                )
        figures = self._result
        return ArrayRecord(dict(serving.state)), MetricRecord(
            {
                "merged": len(judged.counted),
                "missed": figures.missed,
                "rejected": figures.rejected,
                "training-macs": figures.training_macs,
                "seconds": figures.virtual_seconds,
                "bytes-down": figures.bytes_down,
                "bytes-up": figures.bytes_up,
            }
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: the server evaluates by `evaluate`."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Do nothing, as nobody was asked."""
        return None

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Score the global state and hand the figures of the round on; for ``evaluate_fn``."""
        if server_round == 0 and self._serving.round > 0:
            return None  # a run that goes on
        result = self._serving.scored(self._result)
        self._listen(result)
        if result.accuracy is None or result.loss is None:
            return None
        return MetricRecord({"accuracy": result.accuracy, "loss": result.loss})

    def _wait_for_devices(self, nodes: Nodes, first: bool) -> None:
        """Wait until as many nodes are there as devices, before the first round, or else one.

        Raises
        ------
        DistrealError
            If none comes in time.
        """
        app = self._serving.app
        until = time.monotonic() + app.timeout
        wanted = app.spec.devices if first else 1
        while True:
            nodes.refresh()
            if nodes.by_device and nodes.seen >= wanted:
                return
            if time.monotonic() > until:
                break
            time.sleep(LOOK_SECONDS)
        if not nodes.by_device:
            raise DistrealError(
                f"round {self._serving.round + 1}: expected a device to train it, found none in "
                f"{app.timeout:g} s; start SuperNodes, and see above why others take no part"
            )
        _logger.warning(
            "expected %d devices, found %d in %g s; going on with them",
            wanted, len(nodes.by_device), app.timeout,
        )  # fmt: skip

    def _plans(
        self, nodes: Nodes, members: list[Node], order: Order
    ) -> list[tuple[Node, Plan | None]]:
        """Return who takes part, and what each needs; None for everything."""
        units = sum(self._serving.network.full_counts)
        asked = [node for node in members if not node.greeting.everything]
        found: dict[int, Plan] = {}
        messages = [nodes.message(one.number, PLAN, {ASKED: order.record()}) for one in asked]
        for flower, answer in nodes.ask(messages):
            try:
                found[flower] = Plan.read(nodes.answer(answer), units)
            except InputError as refusal:
                _logger.warning("round %d, node %d takes no part: %s", order.round, flower, refusal)
        silent = {one.number for one in asked} - found.keys()
        return [(one, found.get(one.number)) for one in members if one.number not in silent]

    def _message(self, node: Node, order: Order) -> Message:
        assert self._nodes is not None
        serving, network = self._serving, self._serving.network
        plan = order.plan
        units = None if plan is None else plan.units
        if units is None:
            units = torch.ones(sum(network.full_counts), dtype=torch.bool)
        part = arrays_of(take(serving.state, units, network.channels))
        return self._nodes.message(
            node.number, TRAIN, {ASKED: config_of(order.record()), WEIGHTS: part}
        )

    def _update(self, node: Node, message: Message | None, number: int, down: int) -> Update:
        """Read the update of a device; one that can't be merged stands for what is none.

        Parameters
        ----------
        node
            Of the device.
        message
            What came from it; None for nothing.
        number
            Of the round.
        down
            Bytes that it was sent.
        """
        greeting, network = node.greeting, self._serving.network
        if message is None or message.has_error():
            # What another machine says must not steer a terminal.
            why = (
                "no answer in time" if message is None else in_one_line(message.error.reason or "")
            )
            _logger.warning("round %d, device %d: missed: %s", number, greeting.device, why)
            return _nothing(greeting.device, down, mini_batches=0)
        under_way = self._round
        assert self._nodes is not None and under_way is not None
        units = sum(network.full_counts)
        try:
            record = self._nodes.answer(message)
            figures, due = arrays_in(message.content, FIGURES), self._serving.due(greeting)
            update = read_update(record, figures, units, due)
            if update.device != greeting.device:
                raise InputError(f"device: expected {greeting.device}, found {update.device}")
            trained = unpack_bits(said(record, "units", bytes), units)
            if bool((update.masks.any(0) & ~trained).any()):
                raise InputError("units: expected all that the masks say, found fewer")
            # Before anything else looks at them: late and rejected updates are stored, too.
            if fault := fault_of_figures(update, under_way.times.most_seconds):
                raise InputError(fault)
            part = arrays_in(message.content, WEIGHTS)
            state: State = put(part, self._serving.state, trained, network.channels)
        except InputError as refusal:
            _logger.warning("round %d, device %d: update left out: %s", number, greeting.device,
                            refusal)  # fmt: skip
            return _nothing(greeting.device, down, mini_batches=1)
        up = size_of(message.content)
        return replace(update, state=state, bytes_down=down, bytes_up=up)


def _nothing(device: int, bytes_down: int, mini_batches: int) -> Update:
    """An update that is missed without mini-batches, and refused with one, for its loss."""
    return Update(
        device=device,
        samples=1,
        state={},
        masks=torch.zeros(mini_batches, 0, dtype=torch.bool),
        loss=float("nan"),
        seconds=0.0,
        complete=mini_batches > 0,
        training_macs=0.0,
        cost_shares=(0.0,) * mini_batches,
        over_budget=0,
        bytes_down=bytes_down,
        bytes_up=0,
    )
