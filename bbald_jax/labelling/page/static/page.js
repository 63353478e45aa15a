// The labeller in a page of its own, which asks the server that it came from.
import { startLabeller } from "/labeller.js";

// What changes nothing is a GET.
const READING = ["setup", "overview"];

startLabeller(document, {
  silence: "The server does not answer.",
  async ask(name, body) {
    let reply;
    try {
      reply = await fetch(`/api/${name}`, READING.includes(name) ? {} : {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
    } catch { throw new Error("The server does not answer."); }
    if (reply.status === 403) throw new Error("The server was started anew: open the address that it printed, in any tab.");
    if (reply.status >= 500) throw new Error((await reply.json().catch(() => ({}))).error || `The server answers ${reply.status}.`);
    return { status: reply.status, content: await reply.json().catch(() => ({})) };
  },
  picture: (index) => `/items/${index}`,
  name: () => localStorage.getItem("name"),
  remember: (name) => localStorage.setItem("name", name),
});
