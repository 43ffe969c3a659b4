"""One table of calls, made by every client against the real service, the answers compared.

A client takes part as a driver: it reads one call per line and writes one answer per line, both JSON.

A call has
    ``rpc``       ``JobsService.SubmitJob``, or ``watch`` for the client library's own resuming watch;
    ``request``   the request in proto3's JSON, as a string;
    ``deadline``  seconds; 0: none;
    ``token``     sent as bearer token; empty: none;
    ``until``     of a stream: a text; the client cancels after the first message whose JSON holds it.

An answer has ``code`` (number of the gRPC status), ``message`` and, as the client library gives them, ``reason``,
``errorReason`` (its number in the contract), ``metadata`` and ``fields`` of the error's details; ``messages`` are those
received, each in proto3's JSON as a string.
``watch`` writes a line ``{"event": "..."}`` for each event as it comes, and its answer at the end.
"""
