"""Numbers as the commands print them."""


def short_number(number: float) -> str:
    """Three digits and a unit of 1000."""
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.3g}{unit or ' '}"
        number /= 1000
    return f"{number:.3g} T"
