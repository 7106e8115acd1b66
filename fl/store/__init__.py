"""Federated runs as they are stored: begun, carried out, and gone on with.

`specs` holds a run as text and numbers, `execution` carries it out round by round, `runs` and
`checkpoints` keep what came out, `leases` sees to it that one process works on it, and
`conditions` that it goes on as it was begun.
"""
