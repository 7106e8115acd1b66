"""Federated training that consumes a front.

The way through this room: `make_devices` and an `Availability` say what each device can afford,
`Clock` turns that into a budget and virtual seconds, a `Strategy` picks the dropout vector of each
mini-batch, `train_locally` trains a device's round with them, `fedavg` merges the updates,
`fl.engine.FederatedRun` does it round by round, and `fl.runs` keeps what came out.

Client and server are plain functions of tensors: whatever drives them gets the same weights.
Nothing here imports the search or a plotting library, and only training imports PyTorch.
"""
