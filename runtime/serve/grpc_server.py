"""The Open Inference Protocol by gRPC: the calls of `app`, in the same event loop.

Message classes come from `open_inference.pb` in a private descriptor pool, so that a client library with its own copy
of the protocol can live in the same process.

The handlers take a stream of bytes, of which a call sends one message: so the token is checked before the message is
read from the connection, and this server answers bytes that are not a message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...dependencies import import_optional
from ...errors import AtrousError, InputError, RequestError
from .gate import choose_identity, is_authorized
from .handling import Server, describe_server, find_status
from .jobs import InferJob
from .models import VERSION
from .protocol import IGNORED, InferRequest, InputTensor, OutputTensor, WantedOutput

SERVICE = "GRPCInferenceService"
PACKAGE = "inference"
_DESCRIPTOR_SET_PATH = Path(__file__).with_name("open_inference.pb")
_OPEN_CALLS = ("ServerLive", "ServerReady")
#: HTTP status -> name of the gRPC status; others of 400 to 499 are INVALID_ARGUMENT, of 500 up INTERNAL
_CODES = {
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
}

Messages = Mapping[str, Any]


@cache
def load_messages() -> tuple[Messages, Any]:
    """The message classes by name, and the service's descriptor."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    (file,) = descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTOR_SET_PATH.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {message.name: pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}") for message in file.message_type}
    classes = {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}
    return classes, pool.FindServiceByName(f"{PACKAGE}.{SERVICE}")


async def start_grpc(server: Server, address: str, *, shares_port: bool) -> tuple[Any, int]:
    """Start to listen; returns the `grpc.aio` server and its port.

    Args:
        server: models, engine and limits.
        address: host:port; port 0 takes a free one.
        shares_port: whether other processes listen on the same port.

    Raises:
        MissingDependencyError: if grpcio is not installed.
        InputError: if the address cannot be listened on.
    """
    grpc = import_optional("grpc")
    classes, service = load_messages()
    options = [
        ("grpc.max_receive_message_length", server.settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(shares_port)),
    ]
    listener = grpc.aio.server(options=options, maximum_concurrent_rpcs=server.settings.max_connections)
    calls = _Calls(server, classes, grpc)
    handlers = {
        method.name: grpc.stream_unary_rpc_method_handler(
            calls.wrap(method.name, classes[method.input_type.name]),
            response_serializer=classes[method.output_type.name].SerializeToString,
        )
        for method in service.methods
    }
    listener.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    try:
        port = listener.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(f"gRPC cannot listen on {address}: {error}") from None
    await listener.start()
    return listener, port


