"""``distreal-dse report``."""


def report() -> None: ...
