"""Which nodes are connected, and which devices they are.

Flower numbers nodes at random. Each says which device it is, so that cohorts are drawn among
devices, and are the same whenever the same ones are there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from distreal_dse.errors import InputError
from fl.flower.records import ANSWER, ASKED, HELLO, REFUSED, config_of, sender, values_in
from fl.flower.words import Greeting, Hello, RefusedError

_logger = logging.getLogger("flwr")

ASK_AGAIN = 10
"""Rounds after which a node that refused, or was silent, is asked again."""


@dataclass(frozen=True)
class Node:
    """A node that takes part.

    Parameters
    ----------
    number
        Flower's.
    greeting
        Which device it is.
    """

    number: int
    greeting: Greeting


class Nodes:
    """The nodes that are connected and take part.

    Parameters
    ----------
    grid
        Where they are.
    hello
        What the server trains.
    devices
        Of the run.
    timeout
        Seconds that a node has to answer.
    most_samples
        That a device may say that it has; 0 for no limit.
    """

    def __init__(
        self, grid: Grid, hello: Hello, devices: int, timeout: float, most_samples: int = 0
    ) -> None:
        self._grid, self._hello, self._devices, self._timeout = grid, hello, devices, timeout
        self._most_samples = most_samples
        self._known: dict[int, Node] = {}
        self._refused: dict[int, int] = {}  # rounds left until a node is asked again
        self._said: set[str] = set()

    @property
    def by_device(self) -> dict[int, Node]:
        """The nodes by the index of the device that they are."""
        return {node.greeting.device: node for node in self._known.values()}

    @property
    def greetings(self) -> list[Greeting]:
        """What the devices said of themselves, by ascending index."""
        return [node.greeting for _, node in sorted(self.by_device.items())]

    @property
    def seen(self) -> int:
        """Nodes that are connected, whether they take part or not."""
        return len(self._known) + len(self._refused)

    def refresh(self) -> None:
        """Greet nodes that are new, and forget those that are gone."""
        connected = set(self._grid.get_node_ids())
        self._known = {n: node for n, node in self._known.items() if n in connected}
        self._refused = {
            n: left - 1 for n, left in self._refused.items() if n in connected and left
        }
        new = sorted(connected - self._known.keys() - self._refused.keys())
        asked = [self.message(number, HELLO, {ASKED: self._hello.record()}) for number in new]
        answers = dict(self.ask(asked))
        for number in new:  # in their order, whoever answers first
            if number in answers:
                self._admit(number, answers[number])
            else:  # else each round would wait for it in full
                self._refuse(number, "expected an answer in time, found none")

    def message(
        self,
        number: int,
        kind: str,
        content: Mapping[str, Mapping[str, Any] | ConfigRecord | ArrayRecord],
    ) -> Message:
        """Return a message to a node."""
        records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
            name: one if isinstance(one, (ConfigRecord, ArrayRecord)) else config_of(one)
            for name, one in content.items()
        }
        return Message(RecordDict(records), dst_node_id=number, message_type=kind)

    def ask(self, messages: Iterable[Message]) -> Iterator[tuple[int, Message]]:
        """Send messages, and give the answers that come in time, by node."""
        asked = list(messages)
        if asked:
            for reply in self._grid.send_and_receive(asked, timeout=self._timeout):
                yield sender(reply, asked), reply

    def answer(self, message: Message) -> dict[str, Any]:
        """Return what a node answered.

        Raises
        ------
        RefusedError
            If it refused, or its app failed.
        InputError
            If it answered something else.
        """
        if message.has_error():
            raise RefusedError(f"its app failed: {message.error.reason}")
        values = values_in(message.content, ANSWER)
        if REFUSED in values:
            raise RefusedError(str(values[REFUSED]))
        return values

    def _admit(self, number: int, message: Message) -> None:
        try:
            greeting = Greeting.read(self.answer(message))
            if not 0 <= greeting.device < self._devices:
                raise InputError(
                    f"expected one of devices 0 to {self._devices - 1}, found {greeting.device}"
                )
            # None of its updates may say more than this greeting.
            if 0 < self._most_samples < greeting.samples:
                raise InputError(
                    f"samples of device {greeting.device}: expected at most the "
                    f"{self._most_samples} of most-samples, found {greeting.samples}; check the "
                    "device, or raise the setting"
                )
            if (other := self.by_device.get(greeting.device)) is not None:
                raise InputError(
                    f"expected one node for each device, found {other.number} to be device "
                    f"{greeting.device}, too; give each SuperNode a partition-id of its own"
                )
        except InputError as refusal:
            self._refuse(number, str(refusal))
            return
        self._known[number] = Node(number, greeting)

    def _refuse(self, number: int, why: str) -> None:
        """Leave a node out for a while; says so where it is the first time."""
        self._refused[number] = ASK_AGAIN
        if (text := f"node {number} takes no part: {why}") not in self._said:
            self._said.add(text)
            _logger.warning(text)
