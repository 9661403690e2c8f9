// The script of the pages: keyboard, collapse and search in a trace, brushes, copying, ticking bars, live tail. Without it every
// page still shows everything; htmx loads parts of pages.
const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

const toast = (text) => {
  const box = $("#toast");
  box.textContent = text;
  box.classList.add("on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => box.classList.remove("on"), 1600);
};

const copy = async (text, what) => {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    toast("the browser allows no copying here");
  }
};

const isSpan = (row) => row.id.startsWith("s");

// ---- the rows of a trace ------------------------------------------------------------------------------------------------

class Rows {
  constructor(box) {
    this.box = box;
    this.rows = $$(".row", box);
    this.at = Math.max(0, this.rows.findIndex((row) => row.getAttribute("aria-selected") === "true"));
    this.matches = [];
    this.whole = box.dataset.rest ? this.load(box.dataset.rest) : Promise.resolve();
    box.addEventListener("click", (event) => this.click(event));
    box.addEventListener("focus", () => this.mark());
  }

  // A page with many rows has only the first of them. The others come in pieces, so that keys and clicks are answered between them.
  async load(url) {
    await new Promise((go) => (window.requestIdleCallback ?? setTimeout)(go, { timeout: 300 }));
    const answer = await fetch(url).catch(() => null);
    if (!answer?.ok) return;
    const lines = (await answer.text()).split("\n");
    for (let at = 0; at < lines.length; at += 500) {
      await new Promise((go) => setTimeout(go));
      const last = this.rows.at(-1);
      this.box.insertAdjacentHTML("beforeend", lines.slice(at, at + 500).join(""));
      for (let row = last.nextElementSibling; row; row = row.nextElementSibling) this.rows.push(row);
      this.show();
    }
    $("#rest")?.remove();
  }

  depth(row) { return Number(row.dataset.d); }

  // Rows are flat: everything below a collapsed row is deeper than it, until a row that is not.
  show() {
    let closed = Infinity;
    for (const row of this.rows) {
      const depth = this.depth(row);
      if (depth > closed) { row.hidden = true; continue; }
      closed = row.getAttribute("aria-expanded") === "false" ? depth : Infinity;
      row.hidden = false;
    }
  }

  toggle(row, open) {
    if (!row || !row.hasAttribute("aria-expanded")) return false;
    const now = row.getAttribute("aria-expanded") === "true";
    if (open === now) return false;
    row.setAttribute("aria-expanded", String(!now));
    this.show();
    return true;
  }

  async all(open) {
    await this.whole;
    for (const row of this.rows) {
      if (row.hasAttribute("aria-expanded") && row.dataset.k !== "fold") row.setAttribute("aria-expanded", String(open));
    }
    this.show();
  }

  reveal(row) {
    let depth = this.depth(row);
    for (let index = this.rows.indexOf(row) - 1; index >= 0 && depth > 0; index -= 1) {
      const above = this.rows[index];
      if (this.depth(above) < depth) {
        depth = this.depth(above);
        if (above.hasAttribute("aria-expanded")) above.setAttribute("aria-expanded", "true");
      }
    }
    this.show();
  }

  mark() {
    $(".row.at", this.box)?.classList.remove("at");
    const row = this.rows[this.at];
    if (!row) return;
    row.classList.add("at");
    if (row.id) this.box.setAttribute("aria-activedescendant", row.id);
    row.scrollIntoView({ block: "nearest" });
  }

  go(row) {
    this.at = this.rows.indexOf(row);
    this.reveal(row);
    this.mark();
  }

  move(step) {
    let index = this.at;
    do index += step; while (this.rows[index]?.hidden);
    if (this.rows[index]) { this.at = index; this.mark(); }
  }

  async next(chosen, step = 1) {
    await this.whole;
    const rows = chosen();
    if (!rows.length) return;
    const indexes = rows.map((row) => this.rows.indexOf(row));
    const later = step > 0 ? indexes.find((index) => index > this.at) : indexes.findLast((index) => index < this.at);
    this.go(this.rows[later ?? indexes[step > 0 ? 0 : indexes.length - 1]]);
  }

  nextFailed() { return this.next(() => this.rows.filter((row) => row.classList.contains("error"))); }

  click(event) {
    const row = event.target.closest(".row");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    this.at = this.rows.indexOf(row);
    if (event.target.closest(".tw") || row.dataset.k === "fold") { event.preventDefault(); this.toggle(row); this.mark(); return; }
    if (!isSpan(row)) return;
    event.preventDefault();
    this.mark();
    this.open(row);
  }

  open(row) {
    if (row.dataset.k === "fold") { this.toggle(row); return; }
    if (!isSpan(row)) return;
    const id = row.id.slice(1);
    $('[aria-selected="true"]', this.box)?.removeAttribute("aria-selected");
    row.setAttribute("aria-selected", "true");
    $("#split").classList.add("open");
    const url = new URL(location.href);
    url.searchParams.set("span", id);
    history.replaceState(history.state, "", url);
    this.read(`/traces/${this.box.dataset.trace}/spans/${id}`);
  }

