// Parse the AsyncAPI document that is named, with AsyncAPI's own parser; say what is wrong with it.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], "utf8"));
const wrong = diagnostics.filter(({ severity }) => severity <= 1); // errors and warnings
for (const { code, message, path } of wrong) console.log(`${code} at ${path.join(".")}: ${message}`);
if (document) {
  const channels = document.channels().all().map((channel) => channel.address());
  console.log(JSON.stringify({ channels, operations: document.operations().all().length }));
}
process.exitCode = document && wrong.length === 0 ? 0 : 1;
