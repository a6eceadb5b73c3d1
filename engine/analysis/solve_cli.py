"""x"""

from typing import Any


def run(*args: Any) -> int:
    return 0
