"""Pure decisions: no I/O, no asyncio, no clock. Time is a value: seconds since the epoch."""
