"""Dropout masks in PyTorch that are the same for every point, whatever draws them.

A layer, a functional call, attention and a recurrent kernel all draw their masks by the same few
operations. `shared_masks` is a mode of PyTorch's dispatcher, below all of them, that answers these
with masks of its own, and refuses every other random operation.
"""

import importlib
import sys
from typing import Any, NamedTuple

_MASK = 2**64 - 1
# An odd number near 2**64 / golden ratio, and the multipliers of SplitMix64.
# Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators (OOPSLA 2014).
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Site(NamedTuple):
    """A place in the network's forward pass where a mask is drawn.

    Attributes:
      axis: the axis of the points; None where the mask does not grow with them (a mask of weights,
        say, which all points share anyway).
      per_point: entries along this axis for each point (the heads of an attention, say).
    """

    axis: int | None
    per_point: int


def keep_mask(shape: tuple[int, ...], keep: float, words: tuple[int, ...], device: Any) -> Any:
    """A mask of independent entries, True with probability `keep`; the entry at an index is fixed.

    An entry depends on `words` and its own index only: not on the shape (a longer text sees the
    same mask further), not on the device, and on no generator's state.

    Args:
      shape: of the mask.
      keep: to within 2**-31.
      words: integers from 0 on that tell one mask from another.
      device: torch's.
    """
    torch: Any = importlib.import_module("torch")
    key = 0
    for word in words:
        key = _mix((key + _STEP * (word + 1)) & _MASK)
    state = torch.tensor(_signed(key), device=device)
    for size in shape:
        index = torch.arange(1, size + 1, device=device)
        state = _mix_tensor(state[..., None] + index * _signed(_STEP))
    return ((state >> 33) & (2**31 - 1)) < round(keep * 2**31)


def _mix(value: int) -> int:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of the value."""
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _mix_tensor(values: Any) -> Any:
    """`_mix` of an int64 tensor: products wrap around, and a shift must not copy the sign."""
    values = (values ^ ((values >> 30) & (2**34 - 1))) * _signed(_FIRST)
    values = (values ^ ((values >> 27) & (2**37 - 1))) * _signed(_SECOND)
    return values ^ ((values >> 31) & (2**33 - 1))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def shared_masks(model: Any) -> Any:
    """A mode to enter with `with`, in which the model's dropout draws one mask for all points.

    Attributes of the mode, to be set before each forward pass:
      sites: a `Site` for each mask, in the order in which they are drawn; None: any mask will do,
        it is only to be found out what is drawn.
      words: what tells this network from others.
      num_points: n.
      shapes: an empty list; the shapes that are drawn are appended.

    Raises, in a forward pass:
      ValueError: a random operation that is no dropout, or a mask that does not fit its site.
    """
    torch: Any = importlib.import_module("torch")
    dispatch: Any = importlib.import_module("torch.utils._python_dispatch")
    aten = torch.ops.aten

    class SharedMasks(dispatch.TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.sites: list[Site] | None = None
            self.words: tuple[int, ...] = ()
            self.num_points = 0
            self.shapes: list[tuple[int, ...]] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            # Dropout is `x * empty_like(x).bernoulli_(1 - p) / (1 - p)`, or one operation (CUDA).
            if func is aten.bernoulli_.float:
                keep = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
                return args[0].copy_(self.draw(args[0], keep))
            if func is aten.native_dropout.default and args[2] is not False:
                x, p = args[:2]
                kept = self.draw(x, 1 - p)
                return x * kept / (1 - p) if p < 1 else torch.zeros_like(x), kept
            if torch.Tag.nondeterministic_seeded in func.tags and draws(func, args, kwargs):
                raise ValueError(
                    f"model: {_module_that_runs(model)} draws random numbers by {func}, which is "
                    "no dropout that all points could share; take it out, or turn it off (a "
                    "recurrent layer on a GPU: set its dropout to 0)"
                )
            return func(*args, **kwargs)

        def draw(self, x: Any, keep: float) -> Any:
            """A mask of the shape of `x`: drawn for one point, and repeated for all."""
            shape, index = tuple(x.shape), len(self.shapes)
            self.shapes.append(shape)
            words = (*self.words, index)
            if self.sites is None:
                return keep_mask(shape, keep, words, x.device)
            # One mask too many: `_forward` counts them.
            axis, per_point = self.sites[index] if index < len(self.sites) else Site(None, 0)
            if axis is None:
                return keep_mask(shape, keep, words, x.device)
            if axis >= len(shape) or shape[axis] != per_point * self.num_points:
                raise ValueError(
                    f"model: dropout in {_module_that_runs(model)} draws a mask of shape {shape} "
                    f"for {self.num_points} points, and drew {per_point} entries a point on axis "
                    f"{axis} before; pad all inputs to one length"
                )
            before, after = shape[:axis], shape[axis + 1 :]
            mask = keep_mask((*before, 1, per_point, *after), keep, words, x.device)
            return mask.expand(*before, self.num_points, per_point, *after).reshape(shape)

    return SharedMasks()


def find_site(
    shape: tuple[int, ...], num_points: int, other: tuple[int, ...], num_others: int
) -> Site:
    """Where the points are in a mask: on the axis that changes with their number.

    Args:
      shape: of the mask for `num_points` points.
      num_points: n.
      other: the shape of the same mask for another number of points.
      num_others: that number.
    """
    axes = [axis for axis, sizes in enumerate(zip(shape, other, strict=False)) if len({*sizes}) > 1]
    if len(shape) == len(other) and not axes:
        return Site(None, 0)
    if len(shape) == len(other) and len(axes) == 1:
        (axis,) = axes
        per_point, rest = divmod(shape[axis], num_points)
        if not rest and other[axis] == per_point * num_others:
            return Site(axis, per_point)
    raise ValueError(
        f"model: a dropout mask has shape {shape} for {num_points} points and {other} for "
        f"{num_others}, so that they cannot share it (packed or nested sequences? pad them)"
    )


def draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation that torch calls random draws numbers when called like this.

    Attention and recurrent kernels do not without dropout; `_fused_sdp_choice` only looks at it.
    """
    schema = func._schema.arguments
    values = {argument.name: argument.default_value for argument in schema}
    values |= dict(zip(values, args, strict=False)) | kwargs
    rates = [values[name] for name in ("dropout", "dropout_p") if name in values]
    is_training = values.get("train", values.get("training")) is not False
    is_choice = func._schema.name == "aten::_fused_sdp_choice"
    return is_training and not is_choice and (not rates or any(rates))


def _module_that_runs(model: Any) -> str:
    """The innermost module of the model whose code is running now, by name and type."""
    names = {id(module): name for name, module in model.named_modules()}
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if id(owner) in names:
            name = names[id(owner)]
            return f"{name!r} ({type(owner).__name__})" if name else type(owner).__name__
        frame = frame.f_back
    return type(model).__name__