  // The span that was opened last is shown: an earlier answer that is still on its way is not waited for.
  async read(url) {
    this.reading?.abort();
    const { signal } = (this.reading = new AbortController());
    const detail = $("#detail");
    try {
      const answer = await fetch(url, { headers: { "hx-request-type": "partial" }, signal });
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      if (signal.aborted) return;
      detail.innerHTML = html;
      detail.scrollTop = 0;
      htmx.process(detail);
    } catch {
      if (!signal.aborted) toast("this span cannot be read now");
    }
  }

  close() {
    const split = $("#split");
    if (!split.classList.contains("open")) return false;
    split.classList.remove("open");
    $('[aria-selected="true"]', this.box)?.removeAttribute("aria-selected");
    const url = new URL(location.href);
    url.searchParams.delete("span");
    history.replaceState(history.state, "", url);
    this.box.focus({ preventScroll: true });
    return true;
  }

  async search(field) {
    await this.whole;
    const text = field.value;
    const wanted = text.trim().toLowerCase();
    for (const row of this.matches) row.classList.remove("match");
    this.matches = wanted ? this.rows.filter((row) => isSpan(row) && $(".n", row).textContent.toLowerCase().includes(wanted)) : [];
    for (const row of this.matches) row.classList.add("match");
    $("#found").textContent = wanted ? String(this.matches.length) : "";
    if (this.matches.length) { this.at = Math.max(this.at - 1, -1); this.next(() => this.matches); }
  }
}

// ---- the rows of a list -------------------------------------------------------------------------------------------------

class List {
  rows() { return $$("tr[data-href]"); }

  move(step) {
    const rows = this.rows();
    const now = rows.findIndex((row) => row.classList.contains("here"));
    const next = rows[Math.min(rows.length - 1, Math.max(0, now + step))];
    rows[now]?.classList.remove("here");
    next?.classList.add("here");
    next?.scrollIntoView({ block: "nearest" });
  }

  open() {
    const row = $("tr.here");
    if (row) location.href = row.dataset.href;
  }
}

// ---- brushes of the charts ----------------------------------------------------------------------------------------------

const written = (kind, value) => (kind === "time" ? String(Math.round(Number(BigInt(value) / 1000000n))) : `${Number(value) / 1e6}ms`);

const brush = (figure) => {
  const svg = $("svg", figure);
  if (!svg || svg.dataset.ready) return;
  svg.dataset.ready = "1";
  const groups = $$("g", svg);
  const mark = $(".brush", svg);
  let from = null;
  const column = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(groups.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * groups.length)));
  };
  const paint = (a, b) => {
    const width = 100 / groups.length;
    mark.setAttribute("x", Math.min(a, b) * width);
    mark.setAttribute("width", (Math.abs(b - a) + 1) * width);
  };
  svg.addEventListener("pointerdown", (event) => { from = column(event); svg.setPointerCapture(event.pointerId); paint(from, from); });
  svg.addEventListener("pointermove", (event) => { if (from !== null) paint(from, column(event)); });
  svg.addEventListener("pointercancel", () => { from = null; mark.setAttribute("width", 0); });
  svg.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const to = column(event);
    const first = groups[Math.min(from, to)];
    const last = groups[Math.max(from, to)];
    from = null;
    const url = new URL(location.href);
    url.searchParams.delete("after");
    url.searchParams.set(figure.dataset.low, written(figure.dataset.brush, first.dataset.from));
    url.searchParams.set(figure.dataset.high, written(figure.dataset.brush, last.dataset.to));
    location.href = url;
  });
};

// ---- live tail ----------------------------------------------------------------------------------------------------------

const MOST_LIVE = 500;

const live = () => {
  const pulse = $("#pulse");
  if (!pulse) return;
  const body = $("#live-rows");
  const state = $("#live-state");
  const button = $("#pause");
  let source = null;
  let last = null;
  let seen = 0;
  const start = () => {
    const url = new URL(pulse.dataset.live, location.origin);
    if (last !== null) url.searchParams.set("mark", last);
    source = new EventSource(url);
    source.onopen = () => { pulse.classList.add("on"); state.textContent = seen ? `${seen} new` : "Waiting for traces."; };
    source.onerror = () => { pulse.classList.remove("on"); state.textContent = "The server does not answer. Trying again."; };
    source.onmessage = (event) => {
      last = event.lastEventId;
      const { html, id } = JSON.parse(event.data);
      $(`tr[data-href="/traces/${CSS.escape(id)}"]`, body)?.remove();
      body.insertAdjacentHTML("afterbegin", html);
      while (body.rows.length > MOST_LIVE) body.lastElementChild.remove();
      seen += 1;
      state.textContent = `${seen} new`;
    };
  };
  button.addEventListener("click", () => {
    const paused = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!paused));
    button.textContent = paused ? "Pause" : "Continue";
    if (paused) { start(); return; }
    source.close();
    pulse.classList.remove("on");
    state.textContent = "Paused. Nothing is lost: “Continue” shows what came since.";
  });
  start();
};

