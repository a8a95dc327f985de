// The orders of whoever is logged in, as they change: /events says what, and comes back by itself when it is lost.

// The newest are shown.
const LIVE_MAX = 5;
let stream = null;
let liveOrders = new Map();

function showOrders() {
  const newest = [...liveOrders.values()].sort((one, other) => other.id - one.id).slice(0, LIVE_MAX);
  liveOrders = new Map(newest.map((order) => [order.id, order]));
  byId("live-orders").replaceChildren(...newest.map(({ id, item, quantity, status }) =>
    make("li", { class: status, "data-id": id }, make("span", {}, `no. ${id}`), make("bdi", {}, `${quantity} × ${item}`), make("span", {}, status))));
}

function sayLive(text, isBad = false) {
  const state = byId("live-state");
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("bad", isBad);
}

// Nothing is known of what was missed: what there is now, and then what changes.
async function loadOrders() {
  liveOrders.clear();
  const answer = await fetch(`/orders?size=${LIVE_MAX}`, { cache: "no-store" });
  if (!answer.ok) return;
  // What has changed meanwhile is newer.
  for (const order of (await answer.json()).orders) if (!liveOrders.has(order.id)) liveOrders.set(order.id, order);
  showOrders();
}

function watchOrders(session) {
  stream?.close();
  stream = null;
  byId("live").hidden = !session;
  if (!session) return;
  sayLive("Connecting …");
  const opened = new EventSource("/events");
  stream = opened;
  opened.addEventListener("anew", ({ data }) => {
    const { total } = JSON.parse(data);
    sayLive(total === 0 ? "Live; there are none yet." : "Live.");
    loadOrders().catch(() => sayLive("Your orders did not come.", true));
  });
  opened.addEventListener("order", ({ data }) => {
    const order = JSON.parse(data);
    liveOrders.set(order.id, order);
    sayLive("Live.");
    showOrders();
  });
  opened.addEventListener("open", () => sayLive("Live."));
  opened.addEventListener("error", () => {
    const isOver = opened.readyState === EventSource.CLOSED;
    sayLive(isOver ? "Not live any more: log in again." : "Away, coming back …", true);
  });
}

addEventListener("pagehide", () => stream?.close());
addEventListener("pageshow", (event) => event.persisted && watchOrders(readSession()));
