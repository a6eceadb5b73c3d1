"""Scan regular JSON readings: flat objects, alone, in an array or one a line; no value is built.

What is regular is read here to the bit as the general path would: keys in any order and with any
white space, ids as text, times as whole milliseconds or ISO 8601, numbers of up to 18 digits. A
message with anything else in it (an escape, a nested value, a key given twice, a row that would be
rejected) is left whole to the general path, which also says what is wrong with it. So this grammar
may be narrower than JSON, and must never be wider.

Numbers are rounded exactly, by `kernels.rounding`.
"""

import numpy as np

from kernels.jit import inlined, kernel, step
from kernels.resolve import load_u64
from kernels.rounding import number_of

PADDING = 8
"""Bytes that must follow the last message, so that a key is one load."""
MIN_ROW_BYTES = 31
"""No row is shorter: `{"sensor":"","ts":0,"value":0}` and what parts it from the next."""

_SENSOR, _TIME, _VALUE, _QUALITY, _OTHER = 1, 2, 4, 8, 16
_NEEDED = _SENSOR | _TIME | _VALUE
_TAB, _NEWLINE, _RETURN, _SPACE, _QUOTE, _COMMA, _MINUS, _DOT, _ZERO, _NINE, _COLON = (
    9, 10, 13, 32, 34, 44, 45, 46, 48, 57, 58,
)  # fmt: skip
_PLUS, _UPPER_E, _UPPER_T, _UPPER_Z = 43, 69, 84, 90
_OPEN, _BACKSLASH, _CLOSE, _LOWER_E, _BEGIN, _END = 91, 92, 93, 101, 123, 125


def _word(text):
    return np.uint64(int.from_bytes(text, "little"))


_MASKS = np.array([(1 << (8 * size)) - 1 for size in range(9)], np.uint64)
_KEY_SENSOR = _word(b"sensor")
_KEY_TS = _word(b"ts")
_KEY_TIME = _word(b"time")
_KEY_EVENT_MS = _word(b"event_ms")
_KEY_VALUE = _word(b"value")
_KEY_QUALITY = _word(b"quality")
_NULL, _TRUE, _FALSE = _word(b"null"), _word(b"true"), _word(b"false")

MAX_DIGITS = 18
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@inlined
def skip_space(octets, i, stop, lines):
    """Return the next place that is no white space; with `lines`, line ends are none."""
    while i < stop:
        c = octets[i]
        if c > _SPACE:
            break
        if c != _SPACE and c != _TAB and (lines or (c != _NEWLINE and c != _RETURN)):
            break
        i += 1
    return i


@inlined
def end_of_text(octets, i, stop, wide):
    """Return the place of the quote that ends a text without escapes, −1 if there is none.

    `wide`: the message is known to be UTF-8, so that bytes beyond ASCII may be in it.
    """
    while i < stop:
        c = octets[i]
        if c == _QUOTE:
            return i
        if c < _SPACE or c == _BACKSLASH or (c > 127 and not wide):
            return -1
        i += 1
    return -1


@inlined
def key_of(octets, begin, end):
    """Return which key a text is; all keys of the time are one, all unknown ones another."""
    size = end - begin
    if size > 8 or size < 2 or begin + 8 > octets.size:
        return _OTHER
    word = load_u64(octets, begin) & _MASKS[size]
    if word == _KEY_SENSOR:
        return _SENSOR
    if word == _KEY_VALUE:
        return _VALUE
    if word == _KEY_TS or word == _KEY_EVENT_MS or word == _KEY_TIME:
        return _TIME
    if word == _KEY_QUALITY:
        return _QUALITY
    return _OTHER


@inlined
def is_digit(c):
    """Tell whether a byte is a decimal digit."""
    return _ZERO <= c <= _NINE


