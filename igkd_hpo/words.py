"""Write numbers as people read them, each kind in one way, so that no two places show the same number differently."""


def percent(fraction: float, decimals: int = 2) -> str:
    """Write a fraction in per cent: 97.60 %."""
    return f"{100 * fraction:.{decimals}f} %"


def points_between(first: float, second: float) -> str:
    """Write the difference of two fractions in points: +1.11 points.

    Subtract the figures as `percent` shows them, so that a reader who subtracts them finds the same.
    """
    return f"{round(100 * first, 2) - round(100 * second, 2):+.2f} points"


def points(fraction: float, decimals: int = 1, *, signed: bool = True) -> str:
    """Write a difference that is an estimate, or a distance, in points: +1.1, or 1.1 without the sign."""
    return f"{100 * fraction:{'+' if signed else ''}.{decimals}f}"


def parameters(count: float) -> str:
    """Write how many numbers a network learns: 140,234 parameters."""
    return f"{count:,.0f} parameters"


def short_count(count: float) -> str:
    """Write a count as a limit to it can be given: 800, 20k or 1.5M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= factor:
            return f"{count / factor:.4g}{unit}"
    return f"{count:.4g}"


def multiply_adds(count: float) -> str:
    """Write what a network computes for one image: 9,000,000 multiply-adds."""
    return f"{count:,.0f} multiply-adds"


def milliseconds(count: float) -> str:
    """Write a latency: 2.512 ms."""
    return f"{count:.3f} ms"


def times_smaller(factor: float) -> str:
    """Say how a student compares with its teacher, which is `factor` times as large: 4.6 times smaller than."""
    if f"{factor:.1f}" == "1.0":
        return "as large as"
    return f"{factor:.1f} times smaller than" if factor > 1 else f"{1 / factor:.1f} times larger than"


def counted(number: int, noun: str) -> str:
    """Write a number of things: 1 trial, 2 trials."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Write a time that passes: 43 s, 4:05 or 2:04:05."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rough_duration(seconds: float) -> str:
    """Write a time that is only an estimate: 40 s, 3 minutes, 45 minutes, 2.5 hours."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{max(10, round(seconds, -1)):.0f} s"
    if minutes < 90:
        return f"{round(minutes) if minutes < 15 else 5 * round(minutes / 5)} minutes"
    halves = round(minutes / 30) / 2
    return f"{halves:g} hours"


def byte_size(n_bytes: float) -> str:
    """Write a number of bytes: 603 KiB, 1.2 MiB, 393 MiB or 1.3 GiB."""
    for unit, exponent in (("KiB", 10), ("MiB", 20)):
        count = n_bytes / (1 << exponent)
        if count < 999.5:
            return f"{count:.{1 if count < 9.95 else 0}f} {unit}"
    return f"{n_bytes / (1 << 30):,.1f} GiB"


def times(factor: float) -> str:
    """Write a compression factor with three digits or all before the point: 4.12, 12, 139 or 1,122."""
    return f"{factor:,.0f}" if factor >= 99.5 else f"{factor:.3g}"
