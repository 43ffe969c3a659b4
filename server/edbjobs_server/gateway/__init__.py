"""The HTTP endpoint: the documented REST routes and Socket.IO events, a plain WebSocket, and gRPC-Web."""
