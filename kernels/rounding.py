"""A decimal number to the double nearest to it.

A mantissa below 2^53 by one multiplication or division with an exact
power of ten (Clinger, How to read floating point numbers accurately, PLDI 1990), others by a
128-bit product (Lemire, Number parsing at a gigabyte per second, Software: Practice and Experience
51(8), 2021), here with exponents of −27 to 55, for which that never has to give up.
"""

import numpy as np

from kernels.jit import step

MIN_POWER, MAX_POWER = -27, 55
_TENS = np.array([float(10**power) for power in range(23)])
_MIN_BINARY = -160
_TWOS = np.array([2.0**power for power in range(_MIN_BINARY, 210)])


def _power_of_five(power):
    """Return 5^power as 128 bits of which the first is set; rounded up where it isn't exact."""
    if power < 0:
        five = 5**-power
        return (1 << (five.bit_length() + 127)) // five + 1
    five = 5**power
    size = five.bit_length()
    return five << (128 - size) if size <= 128 else five >> (size - 128)


_FIVES = np.array(
    [
        divmod(_power_of_five(power), 1 << 64)
        for power in range(MIN_POWER, MAX_POWER + 1)
    ],
    np.uint64,
)  # fmt: skip
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_ONE, _TWO, _THREE, _NO = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(0)


@step
def full_product(a, b):
    """Return the 128-bit product of two 64-bit words: (high, low)."""
    a_high, a_low = a >> _32, a & _LOW
    b_high, b_low = b >> _32, b & _LOW
    low = a_low * b_low
    one, other = a_low * b_high, a_high * b_low
    middle = (low >> _32) + (one & _LOW) + (other & _LOW)
    high = a_high * b_high + (one >> _32) + (other >> _32) + (middle >> _32)
    return high, (low & _LOW) | ((middle & _LOW) << _32)


@step
def rounded(mantissa, power):
    """Return the double nearest to mantissa · 10^power, ties to even.

    In       mantissa  int64, 1 to 10^18 − 1
             power     int64, MIN_POWER to MAX_POWER
    Source   Lemire 2021, algorithm 1 and §§ 6–8
    Oracle   float() of Python, in tests/kernels/test_scan.py
    """
    w = np.uint64(mantissa)
    zeros = 0
    for size in (32, 16, 8, 4, 2, 1):
        if w >> np.uint64(64 - size) == _NO:
            w = w << np.uint64(size)
            zeros += size
    high, low = full_product(w, _FIVES[power - MIN_POWER, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = full_product(w, _FIVES[power - MIN_POWER, 1])
        # the sum modulo 2^64, and whether it passed that
        if more > _ALL - low:
            high += _ONE
            low = more - (_ALL - low) - _ONE
        else:
            low += more
    upper = high >> np.uint64(63)
    shift = upper + np.uint64(9)
    m = high >> shift
    # halfway between two doubles is only possible for these powers
    if low <= _ONE and -4 <= power <= 23 and m & _THREE == _ONE and m << shift == high:
        m &= ~_ONE
    m = (m + (m & _ONE)) >> _ONE
    binary = ((217706 * power) >> 16) + 63 + np.int64(upper) - zeros - 52
    return np.float64(m) * _TWOS[binary - _MIN_BINARY]


@step
def number_of(mantissa, power):
    """Return (mantissa · 10^power to the nearest double, whether that could be done)."""
    if power == 0 or mantissa == 0:
        return np.float64(mantissa), True
    if mantissa <= 1 << 53 and -22 <= power <= 22:
        if power < 0:
            return np.float64(mantissa) / _TENS[-power], True
        return np.float64(mantissa) * _TENS[power], True
    if power < MIN_POWER or power > MAX_POWER:
        return 0.0, False
    return rounded(mantissa, power), True
