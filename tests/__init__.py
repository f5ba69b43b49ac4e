import os

import pytest

# Before anything imports them, or a helper's assertion would fail without saying what it compared.
pytest.register_assert_rewrite("tests.support")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands do, and before anything loads torch
