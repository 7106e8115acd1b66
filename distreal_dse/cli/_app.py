"""The ``distreal-dse`` command: its commands, and how errors and interrupts end it."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from distreal_dse.cli import (
    _dashboard,
    _doctor,
    _federated,
    _fronts,
    _measure,
    _optimize,
    _report,
    _studies,
)
from distreal_dse.errors import DistrealError, described
from distreal_dse.shadows import claim_packages

app = typer.Typer(
    name="distreal-dse",
    help="Find the Pareto-optimal dropout vectors of a CNN, and train it federated with them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("studies")(_studies.studies)
app.command("optimize")(_optimize.optimize)
app.add_typer(_fronts.app, name="front")
app.command("lookup")(_fronts.lookup)
app.command("measure")(_measure.measure)
app.add_typer(_federated.app, name="fl")
app.command("report")(_report.report)
app.command("dashboard")(_dashboard.dashboard)
app.command("doctor")(_doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("distreal-dse"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Find the Pareto-optimal dropout vectors of a CNN, and train it federated with them."""
    if context.invoked_subcommand != "doctor":  # which tells it
        claim_packages()


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted.
    """
    debug = "--debug" in sys.argv  # understood anywhere, not only before the command
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    # A terminated process keeps what is finished, like an interrupted one.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(args=arguments)
    except DistrealError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # a user's code in a place we did not think of, or our own mistake
        if debug:
            raise
        typer.echo(f"error: {described(error)}; --debug shows where it comes from", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
