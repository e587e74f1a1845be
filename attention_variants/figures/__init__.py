"""Pictures of arrays: matplotlib only, no jax."""

# Colours that people who see colours differently can tell apart (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def plain(text: str) -> str:
    """The text with its dollars escaped, which matplotlib would take for formulas."""
    return str(text).replace("$", r"\$")
