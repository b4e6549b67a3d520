"""The graph as a package for Kubeflow Pipelines or Vertex AI, submitted and followed."""

from typing import Annotated, Any, Literal

import typer

from pipeline.command_line import ConfigName, Overrides, command

PANEL = "Kubeflow"

Image = Annotated[
    str | None, typer.Option(help="The steps' image, in place of the one in the settings.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, PANEL, "compile")(compile_)
    command(app, PANEL)(submit)


def compile_(
    target: Annotated[
        Literal["kubeflow", "vertex"], typer.Option(help="Where the package is to run.")
    ] = "kubeflow",
    image: Image = None,
    config: ConfigName = "automated",
    set_: Overrides = None,
) -> int:
    """Compile packages for Kubeflow Pipelines or Vertex AI into build/, and check them."""
    from pipeline.telling import make, output_to, shown, tell_next

    with output_to() as console:  # TensorFlow's words on starting
        from components.files import write_atomically
        from pipeline.kubeflow import compiling, parameters

        settings, overrides = compiling.load_target(target, image), set_ or []
        following = {}
        for package in compiling.packages(config, overrides, settings):
            count = "1 step" if len(package.tasks) == 1 else f"{len(package.tasks)} steps"
            console.print(f"{shown(package.write())}: {count}, image {settings.image}")
        if target == "vertex":
            console.print("Made with KFP's SDK; not verified on Vertex AI.")
            return 0
        loaded = parameters.load(config, overrides)
        if loaded.training.strategy == "multi_worker":
            from pipeline.kubeflow.train_job import job

            manifests = compiling.BUILD / job.manifests_file(loaded.name)
            write_atomically(str(manifests), job.manifests(loaded, settings))
            apply = f"kubectl apply -n NAMESPACE -f {shown(manifests)}"
            following[apply] = "once, for training on several machines"
        same = f'SET="{" ".join(overrides)}" ' if overrides else ""
        same += f"IMAGE={image} " if image else ""
        following[make("submit", config, f"{same}KFP_HOST=...")] = "upload and run it"
        tell_next(console, following)
    return 0


def submit(
    which: Annotated[
        Literal["training", "continued-evaluation", "batch-predict"],
        typer.Option("--pipeline", help="Which one."),
    ] = "training",
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the run; may be repeated."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="CRON", help="Six fields (seconds first): make a recurring run."),
    ] = None,
    run_name: Annotated[
        str | None, typer.Option(help="Default: the pipeline and the time.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="In place of the settings'.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="HOURS", min=0.0, help="How long the run is followed.")
    ] = 24.0,
    follow: Annotated[bool, typer.Option(help="Wait for the run's end.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be sent.")
    ] = False,
    image: Image = None,
    config: ConfigName = "automated",
    set_: Overrides = None,
) -> int:
    """Compile, upload and run on Kubeflow Pipelines (KFP_HOST), or on a schedule.

    KFP_TOKEN, KFP_COOKIES, KFP_NAMESPACE, KFP_CA_CERT and others say how it is reached; see
    docs/kubeflow.md.
    """
    options: dict[str, Any] = dict(locals())
    from pipeline.telling import output_to

    with output_to() as console:  # TensorFlow's words on starting
        from pipeline.kubeflow import compiling, submitting

        def show(line: str) -> None:
            console.print(line, markup=False)

        return submitting.main(
            compiling.load_target("kubeflow", options.pop("image")), show, **options
        )
