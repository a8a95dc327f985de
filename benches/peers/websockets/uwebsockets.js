// One room: what anybody sends goes to everybody. `bun uwebsockets.js PORT`: Bun's WebSockets are uWebSockets.
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.argv[2]),
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response('a WebSocket is spoken here', { status: 426 });
  },
  websocket: {
    idleTimeout: 0,
    sendPings: false,
    perMessageDeflate: false,
    publishToSelf: true,
    open(socket) { socket.subscribe('room'); },
    message(socket, message) { server.publish('room', message); },
  },
});