@step
def scan_number(octets, i, stop):
    """Read a JSON number: (place after it or −1, mantissa, power of ten, sign, whether whole).

    −1 also for more digits than are read here, and for −0, which is an integer to some.
    """
    wrong = (np.int64(-1), np.int64(0), np.int64(0), np.int64(1), False)
    sign = np.int64(1)
    if octets[i] == _MINUS:
        sign = np.int64(-1)
        i += 1
    if i >= stop or not is_digit(octets[i]):
        return wrong
    mantissa = np.int64(0)
    power = np.int64(0)
    n_digits = 0
    whole = True
    if octets[i] == _ZERO:
        i += 1
        if i < stop and is_digit(octets[i]):
            return wrong
    else:
        while i < stop and is_digit(octets[i]):
            if n_digits == MAX_DIGITS:
                return wrong
            mantissa = mantissa * 10 + (np.int64(octets[i]) - _ZERO)
            n_digits += 1
            i += 1
    if i < stop and octets[i] == _DOT:
        whole = False
        i += 1
        begin = i
        while i < stop and is_digit(octets[i]):
            if n_digits == MAX_DIGITS:
                return wrong
            mantissa = mantissa * 10 + (np.int64(octets[i]) - _ZERO)
            n_digits += mantissa > 0
            i += 1
        if i == begin:
            return wrong
        power = begin - i
    if i < stop and (octets[i] == _LOWER_E or octets[i] == _UPPER_E):
        whole = False
        i += 1
        down = False
        if i < stop and (octets[i] == _PLUS or octets[i] == _MINUS):
            down = octets[i] == _MINUS
            i += 1
        begin = i
        exponent = np.int64(0)
        while i < stop and is_digit(octets[i]):
            if i - begin == 4:
                return wrong
            exponent = exponent * 10 + (np.int64(octets[i]) - _ZERO)
            i += 1
        if i == begin:
            return wrong
        power += -exponent if down else exponent
    if whole and sign < 0 and mantissa == 0:
        return wrong
    return np.int64(i), mantissa, power, sign, whole


@inlined
def two_digits(octets, i):
    """Return the number of two digits, −1000 if they are none; the caller checked the place."""
    if is_digit(octets[i]) and is_digit(octets[i + 1]):
        return (np.int64(octets[i]) - _ZERO) * 10 + (np.int64(octets[i + 1]) - _ZERO)
    return np.int64(-1000)


@step
def scan_moment(octets, i, stop):
    """Read an ISO 8601 time of the years 1970 to 2199: (epoch ms, whether it is one).

    `YYYY-MM-DD`, T or a blank, `HH:MM:SS`, up to nine decimals, `Z` or an offset; none is UTC.
    """
    wrong = (np.int64(0), False)
    if stop - i < 19:
        return wrong
    if octets[i + 4] != _MINUS or octets[i + 7] != _MINUS:
        return wrong
    if octets[i + 10] != _UPPER_T and octets[i + 10] != _SPACE:
        return wrong
    if octets[i + 13] != _COLON or octets[i + 16] != _COLON:
        return wrong
    year = two_digits(octets, i) * 100 + two_digits(octets, i + 2)
    month = two_digits(octets, i + 5)
    day = two_digits(octets, i + 8)
    hour = two_digits(octets, i + 11)
    minute = two_digits(octets, i + 14)
    second = two_digits(octets, i + 17)
    if not (1970 <= year < 2200 and 1 <= month <= 12 and 1 <= day):
        return wrong
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _DAYS[month - 1] + (leap and month == 2):
        return wrong
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return wrong
    i += 19
    ms = np.int64(0)
    if i < stop and octets[i] == _DOT:
        i += 1
        begin = i
        while i < stop and is_digit(octets[i]) and i - begin < 9:
            if i - begin < 3:
                ms = ms * 10 + (np.int64(octets[i]) - _ZERO)
            i += 1
        if i == begin:
            return wrong
        for _ in range(i - begin, 3):
            ms *= 10
    offset = np.int64(0)
    if i < stop and octets[i] == _UPPER_Z:
        i += 1
    elif stop - i == 6 and (octets[i] == _PLUS or octets[i] == _MINUS):
        hours, minutes = two_digits(octets, i + 1), two_digits(octets, i + 4)
        if octets[i + 3] != _COLON or not (0 <= hours < 24 and 0 <= minutes < 60):
            return wrong
        offset = hours * 60 + minutes
        if octets[i] == _MINUS:
            offset = -offset
        i += 6
    if i != stop:
        return wrong
    # days from the first of March 1970, whose year ends with the leap day
    y = year - 1 if month <= 2 else year
    m = (month + 9) % 12
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 + day - 1 - 719468
    return ((days * 24 + hour) * 60 + minute - offset) * 60_000 + second * 1000 + ms, True


