"""Words of the commands and the reports of studies."""


def counted(n: int, what: str) -> str:
    """Format as ``1 seed`` or ``3 seeds``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def too_few_seeds(seeds: int, comparisons: int, needed: int) -> str:
    """Say that ``seeds`` decide none of the declared ``comparisons``, and how many could; without a full stop."""
    which = f"any of {comparisons} declared comparisons" if comparisons > 1 else "the declared comparison"
    are = "is" if seeds == 1 else "are"
    return (
        f"{counted(seeds, 'seed')} {are} too few for {which} to be significant, whatever the numbers: that takes "
        f"{needed}"
    )
