"""Calls `acme.Echo` at ADDRESS by grpcio, every kind of call, and prints `fine` if all is as it should be."""

import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])

unary = channel.unary_unary("/acme.Echo/Unary")
answer, call = unary.with_call(b"hello", timeout=20)
assert answer == b"hello", answer
assert call.code() is grpc.StatusCode.OK
assert ("x-left", "True") in call.trailing_metadata(), call.trailing_metadata()

try:
    unary(b"fail", timeout=20)
except grpc.RpcError as error:
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "asked to fail", error
    assert ("x-reason", "asked") in error.trailing_metadata(), error
else:
    raise AssertionError("it should have failed")

answers = list(channel.unary_stream("/acme.Echo/ServerStream")(b"200", timeout=20))
assert answers == [str(number).encode() for number in range(200)], answers

texts = [b"one", b"two", b"three"]
assert channel.stream_unary("/acme.Echo/ClientStream")(iter(texts), timeout=20) == b"one two three"
assert list(channel.stream_stream("/acme.Echo/Both")(iter(texts), timeout=20)) == texts

# A large message needs many frames and windows.
large = bytes(range(256)) * 4096 * 3
assert unary(large, timeout=20) == large

try:
    channel.unary_unary("/acme.Nowhere/Unary")(b"", timeout=20)
except grpc.RpcError as error:
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error
else:
    raise AssertionError("there is no such route")

print("fine")
