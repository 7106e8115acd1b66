"""``distreal-dse measure``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    InputShapeOption,
    JsonOption,
    RepetitionsOption,
    SeedOption,
    StorageOption,
    StudyFileOption,
    StudyOptions,
    ThreadsOption,
    check_device,
    rates,
    shape,
    study_source,
)
from distreal_dse.cli._console import measuring, print_json
from distreal_dse.cli._kept_counts import KeptCounts
from distreal_dse.support.progress import console
from distreal_dse.support.storage import storage_url

if TYPE_CHECKING:
    from rich.table import Table

    from distreal_dse.fronts import ChannelCounts, StoredLatency
    from distreal_dse.pricing import Measurement


def measure(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FRONT",
            help="A front (NAME, NAME@VERSION, .json file): its points. A study (name, .py file): "
            "uniform rates.",
        ),
    ],
    rates_text: Annotated[
        str | None,
        typer.Option(
            "--rates", metavar="R,R,…", help="Uniform rates of a study, as in 0,0.25,0.5."
        ),
    ] = None,
    repetitions: RepetitionsOption = 30,
    threads: ThreadsOption = 1,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples of a mini-batch. Default: the study's.")
    ] = None,
    study: StudyFileOption = None,
    input_shape: InputShapeOption = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Measure nothing; show what is stored, of all devices.")
    ] = False,
    storage: StorageOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what a training mini-batch takes of time and memory on this device.

    Times are stored.
    """
    from dataclasses import asdict, replace

    from distreal_dse.cost import device_text
    from distreal_dse.fronts import open_database
    from distreal_dse.pricing import (
        MeasureSettings,
        Wanted,
        find_subject,
        memory_of,
        stored_latencies,
    )
    from distreal_dse.pricing import measure as measure_subject

    wanted = Wanted(
        options=study_source(subject, data, option).options,
        study=study,
        rates=rates(rates_text),
        input_shape=shape(input_shape),
        seed=seed,
        device=check_device(device),
    )
    settings = MeasureSettings(repetitions, threads, batch_size, seed)
    screen = console()
    with measuring(screen, subject) as progress:
        engine = open_database(storage_url(storage), create=not stored)
        found = find_subject(subject, wanted, engine)
        if stored:
            kept = stored_latencies(found, engine)
        else:
            measurement = measure_subject(found, settings, engine, progress)
            vectors = [one.counts for one in measurement.latencies.vectors]
            memory = memory_of(found, vectors, measurement.batch_size)
            measurement = replace(measurement, memory=memory)
    if stored:
        if as_json:
            rows = [asdict(latency) for latency in kept]
            sizes = found.channel_counts.per_unit
            print_json({"measurements": rows, "channels_per_unit": sizes})
            return
        table = _stored_table(kept, found.channel_counts) if kept else None
        screen.print(table or f"Nothing is stored of {found.label} yet.")
        devices = {latency.device_hash[:6]: device_text(latency.device) for latency in kept}
        lines = [f"{start}: {text}" for start, text in devices.items()]
    elif as_json:
        print_json(measurement.as_json())
        return
    else:
        screen.print(_table(measurement))
        lines = [f"Measured on {device_text(measurement.device)}.", measurement.noise.warning]
    screen.print("\n".join(filter(None, lines)), markup=False, soft_wrap=True)


def _table(measurement: Measurement) -> Table:
    from rich.table import Table
    from rich.text import Text

    from distreal_dse.fronts import memory_text

    network, channels = measurement.subject.network, measurement.subject.channel_counts
    table = Table(
        title=Text(
            f"A training mini-batch of {measurement.batch_size} for {measurement.subject.label}, "
            f"{min(one.repetitions for one in measurement.latencies.vectors)} times"
        ),
        title_justify="left",
    )
    widths = channels.text(network.full_counts)
    table.add_column(KeptCounts(f"kept channels of {widths}"))
    for heading in ("MACs", "of full", "ms", "quartiles", "of full", "memory", "measured"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measurement.latencies.vectors:
        macs, seconds = measurement.macs[one.counts], one.seconds
        table.add_row(
            KeptCounts(channels.text(one.counts)),
            f"{macs:,.0f}",
            f"{macs / measurement.macs[network.full_counts]:.1%}",
            f"{1e3 * seconds.median:.3f}",
            f"{1e3 * seconds.low:.3f} … {1e3 * seconds.high:.3f}",
            f"{one.ratio.median:.1%}",
            memory_text(measurement.memory[one.counts].predicted),
            memory_text(measurement.memory[one.counts].measured),
        )
    return table


def _stored_table(stored: list[StoredLatency], channels: ChannelCounts) -> Table:
    from rich.table import Table

    table = Table("measured", "kept channels", "batch", "ms", "of full", "times", "device")
    for latency in stored:
        table.add_row(
            latency.measured_at[:16].replace("T", " "),
            KeptCounts(channels.text(latency.kept_counts)),
            str(latency.batch_size),
            f"{1e3 * latency.latency:.3f}",
            f"{latency.ratio_median:.1%}",
            str(latency.repetitions),
            latency.device_hash[:6],
        )
    return table
