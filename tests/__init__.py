import pytest

# Before anything imports them, or a helper's assertion would fail without saying what it compared.
pytest.register_assert_rewrite("tests.support")
