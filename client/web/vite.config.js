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
  outDir: "build",
  emptyOutDir: false,
  lib: { entry: "test/browser.ts", formats: ["iife"], name: "edbjobsTest", fileName: () => "browser.js" },
};

export default defineConfig(({ mode }) => ({
  logLevel: "warn",
  publicDir: false,
  resolve: { alias: mode === "test" ? [{ find: /^edbjobs$/, replacement: `${import.meta.dirname}/dist/index.js` }] : [] },
  build: mode === "test" ? forBrowser : published,
}));
