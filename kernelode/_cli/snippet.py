"""Code that puts a residual scale into a network."""

from .options import Recipe


def torch_snippet(recipe: Recipe, inputs: float, scale: float, comment: str) -> str:
    """PyTorch: initialise, scale the inputs, scale the branch."""
    branch = _branch(recipe, lambda h, i: f"layer{i}({recipe.torch_activation}({h}))")
    return "\n".join(
        [
            f"nn.init.normal_(layer.weight, std=({recipe.weight_variance:g} / layer.in_features) ** 0.5"
            "); "
            f"nn.init.normal_(layer.bias, std={recipe.bias_variance:g} ** 0.5)",
            f"h = read_in({_scaled(inputs)})  # weights of std in_features ** -0.5, no bias",
            f"h = h + {scale:.4g} * {branch}  # in every block; {comment}",
        ]
    )


def jax_snippet(recipe: Recipe, inputs: float, scale: float, comment: str) -> str:
    """JAX: the same, for arrays."""
    branch = _branch(recipe, lambda h, i: f"W{i} @ {recipe.jax_activation}({h}) + b{i}")
    return "\n".join(
        [
            f"W = ({recipe.weight_variance:g} / n) ** 0.5 * jax.random.normal(key_W, (n, n)); "
            f"b = {recipe.bias_variance:g} ** 0.5 * jax.random.normal(key_b, (n,))",
            f"h = W_in @ {_scaled(inputs, '({})')}  # W_in of std d ** -0.5, no bias",
            f"h = h + {scale:.4g} * ({branch})  # in every block; {comment}",
        ]
    )


def _scaled(factor: float, form: str = "{}") -> str:
    return "x" if factor == 1 else form.format(f"{factor:.4g} * x")


def _branch(recipe: Recipe, layer) -> str:
    """The residual branch: its layers inside one another."""
    branch = "h"
    for i in range(1, recipe.layers_per_block + 1):
        branch = layer(branch, "" if recipe.layers_per_block == 1 else i)
    return branch
