"""The imitation against what the real backend handed to its steps, and trait by trait."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubeflow.imitation import condition, container, pod_spec
from tests.kubeflow.imitation.cluster import RunningStep
from tests.kubeflow.imitation.package import Refused
from tests.kubeflow.imitation.recordings import (
    FOLDER,
    imitated,
    recorded,
    write_exit_handler_package,
    write_importing_package,
)
from tests.kubeflow.imitation.run import PROJECT, Backend, Run
from tests.kubeflow.imitation.small_packages import Step, constant, submitted, told, write

pytestmark = pytest.mark.skipif(
    container.unavailable() is not None, reason=str(container.unavailable())
)
needs_root = pytest.mark.skipif(
    container.unavailable(12345) is not None, reason=str(container.unavailable(12345))
)

Submit = Callable[..., Run]


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return Backend(tmp_path / "cluster")


@pytest.fixture
def submit(tmp_path: Path, backend: Backend) -> Submit:
    """Writes a package of steps and runs it."""

    def written(
        steps: dict[str, Step],
        parameters: Any = None,
        definitions: Any = None,
        on_start: Callable[[RunningStep], None] = lambda step: None,
        **spec: Any,
    ) -> Run:
        path = write(tmp_path / "small.yaml", steps, definitions, **spec)
        return backend.submit(path, parameters, on_start=on_start)

    return written


@pytest.fixture(scope="module")
def taxi_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The recorded package twice, with a new champion in between."""
    backend = Backend(tmp_path_factory.mktemp("taxi"), FOLDER)
    backend.make_claim("data")
    champion = backend.make_claim("registry") / "champion"
    champion.write_text("1795393585")
    first = backend.submit(FOLDER / "taxi.yaml", {"data_fingerprint": "f2"})
    champion.write_text("1795394154")
    return first, backend.submit(FOLDER / "taxi.yaml", {"data_fingerprint": "f2"})


def test_steps_of_a_first_run_are_handed_what_was_recorded(taxi_runs):
    assert taxi_runs[0].state == "SUCCEEDED", taxi_runs[0].log()
    assert imitated(taxi_runs[0]) == recorded("taxi-first-run")


def test_the_second_run_has_six_cached_steps_and_hands_what_was_recorded(taxi_runs):
    states = [task.state for task in taxi_runs[1].tasks.values()]
    assert sorted(states) == ["CACHED"] * 6 + ["SUCCEEDED"] * 3, taxi_runs[1].log()
    assert imitated(taxi_runs[1]) == recorded("taxi-second-run")


def test_an_imported_artifact_is_handed_on_as_recorded(tmp_path):
    backend = Backend(tmp_path / "cluster", FOLDER)
    run = backend.submit(
        write_importing_package(tmp_path / "importing.yaml"),
        pipeline_root="minio://mlpipeline/otherroot",
    )
    assert run.state == "SUCCEEDED", run.log()
    assert imitated(run) == recorded("importer")


def test_a_condition_that_holds_is_handed_what_was_recorded(backend, tmp_path):
    bash = ("bash", "-c")
    steps = {
        "p": Step(
            command=(
                *bash,
                "mkdir -p $(dirname $0); echo -n 1 > $0",
                "{{$.outputs.parameters['n'].output_file}}",
            ),
            output_parameters={"n": "NUMBER_INTEGER"},
        ),
        "c": Step(
            command=(*bash, "echo n=$0", "{{$.inputs.parameters['n']}}"),
            parameters={"n": told("p", "n", "NUMBER_INTEGER")},
            task={"triggerPolicy": {"condition": "inputs.parameter_values['n'] == 1"}},
        ),
    }
    package = write(tmp_path / "cond.yaml", steps, pipelineInfo={"name": "cond"})
    run = backend.submit(package)
    assert run.tasks["c"].log == "n=1\n", run.log()
    assert imitated(run) == recorded("condition")


def test_an_exit_task_is_handed_what_was_recorded(backend, tmp_path):
    run = backend.submit(write_exit_handler_package(tmp_path / "exit.yaml"))
    assert {name: task.state for name, task in run.tasks.items()} == {
        "bad": "FAILED",
        "body": "FAILED",
        "bye": "SUCCEEDED",
    }
    assert run.state == "FAILED"
    assert imitated(run) == recorded("exit-handler")


