// Validate each line of standard input, {"type": ..., "body": text}, against the published schemas.
import { readdir, readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import Ajv from "ajv/dist/2020.js";

const ajv = new Ajv({ strict: true, allowUnionTypes: true, validateFormats: false });
const folder = process.argv[2];
const validators = {};
for (const name of await readdir(folder)) {
  const schema = JSON.parse(await readFile(`${folder}/${name}`, "utf8"));
  validators[schema.title] = ajv.compile(schema);
}
for await (const line of createInterface({ input: process.stdin })) {
  const { type, body } = JSON.parse(line);
  console.log(validators[type](JSON.parse(body)));
}
