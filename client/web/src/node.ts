/** For Node: finds the service of this account and speaks gRPC with it, over its Unix socket or TCP. */
import { lstatSync, existsSync, readFileSync, statSync } from "node:fs";
import { connect } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";

import { Code } from "@connectrpc/connect";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { EdbJobsClient, EdbJobsError } from "./index.js";
import type { ClientOptions } from "./index.js";

const DEFAULT_TARGET = "127.0.0.1:18080";

/** An address in gRPC's form, and the token for it. */
export interface Target {
  address: string;
  token: string;
}

/** What a service writes about itself; empty: not served. */
interface Endpoint {
  grpc?: string;
  uds?: string;
  host?: string;
  token_file?: string;
}

/**
 * Makes a client of the service at `target` (`host:port` or `unix:/path`); else at `EDBJOBS_TARGET`, else where
 * endpoint.json in the runtime folder says, else at 127.0.0.1:18080. The token is the option, else `EDBJOBS_TOKEN`,
 * else what is in the file that endpoint.json names.
 */
export function connectLocal(target?: string, options: Omit<ClientOptions, "baseUrl" | "transport"> = {}): EdbJobsClient {
  const found = resolveTarget(target, options.token);
  return new EdbJobsClient({ ...options, token: found.token, transport: makeTransport(found.address) });
}

/** Makes what carries gRPC to an address. */
export function makeTransport(address: string): Transport {
  if (!address.startsWith("unix:")) return createGrpcTransport({ baseUrl: `http://${address}` });
  const path = address.slice("unix:".length);
  return createGrpcTransport({ baseUrl: "http://localhost", nodeOptions: { createConnection: () => connect(path) } });
}

/** Finds the address and the token, as `connectLocal` tells. */
export function resolveTarget(target?: string, token?: string): Target {
  const given = token || process.env["EDBJOBS_TOKEN"] || "";
  const chosen = target || process.env["EDBJOBS_TARGET"];
  if (chosen) return { address: chosen, token: given };
  const endpoint = readEndpoint();
  // The file may lie on a shared file system; an address of another host's loopback is no use here.
  if (endpoint && (!endpoint.host || endpoint.host === hostname())) {
    const { uds = "", grpc = "", token_file: file = "" } = endpoint;
    const address = uds && (existsSync(uds) || !grpc) ? `unix:${uds}` : grpc;
    if (address) return { address, token: given || readToken(file) };
  }
  return { address: DEFAULT_TARGET, token: given };
}

/** Finds the folder of endpoint.json; whoever could write it could send clients, and their tokens, elsewhere. */
export function runtimeDir(): string {
  const folder = runtimePath();
  const found = process.platform === "win32" ? undefined : lstatSync(folder, { throwIfNoEntry: false });
  const wrong =
    found &&
    ((!found.isDirectory() && "is not a folder") ||
      (found.uid !== process.geteuid?.() && `belongs to account ${found.uid}`) ||
      ((found.mode & 0o022) !== 0 && "can be written by other accounts"));
  if (wrong) {
    throw new EdbJobsError(
      `the runtime folder ${folder} ${wrong}; remove it or set EDBJOBS_RUNTIME_DIR to a folder of your own`,
      Code.FailedPrecondition,
      "UNSAFE_RUNTIME_DIR",
    );
  }
  return folder;
}

function runtimePath(): string {
  const { EDBJOBS_RUNTIME_DIR: chosen, XDG_RUNTIME_DIR: base, LOCALAPPDATA: local } = process.env;
  if (chosen) return chosen;
  if (process.platform === "win32") return join(local || tmpdir(), "edbjobs");
  // sudo and su may leave the folder of another account in the environment.
  const found = base ? statSync(base, { throwIfNoEntry: false }) : undefined;
  if (base && found?.isDirectory() && found.uid === process.geteuid?.()) return join(base, "edbjobs");
  return join(tmpdir(), `edbjobs-${process.geteuid?.()}`);
}

function readEndpoint(): Endpoint | undefined {
  const file = join(runtimeDir(), "endpoint.json");
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Endpoint;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new EdbJobsError(
      `${file} is not what a service writes (${(error as Error).message}); remove it or set EDBJOBS_TARGET`,
      Code.FailedPrecondition,
      "BAD_ENDPOINT_FILE",
    );
  }
}

function readToken(file: string): string {
  try {
    return file && readFileSync(file, "utf8").trim();
  } catch {
    return ""; // not readable by this account: the service tells what is missing
  }
}
