"""From predictions to a batch.

`pointwise` scores and `stochastic` ones, made into a batch by `top`; `kbald`, and `batchbald` with
its `bounds`, `search` and `certificate`; joint ones in Gaussian form, and the baselines on features
(`badge`, `coreset`, `bait`, `typiclust`): all are acquisition functions, which `functions` puts
behind one signature, by name. `selection` is the host's way through them: predictions of any
framework in, a batch of NumPy values out, with the `warnings` that belong to it.

`streamed` selects from a pool that is read in `pieces`: in `passes`, a guess inside a `buffer` is
verified (`verification`, for BatchBALD) against the rest, which may `contest` it.
`streamed_selection` is the host's way.
"""