def test_kubernetes_and_argo_rewrite_constants_arguments_and_variables(submit):
    constants = "$$ $(KFP_POD_NAME) $(UNKNOWN) {{workflow.name}} {{other}} $"
    step = Step(
        "print(given['inputs']['parameterValues']['x'], os.environ['Y'], sys.argv[2], sep='\\n')",
        parameters={"x": constant(constants)},
        container={
            "env": [{"name": "Y", "value": "$(HOME)/$$x {{workflow.namespace}}"}],
            "args": ["$(Y) $$(Y) $(date)"],
        },
    )
    task = submit({"a": step}).tasks["a"]
    in_constant, variable, argument = task.log.splitlines()
    pattern = r"\$ (small-\w{5})-a-\w{8} \$\(UNKNOWN\) \1 \{\{other\}\} \$"
    assert re.fullmatch(pattern, in_constant)
    assert variable == "/root/$x kubeflow"
    assert argument == f"{variable} $(Y) $(date)"


def test_placeholders_are_filled_in(submit):
    both = "{{$.inputs.parameters['p']}}>{{$.outputs.parameters['q'].output_file}}"
    parts = [both, "{{$.inputs.artifacts['m'].uri}}", "{{$.inputs.artifacts['m'].path}}"]
    parts += ["{{$.outputs.artifacts['n'].uri}}", "{{$.outputs.artifacts['n'].path}}"]
    script = 'for x; do echo "$x"; done; echo y > "${1#*>}"'
    step = Step(
        command=("sh", "-c", script, "{{$.inputs.parameters['p']}}", *parts),
        parameters={"p": constant(2.5, "NUMBER_DOUBLE")},
        artifacts={"m": ("a", "model")},
        outputs=("n",),
        output_parameters={"q": "STRING"},
    )
    run = submit({"a": Step(outputs=("model",)), "b": step})
    uris = [run.tasks["a"].outputs["model"].uri, run.tasks["b"].outputs["n"].uri]
    places = [line for uri in uris for line in (uri, uri.replace("minio://", "/minio/"))]
    assert run.tasks["b"].log.splitlines()[:5] == ["2.5>/tmp/kfp/outputs/q", *places]
    assert run.tasks["b"].parameters == {"q": "y\n"}
    assert run.tasks["b"].patch.step_command[3:5] == ["2.5", both]


def test_the_runs_uuid_is_known_as_a_whole_constant_alone(submit):
    step = Step(
        command=("echo", "{{$.inputs.parameters['whole']}}", "{{$.pipeline_job_uuid}}"),
        parameters={"whole": constant("{{$.pipeline_job_uuid}}")},
    )
    run = submit({"a": step})
    assert run.tasks["a"].log == f"{run.id} {{{{$.pipeline_job_uuid}}}}\n"


def test_a_component_default_reaches_the_step_and_not_the_driver(tmp_path, backend):
    path = write(tmp_path / "p.yaml", {"a": Step("print(given['inputs'])")})
    spec = yaml.safe_load(path.read_text())
    optional = {"parameterType": "STRING", "isOptional": True, "defaultValue": "d"}
    spec["components"]["comp-a"]["inputDefinitions"] = {"parameters": {"x": optional}}
    path.write_text(yaml.safe_dump(spec))
    task = backend.submit(path).tasks["a"]
    assert task.log == "{'parameterValues': {'x': 'd'}}\n"
    assert task.executor_input["inputs"] == {}


def test_pods_share_object_store_and_claims_and_nothing_else(submit, backend):
    claim = {"runtimeValue": {"constant": "w"}}
    mount = {"pvcMount": [{"mountPath": "/mnt/workspace", "pvcNameParameter": claim}]}
    backend.make_claim("w")
    code = (
        "for folder in ('/tmp', '/minio', '/.cache', '/mnt/workspace'):\n"
        "    found = sorted(str(p) for p in Path(folder).rglob('left'))\n"
        "    print(folder, found)\n"
        "    Path(folder, 'left').touch()\n"
    )
    step = Step(code, kubernetes=mount)
    after = Step(code, kubernetes=mount, task={"dependentTasks": ["a"]})
    run = submit({"a": step, "b": after})
    assert "['" not in run.tasks["a"].log
    assert run.tasks["b"].log == run.tasks["a"].log.replace(
        "/mnt/workspace []", "/mnt/workspace ['/mnt/workspace/left']"
    )
    assert run.tasks["a"].log.count("[]") == 4


