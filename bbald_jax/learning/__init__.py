"""From labelled points to posterior samples.

Two seams: a `model` is one function for each key, a `learner` fits and samples. `linen` makes
models of flax modules, `networks` are two such modules, built from `convolution`. `training` fits a
model by one of the `recipes`, with `augmentation`; `mc_dropout` samples it, `chunks` of points at a
time; an `ensemble` is several learners as one.
"""
