"""A gRPC service by grpcio: `acme.Echo` with messages as plain bytes. Prints `listening PORT`."""

from concurrent import futures

import grpc


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("x-reason", "asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked to fail")
    context.set_trailing_metadata((("x-left", str(context.time_remaining() is not None)),))
    return request


def server_stream(request, _context):
    for number in range(int(request)):
        yield str(number).encode()


def client_stream(requests, _context):
    return b" ".join(requests)


def both(requests, _context):
    yield from requests


server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers(
    (
        grpc.method_handlers_generic_handler(
            "acme.Echo",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(unary),
                "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
                "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
                "Both": grpc.stream_stream_rpc_method_handler(both),
            },
        ),
    )
)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("listening", port, flush=True)
server.wait_for_termination()
