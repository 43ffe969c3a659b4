import { defineConfig } from "vite";

const published = {
  target: "es2022",
  lib: { entry: { index: "src/index.ts", node: "src/node.ts" }, formats: ["es"] },
  rolldownOptions: {
    external: [/^@bufbuild\//, /^@connectrpc\//, /^node:/],
    output: { chunkFileNames: "shared.js" },
  },
};

// One script that works in a page as it is: what the tests run in a browser.
const forBrowser = {
  target: "es2022",
  outDir: "build/test",
  emptyOutDir: false,
  lib: { entry: "test/browser.ts", formats: ["iife"], name: "edbjobsTest", fileName: () => "browser.js" },
};

const sample = { target: "es2022", outDir: "../build/sample", emptyOutDir: true };

export default defineConfig(({ mode }) => ({
  logLevel: "warn",
  publicDir: false,
  base: "./",
  root: mode === "sample" ? "sample" : ".",
  // What is tested and shown is what is published.
  resolve: { alias: [{ find: /^edbjobs$/, replacement: `${import.meta.dirname}/dist/index.js` }] },
  build: { test: forBrowser, sample }[mode] ?? published,
}));
