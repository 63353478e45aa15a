"""Nats: what labels tell about the parameters.

`entropy` knows one label at a time. `configurations` is the tree of the labels of several points;
on it stand `gains`, what one more point would add, and `joint`, what a given batch is worth.
"""
