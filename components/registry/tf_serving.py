"""TF Serving's `models.config`: all versions of a model, and their labels.

https://www.tensorflow.org/tfx/serving/serving_config#model_server_configuration
"""

from collections.abc import Mapping

CONFIG_FILE = "models.config"


def models_config(model: str, labels: Mapping[str, int]) -> str:
    """The file's text.

    Args:
        model: The model's name; its folder is `/models/<model>` where TF Serving runs, which is
            where its image looks.
        labels: The version of each label. Without any, TF Serving takes the newest version.
    """
    lines = [
        "model_config_list {",
        "  config {",
        f'    name: "{model}"',
        f'    base_path: "/models/{model}"',
        '    model_platform: "tensorflow"',
    ]
    if labels:
        # TF Serving moves a label only to a version that is loaded, and checks that before it loads
        # what a new file names: a list of versions would never get a version without a label in.
        lines.append("    model_version_policy { all {} }")
    lines += [
        f'    version_labels {{ key: "{label}" value: {version} }}'
        for label, version in sorted(labels.items())
    ]
    return "\n".join([*lines, "  }", "}"]) + "\n"
