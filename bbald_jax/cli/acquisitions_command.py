"""What `bbald acquisitions` prints: what can be chosen with `--acquisition`."""

from bbald_jax.acquisition.functions import catalogue
from bbald_jax.cli.console import make_console


def acquisitions() -> None:
    """List the acquisition functions, and what each requires."""
    needs = {
        "log_probs": "predictions",
        "target_log_probs": "target predictions",
        "mean_log_probs": "one prediction a point",
        "labelled": "the points labelled",
        "gaussian": "the logistic head",
    }
    functions = catalogue().values()
    width = max(len(function.name) for function in functions)
    console = make_console()
    for function in functions:
        required = " and ".join(needs.get(name, name) for name in function.requires)
        console.print(
            f"{function.name:<{width}}  {function.description}. Needs {required or 'nothing'}."
        )
