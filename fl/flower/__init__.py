"""The same training on Flower: devices in a simulation, or real ones.

Needs the extra ``flower``. A server app and a client app are made by `make_server_app` and
`make_client_app`; `distreal-dse fl flower-init` writes a project of both. Read `device` and
`serving` first: what a device does, and what the server does, without a word of Flower. `client`,
`strategy` and `server` bring messages to them.
"""

from fl.flower.requirement import require_flower

require_flower()

from fl.flower.client import make_client_app  # noqa: E402
from fl.flower.device import OwnData, simulated_data  # noqa: E402
from fl.flower.server import make_server_app  # noqa: E402
from fl.flower.strategy import FlowerStrategy  # noqa: E402

__all__ = ["FlowerStrategy", "OwnData", "make_client_app", "make_server_app", "simulated_data"]
