"""From labelled points to posterior samples.

A `Model` is one function for each key; a `Learner` fits and samples. `models` holds networks,
built from `convolution`; `training` fits them by a recipe, with `augmentation`; `mc_dropout`
samples what was fitted.
"""
