# SPDX-License-Identifier: Apache-2.0
"""Has pytest run SQLAlchemy's tests of databases (README.dialects.rst of SQLAlchemy)."""

import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402,F401,F403
