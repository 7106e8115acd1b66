"""Fixtures for the tests of dropout."""

from collections.abc import Iterator

import pytest

from distreal_dse.dropout import _packing


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "one by one"])
def packed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small tensors are gathered together, or each alone."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.setattr(_packing, "LARGEST_PACKED", 0)
        yield
