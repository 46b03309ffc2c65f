"""Exact statistical bounds on a rate or a proportion, as in docs/method.md."""


def rate_upper_bound(events: int, hours: float, confidence: float = 0.95) -> float:
    """One-sided exact Poisson upper bound on a rate per hour; for zero events 3.0/hours at 95 %."""
    from scipy import stats  # its import takes a second, so nodes that only write a ledger must not import it

    return float(stats.chi2.ppf(confidence, 2 * events + 2) / 2 / hours) if hours > 0 else float("inf")


def proportion_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided exact (Clopper-Pearson) interval of a proportion over independent trials."""
    from scipy import stats

    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)
