# The service: docker build -t autoprune . ; docs/deployment.md says how to run it.
FROM python:3.11-slim AS build
WORKDIR /source
# torch's own CPU builds are a third of the size; constraints.txt names the versions of everything, hence of torch.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/source/constraints.txt
RUN python -m venv /opt/autoprune
ENV PATH=/opt/autoprune/bin:$PATH
COPY constraints.txt ./
RUN version="$(sed -n 's/^torch==//p' constraints.txt)" \
    && pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple "torch==$version"
COPY pyproject.toml README.md LICENSE ./
COPY autoprune autoprune
COPY envs envs
COPY latency_tables latency_tables
COPY search search
COPY service service
RUN pip install .

FROM python:3.11-slim
COPY --from=build /opt/autoprune /opt/autoprune
ENV PATH=/opt/autoprune/bin:$PATH PYTHONUNBUFFERED=1 AUTOPRUNE_HOME=/var/lib/autoprune
RUN useradd --system --uid 1000 --home-dir "$AUTOPRUNE_HOME" --create-home autoprune
USER 1000
VOLUME /var/lib/autoprune
EXPOSE 8765
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
ENTRYPOINT ["autoprune"]
CMD ["serve", "--host", "0.0.0.0"]
