// The suite in Node, over gRPC-Web and over gRPC. The environment tells where the service is.
import assert from "node:assert/strict";
import test from "node:test";

import { connectLocal, resolveTarget } from "edbjobs/node";

import { CASES } from "./suite.js";

const { EDBJOBS_TEST_URL: baseUrl, EDBJOBS_TEST_PROJECT: project } = process.env;
assert(baseUrl && project, "run by the tests of the repository, which start a service");

for (const [name, run] of Object.entries(CASES)) {
  test(`gRPC-Web: ${name}`, () => run({ options: { baseUrl }, project, run: "web" }));
  test(`gRPC: ${name}`, () => run({ options: { transport: connectLocal().transport }, project, run: "grpc" }));
}

test("the service is found by its endpoint.json, with its token", async () => {
  const { address, token } = resolveTarget();
  assert(address.startsWith("unix:"), address);
  assert(token.length > 30);
  assert.equal((await connectLocal().status()).caller?.authentication, 3 /* TOKEN */);
  assert.deepEqual(resolveTarget("127.0.0.1:1", "t"), { address: "127.0.0.1:1", token: "t" });
});