def test_inputs_lie_under_the_stores_folder(submit):
    consumer = Step(
        "print(path('m', 'inputs').joinpath('sub/x').read_text())", artifacts={"m": ("a", "model")}
    )
    producer = Step(
        "path('model').joinpath('sub').mkdir(parents=True); "
        "path('model').joinpath('sub/x').write_text('found')",
        outputs=("model",),
    )
    run = submit({"a": producer, "b": consumer})
    assert run.tasks["b"].log == "found\n", run.log()


def test_no_empty_folder_survives(submit, backend):
    run = submit(
        {"a": Step("write('m', 'x'); path('m').joinpath('empty').mkdir()", outputs=("m",))}
    )
    stored = backend.objects(run.tasks["a"].outputs["m"].uri)
    assert [found.name for found in stored.iterdir()] == ["file"]


def test_a_link_to_a_file_becomes_a_file_and_one_to_a_folder_fails(submit, backend):
    to_file = "write('m', 'x'); os.symlink(path('m') / 'file', path('m') / 'link')"
    run = submit({"a": Step(to_file, outputs=("m",))})
    stored = backend.objects(run.tasks["a"].outputs["m"].uri) / "link"
    assert stored.read_text() == "x" and not stored.is_symlink()
    to_folder = to_file + "; os.symlink('/tmp', path('m') / 'folder')"
    run = submit({"a": Step(to_folder, outputs=("m",))})
    assert run.tasks["a"].state == "FAILED"
    assert "is a directory" in run.tasks["a"].log


def test_metadata_has_lists_wrapped_and_numbers_as_doubles(submit):
    said = "metadata={'n': 6.0, 'l': [1, 'a'], 'd': {'k': 1.5}, 'b': True}"
    run = submit(
        {
            "a": Step(f"tell('m', {said})", outputs=("m",)),
            "b": Step(artifacts={"m": ("a", "m")}),
        }
    )
    (found,) = run.tasks["b"].executor_input["inputs"]["artifacts"]["m"]["artifacts"]
    kept = {key: value for key, value in found["metadata"].items() if len(key) == 1}
    assert json.dumps(kept, sort_keys=True) == json.dumps(
        {"b": 1, "d": {"struct": {"k": 1.5}}, "l": {"list": [1, "a"]}, "n": 6}
    )
    assert found["type"] == {"instanceSchema": ""}
    assert found["name"] == str(run.tasks["a"].outputs["m"].id)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("tell('m', metadata={'x': None})", "NullValue"),
        ("tell('m', metadata={'x': float('nan')})", "failed to unmarshall ExecutorOutput"),
        ("tell('m', unknown=1)", "failed to unmarshall ExecutorOutput"),
        ("tell('m', uri='minio://mlpipeline/elsewhere/m')", "does not have expected bucket prefix"),
    ],
)
def test_what_a_step_says_of_its_outputs_can_fail_it(submit, code, words):
    task = submit({"a": Step(code, outputs=("m",))}).tasks["a"]
    assert (task.state, task.exit_code) == ("FAILED", 1)
    assert words in task.log


def test_a_local_path_as_an_outputs_uri_is_a_silent_loss(submit, backend):
    producer = Step("write('m', 'x'); tell('m', uri=str(path('m')))", outputs=("m",))
    consumer = Step("print(os.path.exists(uri('m', 'inputs')))", artifacts={"m": ("a", "m")})
    run = submit({"a": producer, "b": consumer})
    assert (run.state, run.tasks["a"].state) == ("SUCCEEDED", "SUCCEEDED")
    assert "does not have a recognized storage URI" in run.tasks["a"].log
    assert run.tasks["b"].log.endswith("False\n")
    assert not list(backend.cluster.root.rglob("file"))


def test_output_parameters_have_types_and_must_be_there(submit):
    written = "Path(given['outputs']['parameters']['n']['outputFile']).write_text('7')"
    kind = {"n": "NUMBER_INTEGER"}
    use = Step("print(given['inputs']['parameterValues'])", parameters={"x": told("a", "n")})
    run = submit({"a": Step(written, output_parameters=kind), "b": use})
    assert run.tasks["a"].parameters == {"n": 7}
    assert run.tasks["b"].log == "{'x': '7'}\n"
    run = submit({"a": Step(output_parameters=kind)})
    assert "failed to read output parameter" in run.tasks["a"].log
    assert run.state == "FAILED"


