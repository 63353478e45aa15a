"""What `bbald acquisitions` prints: what can be chosen with `--acquisition`."""

from bbald_jax.acquisition.functions import catalogue
from bbald_jax.cli.console import make_console

#: Case, function and reason: what docs/choosing.md says, with its numbers.
GUIDE = (
    (
        "the logistic head, up to about 2 labels a class",
        "typiclust",
        "typical points first: ahead of all others at 20 labels",
    ),
    (
        "the logistic head, from then on",
        "weighted-epig-closed, bait",
        "above random labels in nearly all data sets, below in none",
    ),
    (
        "predictions [N, K, C], batches of up to 10",
        "batch-epig; batchbald",
        "batch-epig on messy data; batchbald where a network is trained in between or points are "
        "near-copies",
    ),
    (
        "predictions [N, K, C], one batch of 50 and more",
        "power-bald, random",
        "nothing that looks at samples was better; bald, kbald and margin were far worse",
    ),
    ("no model, no features", "random", "it needs nothing"),
)


def acquisitions() -> None:
    """List the acquisition functions, what each requires, and which to take when."""
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
    console.print("\nWhich when, by what was measured (docs/choosing.md):")
    for case, names, reason in GUIDE:
        console.print(f"  {case}: {names} ({reason}).", highlight=False)
