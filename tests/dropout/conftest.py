"""Fixtures for the tests of dropout."""

from collections.abc import Iterator

import pytest

from distreal_dse.dropout import _packing
from networks import PACKINGS


@pytest.fixture(scope="module", params=PACKINGS)
def packed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small tensors are gathered together, or each alone."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "one by one":
            patch.setattr(_packing, "LARGEST_PACKED", 0)
        yield
