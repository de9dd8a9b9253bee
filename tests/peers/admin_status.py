"""Asks the admin API at ADDRESS as an operator's tools would: by health and reflection, without its proto file."""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)

database = ProtoReflectionDescriptorDatabase(channel)
services = sorted(database.get_services())
pool = DescriptorPool(database)
service = pool.FindServiceByName(next(name for name in services if name.startswith("retort.admin.v1.")))


def ask(name):
    """The answer to an empty request, its fields as proto names them."""
    method = service.FindMethodByName(name)
    request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{service.full_name}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=answer.FromString,
    )
    return MessageToDict(call(request(), timeout=20), preserving_proto_field_name=True)



print(
    json.dumps(
        {
            "health": health_pb2.HealthCheckResponse.ServingStatus.Name(health.status),
            "services": services,
            "status": ask("GetStatus"),
            "upstreams": ask("ListUpstreams"),
        }
    )
)
