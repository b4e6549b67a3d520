"""What the online server can be told."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from components.settings import Strict

GRACE_SECONDS = 20
"""So long may answers take after SIGTERM."""

Port = Annotated[int, Field(ge=0, le=65535)]


class Recent(Strict):
    """Rows that came lately, over which the query of `data.sql` is run (Windowed Inference)."""

    key: Annotated[list[str], Field(min_length=1)] = Field(
        description="Columns by which a row is known, such as the thing and the time; the query "
        "has to give them too."
    )
    rows: PositiveInt = Field(1_000, description="So many are kept, in memory.")


class Serving(Strict):
    """Where the server listens, how often it looks at the labels, and its bounds."""

    host: str = Field("127.0.0.1", description="For REST and gRPC; 0.0.0.0 for every interface.")
    http_port: Port = Field(8080, description="For REST and /metrics; 0 takes a free one.")
    grpc_port: Port = Field(8081, description="For gRPC; 0 takes a free one.")
    follow_seconds: PositiveFloat = Field(
        1.0, description="How often the labels are looked at; one that moved is followed."
    )
    receive_seconds: PositiveInt = Field(
        65,
        description="A connection on which no whole request came for so long is closed. Load "
        "balancers keep theirs for 60 seconds, and should be the first to close them.",
    )
    max_body_mib: PositiveInt = Field(4, description="Larger requests are refused.")
    max_request_rows: PositiveInt = Field(
        10_000, description="Requests with more rows are refused; batch-predict is for them."
    )
    max_batch_rows: PositiveInt = Field(
        1024,
        description="Requests that wait are predicted together, up to so many rows; 1 predicts "
        "each by itself.",
    )
    max_waiting_rows: PositiveInt = Field(
        10_000, description="Requests that would make more rows wait are refused with 503."
    )
    recent: Recent | None = Field(
        None, description="V1's rows, and those of predict, are put through the query of data.sql."
    )
