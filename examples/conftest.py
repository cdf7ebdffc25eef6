from contextlib import ExitStack

import pytest


@pytest.fixture
def running():
    """Keeps what is started, and stops it at the end, the last first: `running(Service())`."""
    with ExitStack() as stack:

        def keep(started):
            stack.callback(started.stop)
            started.ready()
            return started

        yield keep
