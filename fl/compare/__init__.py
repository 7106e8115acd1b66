"""Strategies compared under the same conditions.

`comparison` carries the runs out, `tuning` finds each strategy's learning rate before. `settled`,
`summaries` and `paired` say what came out with which certainty; `export` writes it for others.
"""
