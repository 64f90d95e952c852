// Follows a stream of events as a browser does, and prints each as a line of JSON.
// Usage: node events.mjs PACKAGES URL

import { createRequire } from "node:module";

const [packages, url] = process.argv.slice(2);
const { EventSource } = createRequire(packages)("eventsource");
const kinds = ["hello", "resync", "bye", "revision", "held", "approved", "instance", "drift", "source",
  "override", "reload", "config", "token", "attention"];
const source = new EventSource(url);
// The library lets a program end that only waits to connect again. This one ends with whoever has
// started it, which is a script that would leave it behind.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit();
}, 200);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
for (const kind of kinds) {
  source.addEventListener(kind, (event) => {
    print({ kind, id: event.lastEventId, data: JSON.parse(event.data) });
  });
}
source.addEventListener("error", (event) => {
  print({ kind: "error", state: source.readyState, text: String(event.message ?? "") });
});
