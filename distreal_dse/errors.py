"""Errors a user can act on.

Each message is one line that names the thing, what was expected, what was found and what to do.
The command line prints it and exits with ``exit_code``.
"""


class DistrealError(Exception):
    """Base of all errors of this project; the work could not be done (exit code 1)."""

    exit_code = 1

    def __str__(self) -> str:
        return in_one_line(super().__str__())


def in_one_line(text: str) -> str:
    r"""Text with escapes, such as ``\n``, in place of what would break or steer a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class DistrealWarning(UserWarning):
    """Something beside the work could not be done; the work was."""


def described(error: BaseException) -> str:
    """Kind and first line of an error that somebody else's code raised."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def brief(value: object, most: int = 60) -> str:
    """Return how Python writes a value, for what was found: no more than so many characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


class InputError(DistrealError):
    """What the user gave is wrong: an argument, a file, a model, a data set (exit code 2)."""

    exit_code = 2


class StudyError(InputError):
    """A study that can't be found, imported or understood."""


class DataError(InputError):
    """A data set that can't be read or that nothing can be learned from."""


class UnsupportedModelError(InputError):
    """A network in which filters can't be dropped correctly; names the layer and the reason."""


class UnsupportedOptimizerError(InputError):
    """An optimiser whose state can't be cut down to the kept filters."""


class VectorError(InputError):
    """A dropout vector of the wrong length, or with a rate outside [0, 1)."""


class FrontError(InputError):
    """A front that can't be found or read, was changed, or belongs to another model."""


class StorageError(DistrealError):
    """A database that can't be reached, opened or written."""


class NoGainError(DistrealError):
    """A search in which no vector makes the network better, so that there is no front."""


class DivergedError(DistrealError):
    """Training that left the range of finite numbers."""
