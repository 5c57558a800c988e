// Parse each AsyncAPI document that is named, with AsyncAPI's own parser; say in a line each what it is or has wrong.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(file, "utf8"));
  const wrong = diagnostics
    .filter(({ severity }) => severity <= 1) // errors and warnings
    .map(({ code, message, path }) => `${code} at ${path.join(".")}: ${message}`);
  const channels = document?.channels().all().map((channel) => channel.address());
  const operations = document?.operations().all().length;
  console.log(JSON.stringify({ accepted: Boolean(document) && wrong.length === 0, wrong, channels, operations }));
}
