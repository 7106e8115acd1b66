"""A grid of Flower whose nodes are this process: messages go through bytes, as over a wire."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid

FIRST_NODE = 7_000_000_000


class LoopbackGrid(Grid):
    """Nodes that answer one after the other, in an order of their own.

    Parameters
    ----------
    app
        Of all nodes.
    run_config
        Of the app.
    node_configs
        Of each node.
    """

    def __init__(
        self,
        app: ClientApp,
        run_config: dict[str, Any],
        node_configs: Sequence[dict[str, Any]],
        change: Callable[[Message], Message | None] = lambda reply: reply,
    ) -> None:
        self._app, self._change, self._random = app, change, random.Random(5)
        numbers = [FIRST_NODE - 17 * i for i in range(len(node_configs))]
        self.contexts = {
            number: Context(1, number, dict(config), RecordDict(), dict(run_config))
            for number, config in zip(numbers, node_configs, strict=True)
        }
        self.sent: list[tuple[str, int]] = []
        self.answered: list[tuple[str, int]] = []
        self._count = 0
        _identify()

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        self._random.shuffle(asked)
        replies = []
        for message in asked:
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"message {self._count}"
            came, size = over_the_wire(message)
            self.sent.append((message.metadata.message_type, size))
            reply = self._app(came, self.contexts[message.metadata.dst_node_id])
            reply.metadata.__dict__["_message_id"] = f"reply {self._count}"
            back, size = over_the_wire(reply)
            self.answered.append((message.metadata.message_type, size))
            changed = self._change(back)
            if changed is not None:
                replies.append(changed)
        return replies


def over_the_wire(message: Message) -> tuple[Message, int]:
    """Write a message and read it again; returns its bytes, too."""
    written = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(written)), len(written)


def simulated(devices: int) -> list[dict[str, Any]]:
    """Node configurations as a simulation gives them."""
    return [{"partition-id": i, "num-partitions": devices} for i in range(devices)]


def app_folder() -> Path:
    return Path(__file__).parent


def _identify() -> None:
    """Be the process of a task, where Flower wants messages to be those of one."""
    with suppress(ImportError):  # older versions don't
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
