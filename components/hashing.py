"""Hashes of the contents of files."""

import glob
import hashlib
import os
from collections.abc import Sequence
from typing import Any


def hash_tree(folder: str) -> str:
    """SHA-256 over the relative paths and contents of all files."""
    digest = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            digest.update(os.path.relpath(path, folder).encode() + b"\0")
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def hash_transform(folder: str) -> str:
    """SHA-256 over what a Transform graph does: schemas, vocabularies, operations, numbers learned.

    The same wherever it was made. The bytes of its SavedModel won't do: they hold the paths that it
    was made under, and its inputs in another order in each process.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    digest = hashlib.sha256()
    graphs = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                if name == "saved_model.pb":
                    model = saved_model_pb2.SavedModel.FromString(file.read())
                    graphs += [meta.graph_def for meta in model.meta_graphs]
                elif name != "fingerprint.pb":
                    digest.update(os.path.relpath(path, folder).encode() + b"\0")
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for each in graph.library.function for node in each.node_def]
    for fact in sorted(map(_operation, nodes)):
        digest.update(fact)
    return digest.hexdigest()


def _operation(node: Any) -> bytes:
    """An operation and the numbers in it, without the names around it."""
    facts = [node.op.encode()]
    for name, value in sorted(node.attr.items()):
        kind = value.WhichOneof("value")
        if kind in ("i", "f") and not name.startswith("_"):
            facts.append(f"{name}={getattr(value, kind)}".encode())
        if kind == "tensor" and not value.tensor.string_val:
            facts.append(value.tensor.SerializeToString(deterministic=True))
    return hashlib.sha256(b"\0".join(facts)).digest()


def hash_files(patterns: Sequence[str]) -> str:
    """SHA-256 over the names and contents of the files that match, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        digest.update(os.path.basename(path).encode() + b"\0")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
