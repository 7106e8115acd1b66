"""Strategies compared under the same conditions.

`comparison` carries the runs out, `tuning` finds each strategy's learning rate before,
`summaries` and `paired` say what came out with which certainty, and `export` writes it for others.
"""
