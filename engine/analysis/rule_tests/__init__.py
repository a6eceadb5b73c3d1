"""Tests of rules: given these readings, at this time expect this level (engine/RULE_TESTS.md)."""