class _Calls:
    """The calls of the service."""

    def __init__(self, server: Server, classes: Messages, grpc: Any) -> None:
        self._server, self._classes, self._grpc = server, classes, grpc

    def wrap(self, name: str, kind: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        """The handler of a call with a message of a kind: token, errors, metrics, access log around its method."""
        method = getattr(self, name)

        async def call(requests: Any, context: Any) -> Any:
            start_s, status, model, timings_ms = time.monotonic(), 200, "", {}  # type: ignore[var-annotated]
            try:
                if name not in _OPEN_CALLS:
                    self._check_token(context)
                request = await self._read(context, kind)
                model = getattr(request, "model_name", "") or getattr(request, "name", "")
                return await method(request, timings_ms)
            except asyncio.CancelledError:
                status = 499
                raise
            except AtrousError as error:
                status = find_status(error)
                await context.abort(self._find_code(status), str(error))
            finally:
                self._record(context, name, model, status, time.monotonic() - start_s, timings_ms)

        return call

    async def _read(self, context: Any, kind: Any) -> Any:
        """The message of a call."""
        from google.protobuf.message import DecodeError

        limit_s = self._server.settings.body_timeout_s
        try:
            content = await asyncio.wait_for(context.read(), limit_s)
            return kind.FromString(b"" if content is self._grpc.aio.EOF else content)
        except asyncio.TimeoutError:
            raise RequestError(f"the message did not arrive within {limit_s:g} seconds", status=408) from None
        except DecodeError:
            raise RequestError(f"the message is not a {kind.DESCRIPTOR.name} of the protocol") from None

    async def ServerLive(self, request: Any, timings_ms: dict[str, float]) -> Any:  # noqa: N802 (the protocol's names)
        """Whether the server runs."""
        return self._classes["ServerLiveResponse"](live=True)

    async def ServerReady(self, request: Any, timings_ms: dict[str, float]) -> Any:  # noqa: N802
        """Whether requests are welcome."""
        return self._classes["ServerReadyResponse"](ready=self._server.is_ready)

    async def ModelReady(self, request: Any, timings_ms: dict[str, float]) -> Any:  # noqa: N802
        """Whether a model is there and requests are welcome."""
        try:
            self._server.models.find(request.name, request.version)
        except RequestError:
            return self._classes["ModelReadyResponse"](ready=False)
        return self._classes["ModelReadyResponse"](ready=self._server.is_ready)

    async def ServerMetadata(self, request: Any, timings_ms: dict[str, float]) -> Any:  # noqa: N802
        """Name, version and extensions."""
        return self._classes["ServerMetadataResponse"](**describe_server())

    async def ModelMetadata(self, request: Any, timings_ms: dict[str, float]) -> Any:  # noqa: N802
        """Inputs and outputs of a model."""
        return self._classes["ModelMetadataResponse"](
            **self._server.models.find(request.name, request.version).describe()
        )

    async def ModelInfer(self, request: Any, timings_ms: dict[str, float]) -> Any:  # noqa: N802
        """Label an image."""
        server = self._server
        model = server.models.find(request.model_name, request.model_version)
        size = request.ByteSize()
        server.bodies.take(size)
        try:
            job = InferJob(model, lambda: read_message(request), self._encode(model.name), server.settings.max_pixels)
            job.timings_ms = timings_ms
            return await server.engine.run(job)
        finally:
            server.bodies.give_back(size)

    def _encode(self, model: str) -> Callable[[InferRequest, Sequence[OutputTensor]], Any]:
        def encode(request: InferRequest, outputs: Sequence[OutputTensor]) -> Any:
            answer = self._classes["ModelInferResponse"](model_name=model, model_version=VERSION, id=request.id)
            for output in outputs:
                answer.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
                answer.raw_output_contents.append(output.to_bytes())
            return answer

        return encode

    def _check_token(self, context: Any) -> None:
        token = self._server.settings.token
        if token is None:
            return
        given = str(dict(context.invocation_metadata() or ()).get("authorization", ""))
        if not is_authorized(given.encode(), token):
            raise RequestError("this server needs the metadata authorization: Bearer TOKEN", status=401)

    def _find_code(self, status: int) -> Any:
        name = _CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        return getattr(self._grpc.StatusCode, name)

    def _record(
        self, context: Any, call: str, model: str, status: int, seconds: float, timings_ms: Mapping[str, float]
    ) -> None:
        if call == "ModelInfer" and model and status != 404:
            self._server.metrics.count_request(model, "grpc", status, seconds, timings_ms)
        metadata = dict(context.invocation_metadata() or ())
        self._server.access_log.write(
            id=choose_identity(str(metadata.get("x-request-id", ""))),
            protocol="grpc",
            client=context.peer(),
            method=call,
            model=model or None,
            status=status,
            ms=round(seconds * 1000, 3),
            stages_ms={name: round(spent, 3) for name, spent in timings_ms.items()},
        )


def read_message(message: Any) -> InferRequest:
    """The request of a `ModelInferRequest`.

    Raises:
        RequestError: if the raw contents do not belong to its inputs, or an input has no contents.
    """
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise RequestError(f"there are {len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    inputs = []
    for index, tensor in enumerate(message.inputs):
        if "shared_memory_region" in tensor.parameters:
            raise RequestError("this server reads no shared memory: send the tensor's contents")
        if any(side < 0 for side in tensor.shape) or len(tensor.shape) > 8:
            raise RequestError("a shape must have at most 8 sizes of 0 or more")
        data: Any
        if raw:
            data = raw[index]
        elif tensor.datatype == "BYTES":
            data = b"".join(len(value).to_bytes(4, "little") + value for value in tensor.contents.bytes_contents)
        else:
            data = list(tensor.contents.uint_contents)
        inputs.append(InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape), data))
    outputs = [WantedOutput(output.name, True) for output in message.outputs]
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in message.parameters.items()
        if name not in IGNORED
    }
    parameters.pop("binary_data_output", None)
    return InferRequest(message.id, inputs, outputs, parameters, True)
