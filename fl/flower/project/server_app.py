"""What the server runs: it draws cohorts, merges updates, and stores rounds and checkpoints."""

from pathlib import Path

from fl.flower import make_server_app

app = make_server_app(Path(__file__).parent)
