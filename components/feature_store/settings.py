"""Which features of which Feast repository."""

from pydantic import Field

from components.settings import Strict


class FeatureStore(Strict):
    """Training rows are those of `data.path`, with the features that they had at their time.

    `predict` and the server's V1 take rows that have the entity's key in place of features.
    """

    repo: str = Field(
        description="The folder with feature_store.yaml, applied; as in data.path: a folder, "
        "'package:NAME/FOLDER', or 'python:MODULE:FUNCTION'."
    )
    service: str = Field(description="The feature service, for training and for serving.")
    time: str = Field(
        description="The column of the rows that says as of when; without a zone it is UTC."
    )