def test_a_failure_stops_what_is_behind_it_and_nothing_else(submit, backend):
    steps = {
        "a": Step("print('why'); sys.exit(3)", outputs=("m",)),
        "behind": Step(artifacts={"m": ("a", "m")}),
        "beside": Step(),
    }
    run = submit(steps)
    states = {name: task.state for name, task in run.tasks.items()}
    assert states == {"a": "FAILED", "behind": "OMITTED", "beside": "SUCCEEDED"}
    assert run.state == "FAILED"
    assert run.tasks["a"].exit_code == 1
    assert run.tasks["a"].log.startswith("why\n") and "exit status 3" in run.tasks["a"].log
    logs = backend.objects(run.root).glob("a/*/executor-logs-0")
    assert [found.read_text() for found in logs] == ["why\n"]


def test_a_step_that_the_real_one_would_cache_is_not_started_again(submit, backend):
    cached = {"cachingOptions": {"enableCache": True}}
    steps = {
        "a": Step(outputs=("m",), task=cached),
        "b": Step("sys.exit(1)", artifacts={"m": ("a", "m")}, task=cached),
        "c": Step(outputs=("m",)),
    }
    first, second = submit(steps), submit(steps)
    assert [run.state for run in (first, second)] == ["FAILED", "FAILED"]
    assert {name: task.state for name, task in second.tasks.items()} == {
        "a": "CACHED",
        "b": "FAILED",
        "c": "SUCCEEDED",
    }
    assert second.tasks["a"].attempts == 0
    assert second.tasks["a"].outputs == first.tasks["a"].outputs
    assert second.tasks["c"].outputs["m"].id > first.tasks["c"].outputs["m"].id


