"""Calls functions with grpcio: a JSON object a line in, one a line out.

The messages come from the node's own reflection service.
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "openfogstack.tinyfaas.tinyfaas.TinyFaaS"
stubs = {}


def stub(target):
    if target not in stubs:
        channel = grpc.insecure_channel(target)
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(SERVICE).FindMethodByName("Request")
        data = GetMessageClass(method.input_type)
        response = GetMessageClass(method.output_type)
        stubs[target] = data, channel.unary_unary(
            f"/{SERVICE}/Request",
            request_serializer=data.SerializeToString,
            response_deserializer=response.FromString,
        )
    return stubs[target]


def call(question):
    data, request = stub(question["target"])
    message = data(functionIdentifier=question["function"], data=bytes.fromhex(question["payload"]).decode())
    try:
        response = request(message, timeout=20, metadata=[tuple(pair) for pair in question["metadata"]])
    except grpc.RpcError as error:
        metadata = {key: str(value) for key, value in error.trailing_metadata() or ()}
        return {"code": error.code().name, "payload": error.details().encode().hex(), "metadata": metadata}
    return {"code": "OK", "payload": response.response.encode().hex(), "metadata": {}}


for line in sys.stdin:
    try:
        answer = call(json.loads(line))
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
