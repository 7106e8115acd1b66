"""The ``distreal-dse`` command: its commands, and how errors and interrupts end it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distreal_dse.cli import (
    _dashboard,
    _doctor,
    _federated,
    _fronts,
    _lookup,
    _measure,
    _optimize,
    _report,
    _status,
    _studies,
)
from distreal_dse.errors import DistrealError, described
from distreal_dse.study.shadows import claim_packages
from distreal_dse.support.installation import full_installation
from distreal_dse.support.interrupts import interrupts

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
app.command("lookup")(_lookup.lookup)
app.command("measure")(_measure.measure)
app.add_typer(_federated.app, name="fl")
app.command("status")(_status.status)
app.command("report")(_report.report)
app.command("dashboard")(_dashboard.dashboard)
app.command("doctor")(_doctor.doctor)


INTERRUPTED = 130
"""The exit code, as that of shells after Ctrl-C."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from distreal_dse.support.installation import version

        typer.echo(version())
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

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted: by Ctrl-C, by its
    termination, or by the end of its terminal.
    """
    debug = "--debug" in sys.argv  # understood anywhere, not only before the command
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    interrupts.listen()
    code: int | str | None = INTERRUPTED
    try:
        try:
            code = _run(arguments, debug)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
        interrupts.end()
    except KeyboardInterrupt:  # Ctrl-C again, in what the first had left to do
        interrupts.end()
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int | str | None:
    try:
        with full_installation("this command"):
            app(args=arguments)
    except SystemExit as ended:
        return ended.code
    except DistrealError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except Exception as error:  # a user's code in a place we did not think of, or our own mistake
        if debug:
            raise
        typer.echo(f"error: {described(error)}; --debug shows where it comes from", err=True)
        return 1
    return 0
