// The page that tries every route. The cookie of the session is the browser's and out of reach of scripts; what is
// kept here is whose it is and when it ends, for the line at the top.

// More of an answer is not shown.
const SHOWN_CHARS_MAX = 20000;
const SESSION = "session";

function readSession() {
  try {
    const session = JSON.parse(localStorage.getItem(SESSION));
    return session && session.ends > Date.now() ? session : null;
  } catch {
    return null;
  }
}

function keepSession(session) {
  try {
    if (session) localStorage.setItem(SESSION, JSON.stringify(session));
    else localStorage.removeItem(SESSION);
  } catch {
    // A browser that keeps nothing forgets the line at the top with the page.
  }
  showSession(session);
  watchOrders(session);
}

function showSession(session) {
  const until = session && new Date(session.ends).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  byId("session").textContent = session ? `Logged in as ${session.openid}, until ${until}.` : "Not logged in.";
}

// What was typed in for a route.
function values(route) {
  return Object.fromEntries((route.fields ?? []).map((field) => [field.name, field.input.value]));
}

function pretty(text, type) {
  let shown = text;
  if (type.startsWith("application/json")) {
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // Shown as it came.
    }
  }
  const rest = shown.length - SHOWN_CHARS_MAX;
  return rest > 0 ? `${shown.slice(0, SHOWN_CHARS_MAX)}\n… and ${rest} characters more` : shown;
}

const lines = (start, headers, body) =>
  [start, ...headers.map(([name, value]) => `${name}: ${value}`), ...(body ? ["", body] : [])].join("\n");

// What an answer means for the next requests.
function learn(route, status, text, isWithSession) {
  if (status === 401 && route.needsSession && isWithSession) keepSession(null);
  if (status !== 200 && status !== 201) return;
  if (route.id === "login") {
    const { openid, expires_in } = JSON.parse(text);
    keepSession({ openid, ends: Date.now() + 1000 * expires_in });
    route.fields[0].input.value = freshCode();
  }
  if (route.id === "order") {
    const orders = groups.flatMap(([, routes]) => routes).flatMap((each) => each.fields ?? []);
    for (const field of orders.filter((field) => field.isOrder)) field.input.value = JSON.parse(text).id;
  }
}

function showSent(route, request) {
  route.request.textContent = request;
  route.exchange.hidden = false;
  byId(route.id).classList.add("asked");
  route.status.textContent = "waiting …";
  route.status.className = "status";
  route.answer.textContent = "";
}

// Sends a request and shows it with its answer. True if the answer is as it should be.
async function send(route) {
  const typed = values(route);
  const path = route.path(typed);
  if (route.isSocket) return converse(route, path, typed);
  if (route.isUpload) return upload(route, path);
  const method = route.methodInput?.value ?? route.method;
  const sent = route.sends?.(typed);
  const isWithSession = byId("with-session").checked;
  const headers = [
    ...(route.accepts ? [["accept", route.accepts]] : []),
    ...(sent ? [["content-type", sent.type]] : []),
  ];
  const cookie = isWithSession && readSession() ? [["cookie", "session=… (kept by the browser)"]] : [];
  showSent(route, lines(`${method} ${path}`, [...headers, ...cookie], sent && pretty(sent.body, sent.type)));
  const began = performance.now();
  try {
    const answer = await fetch(path, {
      method,
      headers,
      body: sent?.body,
      cache: "no-store",
      credentials: isWithSession ? "same-origin" : "omit",
    });
    const text = await answer.text();
    const time = (performance.now() - began).toFixed(1);
    const isRight = answer.status === route.expected;
    route.status.textContent = `${answer.status} ${answer.statusText}, ${time} ms`;
    route.status.className = answer.ok ? "status good" : "status bad";
    const type = answer.headers.get("content-type") ?? "";
    route.answer.textContent = lines(`${answer.status} ${answer.statusText}`, [...answer.headers], pretty(text, type));
    learn(route, answer.status, text, isWithSession);
    return isRight;
  } catch (error) {
    route.status.textContent = "no answer";
    route.status.className = "status bad";
    route.answer.textContent = String(error);
    return false;
  }
}

async function tryAll() {
  const [button, summary] = [byId("all"), byId("summary")];
  const routes = groups.flatMap(([, all]) => all);
  const wrong = [];
  button.disabled = true;
  summary.hidden = false;
  summary.dataset.state = "running";
  for (const [index, route] of routes.entries()) {
    summary.textContent = `${index} of ${routes.length} tried …`;
    if (!await send(route)) wrong.push(`${route.method} ${route.path(values(route))}`);
  }
  summary.textContent = wrong.length === 0
    ? `All ${routes.length} routes answered as they should.`
    : `${routes.length - wrong.length} of ${routes.length} routes answered as they should. Not: ${wrong.join(", ")}.`;
  summary.className = wrong.length === 0 ? "good" : "bad";
  summary.dataset.state = "done";
  button.disabled = false;
}

function show(route) {
  const fields = (route.fields ?? []).map((field) => {
    field.input = field.isFile ? make("input", { name: field.name, type: "file", multiple: true })
      : make("input", { name: field.name, value: field.value(), inputmode: field.mode, autocomplete: "off", spellcheck: "false" });
    return make("label", {}, field.name, field.input);
  });
  if (route.methods) {
    route.methodInput = make("select", {}, ...route.methods.map((method) => make("option", {}, method)));
    fields.unshift(make("label", {}, "method", route.methodInput));
  }
  route.status = make("p", { class: "status", role: "status" });
  route.progress = make("progress", { max: 1, value: 0, "aria-label": "sent", hidden: true });
  route.request = make("pre", { class: "request" });
  route.answer = make("pre", { class: "answer", tabindex: "0", "aria-label": "answer" });
  route.exchange = make("div", { class: "exchange", hidden: true },
    make("h4", {}, "Request"), route.request, make("h4", {}, "Answer"), route.progress,
    route.status, route.answer);
  const template = route.path(Object.fromEntries((route.fields ?? []).map(({ name }) => [name, `{${name}}`])));
  const submit = (event) => {
    event.preventDefault();
    send(route);
  };
  const title = make("h3", { id: `title-${route.id}` },
    make("span", { class: `method ${route.method.toLowerCase()}` }, route.method), " ",
    make("code", {}, decodeURIComponent(template)));
  if (route.needsSession) title.append(" ", make("small", {}, "needs a session"));
  return make("section", { class: "card route", id: route.id, "aria-labelledby": `title-${route.id}` },
    make("div", { class: "ask" }, title, make("p", {}, route.about),
      make("form", { submit }, ...fields, make("button", {}, "Send"))),
    route.exchange);
}

for (const [name, routes] of groups) byId("routes").append(make("h2", {}, name), ...routes.map(show));
byId("all").addEventListener("click", tryAll);
showSession(readSession());
watchOrders(readSession());
