// The labeller in a notebook's cell, by anywidget. It takes one text as a module: `widget.py` puts
// MARKUP (labeller.html), STYLE (page.css) and labeller.js before this.

const IS_PLAIN = (event) => !event.ctrlKey && !event.metaKey && !event.altKey;

// Whether what lies behind an element is dark: notebooks have themes of their own.
function isOnDark(place) {
  for (let each = place; each; each = each.parentElement) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(each).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (blue !== undefined && alpha > 0.5) return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
  }
  return false;
}

function render({ model, el }) {
  const host = element("div", [], { role: "region", "aria-label": "bbald label", class: "bbald-label" });
  const root = host.attachShadow({ mode: "open" });
  const markup = document.createElement("template");
  markup.innerHTML = MARKUP;
  root.append(element("style", STYLE), markup.content);
  el.append(host);

  // Every request has a number, and a name of this view before it: others hear the replies, too.
  const view = Math.random().toString(36).slice(2);
  const open = new Map();
  const receive = (reply, buffers) => {
    open.get(reply.id)?.(reply, buffers);
    open.delete(reply.id);
  };
  model.on("msg:custom", receive);
  let count = 0;
  const tell = (what, body) => new Promise((resolve) => {
    const id = `${view} ${++count}`;
    open.set(id, (reply, buffers) => resolve({ ...reply, buffers }));
    model.send({ id, what, body });
  });

  // Single keys are answers here, and commands in the rest of the notebook, which must not see them:
  // JupyterLab listens behind this element, Notebook before it, unless it finds the attribute.
  const mark = (event) => host.toggleAttribute("data-lm-suppress-shortcuts", IS_PLAIN(event) && event.composedPath().includes(host));
  window.addEventListener("keydown", mark, true);
  host.addEventListener("keydown", (event) => { if (IS_PLAIN(event)) event.stopPropagation(); });
  // Who clicks gets the keys; who walks through the buttons by keys stays where they are.
  root.addEventListener("click", (event) => {
    if (event.detail && !event.target.closest("input, summary, label, dialog")) root.getElementById("item").focus({ preventScroll: true });
  });
  const adapt = () => { host.style.colorScheme = isOnDark(el) ? "dark" : "light"; };
  setTimeout(adapt);
  host.addEventListener("focusin", adapt);

  const stop = startLabeller(root, {
    silence: "The kernel is busy, or gone: then run the cell again.",
    ask: tell,
    async picture(index) {
      const { status, content, buffers } = await tell("picture", { index });
      if (status !== 200) throw new Error(content.error);
      return URL.createObjectURL(new Blob([buffers[0]], { type: content.media_type }));
    },
    shown: (address) => URL.revokeObjectURL(address),
    name: () => null,
    remember: () => {},
  });
  return () => {
    stop();
    window.removeEventListener("keydown", mark, true);
    model.off("msg:custom", receive);
  };
}

export default { render };
