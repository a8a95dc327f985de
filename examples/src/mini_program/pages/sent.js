// Requests that are more than one question and one answer: a form with files, and a WebSocket.

// Sends files and shows how far that is.
function upload(route, path) {
  const files = [...route.fields[0].input.files];
  if (files.length === 0) files.push(new File(["hello, files\n"], "hello.txt", { type: "text/plain" }));
  const form = new FormData();
  for (const file of files) form.append("file", file);
  const all = files.map((file) => `${file.name}: ${file.size} bytes`).join("\n");
  showSent(route, lines(`POST ${path}`, [["content-type", "multipart/form-data"]], all));
  route.progress.hidden = false;
  route.progress.value = 0;
  const began = performance.now();
  // What `fetch` does not tell: how much has been sent.
  const request = new XMLHttpRequest();
  return new Promise((done) => {
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      route.progress.value = loaded / total;
      route.status.textContent = `${Math.floor(100 * loaded / total)} % sent`;
    });
    request.addEventListener("loadend", () => {
      const time = (performance.now() - began).toFixed(1);
      const isRight = request.status === route.expected;
      route.progress.hidden = true;
      route.status.textContent = request.status === 0 ? "no answer" : `${request.status} ${request.statusText}, ${time} ms`;
      route.status.className = isRight ? "status good" : "status bad";
      const headers = request.getAllResponseHeaders().trim().split("\r\n").map((line) => line.split(": "));
      const text = pretty(request.responseText, request.getResponseHeader("content-type") ?? "");
      route.answer.textContent = lines(`${request.status} ${request.statusText}`, request.status === 0 ? [] : headers, text);
      learn(route, request.status, request.responseText, true);
      done(isRight);
    });
    request.open("POST", path);
    request.send(form);
  });
}

// Opens a WebSocket, says something and listens until that has come back.
function converse(route, path, typed) {
  const words = route.says(typed);
  const mark = JSON.parse(words).mark;
  showSent(route, lines(`GET ${path}`, [["upgrade", "websocket"]], words));
  const began = performance.now();
  const url = new URL(path, location);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  const heard = [];
  let isRight = false;
  return new Promise((done) => {
    socket.addEventListener("open", () => socket.send(words));
    socket.addEventListener("message", ({ data }) => {
      heard.push(data);
      route.answer.textContent = pretty(heard.join("\n"), "");
      const said = JSON.parse(data);
      if (said.mark !== mark) return;
      isRight = said.type === "message";
      socket.close(1000);
    });
    socket.addEventListener("close", ({ code, reason }) => {
      const time = (performance.now() - began).toFixed(1);
      route.status.textContent = heard.length > 0 ? `101, ${heard.length} messages, ${time} ms` : "no answer";
      route.status.className = isRight ? "status good" : "status bad";
      if (!isRight) heard.push(`closed with ${code} ${reason}`);
      route.answer.textContent = pretty(heard.join("\n"), "");
      done(isRight);
    });
  });
}
