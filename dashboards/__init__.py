"""Pictures of fronts and federated runs: Plotly figures, HTML reports, optuna-dashboard.

The way through this room: `findings` says in words what the data show; `figures`, `costs`,
`progress`, `comparison` and `work` draw them in the colours of `style`; `pictures` puts each figure
together with its words and its table. `report` makes one HTML file of them, `images` SVG and PNG,
`numbers` JSON. Nothing up to here reads a database or imports Optuna: the command line brings
fronts, trials and runs. `publishing` saves thin figures and `notes` in the studies of
optuna-dashboard, and `serving` serves that.
"""