@inlined
def scan_literal(octets, i, stop):
    """Read null, true or false: (place after it or −1, the number it stands for)."""
    if i + 8 > octets.size:
        return np.int64(-1), 0.0
    word = load_u64(octets, i)
    if i + 4 <= stop and word & _MASKS[4] == _NULL:
        return np.int64(i + 4), np.nan
    if i + 4 <= stop and word & _MASKS[4] == _TRUE:
        return np.int64(i + 4), 1.0
    if i + 5 <= stop and word & _MASKS[5] == _FALSE:
        return np.int64(i + 5), 0.0
    return np.int64(-1), 0.0


@step
def scan_object(
    octets, i, stop, wide, lines, row, id_begin, id_end, event_ms, value, quality
):  # fmt: skip
    """Read one object into `row`; return the place after it, −1 if it is not regular."""
    if octets[i] != _BEGIN:
        return np.int64(-1)
    i = skip_space(octets, i + 1, stop, lines)
    seen = 0
    grade = np.int64(0)
    while True:
        if i >= stop or octets[i] != _QUOTE:
            return np.int64(-1)
        begin = i + 1
        end = end_of_text(octets, begin, stop, wide)
        if end < 0:
            return np.int64(-1)
        i = skip_space(octets, end + 1, stop, lines)
        if i >= stop or octets[i] != _COLON:
            return np.int64(-1)
        i = skip_space(octets, i + 1, stop, lines)
        if i >= stop:
            return np.int64(-1)
        key = key_of(octets, begin, end)
        if key != _OTHER and seen & key:
            return np.int64(-1)
        seen |= key
        c = octets[i]
        if c == _QUOTE:
            begin = i + 1
            end = end_of_text(octets, begin, stop, wide)
            if end < 0 or key == _VALUE or key == _QUALITY:
                return np.int64(-1)
            i = end + 1
            if key == _SENSOR:
                id_begin[row] = begin
                id_end[row] = end
            elif key == _TIME:
                event_ms[row], good = scan_moment(octets, begin, end)
                if not good:
                    return np.int64(-1)
        elif c == _MINUS or is_digit(c):
            i, mantissa, power, sign, whole = scan_number(octets, i, stop)
            if i < 0 or key == _SENSOR or (not whole and (key == _TIME or key == _QUALITY)):
                return np.int64(-1)
            if key == _VALUE:
                number, good = number_of(mantissa, power)
                if not good:
                    return np.int64(-1)
                value[row] = number if sign > 0 else -number
            elif key == _TIME:
                event_ms[row] = sign * mantissa
            elif key == _QUALITY:
                grade = mantissa if sign > 0 and mantissa < 256 else np.int64(1)
            elif power < -200 or power > 200:
                # a number that nobody wants may still be one that the general path refuses
                return np.int64(-1)
        else:
            i, number = scan_literal(octets, i, stop)
            if i < 0 or key == _SENSOR or key == _TIME:
                return np.int64(-1)
            if key == _VALUE:
                value[row] = number
            elif key == _QUALITY and number == number:
                return np.int64(-1)
        i = skip_space(octets, i, stop, lines)
        if i >= stop:
            return np.int64(-1)
        if octets[i] == _END:
            break
        if octets[i] != _COMMA:
            return np.int64(-1)
        i = skip_space(octets, i + 1, stop, lines)
    if seen & _NEEDED != _NEEDED:
        return np.int64(-1)
    quality[row] = grade
    return np.int64(i + 1)


