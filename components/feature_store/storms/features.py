"""What is known of a storm: where it was when it was measured last, how strong, how deep."""

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int64, String

storm = Entity(name="storm", join_keys=["storm"], value_type=ValueType.STRING)
measurements = FeatureView(
    name="measurements",
    entities=[storm],
    schema=[
        Field(name="lat", dtype=Float32),
        Field(name="long", dtype=Float32),
        Field(name="status", dtype=String),
        Field(name="wind", dtype=Int64),
        Field(name="pressure", dtype=Int64),
    ],
    source=FileSource(path="data/measurements.parquet", timestamp_field="measured"),
)
storm_now = FeatureService(name="storm_now", features=[measurements])
