"""Pictures of arrays: matplotlib only, no jax."""


def plain(text: str) -> str:
    """The text with its dollars escaped, which matplotlib would take for formulas."""
    return str(text).replace("$", r"\$")
