"""What the tests need beside numpy."""

import os

import pytest


def missing(name, reason):
    """Skips the test of something that is missing: "torch", "suites" or "threads". It fails where the environment variable
    NORMDROP_TESTS_NEED says that it is there, so that no test is left out unnoticed.
    """
    if name in os.environ.get("NORMDROP_TESTS_NEED", "").split():
        pytest.fail(f"NORMDROP_TESTS_NEED names {name}, but {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=True)