// Bars of running traces grow between two answers of the server.
const shownAge = (ms) => {
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} m`;
};
const tick = () => {
  const now = Date.now();
  for (const bar of $$("svg[data-start]")) {
    const share = Math.min(100, ((now - bar.dataset.start) * 88) / bar.dataset.span);
    $("rect", bar).setAttribute("width", `${share}%`);
  }
  for (const text of $$("[data-age]")) text.textContent = shownAge(now - text.dataset.age);
};

// ---- the page -----------------------------------------------------------------------------------------------------------

let rows = null;
const list = new List();

const prepare = () => {
  const box = $("#rows");
  if (box && rows?.box !== box) {
    rows = new Rows(box);
    $("#find").addEventListener("input", (event) => rows.search(event.target));
    $("#find").addEventListener("keydown", (event) => {
      if (event.key === "Enter") rows.next(() => rows.matches, event.shiftKey ? -1 : 1);
      if (event.key === "Escape") { event.target.value = ""; rows.search(event.target); box.focus(); }
    });
    $("#path-on").addEventListener("change", (event) => box.classList.toggle("no-path", !event.target.checked));
    const go = () => { const chosen = $('[aria-selected="true"]', box); if (chosen) rows.go(chosen); return chosen; };
    if (box.dataset.chosen && !go()) rows.whole.then(go);
  }
  $$("[data-brush]").forEach(brush);
};

document.addEventListener("click", (event) => {
  const at = (selector) => event.target.closest(selector);
  const copied = at("[data-copy]");
  if (copied) copy(copied.dataset.copy, "id");
  const source = at("[data-copy-from]");
  if (source) fetch(source.dataset.copyFrom).then((answer) => answer.text()).then((text) => copy(text, "JSON"));
  const act = at("[data-act]")?.dataset.act;
  if (act === "close") rows?.close();
  if (act === "collapse" && rows) {
    const button = at("[data-act]");
    const closed = button.textContent === "collapse all";
    rows.all(!closed);
    button.textContent = closed ? "expand all" : "collapse all";
  }
  if (at('[data-key="e"]') && rows) { event.preventDefault(); rows.nextFailed(); }
  const theme = at("[data-theme-next]");
  if (theme) { event.preventDefault(); fetch(theme.href, { redirect: "manual" }).then(() => location.reload()); }
  const back = at("[data-back]");
  if (back && document.referrer.startsWith(`${location.origin}/?`)) { event.preventDefault(); history.back(); }
  const row = at("tr[data-href]");
  if (row && !at("a") && !getSelection().toString()) {
    if (event.ctrlKey || event.metaKey) window.open(row.dataset.href); else location.href = row.dataset.href;
  }
});

document.addEventListener("change", (event) => {
  const form = event.target.closest("#filters");
  if (form && event.target.matches("select, [type=checkbox]")) form.requestSubmit();
});

// An empty field is no condition: it does not belong into the URL.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) if (field.name && field.value === "") field.disabled = true;
});
addEventListener("pageshow", () => { for (const field of $$("form :disabled")) field.disabled = false; });

const keys = {
  j: () => (rows ?? list).move(1),
  k: () => (rows ?? list).move(-1),
  ArrowDown: () => (rows ?? list).move(1),
  ArrowUp: () => (rows ?? list).move(-1),
  Enter: () => (rows ? rows.open(rows.rows[rows.at]) : list.open()),
  ArrowLeft: () => { if (rows && !rows.toggle(rows.rows[rows.at], false)) rows.up?.(); },
  ArrowRight: () => rows?.toggle(rows.rows[rows.at], true),
  e: () => rows?.nextFailed(),
  n: () => rows?.next(() => rows.matches),
  p: () => rows?.next(() => rows.matches, -1),
  l: () => ($('.tools [data-key="l"][aria-current]') ? $(".tools .toggle a") : $('[data-key="l"]'))?.click(),
  t: () => ($('[data-key="t"][aria-current]') ? $(".tabs a") : $('[data-key="t"]'))?.click(),
  "/": () => ($("#find") ?? $(".find input")).focus(),
  "?": () => $("#help").showModal(),
  Escape: () => { if (!rows?.close()) $("[data-back]")?.click(); },
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
  if (event.key.startsWith("Arrow") && !rows && !$("tr.here") && !["ArrowDown", "ArrowUp"].includes(event.key)) return;
  if (event.target.closest("pre, .detail") && event.key.startsWith("Arrow")) return;
  const act = keys[event.key];
  if (!act || (event.key.startsWith("Arrow") && !rows && !list.rows().length)) return;
  event.preventDefault();
  act();
});

document.addEventListener("htmx:after:swap", prepare);
prepare();
live();
if ($("#running")) setInterval(tick, 200);
if ($("[data-waiting]")) setTimeout(() => location.reload(), 2000);
