# One image for every step of a pipeline, and for the server: the project and exactly the packages
# of uv.lock. It runs as any user id with a read-only root, and writes to /tmp and to what is
# mounted. Debian 13 has the C library that TFX's packages ask for.
#
#   make image                      all steps, CPU
#   make image VARIANT=gpu          with CUDA's libraries
#   make image STAGE=tpu            a Trainer on TPUs: TensorFlow for them in an environment beside

ARG PYTHON_TAG=3.11-slim-trixie
# For builds that come out the same: sha256:… of that tag.
ARG PYTHON_DIGEST=

FROM python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS base
WORKDIR /app
# The official image ships no bytecode of Python's own library, and a step that is not root can write
# none: each would compile what it imports of it.
RUN python -m compileall -q -x '/(site-packages|test|tests|lib2to3)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
ENV PATH=/app/.venv/bin:$PATH PYTHONPATH=/app HOME=/tmp USER=pipeline PYTHONUNBUFFERED=1

FROM base AS packages
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY pipeline/setup/requirements.txt bootstrap-requirements.txt
RUN pip install --no-cache-dir --require-hashes --requirement bootstrap-requirements.txt
COPY pyproject.toml uv.lock ./
ARG VARIANT=cpu
# Tables are adopted at a desk.
RUN groups="--no-group dev --no-group adopt --no-group feature-store"; \
    if [ "$VARIANT" = gpu ]; then groups="$groups --group gpu"; fi; \
    UV_PYTHON_DOWNLOADS=never uv sync --locked $groups --compile-bytecode --no-cache

FROM packages AS tpu-packages
COPY pipeline pipeline
COPY components components
RUN python -m pipeline tpu-environment

FROM base AS steps
COPY --from=packages /app/.venv .venv
COPY configs configs
COPY pipeline pipeline
COPY components components
# Where the bytecode can't be written, each step would compile all it imports. As an arbitrary user,
# each step's imports have to work: some packages hide an ImportError.
RUN python -m compileall -q pipeline components \
    && mkdir --mode=1777 workspace \
    && chmod -R a+rX configs pipeline components
# By number: Kubernetes cannot see whether a name is root's.
USER 12345:12345
RUN test ! -d pipeline/kubeflow || python -m pipeline.kubeflow.smoke
CMD ["python", "-m", "pipeline", "--help"]

FROM steps AS tpu
COPY --from=tpu-packages /app/.venv-tpu .venv-tpu

FROM steps
