"""From predictions to a batch.

`pointwise` scores and `stochastic` ones, made into a batch by `top`; `kbald`, and `batchbald` with
its `bounds`, `search` and `certificate`; joint ones in Gaussian form, and the baselines on features
(`badge`, `coreset`, `bait`, `typiclust`): all are acquisition functions, which `functions` puts
behind one signature, by name. `placing` spreads a pool over devices and `sharded` selects from it;
what those devices say together goes through a `pool_axis`. A pool larger than memory is read in
`pieces`: `streamed` guesses in a `buffer` and asks the rest (`passes`, `verification`). `selection`
is the host's way through them: predictions of any framework in, a batch of NumPy values out, with
the `warnings` that belong to it; `recommended` names what to take where nobody has chosen.
"""
