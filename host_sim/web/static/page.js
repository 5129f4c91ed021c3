// The console's page. What the console and its nodes say is text, and only ever becomes text:
// nothing here makes HTML from it.

const PART = 250; // rows that are shown at a time
const LINES = 100; // of the timeline
const SILENT_MS = 15_000; // the console says something every 5 s
const REST_MS = 200; // between two times that news are painted
const EVERYONE_MS = 1500; // the same for rows that are out of view
const EVENTS_REST_MS = 700; // the same for the timeline
const ASK_FROM = 10; // orders for more devices than this are asked about first
const PENDING = new Set(["requested", "downloading", "overdue"]);
const STATES = ["requested", "downloading", "installed on trial", "confirmed", "rolled back",
  "failed", "overdue", "idle"];

const $ = (id) => document.getElementById(id);
const devices = new Map(); // id → what the console told last
const counts = new Map(STATES.map((state) => [state, 0]));
const rows = new Map(); // id → the row of the table and its parts, for those that have been shown
const picked = new Set();
let packages = new Map();
let ids = []; // of all devices, sorted
let matching = []; // of those that search and state let through
let shown = []; // of those in the table
let first = 0; // place of the first one in `matching`
let state = ""; // the only one to show, "" for all
let limit = Infinity; // bytes of a package
let clock = 0; // what the console's clock is ahead of ours, ms

// -- small helpers --------------------------------------------------------------------------

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function many(count, one, more = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
}

function size(bytes) {
  return bytes < 10_000 ? `${bytes} bytes` : `${Math.round(bytes / 1024).toLocaleString("en")} KB`;
}

