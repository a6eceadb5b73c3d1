"""The servers that these tests run against."""

from tests.services.fixtures import *  # noqa: F403
