"""The layer as a module of flax: `flax.nnx.BatchNorm`, an activation and `flax.nnx.Dropout` in one."""

from __future__ import annotations

from typing import Any

import flax.nnx
import jax
import jax.numpy as jnp

from normdrop_jax import Layer, Running

__all__ = ["NormDrop"]


class NormDrop(flax.nnx.Module):
    """`y = dropout(act(batchnorm(x) + residual))` of float32, bfloat16 or float16. `y` has the type of `x`; parameters and
    statistics are float32.

    The arguments before `activation`, the parameters `scale` and `bias`, the statistics `mean` and `var`, and the meaning of `momentum`
    and `rngs` are those of `flax.nnx.BatchNorm` and `flax.nnx.Dropout`, and so are `model.train()` and `model.eval()`; `axis` is -1
    or 1. All other arguments are those of `normdrop_jax.Layer`. The masks come from the stream "dropout" of `rngs`.
    """

    def __init__(self, num_features: int, activation: str = "identity", p: float = 0.0, *, axis: int = -1, momentum: float = 0.99,
                 epsilon: float = 1e-5, use_bias: bool = True, use_scale: bool = True, use_running_average: bool = False,
                 deterministic: bool = False, rngs: flax.nnx.Rngs, **settings: Any) -> None:  # fmt: skip
        self.layer = Layer(activation, p, eps=epsilon, momentum=1 - momentum, running_var="biased", channel_axis=axis, **settings)
        self.use_running_average = use_running_average
        self.deterministic = deterministic
        self.scale = flax.nnx.Param(jnp.ones(num_features, jnp.float32)) if use_scale else None
        self.bias = flax.nnx.Param(jnp.zeros(num_features, jnp.float32)) if use_bias else None
        self.mean = flax.nnx.BatchStat(jnp.zeros(num_features, jnp.float32))
        self.var = flax.nnx.BatchStat(jnp.ones(num_features, jnp.float32))
        self.rngs = rngs["dropout"].fork() if p > 0 else flax.nnx.data(None)

    def __call__(self, x: jax.Array, residual: jax.Array | None = None, *, mask: jax.Array | None = None) -> jax.Array:
        """The statistics of the batch, which move the running ones, or with `use_running_average` those; dropout unless
        `deterministic`. With `mask` nothing is drawn."""
        weight, bias = (None if parameter is None else parameter[...] for parameter in (self.scale, self.bias))
        running = Running(self.mean[...], self.var[...])
        layer = self.layer
        if self.deterministic:
            layer, mask, seed = layer.without_dropout(), None, None
        else:
            seed = self.rngs() if layer.p > 0 and mask is None else None
        if self.use_running_average:
            return layer.eval(x, running, weight, bias, seed=seed, mask=mask, residual=residual)
        y, new = layer.train(x, weight, bias, running, seed=seed, mask=mask, residual=residual)
        self.mean[...], self.var[...] = new.mean, new.var
        return y

    def set_view(self, deterministic: bool | None = None, use_running_average: bool | None = None) -> None:
        """What `flax.nnx.view` calls."""
        self.deterministic = self.deterministic if deterministic is None else deterministic
        self.use_running_average = self.use_running_average if use_running_average is None else use_running_average