@pytest.mark.parametrize(
    "change",
    [
        {"code": "pass"},
        {"parameters": {"x": constant("2")}},
        {"container": {"image": "other"}},
        {"outputs": ("m", "n")},
        {"output_parameters": {"n": "STRING"}},
        {"kubernetes": {"pvcMount": [{"mountPath": "/mnt/w", "constant": "w"}]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_cache_notices(submit, backend, change):
    backend.make_claim("w")
    written = "for p in given['outputs'].get('parameters', {}).values():\n"
    written += "    Path(p['outputFile']).write_text('x')"
    common: dict[str, Any] = {"task": {"cachingOptions": {"enableCache": True}}, "outputs": ("m",)}
    before = {**common, "code": written, "parameters": {"x": constant("1")}}
    steps = [{"a": Step(**before)}, {"a": Step(**before)}, {"a": Step(**{**before, **change})}]
    states = [submit(one).tasks["a"].state for one in steps]
    assert states == ["SUCCEEDED", "CACHED", "SUCCEEDED"]


def test_a_lost_pod_is_retried_as_often_as_the_policy_says(submit):
    numbers = []

    def lose(step: RunningStep) -> None:
        numbers.append(step.attempt)
        if step.attempt < 2:
            step.lose_pod()

    policy = {"maxRetryCount": 2, "backoffDuration": "1s", "backoffMaxDuration": "60s"}
    step = Step("print('ran')", outputs=("m",), task={"retryPolicy": policy})
    run = submit({"a": step}, on_start=lose)
    assert (run.state, numbers, run.tasks["a"].attempts) == ("SUCCEEDED", [0, 1, 2], 3)
    assert run.tasks["a"].outputs["executor-logs"].uri.endswith("executor-logs-2")


@pytest.mark.parametrize("lost", [True, False])
def test_there_is_no_retry_without_a_longest_back_off_and_none_of_what_fails(submit, lost):
    policy: dict[str, Any] = {"maxRetryCount": 2, "backoffDuration": "1s"}
    if not lost:
        policy["backoffMaxDuration"] = "60s"
    run = submit(
        {"a": Step("sys.exit(1)", task={"retryPolicy": policy})},
        on_start=RunningStep.lose_pod if lost else lambda step: None,
    )
    assert (run.state, run.tasks["a"].attempts) == ("FAILED", 1)
    assert run.tasks["a"].exit_code == (None if lost else 1)


def test_a_killed_process_fails_in_a_pod_that_stays(submit):
    step = Step("os.kill(os.getpid(), 9) if os.fork() else os.read(0, 1)", outputs=("m",))
    task = submit({"a": step}, on_start=RunningStep.kill).tasks["a"]
    assert (task.state, task.exit_code) == ("FAILED", 1)
    assert "signal: 9" in task.log


def test_what_a_step_leaves_running_ends_with_its_pod(submit):
    step = Step(command=("sh", "-c", "sleep 600 & echo $!"))
    child = int(submit({"a": step}).tasks["a"].log)
    deadline = time.monotonic() + 30
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    """Whether it still runs; who takes in orphans may not have noticed its end yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_pod_ends_at_its_deadline(submit):
    step = Step(command=("sleep", "600"), kubernetes={"activeDeadlineSeconds": "1"})
    task = submit({"a": step}).tasks["a"]
    assert task.state == "FAILED"
    assert "longer than the specified deadline" in task.log


BLESSED = "inputs.artifacts['m'].artifacts[0].metadata['blessed'] == 1.0"


@pytest.mark.parametrize(
    ("metadata", "rest", "whole"),
    [
        ({"blessed": 1}, ["SUCCEEDED", "SUCCEEDED"], "SUCCEEDED"),
        ({"blessed": 0}, ["SKIPPED", "OMITTED"], "SUCCEEDED"),
        ({}, ["FAILED", "OMITTED"], "FAILED"),
    ],
)
def test_conditions_skip_or_fail(submit, metadata, rest, whole):
    run = submit(
        {
            "a": Step(f"tell('m', metadata={metadata})", outputs=("m",)),
            "b": Step(
                artifacts={"m": ("a", "m")},
                outputs=("n",),
                task={"triggerPolicy": {"condition": BLESSED}},
            ),
            "c": Step(artifacts={"n": ("b", "n")}),
        }
    )
    assert [run.tasks[name].state for name in "bc"] == rest
    assert run.state == whole
    assert ("no such key: blessed" in run.tasks["b"].log) is (whole == "FAILED")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("inputs.parameter_values['s'] == 'a && b'", True),
        ("int(inputs.parameter_values['n']) >= 2", True),
        ("!(inputs.parameter_values['s'] == 'x') && inputs.parameter_values['n'] != 3", True),
        ("inputs.parameter_values['n'] == '2'", False),
        ("inputs.parameter_values['b'] == 1", False),
        ("inputs.parameter_values['gone'] == 1 || true", True),
        ("(inputs.artifacts['_a.m'].artifacts[0].uri + 'x') == 'ux'", True),
    ],
)
def test_the_conditions_that_compilers_write(expression, value):
    artifacts = {"_a.m": {"artifacts": [{"uri": "u"}]}}
    inputs = {"parameterValues": {"s": "a && b", "n": 2, "b": True}, "artifacts": artifacts}
    assert condition.evaluate(expression, inputs) is value


DEFINITIONS = {"s": {"parameterType": "STRING"}, "n": {"parameterType": "NUMBER_INTEGER"}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"s": "x"},
            "parameter n is not optional, yet has neither default value nor user provided",
        ),
        (
            {"s": 1, "n": 1},
            "input parameter s requires type string, but the input parameter is not",
        ),
        ({"s": "x", "n": "1"}, "input parameter n requires type double or integer, but the"),
        ({"s": "x", "n": True}, "input parameter n requires type double or integer, but the"),
        ({"s": "", "n": 1, "z": 1}, "parameter(s) provided are not required by pipeline: z"),
    ],
)
def test_arguments_are_refused(submit, given, words):
    with pytest.raises(Refused, match=re.escape(words)):
        submit({"a": Step()}, given, definitions=DEFINITIONS)


def test_arguments_and_defaults_reach_the_steps(submit):
    given = {"s": submitted("s"), "n": submitted("n", "NUMBER_INTEGER")}
    definitions = {**DEFINITIONS, "n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 6.0}}
    step = Step("print(json.dumps(given['inputs']['parameterValues']))", parameters=given)
    run = submit({"a": step}, {"s": "x"}, definitions=definitions)
    assert json.loads(run.tasks["a"].log) == {"s": "x", "n": 6}
    assert "6.0" not in run.tasks["a"].log


def test_an_argument_can_be_too_long_for_a_process(submit):
    step = Step(parameters={"s": submitted("s")})
    definitions = {"s": DEFINITIONS["s"]}
    task = submit({"a": step}, {"s": "x" * 131_072}, definitions=definitions).tasks["a"]
    assert task.log == "launcher: failed to execute component: fork/exec: Argument list too long\n"


@pytest.mark.parametrize(
    ("steps", "spec", "words"),
    [
        ({"a": Step(task={"dependentTasks": ["z"]})}, {}, 'unknown producer task "z" in DAG'),
        ({"a": Step(artifacts={"m": ("z", "m")})}, {}, 'unknown producer task "z" in DAG'),
        ({"a": Step(executor={"resolver": {}})}, {}, "non-container and non-importer executor not"),
        ({"a_b": Step()}, {}, "'a_b' is invalid"),
        ({"a": Step()}, {"schemaVersion": "2.0.0"}, "KFP only supports schema version 2.1.0"),
        ({"a": Step()}, {"pipelineInfo": {"name": "My_P"}}, "name should consist of lower case"),
        ({"a": Step()}, {"unknown": 1}, "invalid v2 pipeline spec"),
        ({"a": Step(kubernetes={"unknown": 1})}, {}, "failed to unmarshal kubernetes config"),
    ],
)
def test_packages_are_refused(submit, steps, spec, words):
    with pytest.raises(Refused, match=re.escape(words)):
        submit(steps, **spec)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step(parameters={"x": constant("x" * 131_000)}), "argument list too long"),
        (Step(task={"taskInfo": {}}), "task spec is required"),
        (
            Step(
                parameters={"x": ("STRING", {"runtimeValue": {"constantValue": {"intValue": 1}}})}
            ),
            "not implemented",
        ),
        (Step(parameters={"x": constant("1", "NUMBER_INTEGER")}), "type mismatch"),
        (Step(command=("echo", "{{$.inputs.parameters['z']}}")), "not found in executor input"),
        (Step(executor={"container": {"image": "i"}}), "command and arguments are empty"),
        (Step(kubernetes={"pvcMount": [{"mountPath": "/m", "constant": "z"}]}), '"z" not found'),
    ],
)
def test_what_is_found_wrong_only_when_the_task_is_reached(submit, step, words):
    task = submit({"a": step}).tasks["a"]
    assert task.state == "FAILED"
    assert words in task.log


def test_unknown_fields_of_an_executor_vanish(submit):
    assert submit({"a": Step(container={"unknown": 1})}).state == "SUCCEEDED"


def test_secrets_and_configuration_become_variables(tmp_path):
    backend = Backend(
        tmp_path / "cluster",
        PROJECT,
        environment={"FROM_IMAGE": "i"},
        secrets={"s": {"key": "$$ecret"}},
        config_maps={"c": {"key": "configured"}},
    )
    variables = {
        "secretAsEnv": [
            {"secretName": "s", "keyToEnv": [{"secretKey": "key", "envVar": "A"}]},
            {
                "secretName": "none",
                "optional": True,
                "keyToEnv": [{"secretKey": "key", "envVar": "C"}],
            },
        ],
        "configMapAsEnv": [
            {"configMapName": "c", "keyToEnv": [{"configMapKey": "key", "envVar": "B"}]}
        ],
    }
    code = "print(*(os.environ.get(n) for n in ('FROM_IMAGE', 'A', 'B', 'C')))"
    package = write(tmp_path / "p.yaml", {"a": Step(code, kubernetes=variables)})
    assert backend.submit(package).tasks["a"].log == "i $$ecret configured None\n"
    task = Backend(tmp_path / "other").submit(package).tasks["a"]
    assert (task.state, task.exit_code) == ("FAILED", None)


def test_volumes_lie_where_they_are_mounted_and_this_machine_stays_as_it_was(submit, backend):
    before = [sorted(os.listdir(folder)) for folder in ("/", "/mnt", PROJECT)]
    (backend.make_claim("w") / "sub").mkdir()
    (backend.make_claim("w") / "sub/x").write_text("found")
    name = {"runtimeValue": {"constant": "w"}}
    settings = {
        "pvcMount": [
            {"mountPath": "/mnt/deep/er", "pvcNameParameter": name, "subPath": "sub"},
            {"mountPath": str(PROJECT / "not-there"), "pvcNameParameter": name},
        ],
        "emptyDirMounts": [{"volumeName": "e", "mountPath": "/dev/shm", "medium": "Memory"}],
    }
    code = (
        "print(Path('/mnt/deep/er/x').read_text(), *map(os.listdir, ['not-there', '/dev/shm']))\n"
        "Path('/dev/shm/y').touch(); Path('/dev/null').write_text('device')"
    )
    run = submit({"a": Step(code, kubernetes=settings)})
    assert run.tasks["a"].log == "found ['sub'] []\n"
    assert [sorted(os.listdir(folder)) for folder in ("/", "/mnt", PROJECT)] == before
    assert not list((backend.cluster.root / "pods").iterdir())


WHO = """
print(*(p for p in (".", "/", "/etc", "/tmp", "/minio", "/mnt/e") if os.access(p, os.W_OK)))
print(os.environ["HOME"], os.getuid(), os.getgroups(), Path.cwd() == Path(sys.argv[2]))
status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
print(status["CapEff"], status["CapBnd"], status["NoNewPrivs"])
import numpy
write("m", "x")
"""


@needs_root
@pytest.mark.parametrize("readonly", [False, True])
def test_a_step_of_another_user_has_no_rights_and_can_run_python(tmp_path, readonly):
    backend = Backend(tmp_path / "cluster", uid=12345, readonly=readonly)
    empty = {"emptyDirMounts": [{"volumeName": "e", "mountPath": "/mnt/e"}]}
    step = Step(WHO, outputs=("m",), container={"args": [str(PROJECT)]}, kubernetes=empty)
    task = backend.submit(write(tmp_path / "p.yaml", {"a": step})).tasks["a"]
    none = "0" * 16
    assert task.log == f"/tmp /minio /mnt/e\n/ 12345 [] True\n{none} {none} 1\n"
    assert backend.objects(task.outputs["m"].uri).joinpath("file").read_text() == "x"


def test_a_read_only_step_writes_to_its_volumes_alone(tmp_path):
    backend = Backend(tmp_path / "cluster", readonly=True)
    step = Step(WHO, outputs=("m",), container={"args": [str(PROJECT)]})
    task = backend.submit(write(tmp_path / "p.yaml", {"a": step})).tasks["a"]
    assert task.log.startswith("/tmp /minio\n/root 0 "), task.log


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_another_store_needs_a_provider(tmp_path, scheme):
    steps = {
        "a": Step("write('m', 'x'); print('ran')", outputs=("m",)),
        "b": Step(
            "print(Path(sys.argv[2], 'file').read_text(), sys.argv[2])",
            artifacts={"m": ("a", "m")},
            container={"args": ["{{$.inputs.artifacts['m'].path}}"]},
        ),
    }
    package = write(tmp_path / "p.yaml", steps, defaultPipelineRoot="minio://ignored/root")
    root = f"{scheme}://bucket/root"
    task = Backend(tmp_path / "without").submit(package, None, root).tasks["a"]
    assert task.state == "FAILED" and task.log.startswith("ran\n")
    backend = Backend(tmp_path / "with", stores=("minio", scheme))
    run = backend.submit(package, None, root)
    assert run.tasks["b"].log.startswith(f"x /{dict(s3='s3', gs='gcs')[scheme]}/bucket/root/small/")


def test_the_packages_own_root_is_ignored(submit):
    run = submit({"a": Step()}, defaultPipelineRoot="minio://mine/root")
    assert run.root.startswith("minio://mlpipeline/v2/artifacts/small/")


def test_an_importer_knows_what_it_has_imported(tmp_path, backend):
    uri = "minio://data/table"
    schema = {"schemaTitle": "system.Dataset"}
    importing = {"importer": {"artifactUri": {"runtimeParameter": "u"}, "typeSchema": schema}}
    steps = {
        "i": Step(executor=importing, parameters={"u": submitted("u")}, outputs=("m",)),
        "a": Step("print(path('m', 'inputs').read_text())", artifacts={"m": ("i", "m")}),
    }
    package = write(tmp_path / "p.yaml", steps, {"u": {"parameterType": "STRING"}})
    backend.objects(uri).parent.mkdir(parents=True)
    backend.objects(uri).write_text("rows")
    runs = [backend.submit(package, {"u": u}) for u in (uri, uri, f"{uri}2")]
    assert runs[0].tasks["a"].log == "rows\n"
    ids = [run.tasks["i"].outputs["m"].id for run in runs]
    assert ids[0] == ids[1] < ids[2]


@pytest.mark.parametrize(
    ("stated", "canonical"),
    [("0.5", "500m"), ("8G", "8G"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("2000m", "2")],
)
def test_quantities_are_written_as_kubernetes_does(stated, canonical):
    assert pod_spec.quantity(stated) == canonical
