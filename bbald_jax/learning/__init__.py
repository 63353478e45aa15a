"""From labelled points to posterior samples.

Two seams: a `model` is one function for each key, a `learner` fits and samples. Modules become
models in `linen`, `flax_nnx` and `equinox_modules`; `networks` are two linen modules, built from
`convolution`. `training` fits a model by one of the `recipes`, with `augmentation`; `mc_dropout`
samples it, `chunks` of points at a time; an `ensemble` is several learners as one.

What others have trained is only sampled: `torch_sampling`, by `torch_masks`, and `forest`.

A pool has features before anything is trained: `image_embedding`, `text_embedding`, and
`graph_embedding`, of the graph of nearest `neighbours`, by its `eigenvectors`. What takes long
shows its `progress`.
"""
