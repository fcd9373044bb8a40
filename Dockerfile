# syntax=docker/dockerfile:1
# Answers over HTTP with trained models, on CPUs:
#
#   docker build -t metatransformer .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/run:/models/run:ro" -v metatransformer-cache:/cache metatransformer \
#       serve /models/run --host 0.0.0.0
#
# A model that was saved with its trunk (standalone) needs no cache and no network. A token is a file, never part of the
# image: -v "$PWD/token:/run/secrets/token:ro" ... --token-file /run/secrets/token
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# PyTorch's builds for CPUs; the package index has those for GPUs, which are gigabytes larger.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=all,serve,openvino
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --index-url "${TORCH_INDEX}" 'torch>=2.6,<2.14'
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install ".[${EXTRAS}]" && python -m compileall -q /opt/venv

FROM python:${PYTHON}-slim
# What wheels of graphs (rdkit) look for and slim images lack.
RUN apt-get update && apt-get install --yes --no-install-recommends libxrender1 libxext6 libexpat1 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --uid 10001 app && mkdir /cache /models && chown app /cache
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH METATRANSFORMER_CACHE=/cache PYTHONUNBUFFERED=1
USER app
WORKDIR /home/app
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["metatransformer"]
CMD ["serve", "--help"]
