// Makes src/gen from the image of the contract, protos/edbjobs.binpb: needs neither protoc nor buf.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const image = fromBinary(FileDescriptorSetSchema, readFileSync(here("../../protos/edbjobs.binpb")));
const request = create(CodeGeneratorRequestSchema, {
  // The well-known types come with the runtime.
  fileToGenerate: image.file.map((file) => file.name).filter((name) => !name.startsWith("google/protobuf/")),
  parameter: "target=ts,import_extension=js",
  protoFile: image.file,
});
const plugin = spawnSync(process.execPath, [here("node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es")], {
  input: toBinary(CodeGeneratorRequestSchema, request),
  maxBuffer: 64 * 1024 * 1024,
});
if (plugin.status !== 0) throw new Error(`protoc-gen-es failed: ${plugin.stderr}`);
const response = fromBinary(CodeGeneratorResponseSchema, plugin.stdout);
if (response.error) throw new Error(response.error);

rmSync(here("src/gen"), { recursive: true, force: true });
for (const file of response.file) {
  const path = here(`src/gen/${file.name}`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, file.content);
}
