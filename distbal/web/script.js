/* Keeps the page live: takes what the daemon sends once a second, keeps times going, sorts and filters.

What is shown comes as HTML that the daemon has made and escaped; here it is only put in its place. Without this script the page
is whole, and refreshes itself. Where no stream is to be had, this fetches the page now and then. */
"use strict";

(() => {
  const RETRY = 5000; // milliseconds until the page is fetched instead, and the stream tried again
  const QUIET = 40000; // milliseconds without a sign of life: the daemon gives one every 15 s
  const SAY = 2000; // milliseconds between two things said to those who do not see the page
  const LOOK = new Set(["failing", "down", "suspect", "drain", "off"]);

  const byId = (id) => document.getElementById(id);
  const table = byId("hosts");
  const tools = byId("tools");
  const search = byId("search");
  const states = byId("states");
  const sorter = byId("sorter");
  const live = byId("live");
  const shown = byId("shown");
  const version = document.documentElement.dataset.version;

  let order = hosts().map((row) => row.dataset.n); // the daemon's own
  let rows = new Map(hosts().map((row) => [row.dataset.n, row]));
  let ahead = Number(document.documentElement.dataset.at) - Date.now() / 1000; // the daemon's clock, less ours
  let held = null; // jobs that came while somebody reads those that are shown
  let view = { q: "", state: "", sort: "", down: false };

  function hosts() {
    return [...table.tBodies];
  }

  // -- times

  function lasting(seconds) {
    const whole = Math.floor(Math.max(0, seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")}`;
    return `${Math.floor(whole / 86400)} d`;
  }

  function tick() {
    const now = Date.now() / 1000 + ahead;
    const seen = [...document.querySelectorAll("time[data-t]")].filter((time) => time.offsetParent !== null);
    for (const time of seen) {
      const words = lasting(now - Number(time.dataset.t));
      if (time.textContent !== words) time.textContent = words;
    }
  }

  // -- sorting and filtering

  function key(row) {
    if (view.sort === "n") return row.dataset.n;
    const value = row.dataset.v.split(" ")[Number(view.sort)];
    return value === "-" ? null : Number(value);
  }

  function compare(one, other) {
    if (one === other) return 0;
    if (one === null) return 1; // what is not known stands last, whichever way
    if (other === null) return -1;
    const less = typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
    return view.down ? -less : less;
  }

  function sorted() {
    const all = order.map((name) => rows.get(name)).filter(Boolean);
    if (view.sort === "") return all;
    const keys = new Map(all.map((row) => [row, key(row)]));
    return all.sort((one, other) => compare(keys.get(one), keys.get(other)));
  }

  function wanted(row) {
    const state = row.dataset.s;
    if (view.state === "look" ? !LOOK.has(state) : view.state && view.state !== state) return false;
    if (!view.q) return true;
    const text = [row.dataset.n, state, row.dataset.w, row.querySelector(".slots").textContent].join(" ").toLowerCase();
    return view.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  function arrange() {
    let place = table.tBodies[0];
    const focused = document.activeElement;
    let count = 0;
    for (const row of sorted()) {
      if (row === place) place = place.nextElementSibling;
      else table.insertBefore(row, place ?? null);
      row.hidden = !wanted(row);
      count += !row.hidden;
    }
    if (focused && focused !== document.activeElement && table.contains(focused)) focused.focus({ preventScroll: true });
    const all = rows.size;
    shown.textContent = view.q || view.state ? `${count} of ${all} shown` : "";
    for (const head of table.tHead.rows[0].cells) {
      if (head.dataset.k === view.sort) head.setAttribute("aria-sort", view.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function remember() {
    const kept = new URLSearchParams();
    for (const name of ["q", "state", "sort"]) if (view[name]) kept.set(name, view[name]);
    if (view.down) kept.set("down", "1");
    const hash = kept.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    const known = [...table.tHead.rows[0].cells].map((head) => head.dataset.k);
    view.q = kept.get("q") ?? "";
    view.state = [...states.options].some((one) => one.value === kept.get("state")) ? kept.get("state") : "";
    view.sort = known.includes(kept.get("sort")) ? kept.get("sort") : "";
    view.down = kept.get("down") === "1";
    search.value = view.q;
    states.value = view.state;
    sorter.value = view.sort;
    arrange();
  }

  function sortBy(column, down) {
    view.sort = column;
    view.down = down;
    sorter.value = column;
    remember();
    arrange();
  }

  function makeTools() {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      // figures begin with the largest, words with the first; the third time it is the order of the file again
      const first = head.classList.contains("n") || head.dataset.k === "1";
      button.addEventListener("click", () => {
        if (view.sort !== head.dataset.k) sortBy(head.dataset.k, first);
        else if (view.down === first) sortBy(view.sort, !first);
        else sortBy("", false);
      });
      sorter.add(new Option(head.textContent, head.dataset.k));
      head.replaceChildren(button);
    }
    search.addEventListener("input", () => {
      view.q = search.value.trim();
      remember();
      arrange();
    });
    states.addEventListener("change", () => {
      view.state = states.value;
      remember();
      arrange();
    });
    sorter.addEventListener("change", () => sortBy(sorter.value, !["", "n", "0"].includes(sorter.value)));
    tools.addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", recall);
    // drawn small, a slot tells who has it when it is pointed at
    table.addEventListener("mouseover", (event) => {
      const chip = event.target.closest?.(".c");
      if (chip) chip.title = `${chip.querySelector("b").textContent}, ${lasting(Date.now() / 1000 + ahead - Number(chip.querySelector("time").dataset.t))}`;
    });
    table.addEventListener("toggle", tick, true);
    byId("jobs").addEventListener("mouseleave", release);
    byId("jobs").addEventListener("toggle", release, true);
    byId("jobs").addEventListener("focusout", () => setTimeout(release));
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
        event.preventDefault();
        search.focus();
      }
    });
    tools.hidden = false;
  }

  // -- what the daemon sends

  function made(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.firstElementChild;
  }

  function putHost(name, html, changes) {
    const row = made(html);
    const before = rows.get(name);
    rows.set(name, row);
    if (!before) return;
    if (before.querySelector("details").open) row.querySelector("details").open = true;
    const focused = before.contains(document.activeElement) && document.activeElement.tagName === "SUMMARY";
    before.replaceWith(row);
    if (focused) row.querySelector("summary").focus({ preventScroll: true });
    if (before.dataset.s !== row.dataset.s) changes.push(`${name} is now ${row.dataset.s}`);
  }

  function reading() {
    const jobs = byId("jobs");
    return jobs.matches(":hover, :focus-within") || jobs.querySelector("details[open]") !== null;
  }

  function putJobs(html) {
    held = html;
    release();
  }

  function release() {
    const holds = held !== null && reading();
    byId("held").hidden = !holds;
    if (held === null || holds) return;
    byId("jobs").tBodies[0].innerHTML = held;
    held = null;
    tick();
  }

  function apply(frame) {
    if (frame.page !== version) {
      location.reload(); // the daemon is another one now
      return;
    }
    ahead = frame.at - Date.now() / 1000;
    const changes = [];
    for (const [name, html] of Object.entries(frame.hosts)) putHost(name, html, changes);
    if (frame.order) {
      order = frame.order;
      const there = new Set(order);
      for (const [name, row] of rows) {
        if (there.has(name)) continue;
        row.remove();
        rows.delete(name);
        changes.push(`${name} is gone`);
      }
      table.classList.toggle("dense", frame.dense);
    }
    for (const [id, html] of Object.entries(frame.parts)) {
      if (id === "jobs") putJobs(html);
      else byId(id).innerHTML = html;
    }
    if (frame.title) document.title = `${frame.title} · distbal`;
    if (frame.order || Object.keys(frame.hosts).length) arrange();
    tick();
    if (changes.length) say(changes);
  }

  let unsaid = [];
  function say(changes) {
    if (unsaid.length === 0) {
      setTimeout(() => {
        byId("said").textContent = unsaid.length > 3 ? `${unsaid.length} hosts have changed` : unsaid.join("; ");
        unsaid = [];
      }, SAY);
    }
    unsaid.push(...changes);
  }

  // -- the stream, and what stands in for it

  let source = null;
  let last = Date.now();
  let waiting = null;

  function tell(state, words) {
    if (live.className === state) return;
    live.className = state;
    live.textContent = words;
  }

  function connect() {
    clearTimeout(waiting);
    source?.close();
    last = Date.now();
    const opened = new EventSource("events");
    source = opened;
    opened.addEventListener("message", (event) => {
      last = Date.now();
      tell("live", "live");
      apply(JSON.parse(event.data));
    });
    opened.addEventListener("alive", () => {
      last = Date.now();
      tell("live", "live");
    });
    opened.addEventListener("error", () => {
      if (source !== opened) return;
      tell("gone", "not connected");
      // a browser tries again by itself, unless it was told that there is no stream
      if (opened.readyState === EventSource.CLOSED) waiting = setTimeout(fetchPage, RETRY / 2);
    });
  }

  async function fetchPage() {
    try {
      const answer = await fetch("./", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const parts = {};
      for (const id of ["totals", "chart", "queue"]) parts[id] = page.getElementById(id).innerHTML;
      parts.jobs = page.getElementById("jobs").tBodies[0].innerHTML;
      const bodies = [...page.getElementById("hosts").tBodies];
      apply({
        page: page.documentElement.dataset.version,
        at: Number(page.documentElement.dataset.at),
        hosts: Object.fromEntries(bodies.map((row) => [row.dataset.n, row.outerHTML])),
        order: bodies.map((row) => row.dataset.n),
        dense: page.getElementById("hosts").classList.contains("dense"),
        parts,
      });
      tell("slow", "refreshes every 5 s");
    } catch {
      tell("gone", "not connected");
    }
    if (!document.hidden) waiting = setTimeout(connect, RETRY);
  }

  document.addEventListener("visibilitychange", () => {
    // a page that nobody sees costs nothing
    if (document.hidden) {
      clearTimeout(waiting);
      source?.close();
      source = null;
    } else if (source === null) connect();
  });
  setInterval(() => {
    if (source !== null && source.readyState !== EventSource.CLOSED && Date.now() - last > QUIET) {
      tell("gone", "not connected"); // one that is frozen lets us connect, and says nothing
      connect();
    }
    if (!document.hidden) tick();
  }, 1000);

  makeTools();
  recall();
  tick();
  connect();
})();
