"""The documented Socket.IO events, and the same over a plain WebSocket."""
