"""What every test shares."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline: a shared core makes a single example slow now and then. A failure prints how to repeat it.
settings.register_profile("forecaster", deadline=None, print_blob=True)
settings.load_profile("forecaster")

# Started in the background, this process ignores Ctrl-C, and so would all that the tests interrupt: for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_tracking_server_of_another_test() -> Iterator[None]:
    """Take back the address that `mlflow.set_tracking_uri` leaves in the environment."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(autouse=True)
def the_main_module_stays() -> Iterator[None]:
    """Take back what Streamlit puts in the place of `__main__`: processes that start later would run it."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before
