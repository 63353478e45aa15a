"""Configured runs on disk.

`config` decides the result; everything random comes from the `keys` of a trial. `datasets` gives
the points (some of them from `idx` files), `feature_files` keep what is computed of them once,
`splits` say which of them a trial uses, `trials` runs them; after every round `checkpoint` keeps
the state and `results` one line, from which `report` draws.
"""
