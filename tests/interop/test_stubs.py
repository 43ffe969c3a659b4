"""The stubs that protos/buf.gen.yaml makes for Java and Go compile with the packages of Debian 12."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from interop import toolchains

pytestmark = pytest.mark.system

PROTOS = toolchains.ROOT / "protos"
BUF = toolchains.ROOT / "tests" / "buf" / "node_modules" / ".bin" / "buf"
PROGRAMS = ("protoc", "grpc_java_plugin", "javac", "protoc-gen-go", "protoc-gen-go-grpc", "go")
JARS = ("protobuf", "grpc-api", "grpc-stub", "grpc-protobuf", "guava", "geronimo-annotation-1.3-spec")
GO_SOURCES = Path("/usr/share/gocode")
# What generated code of protobuf 3.21 itself warns of.
LINT = "-Xlint:all,-serial,-cast,-rawtypes,-deprecation,-static,-try,-fallthrough,-classfile"
JAVA = """
import com.example.edbjobs.v1.*;

class Use {
    static JobConfig config() {
        return JobConfig.newBuilder().setProjectPath("/p.aedt").build();
    }

    static JobsServiceGrpc.JobsServiceBlockingStub jobs(io.grpc.Channel channel) {
        return JobsServiceGrpc.newBlockingStub(channel);
    }

    static ErrorReason reason(String word) {
        return ErrorReason.valueOf("ERROR_REASON_" + word);
    }
}
"""
GO = """
package main

import (
	"example.com/gen/edbjobs/v1"
	"google.golang.org/grpc"
)

func jobs(connection *grpc.ClientConn) edbjobsv1.JobsServiceClient {
	return edbjobsv1.NewJobsServiceClient(connection)
}

func main() {
	config := edbjobsv1.JobConfig{ProjectPath: "/p.aedt"}
	println(config.GetProjectPath(), edbjobsv1.ErrorReason_value["ERROR_REASON_INTERNAL"], jobs == nil)
}
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toolchains.need(PROGRAMS)
    if not BUF.exists():
        pytest.skip("buf is not installed: npm is missing")
    folder = tmp_path_factory.mktemp("stubs")
    toolchains.run([BUF, "generate", "-o", folder], cwd=PROTOS)
    return folder


def test_java(stubs: Path) -> None:
    (stubs / "java" / "Use.java").write_text(JAVA)
    sources = sorted((stubs / "java").rglob("*.java"))
    jars = os.pathsep.join(f"/usr/share/java/{name}.jar" for name in JARS)
    options: list[str | Path] = ["--release", "17", LINT, "-Werror", "-cp", jars, "-d", stubs / "classes"]
    toolchains.run(["javac", *options, *sources])
    assert (stubs / "classes" / "com" / "example" / "edbjobs" / "v1" / "JobsServiceGrpc.class").exists()


def test_go(stubs: Path) -> None:
    workspace = stubs / "workspace"
    package = workspace / "src" / "example.com" / "gen"
    package.parent.mkdir(parents=True)
    (stubs / "go").rename(package)
    program = workspace / "src" / "example.com" / "use"
    program.mkdir()
    (program / "main.go").write_text(GO)
    environment = {
        **os.environ,
        # Without modules, so that nothing is downloaded: Debian has the sources of all that is imported.
        "GO111MODULE": "off",
        "GOPATH": f"{workspace}{os.pathsep}{GO_SOURCES}",
        "GOFLAGS": "",
        "GOCACHE": str(stubs / "cache"),
    }
    for command in (["go", "vet", "example.com/gen/edbjobs/v1"], ["go", "run", "example.com/use"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "/p.aedt 101 false\n"
