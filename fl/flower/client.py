"""The `ClientApp`: messages in, answers out; what they mean is in `fl.flower.device`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from distreal_dse.errors import DistrealError
from fl.flower.config import AppConfig, for_node, read_config, read_node
from fl.flower.device import Equipment, OwnData, Participant, equip, simulated_data
from fl.flower.records import (
    ANSWER,
    ASKED,
    FIGURES,
    REFUSED,
    WEIGHTS,
    arrays_in,
    arrays_of,
    config_of,
    reply,
    values_in,
)  # fmt: skip
from fl.flower.words import Hello, Order, update_record

MEMORY = "live"
"""Record of a node's own state: what its live budget has learned."""

_logger = logging.getLogger("flwr")

Answer = Mapping[str, ConfigRecord | ArrayRecord]


def make_client_app(folder: Path, own_data: OwnData = simulated_data) -> ClientApp:
    """Make the app that runs on devices.

    Parameters
    ----------
    folder
        Of the app; its study file lies there.
    own_data
        Gives the training data of a device. By default it is a part of the study's, as in a
        simulation; a real device has its own.
    """
    app = ClientApp()

    def hello(message: Message, device: Participant) -> Answer:
        greeting = device.greet(Hello.read(values_in(message.content, ASKED)))
        return {ANSWER: config_of(greeting.record())}

    def plan(message: Message, device: Participant) -> Answer:
        order = Order.read(values_in(message.content, ASKED), device.units)
        return {ANSWER: config_of(device.plan(order).record())}

    def train(message: Message, device: Participant) -> Answer:
        order = Order.read(values_in(message.content, ASKED), device.units)
        done = device.train(order, arrays_in(message.content, WEIGHTS))
        record, figures = update_record(done.update)
        return {
            ANSWER: config_of({**record, "units": done.packed}),
            WEIGHTS: arrays_of(done.part),
            FIGURES: arrays_of(figures),
        }

    def answering(
        act: Callable[[Message, Participant], Answer],
    ) -> Callable[[Message, Context], Message]:
        def handle(message: Message, context: Context) -> Message:
            memory = _memory(context)
            try:
                device = _participant(folder, context, own_data, memory)
                answer = act(message, device)
                device.remember()
            except DistrealError as error:
                # Said to the server and here; an exception would reach neither as a line.
                _logger.error("error: %s", error)
                answer = {ANSWER: config_of({REFUSED: str(error)})}
            if memory:
                context.state[MEMORY] = ConfigRecord(dict(memory))
            return reply(message, answer)

        return handle

    app.query("hello")(answering(hello))
    app.query("plan")(answering(plan))
    app.train()(answering(train))
    return app


def _participant(
    folder: Path, context: Context, own_data: OwnData, memory: dict[str, float]
) -> Participant:
    app = read_config(for_node(context.run_config, context.node_config), folder)
    node = read_node(context.node_config, app.spec.devices)
    return Participant(_equipment(app), node, own_data, memory)


@lru_cache(maxsize=1)
def _equipment(app: AppConfig) -> Equipment:
    """Build it once for all devices and messages of a process, as in a simulation."""
    return equip(app)


def _memory(context: Context) -> dict[str, float]:
    found = context.state.get(MEMORY)
    if not isinstance(found, ConfigRecord):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, float)}
