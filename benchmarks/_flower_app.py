"""The workload of `benchmarks.flower` as apps of Flower."""

from __future__ import annotations

import os
import time
from functools import lru_cache

os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")

import torch  # noqa: E402
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402

from benchmarks._cifar_users import COHORT, IMAGES, USERS, Images, load, model, train_user


@lru_cache(maxsize=1)
def _images() -> Images:
    """Loaded once per worker process."""
    torch.set_num_threads(1)
    images = load().train
    assert isinstance(images, Images)
    return images


def _train(message: Message, context: Context) -> Message:
    module = model()
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    user = int(context.node_config["partition-id"])
    train_user(module, _images(), range(user * IMAGES, (user + 1) * IMAGES))
    content = RecordDict(
        {
            "arrays": ArrayRecord(module.state_dict()),
            "metrics": MetricRecord({"num-examples": IMAGES}),
        }
    )
    return Message(content=content, reply_to=message)


def round_seconds(rounds: int, workers: int) -> list[float]:
    """Wall seconds of each round of a simulation but the first, which starts the processes."""
    client, server = ClientApp(), ServerApp()
    client.train()(_train)
    ends: list[float] = []

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        def note(number: int, arrays: ArrayRecord) -> None:
            ends.append(time.perf_counter())

        strategy = FedAvg(
            fraction_train=COHORT / USERS, fraction_evaluate=0.0, min_available_nodes=USERS
        )
        initial = ArrayRecord(model().state_dict())
        strategy.start(grid, initial, num_rounds=rounds, evaluate_fn=note)

    run_simulation(
        server,
        client,
        num_supernodes=USERS,
        backend_config={
            "init_args": {"num_cpus": workers, "include_dashboard": False},
            "client_resources": {"num_cpus": 1},
        },
    )
    if len(ends) != rounds + 1:
        raise RuntimeError(f"Flower ended {len(ends) - 1} of {rounds} rounds")
    return [end - start for start, end in zip(ends[1:], ends[2:], strict=False)]
