"""gRPC-Web: the calls of the contract for browsers."""