function ago(seconds) {
  const passed = Math.max(0, (Date.now() + clock) / 1000 - seconds);
  if (passed < 5) return "just now";
  if (passed < 60) return `${Math.floor(passed / 5) * 5} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 172_800) return `${Math.floor(passed / 3600)} h ago`;
  return `${Math.floor(passed / 86_400)} days ago`;
}

// Made once: a new one for each text takes long.
const dateTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const dayTime = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const timeOfDay = (seconds) => dayTime.format(seconds * 1000);

let saidTimer;
function say(text, bad = false) {
  $("said").toggleAttribute("data-bad", bad);
  $("said").textContent = text;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => { $("said").textContent = ""; }, bad ? 12_000 : 6_000);
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { "X-Insigh-Ota": "page" } });
  } catch {
    throw new Error("the console does not answer");
  }
  if (answer.status === 401) location.assign("/login");
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `the console answers ${answer.status}`);
  return told;
}

// -- devices --------------------------------------------------------------------------------

const wanted = (device) => (state === "" || device.state === state) && found(device);

function found(device) {
  const text = $("search").value.trim().toLowerCase();
  if (text === "") return true;
  const name = packages.get(device.fuid)?.name;
  return [device.id, device.fuid, name, device.version, device.message, stateText(device)]
    .some((value) => value?.toLowerCase().includes(text));
}

function stateText(device) {
  const percent = device.state === "downloading" && device.percent !== null;
  return percent ? `downloading ${device.percent} %` : device.state;
}

function take(changed) {
  let grown = false;
  for (const device of changed) {
    const before = devices.get(device.id);
    if (device.gone) {
      if (before) forget(before);
      continue;
    }
    if (before) counts.set(before.state, counts.get(before.state) - 1);
    else { grown = true; ids.push(device.id); }
    counts.set(device.state, (counts.get(device.state) ?? 0) + 1);
    devices.set(device.id, device);
    dirty.add(device.id);
  }
  if (grown) ids.sort();
  listed = listed && !grown;
  draw();
}

function forget(device) {
  counts.set(device.state, counts.get(device.state) - 1);
  devices.delete(device.id);
  picked.delete(device.id);
  ids = ids.filter((id) => id !== device.id);
  listed = false;
}

// Drawing waits for the next frame, and searching anew for half a second: whatever comes, a
// click is answered in between.
const dirty = new Set();
let listed = false; // whether `matching` is up to date
let drawing = false;
let lastList = 0;
let painted = 0;
let everyonePainted = 0;
let laterTimer;
// Rows that nobody looks at just now are painted less often.
const inView = new Set();
const later = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target.dataset.id); else inView.delete(target.dataset.id);
  }
  draw();
}, { rootMargin: "200px" });

function draw() {
  if (drawing) return;
  drawing = true;
  // At once where nothing was painted just now: what a person has done is seen.
  const wait = Math.max(0, painted + REST_MS - performance.now());
  setTimeout(() => requestAnimationFrame(paint), wait);
  setTimeout(paint, wait + 400); // frames do not come while the page is in the background
}

function paint() {
  if (!drawing) return;
  drawing = false;
  painted = performance.now();
  const narrowed = state !== "" || $("search").value.trim() !== "";
  if (!listed || (narrowed && performance.now() - lastList > 500)) list();
  else if (narrowed && dirty.size) setTimeout(draw, 500);
  const everyone = painted - everyonePainted > EVERYONE_MS;
  if (everyone) everyonePainted = painted;
  for (const id of shown) {
    if (!dirty.has(id) || !devices.has(id)) continue;
    if (everyone || inView.has(id)) paintRow(id);
    else later.add(id);
  }
  dirty.clear();
  if (later.size) {
    for (const id of later) dirty.add(id);
    later.clear();
    laterTimer ??= setTimeout(() => { laterTimer = undefined; draw(); }, EVERYONE_MS);
  }
  paintStates();
  paintOrder();
}

function list() {
  listed = true;
  lastList = performance.now();
  matching = ids.filter((id) => wanted(devices.get(id)));
  first = Math.min(first, Math.max(0, Math.floor((matching.length - 1) / PART) * PART));
  const now = matching.slice(first, first + PART);
  if (now.length !== shown.length || now.some((id, at) => id !== shown[at])) {
    const focused = document.activeElement;
    shown = now;
    for (const id of shown) paintRow(id);
    $("rows").replaceChildren(...shown.map((id) => rows.get(id).row));
    if (rows.size > 4 * PART) { // those of other parts are made again when they are needed
      const kept = new Set(shown);
      for (const [id, { row }] of rows) {
        if (kept.has(id)) continue;
        watcher.unobserve(row);
        rows.delete(id);
      }
    }
    if (focused?.isConnected && focused !== document.activeElement) focused.focus();
  }
  const none = devices.size ? "No device matches." :
    "No device yet. Add one with: insigh-ota console device add ID KEY CHANNEL";
  write($("none"), none);
  $("none").hidden = matching.length > 0;
  $("table").hidden = matching.length === 0;
  $("pager").hidden = matching.length <= PART;
  write($("part"), `${first + 1}–${first + shown.length} of ${matching.length.toLocaleString("en")}`);
  $("earlier").disabled = first === 0;
  $("later").disabled = first + PART >= matching.length;
}

function makeRow(id) {
  const row = $("device").content.firstElementChild.cloneNode(true);
  const parts = { row, box: row.querySelector("input"), bar: row.querySelector("progress"),
    button: row.querySelector("button") };
  for (const name of ["badge", "message", "package", "version", "contact", "attempts"]) {
    parts[name] = row.querySelector(`.${name}`);
  }
  mark(parts.box, "aria-label", `Select ${id}`);
  mark(parts.bar, "aria-label", `Download of ${id}`);
  parts.box.addEventListener("change", () => pick([id], parts.box.checked));
  write(row.querySelector("bdi"), id);
  parts.button.addEventListener("click", () => {
    if (PENDING.has(devices.get(id).state)) cancel([id]);
    else request([id]);
  });
  row.dataset.id = id;
  watcher.observe(row);
  rows.set(id, parts);
  return parts;
}

function paintRow(id) {
  const parts = rows.get(id) ?? makeRow(id);
  const { row, badge, bar, button } = parts;
  const device = devices.get(id);
  mark(badge, "data-state", device.state);
  mark(badge, "title", `since ${timeOfDay(device.since)}`);
  write(badge, stateText(device));
  bar.hidden = device.state !== "downloading" || device.percent === null;
  if (bar.value !== (device.percent ?? 0)) bar.value = device.percent ?? 0;
  write(parts.message, device.message ?? "");
  write(parts.package, device.fuid ? packages.get(device.fuid)?.name ?? device.fuid : "");
  mark(parts.package, "title", device.fuid ?? "");
  const version = packages.get(device.version)?.name.replace(/\.tar(\.gz)?$/, "");
  write(parts.version, version ?? device.version ?? "");
  mark(parts.version, "title", device.version ?? "");
  paintContact(parts, device);
  write(parts.attempts, device.attempts ? String(device.attempts) : "");
  row.toggleAttribute("data-picked", picked.has(id));
  parts.box.checked = picked.has(id);
  const pending = PENDING.has(device.state);
  write(button, pending ? "Cancel" : "Request");
  button.disabled = !pending && packages.size === 0;
  mark(button, "aria-label", `${pending ? "Cancel the request of" : "Request for"} ${id}`);
}

function paintContact({ contact }, device) {
  const heard = device.last_contact;
  write(contact, heard ? ago(heard) : "never");
  mark(contact, "title", heard ? dateTime.format(heard * 1000) : "");
}

function paintStates() {
  const chips = [["", devices.size], ...counts];
  for (const [name, count] of chips) {
    let chip = $("states").querySelector(`[data-chip="${name}"]`);
    if (!chip) {
      chip = document.createElement("button");
      chip.type = "button";
      chip.dataset.chip = name;
      if (name) chip.dataset.state = name;
      chip.append(document.createTextNode(`${name || "all"} `), document.createElement("b"));
      chip.addEventListener("click", () => { state = state === name ? "" : name; relist(); });
      $("states").append(chip);
    }
    write(chip.lastChild, count.toLocaleString("en"));
    chip.hidden = name !== "" && count === 0 && state !== name;
    chip.setAttribute("aria-pressed", String(state === name));
  }
}

function relist() {
  first = 0;
  listed = false;
  painted = 0;
  draw();
}

// -- what a person wants --------------------------------------------------------------------

function pick(some, on) {
  for (const id of some) {
    if (on) picked.add(id); else picked.delete(id);
    rows.get(id)?.row.toggleAttribute("data-picked", on);
    if (rows.has(id)) rows.get(id).box.checked = on;
  }
  paintOrder();
}

function paintOrder() {
  let here = 0;
  for (const id of matching) if (picked.has(id)) here += 1;
  const all = matching.length > 0 && here === matching.length;
  $("all").checked = all;
  $("all").indeterminate = here > 0 && !all;
  const narrowed = matching.length !== devices.size;
  write($("all-label"), `Select all ${many(matching.length, narrowed ? "match" : "device",
    narrowed ? "matches" : "devices")}`);
  const pending = [...picked].filter((id) => PENDING.has(devices.get(id)?.state)).length;
  write($("request"), picked.size ? `Request for ${many(picked.size, "device")}` : "Request");
  $("request").disabled = picked.size === 0 || packages.size === 0;
  write($("cancel"), pending ? `Cancel ${many(pending, "request")}` : "Cancel");
  $("cancel").disabled = pending === 0;
  const away = picked.size - here;
  write($("picked"), picked.size === 0 ? "Select devices in the list." :
    away ? `${many(away, "selected device")} not in this list` : "");
}

function sure(text, yes) {
  write($("sure-text"), text);
  write($("sure-yes"), yes);
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise((resolve) => {
    $("sure").addEventListener("close", () => resolve($("sure").returnValue === "yes"),
      { once: true });
  });
}

async function order(path, some, fields, done) {
  if (some.length > 100) say(`Telling ${many(some.length, "device")} …`);
  try {
    await call(path, { method: "POST", body: JSON.stringify({ ids: some, ...fields }) });
    say(done);
  } catch (error) {
    say(error.message, true);
  }
}

async function request(some) {
  const fuid = $("package").value;
  const name = packages.get(fuid)?.name;
  if (!name) { say("Add a package first.", true); return; }
  const whom = some.length === 1 ? some[0] : many(some.length, "device");
  const text = `Ask ${whom} to take ${name} (${fuid})?`;
  if (some.length > ASK_FROM && !await sure(text, `Request for ${whom}`)) return;
  await order("/api/request", some, { fuid }, `${name} is requested for ${whom}.`);
}

async function cancel(some) {
  const whom = some.length === 1 ? some[0] : many(some.length, "device");
  const text = `Withdraw what ${whom} were asked for?`;
  if (some.length > ASK_FROM && !await sure(text, `Cancel ${many(some.length, "request")}`)) return;
  await order("/api/cancel", some, {}, `The request for ${whom} is withdrawn.`);
}

// -- packages -------------------------------------------------------------------------------

function takePackages(told) {
  const chosen = $("package").value;
  const known = packages;
  packages = new Map(told.map((each) => [each.fuid, each]).reverse()); // newest first
  const fresh = known.size ? [...packages.keys()].find((fuid) => !known.has(fuid)) : undefined;
  $("package").replaceChildren(...[...packages.values()].map((each) =>
    new Option(`${each.name} · ${each.fuid}`, each.fuid)));
  if (!packages.size) $("package").append(new Option("none yet: add one", ""));
  $("package").disabled = packages.size === 0;
  if (fresh ?? packages.has(chosen)) $("package").value = fresh ?? chosen;
  $("packages").replaceChildren(...[...packages.values()].map((each) => {
    const item = $("package-item").content.firstElementChild.cloneNode(true);
    write(item.querySelector(".name"), each.name);
    paintPackage(item, each);
    const button = item.querySelector("button");
    button.setAttribute("aria-label", `Inspect ${each.name}, ${each.fuid}`);
    button.addEventListener("click", () => inspect(each));
    return item;
  }));
  for (const id of devices.keys()) dirty.add(id); // they show its name
  draw();
}

function paintPackage(item, each) {
  const added = each.added ? ` · ${ago(each.added)}` : "";
  write(item.querySelector("small"), `${each.fuid} · ${size(each.size)}${added}`);
}

async function add(files) {
  $("refused").hidden = true;
  const wrong = [];
  for (const file of files) {
    say(`Adding ${file.name} …`);
    try {
      // The console says so as well, but then all of it has been sent in vain.
      if (file.size > limit) throw new Error(`too large: ${size(limit)} at most`);
      const path = `/api/packages?name=${encodeURIComponent(file.name.toWellFormed())}`;
      const told = await call(path, { method: "POST", body: file });
      say(`${told.name} is added: ${told.fuid}.`);
    } catch (error) {
      wrong.push(`${file.name}: ${error.message}`);
    }
  }
  if (wrong.length) {
    say("");
    write($("refused"), wrong.join("\n"));
    $("refused").hidden = false;
  }
}

async function inspect(each) {
  let told;
  try {
    told = await call(`/api/packages/${encodeURIComponent(each.fuid)}`);
  } catch (error) {
    say(`${each.name}: ${error.message}`, true);
    return;
  }
  write($("contents-title"), told.name);
  const facts = factsOf(told);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => {
    const pair = [document.createElement("dt"), document.createElement("dd")];
    write(pair[0], name);
    write(pair[1], value);
    return pair;
  }));
  const lines = [...told.files, ...told.deleted.map((path) => [path, "deleted"])];
  if (told.count > told.files.length) lines.push([`… and ${told.count - told.files.length} more`, ""]);
  $("files").replaceChildren(...lines.map(([path, bytes]) => {
    const row = document.createElement("tr");
    row.append(document.createElement("td"), document.createElement("td"));
    write(row.firstChild, path);
    write(row.lastChild, typeof bytes === "number" ? bytes.toLocaleString("en") : bytes);
    row.lastChild.className = "number";
    return row;
  }));
  if (!$("contents").open) $("contents").showModal(); // of two clicks, the first has opened it
}

function factsOf(told) {
  const window = told.window ? `, window of ${told.window / 1024} KB` : "";
  const facts = [
    ["File id", told.fuid],
    ["Size", `${told.size.toLocaleString("en")} bytes, compression ${told.compression}${window}`],
    ["Content", `${many(told.count, "file")}, ${told.unpacked.toLocaleString("en")} bytes`],
    ["Restart points", told.points ? `${told.points}, at most ${told.farthest} bytes apart`
      : "none: a node that is cut off begins anew"],
  ];
  if (told.patches !== null) facts.push(["Index", `${many(told.patches, "patch", "patches")}`]);
  if (!told.manifest) return [...facts, ["Manifest", "none"]];
  const { signed, ...fields } = told.manifest;
  if (!signed) delete fields.key;
  facts.push(["Signature", signed ? "RSA-3072, not verified" : "none"]);
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null) facts.push([name[0].toUpperCase() + name.slice(1), String(value)]);
  }
  return facts;
}

// -- the timeline ---------------------------------------------------------------------------

let held = null; // events that wait while it is paused
let waiting = []; // events that wait to be painted, together
let painting;

function takeEvents(events) {
  if (held) {
    held = [...held, ...events].slice(-LINES);
    write($("pause"), `Go on (${held.length}${held.length === LINES ? "+" : ""} new)`);
    return;
  }
  waiting = [...waiting, ...events].slice(-LINES);
  painting ??= setTimeout(paintEvents, Math.max(0, eventsPainted + EVENTS_REST_MS - performance.now()));
}

let eventsPainted = -Infinity;
function paintEvents() {
  painting = undefined;
  eventsPainted = performance.now();
  const timeline = $("timeline");
  const room = LINES - waiting.length;
  while (timeline.childElementCount > room) timeline.lastElementChild.remove();
  timeline.prepend(...waiting.reverse().map(makeLine));
  waiting = [];
  $("quiet").hidden = timeline.childElementCount > 0;
}

function makeLine(event) {
  const line = $("event").content.firstElementChild.cloneNode(true);
  const [time, kind, text] = line.children;
  line.dataset.kind = event.kind;
  time.dateTime = new Date(event.time * 1000).toISOString();
  time.textContent = timeOfDay(event.time);
  kind.textContent = event.kind;
  text.firstElementChild.textContent = event.device ?? "";
  text.lastElementChild.textContent = event.text;
  return line;
}

function pause() {
  const kept = held;
  held = held ? null : [];
  $("pause").setAttribute("aria-pressed", String(held !== null));
  write($("pause"), held ? "Go on" : "Pause");
  if (kept) takeEvents(kept);
}

// -- the connection -------------------------------------------------------------------------

let source;
let last = ""; // id of the last message
let silence;
let again;
let lostAt = 0;

function connect() {
  clearTimeout(again);
  source?.close();
  source = new EventSource(`/api/stream?after=${encodeURIComponent(last)}`);
  const on = (name, take) => source.addEventListener(name, (message) => {
    if (message.lastEventId) last = message.lastEventId;
    const told = JSON.parse(message.data);
    clock = told.now * 1000 - Date.now();
    alive();
    take(told);
  });
  on("hello", hello);
  on("packages", (told) => takePackages(told.packages));
  on("rows", (told) => take(told.rows));
  on("events", (told) => takeEvents(told.events));
  on("beat", () => {});
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) {
      again = setTimeout(connect, 2000);
      // Another token, perhaps: then this leads to the login.
      call("/api/packages/none").catch(() => {});
    }
  };
  listen();
}

function hello(told) {
  limit = told.limit;
  if (told.fresh) { // another console than before, or the first one
    devices.clear();
    watcher.disconnect();
    rows.clear();
    inView.clear();
    picked.clear();
    for (const name of counts.keys()) counts.set(name, 0);
    [ids, matching, shown] = [[], [], []];
    $("rows").replaceChildren();
    $("timeline").replaceChildren();
    waiting = [];
  }
  listed = false;
  draw();
}

function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => { lost(); connect(); }, SILENT_MS);
}

function alive() {
  listen();
  if ($("link").dataset.link === "live") return;
  if (lostAt) say("The connection is back.");
  lostAt = 0;
  $("link").dataset.link = "live";
  write($("link"), "live");
  $("lost").hidden = true;
}

function lost() {
  lostAt ||= Date.now();
  $("link").dataset.link = "lost";
  write($("link"), "not connected");
  write($("lost"), `The connection to the console was lost at ${timeOfDay(lostAt / 1000)}. ` +
    "What you see is from then; the page tries again by itself.");
  $("lost").hidden = false;
}

// -- hands ----------------------------------------------------------------------------------

$("search").addEventListener("input", relist);
$("all").addEventListener("change", () => pick(matching, $("all").checked));
$("order").addEventListener("submit", (event) => { event.preventDefault(); request([...picked]); });
$("cancel").addEventListener("click", () =>
  cancel([...picked].filter((id) => PENDING.has(devices.get(id).state))));
function turn(by) {
  first += by * PART;
  listed = false;
  draw();
  $("devices").scrollIntoView({ block: "start" });
}
$("earlier").addEventListener("click", () => turn(-1));
$("later").addEventListener("click", () => turn(1));
$("pause").addEventListener("click", pause);
$("file").addEventListener("change", async () => {
  const files = [...$("file").files];
  $("file").value = ""; // the same file can be chosen again
  await add(files);
});

const withFiles = (event) => event.dataTransfer?.types.includes("Files");
let depth = 0;
addEventListener("dragenter", (event) => { if (withFiles(event)) { depth += 1; $("dropping").hidden = false; } });
addEventListener("dragleave", (event) => { if (withFiles(event) && --depth <= 0) { depth = 0; $("dropping").hidden = true; } });
addEventListener("dragover", (event) => { if (withFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!withFiles(event)) return;
  event.preventDefault();
  depth = 0;
  $("dropping").hidden = true;
  add([...event.dataTransfer.files]);
});

setInterval(() => {
  for (const id of shown) if (devices.has(id)) paintContact(rows.get(id), devices.get(id));
  const told = [...packages.values()];
  [...$("packages").children].forEach((item, at) => paintPackage(item, told[at]));
}, 5000);

paintStates();
list();
paintOrder();
takePackages([]);
connect();
