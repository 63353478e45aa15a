"""From predictions to a batch.

`pointwise` scores and `stochastic` ones, made into a batch by `top`; `kbald`, and `batchbald` with
its `bounds`, `search` and `certificate`; joint ones in Gaussian form, and the baselines on features
(`badge`, `coreset`, `bait`, `typiclust`): all are acquisition functions, which `functions` puts
behind one signature, by name. `selection` is the host's way through them: predictions of any
framework in, a batch of NumPy values out, with the `warnings` that belong to it; `recommended`
names what to take where nobody has chosen.

`placing` spreads a pool over devices and `sharded` selects from it; what those devices say together
goes through a `pool_axis`. `streamed` selects from a pool that is read in `pieces`: in `passes`, a
guess inside a `buffer` is verified (`verification`, for BatchBALD) against the rest, which may
`contest` it. `spread_selection` and `streamed_selection` are the host's ways to these.
"""
