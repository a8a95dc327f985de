// Every route: how it is asked, and what is to be typed in first. `expected` is the status of an answer as it should be.

// A code works once, so each login gets another one of the same user.
const freshCode = () => `demo-ann.${Math.random().toString(36).slice(2, 8)}`;
const json = (value) => ({ type: "application/json", body: JSON.stringify(value) });

const groups = [
  ["Who is who", [
    {
      id: "login", method: "POST", expected: 200, path: () => "/login",
      about: "A code of the platform becomes a session: a token for programs, and a cookie, which this browser keeps. "
        + "The stand-in for the platform knows demo-NAME and demo-NAME.ANYTHING; each code works once.",
      fields: [{ name: "code", value: freshCode }],
      sends: ({ code }) => json({ code }),
    },
    {
      id: "me", method: "GET", expected: 200, path: () => "/me", needsSession: true,
      about: "Whose session this is, and for how many seconds it lasts.",
    },
  ]],
  ["Orders", [
    {
      id: "order", method: "POST", expected: 201, path: () => "/orders", needsSession: true,
      about: "Creates an order: an item of up to 60 characters, 1 to 99 of it, and a note of up to 140 if you like.",
      fields: [
        { name: "item", value: () => "tea" },
        { name: "quantity", value: () => "2", mode: "numeric" },
        { name: "note", value: () => "hot, please" },
      ],
      sends: ({ item, quantity, note }) => {
        const number = /^\d{1,15}$/.test(quantity) ? Number(quantity) : quantity;
        return json({ item, quantity: number, ...(note === "" ? {} : { note }) });
      },
    },
    {
      id: "orders", method: "GET", expected: 200, needsSession: true,
      path: ({ page, size }) => `/orders?page=${encodeURIComponent(page)}&size=${encodeURIComponent(size)}`,
      about: "Your orders, newest first, up to 100 on a page.",
      fields: [
        { name: "page", value: () => "1", mode: "numeric" },
        { name: "size", value: () => "20", mode: "numeric" },
      ],
    },
    {
      id: "show", method: "GET", expected: 200, needsSession: true,
      path: ({ id }) => `/orders/${encodeURIComponent(id)}`,
      about: "One of your orders. Those of others do not exist for you.",
      fields: [{ name: "id", value: () => "1", mode: "numeric", isOrder: true }],
    },
    {
      id: "cancel", method: "POST", expected: 200, needsSession: true,
      path: ({ id }) => `/orders/${encodeURIComponent(id)}/cancel`,
      about: "Cancels one of your orders, once.",
      fields: [{ name: "id", value: () => "1", mode: "numeric", isOrder: true }],
    },
  ]],
  ["Events and rooms", [
    {
      id: "events", method: "GET", expected: 200, needsSession: true, accepts: "text/event-stream",
      path: ({ seconds }) => `/events?seconds=${encodeURIComponent(seconds)}`,
      about: "Your orders as they change, as server-sent events; what was missed since Last-Event-ID comes first. Without "
        + "“seconds” it goes on until you leave. The list at the top of this page is made of it.",
      fields: [{ name: "seconds", value: () => "1", mode: "numeric" }],
    },
    {
      id: "talk", method: "GET", expected: 101, path: ({ room }) => `/chat/${encodeURIComponent(room)}`, isSocket: true,
      about: "A WebSocket to a room, as whoever is logged in or as a guest. What one says all hear; “Chat” above is a page of it. This opens "
        + "one, says something, and leaves when it has heard it. A browser sends its cookie in any case.",
      fields: [{ name: "room", value: () => "try" }, { name: "text", value: () => "hello, everybody" }],
      says: ({ text }) => JSON.stringify({ text, mark: "tried" }),
    },
  ]],
  ["Files", [
    {
      id: "upload", method: "POST", expected: 200, path: () => "/upload", needsSession: true, isUpload: true,
      about: "A form with files, up to 16 of them and 64 MiB in all: each is counted and digested while it arrives, and none is kept. Without "
        + "one a short text is sent. A browser sends its cookie in any case.",
      fields: [{ name: "files", value: () => "", isFile: true }],
    },
  ]],
  ["Plain answers", [
    { id: "plaintext", method: "GET", expected: 200, path: () => "/plaintext", about: "Constant text." },
    { id: "json", method: "GET", expected: 200, path: () => "/json", about: "Constant JSON, made for each request." },
    {
      id: "echo", method: "POST", methods: ["POST", "PUT", "PATCH", "DELETE"], expected: 200, path: () => "/echo",
      about: "Sends a body back as it came. GET and OPTIONS work as well; browsers send no body with GET.",
      fields: [{ name: "body", value: () => "hello, back" }],
      sends: ({ body }) => ({ type: "text/plain;charset=utf-8", body }),
    },
  ]],
  ["How it is", [
    { id: "health", method: "GET", expected: 200, path: () => "/healthz", about: "Whether all workers turn, for health checks." },
    { id: "ready", method: "GET", expected: 200, path: () => "/readyz", about: "Whether it wants to be sent work, for load balancers." },
    {
      id: "stats", method: "GET", expected: 200, path: () => "/stats.json",
      about: "Every counter since the start as JSON, of all workers and of each. “Counters” above draws them.",
    },
    {
      id: "stats-any", method: "GET", expected: 200, path: () => "/stats", accepts: "application/json",
      about: "The same for whoever does not ask for HTML; a browser that opens it gets the page.",
    },
  ]],
];
