"""Student's t and the binomial distribution, for which SciPy would be a large dependency.

Both are cases of the regularised incomplete beta function I_x(a, b) (NIST Digital Library of Mathematical Functions,
sections 8.17(v) and 8.17(i)).
"""

import math
from statistics import NormalDist

TINY = 1e-300  # in the place of a zero denominator
ENDLESS = 1e6  # degrees of freedom from which on Student's t is the normal distribution


def beta_cdf(x: float, a: float, b: float) -> float:
    """I_x(a, b), the probability that a beta variable is at most x; x in [0, 1], a and b above 0."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction below converges slowly
        return 1 - beta_cdf(1 - x, b, a)
    scale = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(scale) / a / _continued_fraction(x, a, b)


def _continued_fraction(x: float, a: float, b: float) -> float:
    """The denominator of DLMF 8.17.22, by Lentz's method as modified by Thompson and Barnett (1986)."""
    value, c, d = 1.0, 1.0, 0.0
    for k in range(1, 100_000):
        m = k // 2
        if k % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / ((1 + term * d) or TINY)
        c = (1 + term / c) or TINY
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def t_two_sided(t: float, df: float) -> float:
    """The probability that Student's t with `df` degrees of freedom is at least |t| away from 0."""
    return beta_cdf(df / (df + t * t), df / 2, 0.5)


def t_quantile(probability: float, df: float) -> float:
    """The t that is exceeded with a probability of 1 - `probability`, which is at least one half."""
    if df >= ENDLESS:
        return NormalDist().inv_cdf(probability)
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > 2 * (1 - probability):
        low, high = high, 2 * high
    for _ in range(60):  # bisection, to the last bits
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) > 2 * (1 - probability) else (low, middle)
    return high


def fair_coin_two_sided(heads: int, throws: int) -> float:
    """The p-value of the exact two-sided binomial test of a fair coin."""
    fewer = min(heads, throws - heads)
    return 1.0 if 2 * fewer >= throws - 1 else min(1.0, 2 * beta_cdf(0.5, throws - fewer, fewer + 1))
