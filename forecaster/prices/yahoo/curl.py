"""curl_cffi, loaded so that its TLS library is its own.

TensorFlow exports the symbols of a BoringSSL too. Where it is loaded first, curl_cffi would be bound to them,
and every request fails with "Impersonating ... is not supported".
"""

from __future__ import annotations

import os
import sys

if sys.platform == "linux":
    _flags = sys.getdlopenflags()
    sys.setdlopenflags(_flags | os.RTLD_DEEPBIND)
    try:
        import curl_cffi  # noqa: F401  # loads the library
    finally:
        sys.setdlopenflags(_flags)

from curl_cffi.requests import Session
from curl_cffi.requests.exceptions import RequestException

__all__ = ["RequestException", "Session"]
