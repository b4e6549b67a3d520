# The pipeline and exactly the packages of uv.lock; runs as any user id, and writes to
# /app/workspace and /tmp. Debian 13 has the C library that TFX's packages ask for.

FROM python:3.11-slim-trixie AS packages
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pipeline/bootstrap-requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --requirement bootstrap-requirements.txt
COPY pyproject.toml uv.lock ./
RUN UV_PYTHON_DOWNLOADS=never uv sync --locked --no-dev --compile-bytecode --no-cache

FROM python:3.11-slim-trixie
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH HOME=/tmp USER=pipeline PYTHONUNBUFFERED=1
COPY --from=packages /app/.venv .venv
COPY . .
RUN python -m compileall -q pipeline components && mkdir --mode=1777 workspace
CMD ["python", "-m", "pipeline", "--help"]
