"""Pictures of fronts and federated runs: Plotly figures and self-contained HTML reports.

The way through this room: `findings` says in words what the data show, `figures` draws them in the
colours of `style`, `report` puts both with the numbers into one HTML file, and `images` writes
figures as SVG or PNG. Nothing here reads a database: the command line brings fronts, trials and
runs. Optuna is never imported.
"""
