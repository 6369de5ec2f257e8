"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a shared core makes a single example slow now and then. A failure prints how to repeat it.
settings.register_profile("forecaster", deadline=None, print_blob=True)
settings.load_profile("forecaster")