@inlined
def has_line_end(octets, begin, end):
    """Tell whether there is a line end in between."""
    for i in range(begin, end):
        if octets[i] == _NEWLINE or octets[i] == _RETURN:
            return True
    return False


@step
def scan_array(
    octets, i, stop, wide, row, last, id_begin, id_end, event_ms, value, quality
):  # fmt: skip
    """Read what follows the bracket of an array; return the row after its last, −1 if irregular."""
    i = skip_space(octets, i, stop, False)
    if i < stop and octets[i] == _CLOSE:
        i = skip_space(octets, i + 1, stop, False)
        return row if i == stop else np.int64(-1)
    while i < stop and row < last:
        i = scan_object(
            octets, i, stop, wide, False, row, id_begin, id_end, event_ms, value, quality
        )
        if i < 0:
            break
        row += 1
        i = skip_space(octets, i, stop, False)
        if i < stop and octets[i] == _CLOSE:
            i = skip_space(octets, i + 1, stop, False)
            return row if i == stop else np.int64(-1)
        if i >= stop or octets[i] != _COMMA:
            break
        i = skip_space(octets, i + 1, stop, False)
    return np.int64(-1)


@step
def scan_lines(
    octets, i, stop, wide, row, last, id_begin, id_end, event_ms, value, quality
):  # fmt: skip
    """Read one object, or one a line; return the row after the last one's, −1 if irregular."""
    lines = False
    while row < last:
        begin = i
        i = scan_object(
            octets, i, stop, wide, lines, row, id_begin, id_end, event_ms, value, quality
        )
        if i < 0:
            break
        row += 1
        end = i
        i = skip_space(octets, i, stop, False)
        if i == stop:
            return row
        if not lines:
            # only an object by itself may have line ends in it
            lines = True
            if has_line_end(octets, begin, end):
                break
        newline = False
        for k in range(end, i):
            newline |= octets[k] == _NEWLINE
        if not newline:
            break
    return np.int64(-1)


@kernel
def scan_messages(
    octets, start, wide, most, n_rows, id_begin, id_end, event_ms, value, quality
):  # fmt: skip
    """Read the rows of regular messages.

    Shapes   M messages, B bytes, R rows there is room for
    In       octets    (B,) uint8      the messages, one byte between two, PADDING after the last
             start     (M + 1,) int64  message m is octets[start[m] : start[m + 1] − 1]; one that
                                       lies outside or backwards is not regular
             wide      (M,) bool       whether the message is known to be UTF-8, and not to be ASCII
             most      int64           rows that a message may have
    Out      n_rows    (M,) int64      of each message; −1 if it is not regular
             id_begin  (R,) int64      where each row's id lies in `octets`
             id_end    (R,) int64
             event_ms  (R,) int64
             value     (R,) float64    null is NaN
             quality   (R,) uint8
    Returns  how many rows there are; those of regular messages only, in their order
    Cost     O(B), allocates nothing
    Oracle   engine.decode.json_rows, in tests/kernels/test_scan.py
    """
    row = np.int64(0)
    room = np.int64(min(id_begin.size, id_end.size, event_ms.size, value.size, quality.size))
    for m in range(n_rows.size):
        stop = start[m + 1] - 1
        n_rows[m] = -1
        if not 0 <= start[m] <= stop <= octets.size - PADDING:
            continue
        i = skip_space(octets, start[m], stop, False)
        if i >= stop:
            continue
        last = min(room, row + most)
        if octets[i] == _OPEN:
            after = scan_array(
                octets, i + 1, stop, wide[m], row, last,
                id_begin, id_end, event_ms, value, quality,
            )  # fmt: skip
        else:
            after = scan_lines(
                octets, i, stop, wide[m], row, last, id_begin, id_end, event_ms, value, quality
            )
        if after >= 0:
            n_rows[m] = after - row
            row = after
    return row
