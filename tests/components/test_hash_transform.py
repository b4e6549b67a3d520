"""The hash of a Transform graph: the same wherever and in whatever order it was written."""

from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

from components.hashing import hash_transform


def write(folder: Path, place: str, order: int, mean: float, word: str = "card") -> str:
    """A graph with a path, a number, a hashing operation and a vocabulary; returns its hash."""
    made = saved_model_pb2.SavedModel()
    function = made.meta_graphs.add().graph_def.library.function.add()
    for kind in ("path", "mean", "buckets")[::order]:
        node = function.node_def.add(name=f"{kind}_{order}", op="Const")
        if kind == "path":
            node.attr["value"].tensor.string_val.append(f"{place}/assets".encode())
        elif kind == "mean":
            node.attr["value"].tensor.float_val.append(mean)
        else:
            node.op = "StringToHashBucketFast"
            node.attr["num_buckets"].i = 8
    inner = folder / place / "transform_fn"
    (inner / "assets").mkdir(parents=True)
    (inner / "assets" / "method").write_text(word)
    (inner / "saved_model.pb").write_bytes(made.SerializeToString())
    (inner / "fingerprint.pb").write_text(place)
    return hash_transform(str(folder / place))


def test_paths_and_the_order_do_not_count_and_numbers_and_words_do(tmp_path):
    here = write(tmp_path, "here", 1, 0.5)
    assert write(tmp_path, "there", -1, 0.5) == here
    assert write(tmp_path, "other-number", 1, 0.25) != here
    assert write(tmp_path, "other-word", 1, 0.5, "cash") != here
