// Connects with the stock client and prints each event it hears as a line of JSON.
// Arguments: URL, and the connection's auth as JSON.
import { io } from "socket.io-client";

const socket = io(process.argv[2], { auth: JSON.parse(process.argv[3] ?? "{}"), reconnection: false });
const print = (event, data) => process.stdout.write(JSON.stringify({ event, data }) + "\n");

socket.onAny(print);
socket.on("connect", () => print("connect", { transport: socket.io.engine.transport.name }));
socket.on("connect_error", (error) => {
  print("connect_error", { message: error.message, data: error.data ?? null });
  process.exit(1);
});
socket.on("disconnect", (reason) => {
  print("disconnect", { reason });
  process.exit(0);
});
