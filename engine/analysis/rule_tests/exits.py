"""How `tocsin test` ends: exit codes, and the words for them; imports nothing."""

PASSED, FAILED, BAD_INPUT = 0, 1, 3
EXIT_CODES = (
    "Exit codes of test: 0 every test passed; 1 a test failed, or less of the rules is covered "
    "than --min-coverage asks for; 2 wrong usage; 3 bad input (tests, rules, catalog) or output."
)
