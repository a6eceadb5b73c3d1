"""For analysts: histories judged again and again, what-if settings, reports, tests of rules."""
