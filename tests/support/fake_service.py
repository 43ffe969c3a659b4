"""A service that answers what a test tells it to, on a real port: for what the real one does not do on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from edbjobs.v1 import cluster_service_pb2, jobs_service_pb2, resources_service_pb2
from google.protobuf import any_pb2, message_factory
from google.rpc import error_details_pb2, status_pb2

Handler = Callable[[Any, grpc.ServicerContext], Any]
FILES = (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)


class FakeService(grpc.GenericRpcHandler):
    """Answers each RPC by the handler of that name; what has none is UNIMPLEMENTED."""

    def __init__(self, port: int = 0, **status: Any) -> None:
        self.handlers: dict[str, Handler] = {}
        self.requests: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        told = {"version": "0", "api_level": 1, "position": {"store_id": "s1"}, **status}
        answer = cluster_service_pb2.GetSystemStatusResponse(**told)
        self.on("GetSystemStatus", lambda request, context: answer)
        self._methods = {
            f"/{service.full_name}/{method.name}": method
            for file in FILES
            for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=[("grpc.so_reuseport", 0)])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def target(self) -> str:
        """Address."""
        return f"127.0.0.1:{self.port}"

    def on(self, rpc: str, handler: Handler) -> None:
        """Answer an RPC; a handler of a stream gives an iterator."""
        self.handlers[rpc] = handler

    def sent(self, rpc: str) -> list[Any]:
        """Requests of an RPC, in order."""
        return [request for name, request in self.requests if name == rpc]

    def stop(self) -> None:
        """Close the port and break all streams."""
        self._server.stop(0).wait(10)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = self._methods.get(handler_call_details.method)
        if method is None or method.name not in self.handlers:
            return None
        self.metadata = {str(key): str(value) for key, value in handler_call_details.invocation_metadata}
        request_type = message_factory.GetMessageClass(method.input_type)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.requests.append((method.name, request))
            return self.handlers[method.name](request, context)

        def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from answer(request, context)

        kind: Any = grpc.unary_stream_rpc_method_handler if method.server_streaming else None
        kind = kind or grpc.unary_unary_rpc_method_handler
        return kind(
            answers if method.server_streaming else answer,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


def status_of(code: int, message: str, reason: str = "", fields: dict[str, str] | None = None, **metadata: str) -> Any:
    """Make the google.rpc.Status that the real service would send."""
    status = status_pb2.Status(code=code, message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain="edbjobs", metadata=metadata)
    bad = error_details_pb2.BadRequest()
    for field, text in (fields or {}).items():
        bad.field_violations.add(field=field, description=text)
    for detail in (info, bad):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def refuse(context: grpc.ServicerContext, status: Any) -> None:
    """End a call with a status and its details."""
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    context.abort(code, status.message)
