"""Formats numbers for the commands."""


def short_number(number: float) -> str:
    """Formats a number with three digits and an SI unit."""
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.3g}{unit or ' '}"
        number /= 1000
    return f"{number:.3g} T"
