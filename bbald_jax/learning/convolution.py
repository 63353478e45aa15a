"""Convolution and pooling that are fast on a CPU, and a convolution of masked channels.

Images are in NHWC order, kernels in HWIO; convolutions have stride 1 and no padding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, Float, Num

Images = Float[Array, "n h w c"]
Convolved = Float[Array, "n h2 w2 d"]
Kernel = Float[Array, "s s c d"]


class Conv(nn.Module):
    """The same function, parameters and initialisation as `nn.Conv(..., padding="VALID")`.

    Attributes:
      features: output channels.
      kernel_size: s, of both sides.
    """

    features: int
    kernel_size: int = 5

    @nn.compact
    def __call__(self, x: Num[Array, "n h w c"], masks: Float[Array, "K c"] | None = None) -> Array:
        """The convolution of images; with `masks`, of each masking of their channels.

        Returns:
          `[n, h2, w2, features]`, with `masks` `[K, n, h2, w2, features]`.
        """
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias)
        return (conv(x, kernel) if masks is None else conv_masked(x, kernel, masks)) + bias


def conv(x: Images, kernel: Kernel) -> Convolved:
    """y[n, i, j, d] = sum_{u, v, c} x[n, i+u, j+v, c] kernel[u, v, c, d].

    On a CPU it has reverse-mode derivatives only.
    """
    # XLA's own gradient of a kernel is slow on a CPU, above all in a loop.
    return _conv_cpu(x, kernel) if jax.default_backend() == "cpu" else _conv(x, kernel)


def conv_masked(
    x: Images, kernel: Kernel, masks: Float[Array, "K c"]
) -> Float[Array, "K n h2 w2 d"]:
    """`conv(x * masks[k], kernel)` for all K masks, at little more than the cost of one.

    A convolution is a sum over its input channels, and a mask only weighs the terms:

      conv(x * m_k) = sum_c m_k[c] conv_c(x_c),    conv_c with the kernel of input channel c

    so each channel is convolved once, and a mask is one row of a matrix product.

    Args:
      x: `[n, h, w, c]`.
      kernel: `[s, s, c, d]`.
      masks: `[K, c]`; any numbers.

    Returns:
      `[K, n, h2, w2, d]`. Memory beside it: c / K (1 + s^2 / d) of it.
    """
    size, _, channels, features = kernel.shape
    kernels = kernel.reshape(size * size, channels, features)
    of_channel = jnp.einsum("unijc,ucd->cnijd", jnp.stack(_shifted(x, size)), kernels)
    return jnp.einsum("kc,cnijd->knijd", masks, of_channel)


def max_pool(x: Images) -> Float[Array, "n h2 w2 c"]:
    """Max-pooling by 2, as a reshape: the gradient of `reduce_window` is slow on a CPU.

    Of an odd side the last row or column is left out, as by `nn.max_pool`.
    """
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def max_pool_forward(x: Float[Array, "*leading h w c"]) -> Float[Array, "*leading h2 w2 c"]:
    """`max_pool` of images under any leading axes, as maxima of four slices.

    For sampling, where nothing is differentiated: elementwise maxima are what a CPU does fast on
    all its threads. `max_pool` is for training.
    """
    *leading, height, width, channels = x.shape
    x = x[..., : height // 2 * 2, : width // 2 * 2, :]
    x = x.reshape(*leading, height // 2, 2, width // 2, 2, channels)
    rows = jnp.maximum(x[..., 0, :, :, :], x[..., 1, :, :, :])
    return jnp.maximum(rows[..., 0, :], rows[..., 1, :])


def _conv(x: Images, kernel: Kernel) -> Convolved:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _shifted(x: Array, size: int) -> list[Array]:
    """Of every output pixel, input pixel (u, v) of its patch, for all (u, v) in order."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return [x[:, u : u + height, v : v + width] for u in range(size) for v in range(size)]


# What is differentiated convolves by one matrix product with all patches, which the gradient of
# the kernel needs again.
@jax.custom_vjp
def _conv_cpu(x: Images, kernel: Kernel) -> Convolved:
    return _conv(x, kernel)


def _forward(x: Images, kernel: Kernel):
    size, _, channels, features = kernel.shape
    if channels == 1:  # joining single numbers is slow, and this convolution is small
        return _conv(x, kernel), (jnp.stack(_shifted(x[..., 0], size)), kernel)
    patches = jnp.concatenate(_shifted(x, size), axis=-1)  # [n, h2, w2, s * s * c]
    return patches @ kernel.reshape(-1, features), (patches, kernel)


def _backward(residuals, dy: Convolved) -> tuple[Array, Array]:
    patches, kernel = residuals
    size, _, channels, features = kernel.shape
    n, height, width, _ = dy.shape
    rows = dy.reshape(-1, features)
    if channels == 1:
        dkernel = patches.reshape(size * size, -1) @ rows
    else:
        # The barrier keeps XLA from transposing the large factor instead of the small result.
        dkernel = lax.optimization_barrier(rows.T @ patches.reshape(rows.shape[0], -1)).T
    dx = jnp.zeros((n, height + size - 1, width + size - 1, channels), dy.dtype)
    for u in range(size):
        for v in range(size):
            dshifted = (rows @ kernel[u, v].T).reshape(n, height, width, channels)
            dx = dx.at[:, u : u + height, v : v + width].add(dshifted)
    return dx, dkernel.reshape(kernel.shape)


_conv_cpu.defvjp(_forward, _backward)
