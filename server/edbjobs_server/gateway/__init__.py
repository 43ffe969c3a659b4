"""The HTTP door: the documented REST routes and Socket.IO events, and a plain WebSocket."""
