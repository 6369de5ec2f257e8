"""How TensorFlow is started: without its notes on the screen, and with operations that repeat to the bit.

Import this before Keras or TensorFlow. What they print at error level, and anything not known to be a note,
still comes through.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forecaster.threads import tensorflow_threads

__all__ = ["repeat_to_the_bit"]

NOTE = re.compile(rb"[IW]\d{4} \d|WARNING: All log messages before absl|To enable the following instructions")
NO_DEVICE = re.compile(rb"E\d{4} .* failed call to cuInit")
"""Only worth saying where there is a device."""
DEVICE = Path("/dev/nvidiactl")


@contextmanager
def _without_notes() -> Iterator[None]:
    """Hold back what C++ writes to standard error, and afterwards let through all but notes.

    TensorFlow logs before its logging is set up, so that no setting of it can silence the start.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not NOTE.match(line) and (DEVICE.exists() or not NO_DEVICE.match(line)):
                    os.write(2, line)


if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_notes():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        within, across = tensorflow_threads()
        tf.config.threading.set_intra_op_parallelism_threads(within)
        tf.config.threading.set_inter_op_parallelism_threads(across)
        tf.constant(0.0) + 1.0  # the first operation starts the devices


def repeat_to_the_bit() -> None:
    """Choose operations that give the same bits every time; what draws at random draws from given seeds."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
