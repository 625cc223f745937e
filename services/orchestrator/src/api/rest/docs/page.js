"use strict";
// Renders openapi.json. Text goes in as text, never as markup.

const make = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
};

// Words between backticks become code; blank lines part paragraphs.
const prose = (text) => {
  const box = make("div");
  for (const paragraph of (text || "").split(/\n\s*\n/)) {
    if (!paragraph.trim()) continue;
    const parts = paragraph.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
    box.append(make("p", {}, ...parts));
  }
  return box;
};
const inline = (text) => make("span", {}, ...(text || "").split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part)));

let api = {};
const nameOf = (reference) => reference.split("/").pop();
const resolve = (thing) => {
  while (thing && thing.$ref) thing = thing.$ref.slice(2).split("/").reduce((at, key) => at[key], api);
  return thing || {};
};

const typeOf = (schema) => {
  if (!schema) return make("span", {}, "any");
  if (schema.$ref) return make("a", { href: "#" + nameOf(schema.$ref) }, nameOf(schema.$ref));
  const choices = schema.oneOf || schema.anyOf;
  if (choices) {
    const node = make("span");
    choices.forEach((choice, i) => node.append(i ? " or " : "", typeOf(choice)));
    return node;
  }
  if (schema.allOf && schema.allOf.length === 1) return typeOf(schema.allOf[0]);
  const types = [].concat(schema.type || "any");
  const node = make("span");
  types.forEach((type, i) => {
    node.append(i ? " or " : "");
    if (type === "array") node.append("list of ", typeOf(schema.items));
    else if (type === "object" && schema.additionalProperties) node.append("map of ", typeOf(schema.additionalProperties));
    else node.append(type + (schema.format && type !== "null" ? " (" + schema.format + ")" : ""));
  });
  return node;
};

const table = (heads, rows) => {
  const body = make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell)))));
  const head = make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text))));
  return make("div", { class: "scroll" }, make("table", {}, head, body));
};

const fields = (schema) => {
  const required = new Set(schema.required || []);
  return table(["Field", "Type", "Meaning"], Object.entries(schema.properties || {}).map(([name, property]) => [
    make("span", {}, make("code", {}, name), required.has(name) ? "" : make("span", { class: "faint" }, " optional")),
    typeOf(property),
    inline(property.description || resolve(property).description),
  ]));
};

const example = (schema) => {
  schema = resolve(schema);
  if (schema.example !== undefined) return schema.example;
  if (schema.items) return [example(schema.items)];
  return {};
};

const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
const curl = (method, path, operation) => {
  const url = location.origin + path.replaceAll("{id}", "$ID");
  const parts = ["curl -sS"];
  if (method !== "get") parts.push("-X " + method.toUpperCase());
  parts.push('-H "Authorization: Bearer $TOKEN"');
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  if (content) {
    parts.push("-H 'Content-Type: application/json'");
    parts.push("-d " + quote(JSON.stringify(example(content.schema))));
  }
  if (operation.operationId === "WatchJob") parts.push("-N");
  parts.push(url.includes("$") ? '"' + url + '"' : quote(url));
  return parts.join(" \\\n  ");
};

const sample = (text) => {
  const button = make("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(text).then(
      () => { button.textContent = "Copied"; },
      () => { button.textContent = "Select the text and copy it"; },
    );
  });
  return make("div", {}, make("pre", {}, make("code", {}, text)), button);
};

const renderOperation = (method, path, operation) => {
  const article = make("article", { id: operation.operationId });
  article.append(
    make("span", { class: "role" }, "role: " + operation["x-required-role"]),
    make("h3", {}, operation.summary),
    make("p", { class: "path" }, make("span", { class: "method " + method }, method.toUpperCase()), make("code", {}, path)),
    prose(operation.description),
  );
  const parameters = operation.parameters || [];
  if (parameters.length) {
    article.append(make("h4", {}, "Parameters"), table(["Name", "In", "Type", "Meaning"], parameters.map((p) => [
      make("span", {}, make("code", {}, p.name), p.required ? "" : make("span", { class: "faint" }, " optional")),
      p.in, typeOf(p.schema), inline(p.description),
    ])));
  }
  if (operation.requestBody) {
    article.append(make("h4", {}, "Body"));
    for (const [type, content] of Object.entries(operation.requestBody.content)) {
      article.append(make("p", {}, make("code", {}, type), ": ", typeOf(content.schema)));
    }
  }
  article.append(make("h4", {}, "Example"), sample(curl(method, path, operation)), make("h4", {}, "Answers"));
  const good = [], refusals = [];
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (answer.$ref) { refusals.push(status); continue; }
    const node = make("span", {}, inline(answer.description));
    for (const [type, content] of Object.entries(answer.content || {})) node.append(make("br"), make("code", {}, type), ": ", typeOf(content.schema));
    good.push([make("code", {}, status), node]);
  }
  good.push([make("code", {}, refusals.join(" ")), make("a", { href: "#problems" }, "Problem")]);
  article.append(table(["Status", "Meaning"], good));
  return article;
};

const render = () => {
  const main = document.getElementById("main");
  const contents = document.getElementById("contents");
  document.getElementById("version").textContent = "version " + api.info.version;
  main.append(prose(api.info.description));
  const operations = Object.entries(api.paths)
    .flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })))
    .sort((a, b) => a.operation["x-order"] - b.operation["x-order"]);
  for (const tag of api.tags) {
    const list = make("ul");
    contents.append(make("h2", {}, tag.name), list);
    main.append(make("h2", {}, tag.name), prose(tag.description));
    for (const { path, method, operation } of operations) {
      if (!operation.tags.includes(tag.name)) continue;
      main.append(renderOperation(method, path, operation));
      const words = [operation.operationId, operation.summary, method, path].join(" ").toLowerCase();
      list.append(make("li", { "data-words": words }, make("a", { href: "#" + operation.operationId }, operation.summary)));
    }
  }
  main.append(make("h2", { id: "problems" }, "Problems"), prose("Every refusal has `application/problem+json` with one of these codes. The same codes come with gRPC statuses, in `google.rpc.ErrorInfo` and in the trailer `x-agentforge-code`."));
  const rows = api["x-problem-codes"].map((p) => [make("code", { id: p.code }, p.code), String(p.status), p.grpc || "", p.title]);
  main.append(table(["Code", "HTTP", "gRPC", "Meaning"], rows));
  main.append(make("h2", { id: "schemas" }, "Schemas"));
  const list = make("ul");
  contents.append(make("h2", {}, "Reference"), list);
  list.append(make("li", { "data-words": "problems errors codes" }, make("a", { href: "#problems" }, "Problems")));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    main.append(make("article", { id: name }, make("h3", {}, name), prose(schema.description), fields(schema)));
    list.append(make("li", { "data-words": name.toLowerCase() }, make("a", { href: "#" + name }, name)));
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const entry of contents.querySelectorAll("li")) entry.hidden = !wanted.every((word) => entry.dataset.words.includes(word));
    for (const heading of contents.querySelectorAll("h2")) heading.hidden = !heading.nextElementSibling.querySelector("li:not([hidden])");
  });
  if (location.hash) {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target) target.scrollIntoView();
  }
};

fetch("openapi.json")
  .then((answer) => { if (!answer.ok) throw new Error("HTTP " + answer.status); return answer.json(); })
  .then((document_) => { api = document_; render(); document.getElementById("status").remove(); })
  .catch((error) => {
    const status = document.getElementById("status");
    status.className = "problem";
    status.textContent = "The API's description could not be shown (" + error.message + "). openapi.json has it as JSON.";
  });
