"""Timeouts of awaited work: `asyncio.timeout`, by the package async-timeout before Python 3.11.

`asyncio.wait_for` is not used: before Python 3.12 it swallows a cancellation that comes in the same turn of the loop
as the result (python/cpython#86296), so a loop that waits with it could not be stopped.
"""

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["timeout"]
