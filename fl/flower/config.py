"""What an app of Flower is told: the run, as `distreal-dse fl run` calls it, and where things are.

All of it is text and numbers in ``[tool.flwr.app.config]``. What differs from device to device is
in the node configuration of its SuperNode, and takes the place of the app's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from distreal_dse.errors import InputError
from distreal_dse.support.specs import unknown_name
from distreal_dse.support.storage import storage_url
from fl.store.specs import RunSpec
from fl.world.deadlines import RoundRules
from fl.world.fleet import make_fleet

Config = Mapping[str, bool | float | int | str]
"""As Flower gives the configuration of apps and nodes."""

Time = Literal["virtual", "live"]

# What a run is called here, and there.
_OF_SPEC = {
    "study": "study", "front": "front", "strategy": "strategy", "seed": "seed",
    "rounds": "rounds", "devices": "devices", "cohort": "cohort", "epochs": "local_epochs",
    "evaluate-every": "evaluate_every", "evaluate-on": "evaluate_on", "split": "split",
    "server": "server", "schedule": "schedule", "robust": "robust",
    "checkpoint-every": "checkpoint_every", "torch-device": "device",
}  # fmt: skip
RULES = ("deadline", "late", "overcommit")
_OWN = (
    "study-options", "fleet", "storage", "time", "timeout", "most-samples", "partition-id",
    "num-partitions",
)  # fmt: skip
KEYS = (*_OF_SPEC, *RULES, *_OWN)
"""What an app can be told."""

_OF_APP, _OF_NODE = "app configuration", "node configuration"

OF_NODES = (
    "study", "study-options", "front", "storage", "torch-device", "partition-id", "num-partitions",
    "class", "speed", "slot", "threads",
)  # fmt: skip
"""What a node can be told."""


@dataclass(frozen=True)
class AppConfig:
    """What an app is told.

    Parameters
    ----------
    spec
        The run. Split and speeds are those of devices that are simulated, and the fleet is what
        the smallest networks of strategies are made for.
    storage
        URL of the database that fronts, rounds and checkpoints are in.
    time
        Whether devices live in virtual time, as in `fl.engine`, or in their own.
    timeout
        Seconds that the server waits for the answers of a round, > 0. Devices in their own time
        train for four fifths of it at most.
    most_samples
        That a device may say that it has, as samples are weights; 0 for no limit. Those that say
        more take no part.
    """

    spec: RunSpec
    storage: str
    time: Time
    timeout: float
    most_samples: int = 0


@dataclass(frozen=True)
class NodeConfig:
    """What a node is told, beside what takes the place of the app's own.

    Parameters
    ----------
    device
        Index of the device that it is.
    device_class
        Name of its class, for figures.
    speed
        In its own time: of this device, where 1 trains the full network within a slot.
    slot
        In its own time: seconds that a mini-batch may take; None for what the full network takes.
    threads
        That it trains with.
    """

    device: int
    device_class: str
    speed: float
    slot: float | None
    threads: int


def read_config(config: Config, folder: Path) -> AppConfig:
    """Read what an app is told.

    Parameters
    ----------
    config
        Of the run.
    folder
        Of the app; a study file without a path lies there.

    Raises
    ------
    InputError
        If a key is not known, or a value is none.
    """
    _check_keys(_OF_APP, config, KEYS)
    values: dict[str, Any] = {
        field: _read(key, config[key], field) for key, field in _OF_SPEC.items() if key in config
    }
    if "study" not in values:
        raise InputError(
            "app configuration: expected a study, found none; write study = 'digits-cnn', say, "
            "below [tool.flwr.app.config]"
        )
    values["study"] = _study(str(values["study"]), folder)
    values["options"] = _options(str(config.get("study-options", "")))
    if "fleet" in config:
        fleet = make_fleet(str(config["fleet"]))
        values |= {
            "classes": fleet.classes, "availability": fleet.availability, "pace": fleet.pace,
        }  # fmt: skip
    rules: dict[str, Any] = {key: config[key] for key in RULES if key in config}
    rules["deadline"] = _number(_OF_APP, config, "deadline", 0.0) or None
    rules["overcommit"] = _number(_OF_APP, config, "overcommit", 0.0)
    values["rules"] = RoundRules(**rules)
    # A server has no samples of devices to measure statistics on.
    spec = RunSpec(**values, statistics="averaged")
    spec.check()
    time = str(config.get("time", "virtual"))
    if time not in get_args(Time):
        raise unknown_name("time of the app configuration", time, time, get_args(Time))
    timeout = _number(_OF_APP, config, "timeout", 3600.0)
    if not 0 < timeout < math.inf:
        raise InputError(f"timeout of the app configuration: expected above 0, found {timeout:g}")
    storage = storage_url(str(config.get("storage") or "") or None)
    most = config.get("most-samples", 0)
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise InputError(
            "most-samples of the app configuration: expected a whole number, 0 for no limit, found "
            f"{most!r}"
        )
    return AppConfig(spec, storage, time, timeout, most)  # type: ignore[arg-type]


def for_node(config: Config, node: Config) -> dict[str, bool | float | int | str]:
    """Return the configuration of the app as it holds on a node."""
    _check_keys(_OF_NODE, node, OF_NODES)
    return {**config, **{key: value for key, value in node.items() if key in KEYS}}


def read_node(node: Config, devices: int) -> NodeConfig:
    """Read what a node is told.

    Parameters
    ----------
    node
        Its configuration.
    devices
        Of the run.

    Raises
    ------
    InputError
        If a key is not known, a value is none, or it is none of the devices.
    """
    _check_keys(_OF_NODE, node, OF_NODES)
    found = node.get("partition-id")
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < devices:
        raise InputError(
            f"node configuration: expected partition-id, the index of the device, 0 to "
            f"{devices - 1}, found {'none' if found is None else found}; give "
            "--node-config 'partition-id=0' to its SuperNode"
        )
    slot = _number(_OF_NODE, node, "slot", 0.0) if "slot" in node else None
    speed, threads = _number(_OF_NODE, node, "speed", 1.0), node.get("threads", 1)
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise InputError(f"threads of the {_OF_NODE}: expected a whole number, found {threads!r}")
    for name, value in (("slot", slot), ("speed", speed), ("threads", threads)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} of the node configuration: expected above 0, found {value:g}")
    return NodeConfig(found, str(node.get("class", "device")), speed, slot, threads)


def _check_keys(what: str, found: Config, known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            raise unknown_name(f"key of the {what}", key, key, known)


def _number(what: str, config: Config, key: str, default: float) -> float:
    found = config.get(key, default)
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        raise InputError(f"{key} of the {what}: expected a number, found {found!r}")
    return float(found)


def _read(key: str, value: object, field: str) -> Any:
    """Give a value the type that the field has; an empty text stands for nothing."""
    kinds = {"int": (int,), "str": (str,), "str | None": (str,)}
    kind = next(one.type for one in fields(RunSpec) if one.name == field)
    if not isinstance(value, kinds[str(kind)]) or isinstance(value, bool):
        expected = "a whole number" if kind == "int" else "text"
        raise InputError(f"{key} of the app configuration: expected {expected}, found {value!r}")
    return None if kind == "str | None" and value == "" else value


def _study(spec: str, folder: Path) -> str:
    """Return a study; a file that is named without a path lies in the folder of the app."""
    is_beside = spec.endswith(".py") and not Path(spec).is_absolute()
    return str(folder / spec) if is_beside else spec


def _options(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for option in text.split():
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise InputError(
                f"study-options of the app configuration: expected NAME=VALUE, parted by spaces, "
                f"found '{option}'"
            )
        pairs.append((name, value))
    return tuple(sorted(pairs))
